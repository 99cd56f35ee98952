"""The smallest graph that holds its gate: as few bits of the weights as the certificate allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch

from export.editor import FusedEditor
from export.errors import ExportError
from export.onnx import OnnxEditor, export_onnx, read_graph
from export.parity import Alphas, Judge, check_robustness, why_not
from export.precision import RANKING
from export.reduced import RANKING_SEED
from export.web.runtime import gzipped
from export.web.weights import HALF_BITS, stored
from serving.contract.certificate import Certificate, Comparison, Gate

ENGINE = "onnxruntime-web"
FEWEST_BITS, MORE_BITS = 4, 14  # the latter where float16 does not do
PRECISIONS = ("fp32", "fp16")


@dataclass(frozen=True)
class WebGraph:
    """A graph as a page has it.

    Attributes:
        path: The ONNX file.
        size: Its bytes.
        packed: What a page has of it: the same under gzip.
        weights: How its weights are stored, in words: `fp32`, `fp16`, or `fp16 of 6 bits` of the fraction.
        certificate: That it draws what eager PyTorch draws.
        engine: It, under ONNX Runtime on this machine.
    """

    path: Path
    size: int
    packed: bytes
    weights: str
    certificate: Certificate
    engine: OnnxEditor


def smallest_graph(
    editor: FusedEditor,
    gate: Gate,
    folder: Path,
    *,
    alphas: Alphas,
    fed: torch.Tensor | None = None,
    precision: str | None = None,
    opset: int,
    say: Callable[[str], None] = lambda line: None,
) -> WebGraph:
    """Export an editor and store its weights in as few bits as the gate allows.

    Few pictures choose the bits, all of the certificate's prove them; if these miss the gate, a bit more is tried.

    Args:
        editor: In float32, on the CPU.
        gate: What must hold.
        folder: Where to write.
        alphas: Strengths of the certificate, see `Alphas`.
        fed: Mask [L] of the latent inputs at which directions act by default; None for all.
        precision: `fp32` or `fp16`, whole, of the stored weights; None for the fewest bits.
        opset: ONNX operator set.
        say: Is told what takes long, and the certificate.

    Raises:
        ExportError: The graph cannot be made, or misses the gate.
    """
    if precision not in (None, *PRECISIONS):
        raise ExportError(
            f"with target web, precision is that of the stored weights, {' or '.join(PRECISIONS)}, got {precision}:"
            " browsers compute in float32"
        )
    path = folder / "model.onnx"
    export_onnx(editor, path, opset)
    model = read_graph(path)

    def compared(judge: Judge, bits: int | None, stop: Gate | None = None) -> Comparison:
        """Write the graph with so many bits, and hold it against the editor."""
        onnx.save(stored(model, bits), str(path))
        return judge.compare({ENGINE: OnnxEditor(path)}, say, stop=stop)[ENGINE]

    judge = Judge(editor, alphas, fed)
    tries: list[int | None] = [None if precision == "fp32" else HALF_BITS]
    if precision is None:
        few = Judge(editor, alphas, fed, RANKING_SEED, RANKING)
        start = _fewest_bits(lambda bits: not gate.misses(compared(few, bits, gate).measured()))
        tries = [*range(start, HALF_BITS + 1), MORE_BITS, None]
    for bits in tries:
        last = bits == tries[-1]
        found = compared(judge, bits, None if last else gate)
        if not gate.misses(found.measured()):
            break
        text = f"weights in {words_of(bits)} miss {gate.name}: {why_not(found, gate)}"
        if last:
            raise ExportError(f"{text}; nothing is written")
        say(text)
    engine = OnnxEditor(path)
    check_robustness(editor, ENGINE, engine)
    certificate = found.certificate(ENGINE, f"weights in {words_of(bits)}", gate)
    say(str(certificate))
    data = path.read_bytes()
    return WebGraph(path, len(data), gzipped(data), words_of(bits), certificate, engine)


def words_of(bits: int | None) -> str:
    """Say how weights are stored."""
    if bits is None or bits == HALF_BITS:
        return "fp32" if bits is None else "fp16"
    return f"{'fp16' if bits < HALF_BITS else 'fp32'} of {bits} bits"


def _fewest_bits(holds: Callable[[int], bool]) -> int:
    """Return the fewest bits that hold, if more always do when fewer do; all of them if none holds."""
    low, high = FEWEST_BITS, HALF_BITS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
