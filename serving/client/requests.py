"""From what a person asks for to one request's arrays, and to the recipe that makes the same pictures again.

Arithmetic on the manifest; nothing talks to a server. The blocking and the asyncio client share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serving.client.alpha_range import warn_outside
from serving.client.description import Answer, Description
from serving.client.edited import Edited
from serving.client.photos import Framed, Inverted, Source, check_code, check_same_encoder
from serving.contract.arguments import shown
from serving.contract.edits import Strength, check_latents, check_rows, edit_arrays, resolve_class
from serving.contract.latents import draw_latents
from serving.contract.manifest import Manifest
from serving.contract.recipe import Recipe
from serving.contract.tensors import ALPHA, DIRECTION
from serving.errors import InvalidEdit, RequestFailed

Arrays = Mapping[str, NDArray[Any]]
TURNS = 5  # descriptions that one request may go by, while a server turns from version to version


@dataclass(frozen=True)
class Subject:
    """Whose picture is edited, and where the edits may reach; the fields are `EditClient.edit`'s arguments."""

    seed: int | None = None
    z: ArrayLike | None = None
    w: ArrayLike | None = None
    layers: Sequence[int] | None = None
    class_id: int | None = None
    class_name: str | None = None
    photo: Source | Inverted | None = None
    keep: bool = False

    def codes(self, manifest: Manifest) -> NDArray[np.float32]:
        """Draw or check the codes: [N, D], or [N, L, D] for `w+`.

        Raises:
            InvalidEdit: None or several are given, or they are not what the model takes; or it is no editor.
        """
        check_editor(manifest)
        if sum(given is not None for given in (self.seed, self.z, self.w, self.photo)) != 1:
            raise InvalidEdit("give either a seed or z (or w, for a model that takes w), or a photo")
        latent = manifest.latent
        if self.photo is not None:
            assert isinstance(self.photo, Inverted)  # the client finds its code first
            if not manifest.preview_of:  # whose full model was looked at
                check_same_encoder(self.photo, manifest)
            return check_latents(manifest, self.photo.codes)
        if self.keep:
            raise InvalidEdit("keep needs a photo whose pixels are kept")
        if self.seed is not None:
            return draw_latents(latent, self.seed)
        if (self.w is not None) != (latent.tensor == "w"):
            brought = "w" if self.w is not None else "z"
            raise InvalidEdit(
                f"this model takes {latent.input}, got {brought}; export with --latent-input {brought} for such codes"
            )
        codes = self.z if self.w is None else self.w
        assert codes is not None
        return check_latents(manifest, codes)


@dataclass(frozen=True)
class Request:
    """Checked arrays by input name, and how to ask for the same again."""

    arrays: Arrays
    recipe: Recipe | None
    photo: Inverted | None = None
    keep: bool = False

    def of_photo(self, photo: Inverted, keep: bool) -> Request:
        """Return the request as one of a photo.

        Args:
            photo: Whose code the rows are of.
            keep: Ask for the unedited picture too, as the first row; the recipe is of the others.
        """
        arrays = dict(self.arrays)
        if keep:
            arrays = {name: np.concatenate([rows[:1], rows]) for name, rows in arrays.items()}
            arrays[ALPHA][0] = 0
        recipe = None if self.recipe is None else replace(self.recipe, photo=photo.record(keep))
        return Request(arrays, recipe, photo, keep)

    def finish(self, images: NDArray[np.uint8], model: str, with_recipe: bool = True) -> Edited:
        """Make of the drawn pictures what was asked for.

        Args:
            images: [N, H, W, 3]; with `keep` the first one is unedited.
            model: The name under which the model is served.
            with_recipe: Whether the pictures tell how they were made.
        """
        recipe = self.recipe.made_by(model) if self.recipe is not None and with_recipe else None
        if not self.keep:
            return Edited(images, recipe, self.photo)
        assert self.photo is not None
        from serving.contract.photo.keep import keep_unedited

        unedited, edited = images[0], images[1:]
        shape = edited.shape
        original = np.broadcast_to(self.photo.sized((shape[1], shape[2])), shape)
        kept = keep_unedited(original, np.broadcast_to(unedited, shape), edited)
        return Edited(kept, recipe, self.photo, unedited)

    def parts(self, description: Description) -> Iterator[tuple[int, Arrays]]:
        """Cut it into requests of at most the model's batch size, each with the number of its first row."""
        rows = len(next(iter(self.arrays.values())))
        step = description.max_batch_size or rows
        for start in range(0, rows, step):
            yield start, {name: array[start : start + step] for name, array in self.arrays.items()}


def edit_request(manifest: Manifest, subject: Subject, edits: Mapping[int | str, Strength] | None) -> Request:
    """Apply edits, all together, to each code of the subject.

    Raises:
        InvalidEdit: Something is out of range.
    """
    codes = subject.codes(manifest)  # [N, D] or [N, L, D]
    direction, alpha = edit_arrays(manifest, {} if edits is None else edits, subject.layers)  # [M], [M, L]
    rows = len(codes)
    directions = np.broadcast_to(direction, (rows, *direction.shape))  # [N, M]
    alphas = np.broadcast_to(alpha, (rows, *alpha.shape))  # [N, M, L]
    return _request(manifest, subject, codes, codes, directions, alphas, dict(edits or {}))


def sweep_request(manifest: Manifest, subject: Subject, direction: int | str, alphas: Sequence[Strength]) -> Request:
    """Walk along one direction from the subject's only code.

    Raises:
        InvalidEdit: Something is out of range.
    """
    if (
        not isinstance(alphas, Sequence | np.ndarray)
        or isinstance(alphas, str | bytes)
        or getattr(alphas, "ndim", 1) == 0
    ):
        raise InvalidEdit(f"alphas must be a list of strengths, got {shown(alphas)}", field="alpha")
    if len(alphas) == 0:
        raise InvalidEdit("alphas must hold at least one number")
    return walk_request(manifest, subject, [{direction: alpha} for alpha in alphas])


def walk_request(manifest: Manifest, subject: Subject, steps: Sequence[Mapping[int | str, Strength]]) -> Request:
    """Draw the subject's only code at each step: several edits, all together, of the same keys at every step.

    Raises:
        InvalidEdit: Something is out of range.
    """
    code = subject.codes(manifest)
    if len(code) != 1:
        raise InvalidEdit(f"a sweep takes one code, got {len(code)}")
    rows = [edit_arrays(manifest, edits, subject.layers) for edits in steps]
    directions = np.stack([row[0] for row in rows])  # [N, M]
    strengths = np.stack([row[1] for row in rows])  # [N, M, L]
    codes = np.repeat(code, len(rows), axis=0)
    walked = {key: [edits[key] for edits in steps] for key in steps[0]}
    return _request(manifest, subject, code, codes, directions, strengths, walked)


def rows_request(
    manifest: Manifest, codes: ArrayLike, direction: ArrayLike, alpha: ArrayLike, class_id: ArrayLike | None
) -> Request:
    """Take rows as they are.

    Raises:
        InvalidEdit: A shape is wrong or a row out of range, or the model is no editor.
    """
    check_editor(manifest)
    arrays = check_rows(manifest, codes, direction, alpha, class_id)
    warn_outside(manifest, arrays[DIRECTION], arrays[ALPHA])
    return Request(arrays, Recipe.of(manifest, arrays, None, arrays[manifest.latent.tensor], None, None))


def check_editor(manifest: Manifest) -> None:
    """Check that a model takes codes and edits.

    Raises:
        InvalidEdit: It takes photos: an encoder, or an ensemble.
    """
    editor = manifest.encoder_of or manifest.photo_of
    if editor:
        kind = "the encoder" if manifest.encoder_of else "the ensemble for photos"
        raise InvalidEdit(f"model {manifest.name!r} is {kind} of {editor!r}: ask that, it edits photos too")


def encode_request(framed: Framed) -> Request:
    """Ask an encoder for the code of one photo."""
    return Request(framed.plan_arrays(), None)


Plan = Callable[[Manifest], Request]
"""Resolves what was asked for; called again with the new manifest if the server turned to another version."""


def unsettled(model: str) -> RequestFailed:
    """Say that no manifest was of the version that drew."""
    return RequestFailed(
        f"the versions of {model!r} that describe themselves and that draw are not the same, {TURNS} times in a row: "
        "is it served in several versions behind one address?"
    )


def check_answer(manifest: Manifest, arrays: Arrays, start: int, answer: Answer) -> NDArray[Any]:
    """Check what the server sent for some rows.

    Args:
        manifest: The served editor, or its encoder.
        arrays: What was sent.
        start: Number of its first row within the caller's rows.
        answer: What came back.

    Returns:
        The pictures [N, H, W, 3], or the code of an encoder.

    Raises:
        InvalidEdit: The server refused a row.
        RequestFailed: The answer has a wrong shape or type.
        PhotoError: The encoder found no code.
    """
    if manifest.encoder_of:
        return check_code(manifest, answer.outputs[0])
    images, valid = answer.outputs
    rows = len(arrays[DIRECTION])
    wanted = (rows, *manifest.generator.size, 3)
    if images.dtype != np.uint8 or images.shape != wanted:
        got = f"{images.dtype} of shape {list(images.shape)}"
        raise RequestFailed(f"the server answered with pictures as {got}, expected uint8 of shape {list(wanted)}")
    if valid.dtype != np.bool_ or valid.size != rows:
        got = f"{valid.dtype} of shape {list(valid.shape)}"
        raise RequestFailed(f"the server marked {rows} rows with {got}, expected as many truth values")
    refused = np.flatnonzero(~valid.reshape(-1))
    if len(refused):
        index, count, most = int(refused[0]), manifest.directions.count, manifest.directions.max_edits
        bound = "" if most is None else f", of which there may be at most {most}"
        raise InvalidEdit(
            f"row {start + index}: the server refused it; codes and alpha must be finite and direction in "
            f"[0, {count}){bound}, got direction {arrays[DIRECTION][index].tolist()} and alpha "
            f"{arrays[ALPHA][index].tolist()}",
            row=start + index,
            limits=(0, count),
        )
    return images


def _request(
    manifest: Manifest,
    subject: Subject,
    given: NDArray[np.float32],
    codes: NDArray[np.float32],
    directions: NDArray[np.int64],
    alphas: NDArray[np.float32],
    edits: Mapping[int | str, Any],
) -> Request:
    number = resolve_class(manifest, subject.class_id, subject.class_name)
    classes = None if number is None else np.full(len(codes), number)
    arrays = check_rows(manifest, codes, directions, alphas, classes)
    warn_outside(manifest, arrays[DIRECTION], arrays[ALPHA], list(edits) or [0])
    brought = given if subject.seed is None else None
    layers = None if subject.layers is None else list(subject.layers)
    recipe = Recipe.of(manifest, arrays, subject.seed, brought, edits, layers)
    request = Request(arrays, recipe)
    return request.of_photo(subject.photo, subject.keep) if isinstance(subject.photo, Inverted) else request
