"""Certificates: how near an engine's edited pictures are to those of eager PyTorch in float32, and whether near enough.

What a user can see is judged picture by picture: PSNR, SSIM (Wang et al. 2004), and edit fidelity, the cosine between
what the edit does (edited minus unedited) in this engine and in float32. A mean over all pictures would hide a bad one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import ServingError

Pictures = NDArray[np.uint8]

VISIBLE_EDIT_RMS = 1.0
"""Steps of 1/255 that an edit must change a picture by (root mean square) for its direction to mean anything: below
that most of the difference between two uint8 pictures is their rounding."""
SAME_DB = 100.0
"""Stands for the PSNR of identical pictures, which would be infinite."""
_WORST = 0.01  # of the pictures, by edit fidelity
_WINDOW, _SIGMA = 11, 1.5  # of SSIM, as in its paper
_BAND = 32  # positions filtered by one product
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


class CertificateError(ServingError):
    """A gate is not understood, or a certificate cannot be read."""


@dataclass(frozen=True)
class Certificate:
    """How an engine's pictures differ from eager PyTorch's in float32, in steps of 1/255.

    Attributes:
        engine: Such as `onnxruntime`, `torchscript`, `openvino`, or a server's name for what it runs.
        precision: `fp32`, `bf16`, `fp16` or `int8`.
        images: Pictures compared, edited and not.
        worst_step: Largest difference of any value.
        mean_step: Largest mean absolute difference of any picture.
        p999_step: The difference that 99.9 % of all values do not exceed.
        psnr_db: Of the worst picture; None if all are identical.
        ssim: Of the worst picture, in [-1, 1]; None for pictures of less than 3 pixels a side.
        edit_fidelity: Cosine in [-1, 1] that 99 % of the visible edits reach; None if no edit changes its picture by
            `VISIBLE_EDIT_RMS`.
        gate: What it was held against, see `Gate`.
        passed: Whether it holds.
    """

    engine: str
    precision: str
    images: int
    worst_step: int
    mean_step: float
    p999_step: int
    psnr_db: float | None
    ssim: float | None
    edit_fidelity: float | None
    gate: str
    passed: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the certificate as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        psnr = "identical" if self.psnr_db is None else f"PSNR {self.psnr_db:.1f} dB"
        parts = [
            f"worst {self.worst_step}/255, mean {self.mean_step:.2g}/255, 99.9 % within {self.p999_step}/255",
            psnr,
        ]
        if self.ssim is not None:
            parts.append(f"SSIM {self.ssim:.4f}")
        if self.edit_fidelity is not None:
            parts.append(f"edit fidelity {self.edit_fidelity:.4f}")
        word = "holds" if self.passed else "MISSES"
        return f"{self.engine} {self.precision}: {self.images} images, {', '.join(parts)}; {word} {self.gate}"


@dataclass(frozen=True)
class Gate:
    """What a graph must reach to be published; None where nothing is asked.

    Attributes:
        name: `exact`, `certified`, or the numbers as they were given.
        worst_step: Largest difference of any value, in 1/255, at most.
        mean_step: Mean absolute difference of each picture, in 1/255, at most.
        psnr_db: Of each picture, at least.
        ssim: Of each picture, at least.
        edit_fidelity: Of 99 % of the visible edits, at least.
    """

    name: str
    worst_step: float | None = None
    mean_step: float | None = None
    psnr_db: float | None = None
    ssim: float | None = None
    edit_fidelity: float | None = None

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Read `exact`, `certified`, or numbers such as `psnr=38,ssim=0.97,mean=1,fidelity=0.95,worst=8`.

        Raises:
            CertificateError: It is none of these.
        """
        if text in GATES:
            return GATES[text]
        values: dict[str, float] = {}
        for part in text.split(","):
            key, equals, number = part.partition("=")
            if not equals:
                raise CertificateError(
                    f"quality must be {', '.join(GATES)} or numbers such as psnr=38,ssim=0.97, got {text!r}"
                )
            if key not in _WORDS:
                raise CertificateError(f"quality knows {', '.join(_WORDS)}, got {key!r}")
            if _WORDS[key] in values:
                raise CertificateError(f"quality {key} can be given once, got {text!r}")
            low, high = _RANGES[key]
            try:
                values[_WORDS[key]] = value = float(number)
            except ValueError:
                value = math.nan
            if not low <= value <= high:
                raise CertificateError(f"quality {key} must be a number in [{low:g}, {high:g}], got {number!r}")
        if [*values] == ["edit_fidelity"]:
            raise CertificateError(
                f"quality {text} needs another number beside it, such as psnr=38: where no edit can be seen there is no"
                " fidelity, and any picture would do"
            )
        return cls(text, **values)

    def misses(self, measured: Mapping[str, Any]) -> list[str]:
        """Return what does not hold of measured values (by the names of `Certificate`), each in words; empty if all."""
        found = []
        for item in fields(self):
            wanted, value = getattr(self, item.name), measured.get(item.name)
            if item.name == "name" or wanted is None or value is None:
                continue
            most = item.name in ("worst_step", "mean_step")
            if not (value <= wanted if most else value >= wanted):  # also for NaN
                word = "at most" if most else "at least"
                found.append(f"{_SAID[item.name]} {value:.4g} instead of {word} {wanted:g}")
        return found


GATES = {
    "exact": Gate("exact", worst_step=1),
    "certified": Gate("certified", mean_step=0.5, psnr_db=40, ssim=0.98, edit_fidelity=0.98),
}
"""`exact`: float32 sums in another order may land on the other side of a rounding edge, and no more. `certified`: what
nobody sees, side by side."""
_WORDS = {
    "worst": "worst_step", "mean": "mean_step", "psnr": "psnr_db", "ssim": "ssim", "fidelity": "edit_fidelity",
}  # fmt: skip
_RANGES = {"worst": (0, 255), "mean": (0, 255), "psnr": (0, 100), "ssim": (-1, 1), "fidelity": (-1, 1)}
_SAID = {
    "worst_step": "worst step", "mean_step": "mean step", "psnr_db": "PSNR", "ssim": "SSIM",
    "edit_fidelity": "edit fidelity",
}  # fmt: skip


@dataclass
class Comparison:
    """Gathers pictures of an engine beside those of float32, a batch at a time."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    _counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))

    def add(
        self,
        expected: Pictures,
        drawn: Pictures,
        directions: Sequence[Sequence[int]],
        unedited: tuple[Pictures, Pictures] | None = None,
    ) -> None:
        """Compare N pictures.

        Args:
            expected: [N, H, W, 3] uint8, of eager PyTorch in float32.
            drawn: The same of the engine.
            directions: The directions that each row was edited by, N sequences.
            unedited: The unedited pictures of the same codes (expected, drawn); None where fidelity is not asked.

        Raises:
            CertificateError: Shapes or types differ.
        """
        for name, array in (("drawn", drawn), *(("unedited", array) for array in unedited or ())):
            if array.shape != expected.shape or array.dtype != np.uint8:
                raise CertificateError(f"{name}: got {array.dtype} {array.shape}, expected uint8 {expected.shape}")
        for row in range(len(expected)):
            wanted, got = expected[row], drawn[row]
            difference = np.abs(got.astype(np.int16) - wanted.astype(np.int16))
            self._counts += np.bincount(difference.ravel(), minlength=256)
            mse = float(np.square(difference, dtype=np.float64).mean())
            fidelity = None
            if unedited is not None:
                fidelity = edit_cosine(wanted, unedited[0][row], got, unedited[1][row])
            self.rows.append(
                {
                    "directions": sorted({int(index) for index in directions[row]}),
                    "worst_step": int(difference.max()),
                    "mean_step": float(difference.mean()),
                    "psnr_db": psnr(mse),
                    "ssim": None if min(wanted.shape[:2]) < 3 else (1.0 if mse == 0 else ssim(wanted, got)),
                    "edit_fidelity": fidelity,
                }
            )

    def measured(self) -> dict[str, Any]:
        """Return the numbers of a `Certificate`, without engine and gate.

        Raises:
            CertificateError: Nothing was compared.
        """
        if not self.rows:
            raise CertificateError("no pictures were compared")
        fidelities = sorted(self._known("edit_fidelity"))
        within = np.cumsum(self._counts) >= 0.999 * self._counts.sum()
        return {
            "images": len(self.rows),
            "worst_step": max(row["worst_step"] for row in self.rows),
            "mean_step": max(row["mean_step"] for row in self.rows),
            "p999_step": int(np.argmax(within)),
            "psnr_db": min(self._known("psnr_db"), default=None),
            "ssim": min(self._known("ssim"), default=None),
            # All but 1 % of the edits are at least as faithful; of less than 100 edits, all.
            "edit_fidelity": fidelities[int(_WORST * len(fidelities))] if fidelities else None,
        }

    def certificate(self, engine: str, precision: str, gate: Gate) -> Certificate:
        """Hold what was measured against a gate."""
        measured = self.measured()
        return Certificate(engine, precision, **measured, gate=gate.name, passed=not gate.misses(measured))

    def is_hopeless(self, gate: Gate, images: int) -> bool:
        """Return whether a gate is missed whatever else is drawn.

        Args:
            gate: Of which edit fidelity may be missed by 1 % of the edits, all else by no picture.
            images: Pictures there will be.
        """
        each = replace(gate, edit_fidelity=None)
        unfaithful = sum(bool(gate.misses({"edit_fidelity": row["edit_fidelity"]})) for row in self.rows)
        return unfaithful > int(_WORST * images) or any(each.misses(row) for row in self.rows)

    def failing(self, gate: Gate) -> list[int]:
        """Return the directions whose pictures miss the gate, in order.

        Those of combined edits only if no direction alone misses it: all of a bad edit would be named for one.
        """
        bad = [row for row in self.rows if gate.misses(row)]
        bad = [row for row in bad if len(row["directions"]) == 1] or bad
        return sorted({direction for row in bad for direction in row["directions"]})

    def _known(self, name: str) -> list[float]:
        return [row[name] for row in self.rows if row[name] is not None]


def edit_cosine(expected: Pictures, unedited: Pictures, drawn: Pictures, drawn_unedited: Pictures) -> float | None:
    """Return the cosine between an edit's effect on one picture [H, W, 3] in float32 and in an engine.

    None if the edit does not change the picture by `VISIBLE_EDIT_RMS`; 0 if it does, but not in the engine.
    """
    effect = expected.astype(np.float64) - unedited
    if math.sqrt(np.square(effect).mean()) < VISIBLE_EDIT_RMS:
        return None
    other = drawn.astype(np.float64) - drawn_unedited
    lengths = float(np.linalg.norm(effect) * np.linalg.norm(other))
    return float(np.vdot(effect, other)) / lengths if lengths else 0.0


def psnr(mse: float) -> float | None:
    """Return the peak signal-to-noise ratio in decibel of a mean squared error in steps; None where there is none."""
    return None if mse == 0 else 10 * math.log10(255**2 / mse)


def picture_psnr(expected: Pictures, drawn: Pictures) -> float:
    """Return the PSNR of one picture or several together in decibel, `SAME_DB` where they are identical."""
    decibels = psnr(float(np.square(expected.astype(np.float64) - drawn).mean()))
    return SAME_DB if decibels is None else min(SAME_DB, decibels)


def ssim(expected: Pictures, drawn: Pictures) -> float:
    """Return the structural similarity of two pictures [H, W, C], in [-1, 1]: 11 x 11 Gaussian window, sigma 1.5.

    Wang, Bovik, Sheikh, Simoncelli 2004, equation 13, K1 = 0.01, K2 = 0.03, L = 255, the mean over all positions at
    which the window lies inside and over the channels. On pictures smaller than it the window shrinks to their size.
    """
    size = min(_WINDOW, *expected.shape[:2])
    taps = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / _SIGMA) ** 2)
    taps /= taps.sum()
    x, y = (picture.transpose(2, 0, 1).astype(np.float64, order="C") for picture in (expected, drawn))  # [C, H, W]
    mean_x, mean_y = _blur(x, taps), _blur(y, taps)
    var_x, var_y = _blur(x * x, taps) - mean_x**2, _blur(y * y, taps) - mean_y**2
    covariance = _blur(x * y, taps) - mean_x * mean_y
    top = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    return float((top / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))).mean())


def _blur(planes: NDArray[np.float64], taps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Filter [C, H, W] along both axes, as products with a band matrix: several times faster than tap by tap."""
    reach = len(taps) - 1
    band = np.zeros((_BAND, _BAND + reach))
    for row in range(_BAND):
        band[row, row : row + reach + 1] = taps
    count, rows, columns = planes.shape
    down = np.empty((count, rows - reach, columns))
    for start in range(0, rows - reach, _BAND):
        n = min(_BAND, rows - reach - start)
        np.matmul(band[:n, : n + reach], planes[:, start : start + n + reach], out=down[:, start : start + n])
    both = np.empty((count, rows - reach, columns - reach))
    for start in range(0, columns - reach, _BAND):
        n = min(_BAND, columns - reach - start)
        np.matmul(down[:, :, start : start + n + reach], band[:n, : n + reach].T, out=both[:, :, start : start + n])
    return both
