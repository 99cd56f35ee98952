"""Make pictures again from their recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from serving.client.alpha_range import telling
from serving.client.client import EditClient
from serving.client.edited import Edited
from serving.client.photos import OfPhoto, of_photo
from serving.client.requests import Request, rows_request
from serving.contract.edits import check_latents
from serving.contract.latents import draw_latents
from serving.contract.manifest import Manifest
from serving.contract.recipe import Recipe, codes_sha256
from serving.errors import InvalidEdit

if TYPE_CHECKING:
    from serving.client.photos import Picture


def replay(
    client: EditClient,
    recipe: Recipe,
    codes: ArrayLike | None = None,
    *,
    photo: Picture | None = None,
    force: bool = False,
) -> Edited:
    """Ask for the pictures of a recipe again.

    The same model files on the same engine and machine give the same pixels; what another batch or another processor
    changes is one step of 255 at most.

    Args:
        client: Talks to the model.
        recipe: How the pictures were made.
        codes: The codes, if the recipe is not of a seed; of a photo only if they were refined.
        photo: The photo, if the recipe is of one.
        force: Go on if the served model is another one.

    Returns:
        The N pictures.

    Raises:
        InvalidEdit: The model is another one, the pictures are too large, or the codes or the photo are missing or
            others.
        PhotoError: The photo cannot be read.
        ServingError: The server cannot answer.
    """
    subject = _photo(recipe, photo, codes is not None)

    def plan(manifest: Manifest) -> Request:
        if not force:
            recipe.check_model(manifest)
        recipe.check_size(manifest.generator.size)
        if recipe.seed is not None:
            if codes is not None:
                raise InvalidEdit(f"the picture is of seed {recipe.seed}: give no codes")
            given = draw_latents(manifest.latent, recipe.seed)  # [1, D]
        elif subject is not None and codes is None:
            if recipe.photo is not None and not force:
                recipe.photo.check_encoder(manifest)
            given = check_latents(manifest, subject.inverted(manifest).codes)
        else:
            if codes is None:
                option = "--w" if recipe.latent_input != "z" else "--z"
                raise InvalidEdit(f"the picture is of codes, and holds only their hash: give their file with {option}")
            given = check_latents(manifest, codes)
            if codes_sha256(given) != recipe.codes_sha256:
                raise InvalidEdit(f"the codes are not those of the picture, whose SHA-256 is {recipe.codes_sha256}")
        rows = len(recipe)
        if len(given) not in (1, rows):
            raise InvalidEdit(f"there must be 1 or {rows} codes, got {len(given)}")
        spread = given if len(given) == rows else np.repeat(given, rows, axis=0)
        request = rows_request(manifest, spread, recipe.direction, recipe.alpha, recipe.class_id)
        return request.of_photo(manifest, subject)

    with telling(None):  # whoever made the picture was told
        again = client.send(plan)
    assert again.recipe is not None
    model, made = again.recipe.model, again.recipe
    kept = replace(recipe, model=model, files_sha256=made.files_sha256, weights_sha256=made.weights_sha256, codes=None)
    if recipe.photo is None or made.photo is None or again.inverted is None:
        return Edited(again.images, kept)
    photo_entry = replace(recipe.photo, encoder_sha256=made.photo.encoder_sha256)
    kept = replace(kept, photo=photo_entry, codes=again.inverted.codes if codes is None else None)
    again = Edited(again.images, kept, again.inverted)
    return again.pasted() if recipe.photo.pasted else again


def _photo(recipe: Recipe, photo: Picture | None, has_codes: bool) -> OfPhoto | None:
    """Check that the photo is the recipe's, and take it with the recipe's crop.

    Raises:
        InvalidEdit: It is missing, or another one; or the codes were refined and are missing.
        PhotoError: It cannot be read.
    """
    entry = recipe.photo
    if entry is None:
        if photo is not None:
            raise InvalidEdit("the picture is not of a photo: give no photo")
        return None
    if photo is None:
        raise InvalidEdit("the picture is of a photo, and holds only its hash: give its file with --photo")
    if entry.refined and not has_codes:
        raise InvalidEdit("the picture is of a photo's refined code, and holds only its hash: give its file too")
    subject = of_photo(photo, entry.crop, keep=entry.keep)
    if subject.photo.sha256 != entry.sha256:
        raise InvalidEdit(f"the photo is not that of the picture, whose SHA-256 is {entry.sha256}")
    return subject
