"""What the scripts share: the machine, timing, memory and the form of a result."""
