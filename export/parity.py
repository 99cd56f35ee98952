"""Proof that an exported graph draws what eager PyTorch draws in float32, as near as its gate asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from export.editor import MAX_EDITS, FusedEditor
from export.errors import ExportError
from latentclr.progress import duration, progress_bar
from latentclr.training.rng import stream
from serving.contract.certificate import GATES, Certificate, Comparison, Gate

Arrays = tuple[np.ndarray[Any, np.dtype[Any]], ...]
Engine = Callable[..., tuple[np.ndarray[Any, np.dtype[Any]], np.ndarray[Any, np.dtype[Any]]]]
Alphas = Sequence[float] | Sequence[Sequence[float]]
"""Strengths that edits are tried with: A of them for all directions, or A for each of the K."""

EDITED = 200  # pictures: enough for a worst 1 % that is not one picture
EDITS_PER_CODE = 8  # fidelity needs each code's unedited picture too, so codes are shared
BATCHES = (1, 2, 5)  # N; the last again until all are drawn
EDITS = 3  # M of combined edits
ROWS = 16  # of edits that hold more than that
NOTICE_S = 10.0  # a longer proof is announced
LISTED = 12  # directions that a message names before it counts the rest


@dataclass(frozen=True)
class Case:
    """A batch of N pictures to compare.

    Attributes:
        inputs: The editor's, in `forward`'s order.
        codes: [N] which of the shared codes each picture is of.
    """

    inputs: Arrays
    codes: tuple[int, ...]

    @property
    def directions(self) -> list[list[int]]:
        """The directions that each picture is edited by, N lists; empty for the unedited."""
        rows: list[list[int]] = self.inputs[1].tolist()
        return rows


def slider_alphas(ranges: Sequence[tuple[float, float]]) -> list[tuple[float, float, float, float]]:
    """Return strengths to try: both ends of each direction's slider, half of the one and a quarter of the other."""
    return [(low, low / 2, high / 4, high) for low, high in ranges]


def parity_cases(
    editor: FusedEditor,
    alphas: Alphas,
    seed: int = 0,
    fed: torch.Tensor | None = None,
    edited: int = EDITED,
) -> list[Case]:
    """Return what to compare: each code unedited (M = 0), then every direction and alpha, M in {1, 3}, N in {1, 2, 5}.

    Three fifths of the edited pictures have one edit, the others three. Directions take turns, each time at another
    strength; of so many that single edits do not reach them all, those are spread over all. Beyond 48 directions 16
    larger edits hold all, M = K / 16 (beyond 1024, as many as it takes with the largest M). Strengths differ from
    latent input to latent input in the combined ones. A direction alone acts at the latent inputs of the mask `fed`
    [L], as it is served.

    Args:
        editor: The eager editor.
        alphas: Strengths, see `Alphas`.
        seed: Another one gives other codes.
        fed: Mask [L]; None for all.
        edited: Edited pictures, at least.
    """
    latent, k = editor.generator.latent, editor.directions.k
    rng = stream(seed, "parity")
    count = max(1, edited // EDITS_PER_CODE)
    codes, classes = editor.sample_codes(count, rng)  # [C, ...], [C]
    order: list[int] = []  # of the codes: random, since turns would pair some directions with the same code always
    given = torch.tensor(alphas, dtype=torch.float32)  # [A] or [K, A]
    strengths = given.expand(k, given.shape[-1])

    def case(which: list[int], direction: torch.Tensor, alpha: torch.Tensor) -> Case:
        inputs = [codes[which], direction, alpha, *([] if classes is None else [classes[which]])]
        return Case(tuple(tensor.numpy() for tensor in inputs), tuple(which))

    cases = []
    for which in batches(list(range(count))):
        n = len(which)
        cases.append(case(which, torch.zeros(n, 0, dtype=torch.int64), torch.zeros(n, 0, latent.layers)))
    alone = -(-3 * edited // 5)
    kinds = [(1, alone), (EDITS, edited - alone)]  # M, rows
    if k > EDITS * ROWS:
        m = min(-(-k // ROWS), MAX_EDITS)
        kinds.append((m, max(ROWS, -(-k // m))))
    for m, rows in kinds:
        apart = max(1, k // m) if k <= rows else -(-k // m)
        for batch in batches(list(range(rows))):
            index = torch.tensor(batch)  # [N]
            first = index * k // rows if m == 1 and k > rows else index  # spread over all
            direction = (first[:, None] + torch.arange(m) * apart) % k  # [N, M]
            turn = index % k + index // k  # after all directions had theirs, each meets the next strength
            alpha = strengths[direction, (turn[:, None] + torch.arange(m)) % strengths.shape[1]]  # [N, M]
            alpha = alpha[..., None].expand(*direction.shape, latent.layers).clone()  # [N, M, L]
            if m == 1 and fed is not None:
                alpha *= fed
            if m > 1:
                alpha *= torch.rand(alpha.shape, generator=rng)
            while len(order) < len(batch):
                order += torch.randperm(count, generator=rng).tolist()
            which, order = order[: len(batch)], order[len(batch) :]
            cases.append(case(which, direction, alpha))
    return cases


def batches(rows: list[int]) -> list[list[int]]:
    """Cut rows into batches of `BATCHES`."""
    cut: list[list[int]] = []
    while rows:
        n = BATCHES[min(len(cut), len(BATCHES) - 1)]
        cut.append(rows[:n])
        rows = rows[n:]
    return cut


@dataclass
class _Compared:
    """What an engine drew so far: the unedited pictures by code, (expected, drawn), and the comparison."""

    unedited: dict[int, tuple[Any, Any]] = field(default_factory=dict)
    comparison: Comparison = field(default_factory=Comparison)

    def add(self, case: Case, expected: Any, image: Any) -> None:
        if not case.inputs[1].shape[1]:
            self.unedited.update(zip(case.codes, zip(expected, image, strict=True), strict=True))
            self.comparison.add(expected, image, case.directions)
            return
        pairs = [self.unedited[code] for code in case.codes]
        unedited = np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])
        self.comparison.add(expected, image, case.directions, unedited)


class Judge:
    """Holds engines against the eager editor, which draws its pictures once, however many engines come."""

    def __init__(
        self,
        editor: FusedEditor,
        alphas: Alphas,
        fed: torch.Tensor | None = None,
        seed: int = 0,
        edited: int = EDITED,
    ) -> None:
        """Choose the pictures, see `parity_cases`."""
        self.editor, self.fed = editor, fed
        self.cases = parity_cases(editor, alphas, seed, fed, edited)
        self.images = sum(len(case.codes) for case in self.cases)
        self._expected: dict[int, Arrays] = {}

    def compare(
        self,
        engines: Mapping[str, Engine],
        say: Callable[[str], None] = lambda line: None,
        notice: float = NOTICE_S,
        what: str = "parity",
        stop: Gate | None = None,
        quiet: bool = False,
    ) -> dict[str, Comparison]:
        """Let engines draw all pictures.

        Args:
            engines: name -> function of numpy arrays in `forward`'s order.
            say: Is told how long it takes, judged by the first two batches, if that is long.
            notice: Seconds that are long.
            what: Stands beside the progress bar.
            stop: Draw no more once an engine misses this gate, whatever the rest would be.
            quiet: Show no bar.

        Raises:
            ExportError: An engine's outputs have another type or shape, or other rows are valid; or PyTorch itself
                overflows, so that nothing can be compared.
        """
        compared, took = {name: _Compared() for name in engines}, []
        with progress_bar(self.images, "image", desc=what, delay=2, disable=quiet) as bar:
            for number, case in enumerate(self.cases):
                start = time.monotonic()
                if number not in self._expected:
                    self._expected[number] = run_eager(self.editor, *case.inputs)
                expected, valid = self._expected[number]
                if not valid.all():
                    raise ExportError(overflow_of(case.inputs[1:3], int(np.argmin(valid))))
                for name, engine in engines.items():
                    image, engine_valid = ran(name, engine, case.inputs)
                    if image.shape != expected.shape or image.dtype != np.uint8:
                        raise ExportError(f"{name}: got {image.dtype} {image.shape}, expected uint8 {expected.shape}")
                    if not np.array_equal(valid, engine_valid):
                        raise ExportError(f"{name}: valid is {engine_valid.tolist()}, expected {valid.tolist()}")
                    compared[name].add(case, expected, image)
                took.append((time.monotonic() - start) / len(expected))  # the first may have had to warm up
                if len(took) == 2 and (needed := self.images * min(took)) > notice:
                    with bar.external_write_mode():
                        say(
                            f"{what} of {self.images} images takes {duration(needed)};"
                            " Ctrl-C ends it, and nothing is published"
                        )
                bar.update(len(expected))
                if stop and any(one.comparison.is_hopeless(stop, self.images) for one in compared.values()):
                    break
        return {name: found.comparison for name, found in compared.items()}


def check_parity(
    judge: Judge,
    engines: Mapping[str, Engine],
    gate: Gate = GATES["exact"],
    precision: str = "fp32",
    say: Callable[[str], None] = lambda line: None,
    notice: float = NOTICE_S,
) -> list[Certificate]:
    """Certify engines; also that a bad row is reported and hurts no other, and the bounds of M.

    Args:
        judge: Of the eager editor in float32, on the CPU.
        engines: name -> function of numpy arrays in `forward`'s order.
        gate: What they must reach.
        precision: Of the engines, for the certificates.
        say: Is told how long it takes, if that is long.
        notice: Seconds that are long.

    Raises:
        ExportError: An engine misses the gate, or handles bad rows, no edits or too many otherwise.
    """
    certificates = []
    for name, comparison in judge.compare(engines, say, notice).items():
        certificate = comparison.certificate(name, precision, gate)
        if not certificate.passed:
            raise ExportError(f"parity failed, nothing is published: {certificate}: {why_not(comparison, gate)}")
        check_robustness(judge.editor, name, engines[name])
        certificates.append(certificate)
    return certificates


def overflow_of(edits: Sequence[np.ndarray[Any, np.dtype[Any]]], row: int) -> str:
    """Say which edit (direction [N, M], alpha [N, M, L]) the eager editor calls invalid, in one line."""
    direction, alpha = edits[0][row].tolist(), np.abs(edits[1][row]).max(initial=0)
    edit = f"directions {', '.join(map(str, direction))} with strengths up to {alpha:g}" if direction else "no edit"
    return f"the generator's own picture is not finite for {edit}: there is nothing to prove an engine by"


def why_not(comparison: Comparison, gate: Gate) -> str:
    """Return by how much a comparison misses a gate, and which directions do, in words."""
    failing = comparison.failing(gate)
    more = f" and {len(failing) - LISTED} more" if len(failing) > LISTED else ""
    which = f"directions {', '.join(map(str, failing[:LISTED]))}{more}" if failing else "unedited pictures"
    return f"{', '.join(gate.misses(comparison.measured()))} ({which})"


def ran(name: str, engine: Engine, inputs: Arrays) -> Arrays:
    """Run an engine; a graph that took the number of rows of its trace for the only one fails at another.

    Raises:
        ExportError: It fails, with whatever error of its own.
    """
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


def check_robustness(editor: FusedEditor, name: str, engine: Engine) -> None:
    """Check that a bad row is reported and hurts no other, that no edits draw the unedited image, and the bound of M.

    Raises:
        ExportError: One of these does not hold.
    """
    _check_bad_rows(editor, name, engine)
    _check_edit_counts(editor, name, engine)


def _check_bad_rows(editor: FusedEditor, name: str, engine: Engine) -> None:
    inputs = [tensor.numpy() for tensor in editor.example_inputs(3, 1)]
    good, _ = engine(*inputs)
    code, direction, alpha, classes = range(4)
    bad: list[tuple[str, int, float]] = [
        ("direction", direction, editor.directions.k), ("direction", direction, -1), ("alpha", alpha, np.nan),
        ("alpha", alpha, -np.inf), ("code", code, np.nan), ("code", code, np.inf),
    ]  # fmt: skip
    if editor.conditional:
        bad += [("class_id", classes, len(editor.generator.class_names or ())), ("class_id", classes, -1)]
    for (what, place, value), (other, its_place, its_value) in zip(bad[::2], bad[1::2], strict=True):
        given = [array.copy() for array in inputs]
        given[place][0], given[its_place][2] = value, its_value
        image, valid = engine(*given)
        if valid.tolist() != [False, True, False] or image[::2].any():
            raise ExportError(
                f"{name}: bad rows ({what} {value:g}, good, {other} {its_value:g}) are not reported: valid"
                f" {valid.tolist()}, expected [False, True, False]"
            )
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
