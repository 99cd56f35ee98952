"""Code that makes the picture on the screen again: a few lines of Python, or one curl command."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.contract.layout import DEFAULT_MODEL
from serving.studio.models import ImageRequest

TOKEN_VARIABLE = "LATENTCLR_STUDIO_TOKEN"


@dataclass(frozen=True)
class PhotoCode:
    """How a photo's code was found: the chosen face or None, `face` or `centre`, steps of refinement."""

    face: int | None
    how: str
    refined: int


def python_code(
    url: str,
    model: str,
    request: ImageRequest,
    strengths: Mapping[int | str, NDArray[np.float32]],
    layers: Sequence[int] = (),
    photo: PhotoCode | None = None,
) -> str:
    """Write Python that asks Triton itself, so it works in an app that has no studio.

    Args:
        url: Triton's gRPC address.
        model: Name of the served model.
        request: The picture.
        strengths: Alphas [L] by direction.
        layers: Where the client lets a single number act; empty for all.
        photo: Of a photo: how its code was found.
    """
    where = ", ".join(json.dumps(word) for word in ([url] if model == DEFAULT_MODEL else [url, model]))
    edits = ", ".join(f"{direction}: {_alpha(alphas, layers)}" for direction, alphas in strengths.items())
    subject = f"seed={request.seed}" if photo is None else "photo=photo"
    arguments = [subject, f"edits={{{edits}}}"]
    arguments += [] if request.class_id is None else [f"class_id={request.class_id}"]
    arguments += ["keep=True"] if request.keep else []
    lines = [f"picture = client.edit({', '.join(arguments)})", f'picture.save("{_file(request)}.png")']
    names = "EditClient"
    if photo is not None:
        crop = ', align="centre"' if photo.how == "centre" else "" if photo.face is None else f", face={photo.face}"
        found = [f'photo = client.invert("photo.jpg"{crop})']
        if photo.refined:
            names = "EditClient, refine"
            found += [f"for step in refine(client, photo, steps={photo.refined}):", "    photo = step.inverted"]
        lines = [*found, *lines]
    if request.paste:
        lines[-1] = lines[-1].replace("picture.", "picture.pasted().")
    return "\n".join([f"from serving import {names}\n", f"with EditClient({where}) as client:", *_indented(lines), ""])


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
        f"-o {_file(request)}.{kind}",
    ]
    return " \\\n  ".join(lines) + "\n"


def _file(request: ImageRequest) -> str:
    return f"seed_{request.seed}" if request.photo is None else "photo_edited"


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _alpha(alphas: NDArray[np.float32], layers: Sequence[int]) -> str:
    """One number if it means the same to the client, else one for each layer; as short as float32 allows."""
    numbers = [str(alpha) for alpha in alphas]
    reached = np.isin(np.arange(len(alphas)), list(layers or range(len(alphas))))
    same = len(set(alphas[reached].tolist())) == 1 and not alphas[~reached].any()
    return numbers[int(np.argmax(reached))] if same else f"[{', '.join(numbers)}]"
