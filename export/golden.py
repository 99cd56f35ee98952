"""The golden requests of an editor, drawn by eager PyTorch in float32: what a running server is held against.

`latentclr certify` sends them to any server, whatever engine and device it has, and compares; see
`serving.contract.golden` for the file. They are some of those by which the graphs were certified, since others might
miss a gate that those only just held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.editor import FusedEditor
from export.errors import ExportError
from export.parity import EDITS, Alphas, Engine, overflow_of, parity_cases, run_eager
from latentclr.progress import progress_bar
from serving.contract.certificate import CertificateError, Comparison, Gate
from serving.contract.golden import GOLDEN_FILE, LARGEST_PICTURES, Golden, compare_golden, identity_of, write_golden

MOST_CODES = 10
PER_CODE = {1: 2, EDITS: 1}  # M -> edited pictures of one code, beside its unedited one
_GROUP = 1 + sum(PER_CODE.values())
_DROPPED = 0.1  # of the edits, at most


@dataclass(frozen=True)
class _Row:
    """One picture: a code's number, the inputs of the editor without their batch axis, and the editor's M."""

    code: int
    inputs: tuple[Any, ...]

    @property
    def m(self) -> int:
        return len(self.inputs[1])


def save_golden(
    folder: Path,
    editor: FusedEditor,
    manifest: Mapping[str, Any],
    alphas: Alphas,
    fed: torch.Tensor | None = None,
    engines: Mapping[str, Engine] | None = None,
    gate: Gate | None = None,
    most_codes: int = MOST_CODES,
) -> Path:
    """Draw the golden requests and write them to `golden.npz` in a folder.

    Args:
        folder: Where to.
        editor: The eager editor, on the CPU, in float32.
        manifest: What the model will say of itself.
        alphas: Strengths, see `Alphas`.
        fed: Mask [L] of the latent inputs at which directions act by default; None for all.
        engines: That hold the gate; an edit in which one does not by itself, such as the worst 1 % by fidelity, is left
            out: no server could hold it.
        gate: Of these engines.
        most_codes: Codes at most, each of four requests.

    Returns:
        The file.

    Raises:
        ExportError: An engine does not draw the golden requests as the certificate says.
    """
    path = folder / GOLDEN_FILE
    try:
        golden = draw_golden(editor, identity_of(manifest), alphas, fed, most_codes)
        for name, engine in (engines or {}).items():
            golden = _that_hold(golden, name, engine, gate or Gate("anything"))
        write_golden(path, golden)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("nothing is published") from None
    return path


def draw_golden(
    editor: FusedEditor,
    about: Mapping[str, Any],
    alphas: Alphas,
    fed: torch.Tensor | None = None,
    most_codes: int = MOST_CODES,
) -> Golden:
    """Draw at most 40 of the certificate's requests: of each code the unedited picture, two with M = 1, one with M = 3.

    Single directions are those that were chosen least often so far, and far from them: of up to K = 20 each is edited
    alone where pictures are small. Pictures take at most `LARGEST_PICTURES` bytes, and there are always two codes.

    Raises:
        ExportError: The editor itself overflows.
    """
    height, width = editor.generator.size
    codes = max(2, min(most_codes, LARGEST_PICTURES // (_GROUP * 3 * height * width)))
    rows = _chosen(
        [
            _Row(code, tuple(array[number] for array in case.inputs))
            for case in parity_cases(editor, alphas, fed=fed)
            for number, code in enumerate(case.codes)
        ],
        codes,
    )
    count, layers = len(rows), editor.generator.latent.layers
    direction, alpha = np.zeros((count, EDITS), np.int64), np.zeros((count, EDITS, layers), np.float32)
    images = np.empty((count, height, width, 3), np.uint8)
    with progress_bar(count, "image", desc="golden requests", delay=2) as bar:
        for number, row in enumerate(rows):
            direction[number, : row.m], alpha[number, : row.m] = row.inputs[1:3]
            given = [array[None] for array in row.inputs]
            image, valid = run_eager(editor, *given)
            if not valid.all():
                raise ExportError(overflow_of(given[1:3], 0))
            images[number] = image[0]
            bar.update()
    unedited = {row.code: number for number, row in enumerate(rows) if not row.m}
    return Golden(
        codes=np.stack([row.inputs[0] for row in rows]),
        direction=direction,
        alpha=alpha,
        edits=np.array([row.m for row in rows]),
        unedited=np.array([unedited[row.code] for row in rows]),
        class_id=np.stack([row.inputs[3] for row in rows]) if editor.conditional else None,
        images=images,
        about=about,
    )


def _chosen(rows: Sequence[_Row], codes: int) -> list[_Row]:
    """Return for some codes the unedited picture and edits of each M, of directions that were chosen least often."""
    used: Counter[int] = Counter()
    chosen: list[_Row] = []
    for code in range(codes):
        mine = [row for row in rows if row.code == code]
        chosen += [row for row in mine if not row.m]
        for m, number in PER_CODE.items():
            left = [row for row in mine if row.m == m]
            for _ in range(min(number, len(left))):
                row = min(left, key=lambda row: _wear(row, used))
                used.update(row.inputs[1].tolist() if m == 1 else ())
                left = [other for other in left if other is not row]
                chosen.append(row)
    return chosen


def _wear(row: _Row, used: Counter[int]) -> tuple[int, int]:
    """How often a row's directions were chosen, then how near they are to those that were."""
    directions = row.inputs[1].tolist()
    return sum(used[index] for index in directions), -min((abs(directions[0] - index) for index in used), default=0)


def _that_hold(golden: Golden, name: str, engine: Engine, gate: Gate) -> Golden:
    """Return the golden requests without the few edits that an engine draws outside the gate."""
    drawn = np.concatenate([engine(*golden.request([row]))[0] for row in range(len(golden))])
    comparison = Comparison()
    try:
        compare_golden(comparison, golden, drawn)
    except CertificateError as error:
        raise ExportError(f"{name}: golden requests: {error}") from None
    bad = [row for row, found in enumerate(comparison.rows) if gate.misses(found)]
    if len(bad) > _DROPPED * len(golden) or not golden.edits[bad].all():
        raise ExportError(
            f"{name} draws {len(bad)} of {len(golden)} golden requests outside {gate.name}, nothing is published: "
            + "; ".join(gate.misses(comparison.measured()))
        )
    return golden.without(bad)
