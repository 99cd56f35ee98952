"""Why a generator cannot be exported, in one line, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CONTROL = re.compile(r"\x1b?\[[0-9;]*m")
_NO_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='(?:\w+\.)?(\w+)'")
_CALL = re.compile(r"The following call raised this error:\s+File \"([^\"]+)\", line (\d+), in \w+\s+(.+)")
_DRAWN = re.compile(r"torch\.ops\.aten\.(rand\w*|normal\w*|bernoulli\w*|multinomial)")

_BUFFER = "compute it once, when the module is made, and keep it as a buffer"
# What a reason says, and what to write instead. The first that is found counts.
ADVICE: Sequence[tuple[str, str]] = (
    (r"draws random numbers|draws something else", "draw the noise once, in __init__, and keep it as a buffer"),
    (r"data-dependent|Could not guard|depends on a value", "an `if` on values does not export: write torch.where, or"
     " multiply by a mask"),
    (r"cannot run \d+ rows|invalid dimensions for input|got uint8 \(\d+, .*expected uint8",
     "the number of rows became a constant: no Python loop over rows, no int(x.shape[0]), len(x) or list(x.shape);"
     " write x.shape[0], -1 or .expand where the number is wanted"),
    (r"no operator for (_?linalg_\w+|inverse|_?cholesky\w*|det\w*)",
     f"{_BUFFER}; of a small matrix write the closed form"),
    (r"no operator for _?cdist", "write the distance itself: ((a[:, None] - b[None]) ** 2).sum(-1).sqrt()"),
    (r"no operator for (erf_?inv|special_\w+|bessel_\w+|i0\w*|lgamma|digamma)", f"{_BUFFER}; or write a polynomial"),
    (r"no operator for \w*fft\w*", "write the filter as a convolution"),
    (r"no operator", "write it with matrix products, convolutions and operations on each element; or, if it does not"
     " depend on the code, " + _BUFFER),
    (r"Python function call|autograd\.Function|SavedVariable",
     "call the operation itself where no gradient is wanted: `if torch.is_grad_enabled()` around the Function"),
    (r"ScriptModule|torch\.jit|script", "return the module itself, not one from torch.jit.script or torch.jit.load"),
    (r"worst \d+/255", "the graph draws something else: look for an `if` on a shape, .item(), and numbers that become"
     " constants when it is traced"),
)  # fmt: skip


def reason_of(error: BaseException) -> str:
    """Return why torch could not make a graph, on one line: the operator, the user's line, or the first cause."""
    text = _CONTROL.sub("", str(error))
    if found := _NO_OPERATOR.search(text):
        return f"ONNX has no operator for {found[1]}"
    if found := _DRAWN.search(text):
        return f"it draws random numbers ({found[1]})"
    if found := _CALL.search(text):
        why = "the way depends on a value" if "data-dependent" in text or "guard" in text else "torch.export stops"
        return f"{why} at {found[1].rpartition('/')[2]}, line {found[2]}: {found[3].strip()[:120]}"
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in _CONTROL.sub("", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:300]}"


def advice_for(reason: str) -> str:
    """Return what to write instead; empty if nothing is known."""
    return next((advice for pattern, advice in ADVICE if re.search(pattern, reason)), "")
