"""Whether a browser can hold a model: what it takes there, and the most that a page may ask for."""

from __future__ import annotations

import torch

from export.editor import FusedEditor
from export.errors import ExportError
from export.live import Live

MOST_BYTES = 2 << 30
"""What a tab is given without complaint; WebAssembly ends at 4 GiB."""
PHONE_BYTES = 1 << 30
"""Where a phone's browser may end a page."""
# Measured in Chromium with faces, BigGAN of 128 and StyleGAN2 of 256 pixels: what a tab takes at its fullest moment.
_RUNTIME = 224 << 20
_WEIGHTS = 4  # times: as float32, as the convolutions want them, and the file while it is read
_DRAWING = 3  # times what eager PyTorch has alive: a convolution takes its patches apart


def browser_bytes(editor: FusedEditor) -> int:
    """Estimate the bytes that an editor takes in a browser, with one picture at a time."""
    known = (*editor.parameters(), *editor.buffers())
    weights = sum(tensor.numel() * tensor.element_size() for tensor in known)
    with torch.no_grad(), Live(known) as live:
        editor(*editor.example_inputs(1, 1))
    peak: int = live.peak
    return _RUNTIME + _WEIGHTS * weights + _DRAWING * peak


def check_browser(needed: int, most: int = MOST_BYTES) -> None:
    """Refuse what a browser cannot hold.

    Raises:
        ExportError: It needs more than `most` bytes.
    """
    if needed > most:
        raise ExportError(
            f"a browser cannot hold this model: it would take about {needed / 2**30:.1f} GiB, and a tab has"
            f" {most / 2**30:.1f} GiB; publish it for a server, with --target cpu or gpu"
        )
