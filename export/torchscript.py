"""The editor as traced TorchScript. Upstream calls TorchScript deprecated; all of it stays in this file."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.jit import TracerWarning  # type: ignore[attr-defined]

from export.editor import FusedEditor
from export.errors import ExportError
from export.reasons import reason_of

Array = np.ndarray[Any, np.dtype[Any]]


def export_torchscript(editor: FusedEditor, path: Path) -> None:
    """Write the editor as a traced and frozen TorchScript file with dynamic N and M.

    Args:
        editor: The editor, on the CPU.
        path: Where to write.

    Raises:
        ExportError: torch cannot trace it.
    """
    write_torchscript(editor, editor.example_inputs(3, 2), path)


def write_torchscript(module: torch.nn.Module, example: tuple[torch.Tensor, ...], path: Path) -> None:
    """Write a module as a traced and frozen TorchScript file.

    Raises:
        ExportError: torch cannot trace it.
    """
    try:
        with torch.no_grad(), _not_deprecated():
            warnings.simplefilter("ignore", TracerWarning)  # parity over many shapes is the real check
            traced = torch.jit.trace(module, example, check_trace=False)
            torch.jit.freeze(traced.eval()).save(str(path))
    except Exception as error:  # whatever the generator raises when it is traced
        raise ExportError(f"TorchScript export failed: {reason_of(error)}") from error


class TorchScriptEditor:
    """The exported file, loaded as the server loads it."""

    def __init__(self, path: Path) -> None:
        """Load the file.

        Raises:
            ExportError: torch cannot load it.
        """
        try:
            with _not_deprecated():
                self.module = torch.jit.load(str(path), map_location="cpu")
        except RuntimeError as error:
            raise ExportError(f"torch cannot load {path}: {str(error).splitlines()[0]}") from None

    def __call__(self, *inputs: Array) -> tuple[Array, Array]:
        """Run on numpy arrays in `forward`'s order; return its first two results, (image, valid) of an editor."""
        with torch.no_grad():
            image, valid, *_ = self.module(*(torch.from_numpy(array) for array in inputs))
        return image.numpy(), valid.numpy()


@contextlib.contextmanager
def _not_deprecated() -> Iterator[None]:
    # The owner wants TorchScript, deprecated or not. From torch 2.14 on it is said in a FutureWarning, which users see.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.")
        yield
