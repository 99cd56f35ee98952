"""Names of the served editor's tensors: a code (`z` or `w`), direction, alpha, class_id in; image and valid out."""

from __future__ import annotations

from collections.abc import Iterable

DIRECTION, ALPHA, CLASS_ID = "direction", "alpha", "class_id"
IMAGE, VALID = "image", "valid"
OUTPUTS = (IMAGE, VALID)


def code_tensor(latent_input: str) -> str:
    """Return the name of the input that takes codes: `z`, or `w` for both `w` and `w+`."""
    return latent_input[0]


def output_names(backend: str) -> tuple[str, str]:
    """Return what a backend calls the outputs, pictures first.

    Triton's libtorch backend finds them by position, which it reads from the end of their names.
    """
    image, valid = (f"{name}__{index}" for index, name in enumerate(OUTPUTS)) if backend == "pytorch" else OUTPUTS
    return image, valid


def find_output(names: Iterable[str], output: str) -> str | None:
    """Return what a model calls an output; None if it has no such output."""
    return next((name for name in names if name.partition("__")[0] == output), None)
