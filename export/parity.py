"""Proof that an exported graph draws what eager PyTorch draws, in steps of 1/255."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from export.editor import MAX_EDITS, FusedEditor
from export.errors import ExportError
from latentclr.progress import duration, progress_bar
from latentclr.training.rng import stream

Arrays = tuple[np.ndarray[Any, np.dtype[Any]], ...]
Engine = Callable[..., tuple[np.ndarray[Any, np.dtype[Any]], np.ndarray[Any, np.dtype[Any]]]]

BATCHES = (1, 2, 5)  # N
EDITS = 3  # M of combined edits
ROWS = 16  # of each kind of combined edits, or some more: one by one, 100 directions at 1024 pixels take an hour
NOTICE_S = 10.0  # a longer proof is announced
WORST_STEP = 1  # float32 sums in another order may land on the other side of a rounding edge


@dataclass(frozen=True)
class ParityReport:
    """How an engine's pixels differ from eager PyTorch's.

    Attributes:
        engine: Such as `onnx`.
        rows: Images compared.
        worst_step: Largest difference of a pixel, in 1/255.
        mean_step: Mean absolute difference, in 1/255.
        psnr_db: Peak signal-to-noise ratio over all pixels; None if they are identical.
        tolerance_step: What `worst_step` may be.
    """

    engine: str
    rows: int
    worst_step: int
    mean_step: float
    psnr_db: float | None
    tolerance_step: int = WORST_STEP

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        psnr = "identical" if self.psnr_db is None else f"PSNR {self.psnr_db:.1f} dB"
        return (
            f"{self.engine}: {self.rows} images, worst {self.worst_step}/255 (allowed {self.tolerance_step}),"
            f" mean {self.mean_step:.2g}/255, {psnr}"
        )


def parity_cases(
    editor: FusedEditor, alphas: Sequence[float], seed: int = 0, fed: torch.Tensor | None = None
) -> Iterator[Arrays]:
    """Yield input batches: every direction, every alpha, M in {1, 3}, N in {1, 2, 5}.

    Up to 16 directions are each edited alone twice, at two different strengths, and appear in three combined edits.
    Of more directions 32 are edited alone, and 16 combined edits hold 48; if there are still more, 16 larger ones hold
    all, M = K / 16 (beyond 1024, as many as it takes with the largest M). Strengths differ from latent input to latent
    input in the combined ones. A direction alone acts at the latent inputs of the mask `fed` [L], as it is served.
    """
    latent, k = editor.generator.latent, editor.directions.k
    rng = stream(seed, "parity")
    strengths = torch.tensor(list(alphas), dtype=torch.float32)
    again = int(k % len(strengths) == 0)  # then a direction's second turn would bring the same strength
    turn = 0
    kinds = [(1, min(max(2 * k, len(strengths)), 2 * ROWS)), (EDITS, min(k, ROWS))]  # M, rows
    if k > EDITS * ROWS:
        m = min(-(-k // ROWS), MAX_EDITS)
        kinds.append((m, -(-k // m) if m == MAX_EDITS else ROWS))
    for m, rows in kinds:
        apart = max(1, k // m) if k <= ROWS else -(-k // m)
        done = 0
        while done < rows:
            n = BATCHES[turn % len(BATCHES)]
            index = torch.arange(done, done + n)
            first = index * k // rows if m == 1 and k > rows else index  # spread over all
            direction = (first[:, None] + torch.arange(m) * apart) % k  # [N, M]
            which = index[:, None] + torch.arange(m) + again * (index[:, None] // k)  # [N, M]
            alpha = strengths[which % len(strengths)]  # [N, M]
            alpha = alpha[..., None].expand(n, m, latent.layers).clone()  # [N, M, L]
            if m == 1 and fed is not None:
                alpha *= fed
            if m > 1:
                alpha *= torch.rand(n, m, latent.layers, generator=rng)
            codes, class_id = editor.sample_codes(n, rng)
            inputs = [codes, direction, alpha, *([] if class_id is None else [class_id])]
            yield tuple(tensor.numpy() for tensor in inputs)
            done, turn = done + n, turn + 1


def check_parity(
    editor: FusedEditor,
    engines: dict[str, Engine],
    alphas: Sequence[float],
    say: Callable[[str], None] = lambda line: None,
    notice: float = NOTICE_S,
    fed: torch.Tensor | None = None,
) -> list[ParityReport]:
    """Compare engines with the eager editor; also that a bad row is reported and hurts no other, and the bounds of M.

    Args:
        editor: The eager editor, on the CPU.
        engines: name -> function of numpy arrays in `forward`'s order.
        alphas: Strengths to try.
        say: Is told how long it takes, judged by the first two batches, if that is long.
        notice: Seconds that are long.
        fed: Mask [L] of the latent inputs at which directions act by default; None for all.

    Raises:
        ExportError: An engine differs by more than the tolerance, or handles bad rows, no edits or too many otherwise.
    """
    worst, total, squares, rows, count = ({name: 0.0 for name in engines} for _ in range(5))
    cases = list(parity_cases(editor, alphas, fed=fed))
    images, took = sum(len(inputs[0]) for inputs in cases), []
    with progress_bar(images, "image", desc="parity", delay=2) as bar:
        for inputs in cases:
            start = time.monotonic()
            expected, valid = run_eager(editor, *inputs)
            for name, engine in engines.items():
                image, engine_valid = _ran(name, engine, inputs)
                if image.shape != expected.shape or image.dtype != np.uint8:
                    raise ExportError(f"{name}: got {image.dtype} {image.shape}, expected uint8 {expected.shape}")
                if not np.array_equal(valid, engine_valid):
                    raise ExportError(f"{name}: valid is {engine_valid.tolist()}, expected {valid.tolist()}")
                difference = np.abs(image.astype(np.int16) - expected.astype(np.int16))
                worst[name] = max(worst[name], float(difference.max()))
                total[name] += float(difference.sum())
                squares[name] += float(np.square(difference, dtype=np.float64).sum())
                rows[name] += len(image)
                count[name] += image.size
            took.append((time.monotonic() - start) / len(expected))  # the first may have had to warm up
            if len(took) == 2 and (needed := images * min(took)) > notice:
                with bar.external_write_mode():
                    say(f"parity of {images} images takes {duration(needed)}; Ctrl-C ends it, and nothing is published")
            bar.update(len(expected))
    reports = []
    for name, engine in engines.items():
        mse = squares[name] / count[name]
        psnr = None if mse == 0 else 10 * math.log10(255**2 / mse)
        report = ParityReport(name, int(rows[name]), int(worst[name]), total[name] / count[name], psnr)
        if report.worst_step > report.tolerance_step:
            raise ExportError(f"parity failed, nothing is published: {report}")
        _check_bad_rows(editor, name, engine)
        _check_edit_counts(editor, name, engine)
        reports.append(report)
    return reports


def _ran(name: str, engine: Engine, inputs: Arrays) -> Arrays:
    """Run an engine; a graph that took the number of rows of its trace for the only one fails at another."""
    try:
        return engine(*inputs)
    except Exception as error:  # each engine has its own
        reason = " ".join(str(error).split())[:300]
        raise ExportError(
            f"parity failed, nothing is published: {name} cannot run {len(inputs[0])} rows: {reason}"
        ) from error


def run_eager(editor: FusedEditor, *inputs: np.ndarray[Any, np.dtype[Any]]) -> Arrays:
    """Run the eager editor on numpy arrays; return (image, valid)."""
    with torch.no_grad():
        image, valid = editor(*(torch.from_numpy(np.asarray(array)) for array in inputs))
    return image.numpy(), valid.numpy()


def _check_bad_rows(editor: FusedEditor, name: str, engine: Engine) -> None:
    inputs = [tensor.numpy().copy() for tensor in editor.example_inputs(3, 1)]
    good, _ = engine(*inputs)
    inputs[1][0] = editor.directions.k  # one past the last direction
    inputs[2][2] = np.nan
    image, valid = engine(*inputs)
    if valid.tolist() != [False, True, False] or image[::2].any():
        raise ExportError(f"{name}: bad rows are not reported: valid {valid.tolist()}, expected [False, True, False]")
    if not np.array_equal(image[1], good[1]):
        raise ExportError(f"{name}: a bad row changed the other rows of its batch")


def _check_edit_counts(editor: FusedEditor, name: str, engine: Engine) -> None:
    code, direction, alpha, *classes = (tensor.numpy() for tensor in editor.example_inputs(1, 1))
    unedited, _ = engine(code, direction, 0 * alpha, *classes)
    image, valid = engine(code, direction[:, :0], alpha[:, :0], *classes)
    if not valid.all() or not np.array_equal(image, unedited):
        raise ExportError(f"{name}: without edits (M = 0) it does not draw the unedited image")
    for m in (MAX_EDITS, MAX_EDITS + 1):
        image, valid = engine(code, direction.repeat(m, 1), 0 * alpha.repeat(m, 1), *classes)
        if valid.any() != valid.all() or valid.all() != (m <= MAX_EDITS) or (not valid.any() and image.any()):
            raise ExportError(f"{name}: M must be at most {MAX_EDITS}; for M = {m} valid is {valid.tolist()}")
