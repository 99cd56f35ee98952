"""Code that makes the picture on the screen again: a few lines of Python, or one curl command."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from serving.contract.layout import DEFAULT_MODEL
from serving.studio.models import ImageRequest

TOKEN_VARIABLE = "LATENTCLR_STUDIO_TOKEN"


def python_code(
    url: str,
    model: str,
    seed: int,
    strengths: Mapping[int | str, NDArray[np.float32]],
    class_id: int | None,
    layers: Sequence[int] = (),
) -> str:
    """Write Python that asks Triton itself, so it works in an app that has no studio.

    Args:
        url: Triton's gRPC address.
        model: Name of the served model.
        seed: The picture.
        strengths: Alphas [L] by direction.
        class_id: Class number, if any.
        layers: Where the client lets a single number act; empty for all.
    """
    where = ", ".join(json.dumps(word) for word in ([url] if model == DEFAULT_MODEL else [url, model]))
    edits = ", ".join(f"{direction}: {_alpha(alphas, layers)}" for direction, alphas in strengths.items())
    arguments = [f"seed={seed}", f"edits={{{edits}}}", *([] if class_id is None else [f"class_id={class_id}"])]
    return (
        "from serving import EditClient\n\n"
        f"with EditClient({where}) as client:\n"
        f"    picture = client.edit({', '.join(arguments)})\n"
        f'    picture.save("seed_{seed}.png")\n'
    )


def curl_code(base: str, request: ImageRequest, token: bool) -> str:
    """Write a shell command that asks the studio's API.

    Args:
        base: The studio's address, without a slash at the end.
        request: The picture.
        token: Whether the studio wants a token.
    """
    body = json.dumps(request.model_dump(exclude_none=True, exclude_defaults=True), ensure_ascii=False)
    kind = "jpg" if request.format == "jpeg" else request.format
    lines = [
        f"curl -fsS {shlex.quote(base + '/api/image')}",
        "-H 'Content-Type: application/json'",
        *([f'-H "Authorization: Bearer ${TOKEN_VARIABLE}"'] if token else []),
        f"-d {shlex.quote(body)}",
        f"-o seed_{request.seed}.{kind}",
    ]
    return " \\\n  ".join(lines) + "\n"


def _alpha(alphas: NDArray[np.float32], layers: Sequence[int]) -> str:
    """One number if it means the same to the client, else one for each layer; as short as float32 allows."""
    numbers = [str(alpha) for alpha in alphas]
    reached = np.isin(np.arange(len(alphas)), list(layers or range(len(alphas))))
    same = len(set(alphas[reached].tolist())) == 1 and not alphas[~reached].any()
    return numbers[int(np.argmax(reached))] if same else f"[{', '.join(numbers)}]"
