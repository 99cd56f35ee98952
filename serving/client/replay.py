"""Make pictures again from their recipe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from serving.client.alpha_range import telling
from serving.client.client import EditClient
from serving.client.edited import Edited
from serving.client.requests import Request, rows_request
from serving.contract.edits import check_latents
from serving.contract.latents import draw_latents
from serving.contract.manifest import Manifest
from serving.contract.recipe import Recipe, codes_sha256
from serving.errors import InvalidEdit


def replay(client: EditClient, recipe: Recipe, codes: ArrayLike | None = None, *, force: bool = False) -> Edited:
    """Ask for the pictures of a recipe again.

    The same model files on the same engine and machine give the same pixels; what another batch or another processor
    changes is one step of 255 at most.

    Args:
        client: Talks to the model.
        recipe: How the pictures were made.
        codes: The codes, if the recipe is not of a seed.
        force: Go on if the served model is another one.

    Returns:
        The N pictures.

    Raises:
        InvalidEdit: The model is another one, the pictures are too large, or the codes are missing or others.
        ServingError: The server cannot answer.
    """

    def plan(manifest: Manifest) -> Request:
        if not force:
            recipe.check_model(manifest)
        recipe.check_size(manifest.generator.size)
        if recipe.seed is not None:
            if codes is not None:
                raise InvalidEdit(f"the picture is of seed {recipe.seed}: give no codes")
            given = draw_latents(manifest.latent, recipe.seed)  # [1, D]
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
        return rows_request(manifest, spread, recipe.direction, recipe.alpha, recipe.class_id)

    with telling(None):  # whoever made the picture was told
        again = client.send(plan)
    assert again.recipe is not None
    model, made = again.recipe.model, again.recipe
    kept = replace(recipe, model=model, files_sha256=made.files_sha256, weights_sha256=made.weights_sha256, codes=None)
    return Edited(again.images, kept)
