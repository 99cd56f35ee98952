"""Errors of exporting."""

from __future__ import annotations

from latentclr.errors import LatentCLRError


class ExportError(LatentCLRError):
    """A graph that could not be made, that differs from eager PyTorch, or that could not be published."""
