"""Sweeps: many runs from one command, by Hydra's grammar and launchers, in one folder, compared at the end."""
