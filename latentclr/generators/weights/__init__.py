"""Files of weights: found, downloaded, and read without running anything that is in them."""
