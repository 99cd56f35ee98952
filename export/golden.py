"""The golden requests of an editor, drawn by eager PyTorch in float32: what a running server is held against.

`latentclr certify` sends them to any server, whatever engine and device it has, and compares; see
`serving.contract.golden` for the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.editor import FusedEditor
from export.parity import EDITS, run_eager
from latentclr.progress import progress_bar
from latentclr.training.rng import stream
from serving.contract.golden import GOLDEN_FILE, LARGEST_PICTURES, Golden, identity_of, write_golden

GROUP = 4  # rows of one code: unedited, two directions alone, and M = 3 together
MOST_CODES = 10
_AT_ONCE = 4  # rows that are drawn together


def save_golden(
    folder: Path,
    editor: FusedEditor,
    manifest: Mapping[str, Any],
    alphas: Sequence[float],
    fed: torch.Tensor | None = None,
    most_codes: int = MOST_CODES,
) -> Path:
    """Draw the golden requests and write them to `golden.npz` in a folder.

    Args:
        folder: Where to.
        editor: The eager editor, on the CPU, in float32.
        manifest: What the model will say of itself.
        alphas: Strengths, taken in turn; zero is left out.
        fed: Mask [L] of the latent inputs at which directions act by default; None for all.
        most_codes: Codes at most, each of `GROUP` requests.

    Returns:
        The file.
    """
    path = folder / GOLDEN_FILE
    try:
        write_golden(path, draw_golden(editor, identity_of(manifest), alphas, fed, most_codes))
    except KeyboardInterrupt:
        raise KeyboardInterrupt("nothing is published") from None
    return path


def draw_golden(
    editor: FusedEditor,
    about: Mapping[str, Any],
    alphas: Sequence[float],
    fed: torch.Tensor | None = None,
    most_codes: int = MOST_CODES,
) -> Golden:
    """Draw at most 40 requests: of each code its unedited picture, two directions alone and three together.

    Single directions are spread over all, so that K up to 20 are each edited alone where pictures are small; the
    combined edits, whose strengths differ from latent input to latent input, go through the rest. Pictures take at most
    `LARGEST_PICTURES` bytes, and there are always two codes.
    """
    latent, k = editor.generator.latent, editor.directions.k
    height, width = editor.generator.size
    codes = max(2, min(most_codes, LARGEST_PICTURES // (GROUP * 3 * height * width)))
    rng = stream(0, "golden")
    strengths = torch.tensor([alpha for alpha in alphas if alpha], dtype=torch.float32)
    code, classes = editor.sample_codes(codes, rng)  # [C, D] or [C, L, D], [C]
    code = code.repeat_interleave(GROUP, 0)  # [R, D] or [R, L, D]
    rows = len(code)
    direction = torch.zeros(rows, EDITS, dtype=torch.int64)
    alpha = torch.zeros(rows, EDITS, latent.layers)
    edits = torch.tensor([0, 1, 1, EDITS]).repeat(codes)  # [R]
    singles = int((edits == 1).sum())
    alone = together = turn = 0
    for row, m in enumerate(edits.tolist()):
        if m == 1:
            direction[row, 0] = alone * k // singles if k > singles else alone % k
            alone += 1
        elif m:
            direction[row] = (together * m + torch.arange(m) * max(1, k // m)) % k
            together += 1
        for edit in range(m):
            alpha[row, edit] = strengths[turn % len(strengths)]
            turn += 1
        if m == 1 and fed is not None:
            alpha[row] *= fed
        elif m > 1:
            alpha[row] *= torch.rand(m, latent.layers, generator=rng)
    inputs = [code, direction, alpha]
    if classes is not None:
        inputs.append(classes.repeat_interleave(GROUP))
    arrays = [tensor.numpy() for tensor in inputs]
    images = np.empty((rows, height, width, 3), np.uint8)
    with progress_bar(rows, "image", desc="golden requests", delay=2) as bar:
        for start in range(0, rows, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            images[part], _ = run_eager(editor, *(array[part] for array in arrays))
            bar.update(len(images[part]))
    return Golden(
        codes=arrays[0],
        direction=arrays[1],
        alpha=arrays[2],
        edits=edits.numpy(),
        unedited=np.arange(rows) // GROUP * GROUP,
        class_id=arrays[3] if editor.conditional else None,
        images=images,
        about=about,
    )
