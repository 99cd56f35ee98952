"""Other people's ways of doing the same work, to be compared with."""
