"""Names of the served models' tensors.

The editor: a code (`z` or `w`), direction, alpha, class_id in; image and valid out. The encoder: picture in; the code,
and what asks the editor for the unedited picture, out. The ensemble of both: picture, direction, alpha, class_id in;
image, valid, reconstruction and the code out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

DIRECTION, ALPHA, CLASS_ID = "direction", "alpha", "class_id"
IMAGE, VALID = "image", "valid"
OUTPUTS = (IMAGE, VALID)
PICTURE, ZERO_DIRECTION, ZERO_ALPHA = "picture", "zero_direction", "zero_alpha"
RECONSTRUCTION = "reconstruction"
CODE = "code"
"""An encoder's code once more, for the steps of an ensemble: Triton drops a step once it has counted all its outputs as
not asked for, and counts one that is an output of the ensemble, too, even if other steps need it."""


def code_tensor(latent_input: str) -> str:
    """Return the name of the input that takes codes: `z`, or `w` for both `w` and `w+`."""
    return latent_input[0]


def served_names(backend: str, outputs: Sequence[str]) -> list[str]:
    """Return what a backend calls a model's outputs.

    Triton's libtorch backend finds them by position, which it reads from the end of their names.
    """
    return [f"{name}__{index}" for index, name in enumerate(outputs)] if backend == "pytorch" else list(outputs)


def output_names(backend: str) -> tuple[str, str]:
    """Return what a backend calls the editor's outputs, pictures first."""
    image, valid = served_names(backend, OUTPUTS)
    return image, valid


def encoder_outputs(latent_input: str) -> tuple[str, str, str, str]:
    """Return the outputs of an encoder: codes, the edit that leaves their pictures as they are, and the codes again."""
    return code_tensor(latent_input), ZERO_DIRECTION, ZERO_ALPHA, CODE


def find_output(names: Iterable[str], output: str) -> str | None:
    """Return what a model calls an output; None if it has no such output."""
    return next((name for name in names if name.partition("__")[0] == output), None)
