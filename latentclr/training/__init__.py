"""A run: its training, its checkpoints and its measurement on held-out codes."""
