"""A model's `config.pbtxt` from anybody, as Triton's own protobuf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LARGEST_CONFIG = 32_000_000
"""Bytes of a configuration: a manifest of the largest size (see `documents`), with its quotes escaped twice."""


def read_pbtxt(path: Path) -> Any:
    """Read a `ModelConfig`.

    Raises:
        ValueError: It cannot be read, is too large or no configuration; the message is one short line that says why.
    """
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_CONFIG + 1)
        if len(data) > LARGEST_CONFIG:
            raise ValueError(f"it must be at most {LARGEST_CONFIG} bytes")
        return text_format.Parse(data.decode(), model_config_pb2.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0][:300]) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
