"""`python -m latentclr`, the form that torchrun needs."""

from latentclr.cli import main

main()
