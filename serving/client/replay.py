"""Make pictures again from their recipe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from serving.client.alpha_range import telling
from serving.client.client import EditClient
from serving.client.edited import Edited
from serving.client.photos import Inverted, Source, check_same_encoder
from serving.client.refine import refined
from serving.client.requests import Request, rows_request
from serving.contract.edits import check_latents
from serving.contract.latents import draw_latents
from serving.contract.manifest import Manifest
from serving.contract.photo.reader import Photo, read_photo
from serving.contract.recipe import Recipe, codes_sha256
from serving.errors import InvalidEdit


def replay(
    client: EditClient,
    recipe: Recipe,
    codes: ArrayLike | None = None,
    *,
    photo: Source | None = None,
    force: bool = False,
) -> Edited:
    """Ask for the pictures of a recipe again.

    The same model files on the same engine and machine give the same pixels; what another batch or another processor
    changes is one step of 255 at most.

    Args:
        client: Talks to the model.
        recipe: How the pictures were made.
        codes: The codes, if the recipe is not of a seed or a photo.
        photo: The photo, if the recipe is of one; its code is found anew, and refined as often.
        force: Go on if the served model is another one.

    Returns:
        The N pictures.

    Raises:
        InvalidEdit: The model is another one, the pictures are too large, or codes or photo are missing or others.
        PhotoError: The photo cannot be read.
        ServingError: The server cannot answer.
    """
    inverted = _invert_again(client, recipe, codes, photo, force)
    keep = recipe.photo is not None and recipe.photo.keep

    def plan(manifest: Manifest) -> Request:
        if not force:
            recipe.check_model(manifest)
        recipe.check_size(manifest.generator.size)
        if recipe.seed is not None:
            if codes is not None:
                raise InvalidEdit(f"the picture is of seed {recipe.seed}: give no codes")
            given = draw_latents(manifest.latent, recipe.seed)  # [1, D]
        elif inverted is not None:
            check_same_encoder(inverted, manifest)
            given = check_latents(manifest, inverted.codes)
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
        return request if inverted is None else request.of_photo(inverted, keep)

    with telling(None):  # whoever made the picture was told
        again = client.send(plan)
    if recipe.photo is not None and recipe.photo.pasted:
        again = again.pasted()
    assert again.recipe is not None
    model, made = again.recipe.model, again.recipe
    kept = replace(recipe, model=model, files_sha256=made.files_sha256, weights_sha256=made.weights_sha256, codes=None)
    if inverted is None:
        return Edited(again.images, kept)
    assert recipe.photo is not None
    record = replace(recipe.photo, encoder=inverted.encoder)
    found = replace(kept, codes=inverted.codes, photo=record)  # what this server found, which need not be what was
    return Edited(again.images, found, inverted, again.reconstruction)


def _invert_again(
    client: EditClient, recipe: Recipe, codes: ArrayLike | None, source: Source | None, force: bool
) -> Inverted | None:
    """Find the code of a recipe's photo; None if it is of none, or its codes were brought."""
    record = recipe.photo
    if record is None:
        if source is not None:
            raise InvalidEdit("the picture is of no photo: give none")
        return None
    if source is None or codes is not None:
        raise InvalidEdit(
            "the picture is of a photo, and holds only its hash: give its file with --photo, and no codes"
        )
    if not force:
        recipe.check_model(client.manifest)
    photo = read_photo(source) if not isinstance(source, Photo) else source
    record.check_photo(photo)
    if record.pasted:
        recipe.check_size(photo.size)
    inverted = client.invert(photo, align=record.crop)
    if inverted.encoder != record.encoder and not force:
        raise InvalidEdit(
            f"the picture's code is of the encoder {record.encoder[:12]}, but {inverted.encoder[:12]} is served; "
            "--force makes it with this one"
        )
    return refined(client, inverted, record.refined) if record.refined else inverted
