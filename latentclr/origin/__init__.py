"""Runs of the origin's trainer (catlab-team/latentclr), read as ours."""
