"""`python -m latentclr`, the form that torchrun needs."""

from __future__ import annotations

from latentclr.cli import main

main()
