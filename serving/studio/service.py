"""What the studio does, without HTTP: requests -> arrays -> pictures, and the catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.client.alpha_range import telling
from serving.client.client import EditClient
from serving.client.edited import Edited
from serving.client.requests import Plan, Request, rows_request
from serving.contract.edits import layer_strengths, resolve_class, resolve_edit
from serving.contract.errors import CatalogError
from serving.contract.latents import draw_latents
from serving.contract.manifest import Manifest
from serving.contract.manifest import NamedEdit as Named
from serving.errors import InvalidEdit
from serving.studio.backend import Backend
from serving.studio.models import (
    ClassInfo,
    DirectionEdit,
    DirectionTarget,
    Edit,
    GalleryRequest,
    ImageRequest,
    ModelInfo,
    NamedEdit,
    NamedInfo,
    NamedTarget,
    SaveRequest,
    SweepRequest,
)
from serving.studio.names import Held, Names
from serving.studio.pictures import check_size

Strengths = dict[int, NDArray[np.float32]]
"""Alphas [L] by direction index."""


class Service:
    """The studio's work; threads may share it."""

    def __init__(self, backend: Backend, names: Names) -> None:
        """Put the parts together.

        Args:
            backend: The served model.
            names: The named edits.
        """
        self.backend = backend
        self.names = names

    def manifest(self) -> Manifest:
        """What the model says of itself.

        Raises:
            ServingError: It cannot be asked.
        """
        return self.backend.ask(lambda client: client.manifest)

    def describe(self) -> ModelInfo:
        """Describe the model and its named edits for the page.

        Raises:
            ServingError: The model cannot be asked.
        """
        manifest = self.manifest()
        try:
            held, problems = self.names.for_model(manifest)
        except CatalogError as error:  # the pictures work without it
            held, problems = {name: Held(edit, "model", False) for name, edit in manifest.edits.items()}, [str(error)]
        classes = manifest.generator.classes
        default = None
        if classes is not None and classes.default:
            default = ClassInfo(id=classes.default[0], name=classes.names[classes.default[0]])
        return ModelInfo(
            name=manifest.name,
            generator=manifest.generator.name,
            resolution=manifest.generator.resolution,
            random_weights=manifest.generator.random_weights,
            weights_sha256=manifest.generator.weights_sha256,
            directions=manifest.directions.count,
            layers=manifest.latent.layers,
            default_layers=list(manifest.directions.layers),
            alpha_range=list(manifest.directions.alpha_range),
            class_count=0 if classes is None else len(classes.names),
            default_class=default,
            edits=[_named(name, one) for name, one in held.items()],
            names_writable=self.names.writable,
            names_note=self.names.note,
            problems=problems,
        )

    def search_classes(self, query: str, limit: int) -> list[ClassInfo]:
        """Find classes by number or by part of their name; those that begin with it come first.

        Args:
            query: What was typed; empty finds the first classes.
            limit: The most to return.

        Raises:
            ServingError: The model cannot be asked.
        """
        classes = self.manifest().generator.classes
        names = () if classes is None else classes.names
        wanted = query.strip().casefold()
        found = [
            (not name.casefold().startswith(wanted), number)
            for number, name in enumerate(names)
            if wanted in name.casefold() or wanted == str(number)
        ]
        return [ClassInfo(id=number, name=names[number]) for _, number in sorted(found)[:limit]]

    def image(self, request: ImageRequest) -> Edited:
        """Draw one picture, with the recipe of its seed.

        Raises:
            InvalidEdit: Something is out of the model's range.
            ServingError: The model cannot be asked.
        """

        def plan(manifest: Manifest) -> Request:
            check_size(1, manifest.generator.resolution, request.scale)
            row = self.strengths(manifest, request.edits, self._named(manifest, request.edits))
            return _rows(manifest, [request.seed], [row], request.class_id)

        return _of_seed(self._draw(plan), request.seed, _asked(request.edits))

    def gallery(self, request: GalleryRequest) -> Edited:
        """Draw several seeds with the same edits, one picture each.

        Raises:
            InvalidEdit: Something is out of the model's range.
            ServingError: The model cannot be asked.
        """

        def plan(manifest: Manifest) -> Request:
            check_size(len(request.seeds), manifest.generator.resolution, request.scale)
            row = self.strengths(manifest, request.edits, self._named(manifest, request.edits))
            return _rows(manifest, request.seeds, [row] * len(request.seeds), request.class_id)

        return self._draw(plan)

    def sweep(self, request: SweepRequest) -> Edited:
        """Draw one seed at each of N strengths of one edit, with the recipe of its seed.

        Raises:
            InvalidEdit: Something is out of the model's range.
            ServingError: The model cannot be asked.
        """
        walks = [[*request.edits, _with_alpha(request.walk, alpha)] for alpha in request.alphas]

        def plan(manifest: Manifest) -> Request:
            # The frames of a gif lie behind one another, but all of them are in memory.
            check_size(len(walks), manifest.generator.resolution, request.scale)
            named = self._named(manifest, walks[0])  # once: a file that changes meanwhile must not change some rows
            rows = [self.strengths(manifest, edits, named) for edits in walks]
            return _rows(manifest, [request.seed] * len(rows), rows, request.class_id)

        walked = {_key(request.walk): list(request.alphas)}
        return _of_seed(self._draw(plan), request.seed, {**_asked(request.edits), **walked})

    def code_strengths(self, request: ImageRequest) -> tuple[Strengths, tuple[int, ...]]:
        """Resolve the edits of a picture, for code that makes it; also where directions act by default.

        Raises:
            ServingError: As `image`.
        """
        manifest = self.manifest()
        row = self.strengths(manifest, request.edits, self._named(manifest, request.edits))
        return row, manifest.directions.layers

    @staticmethod
    def strengths(manifest: Manifest, edits: Sequence[Edit], named: Mapping[str, Named]) -> Strengths:
        """Turn edits into alphas [L] by direction.

        Edits of one direction are added: the contract says p + sum of alpha * d(p), with d taken at p itself.

        Args:
            manifest: The served editor.
            edits: What was asked for.
            named: The named edits.

        Raises:
            InvalidEdit: A direction, a layer or a name does not exist.
        """
        total: Strengths = {}
        for edit in edits:
            if isinstance(edit, NamedEdit):
                known = named.get(edit.name)
                if known is None:
                    raise InvalidEdit(f"unknown edit {edit.name!r}: neither the model nor its run has it")
            else:
                known = resolve_edit(manifest, edit.direction)
            alphas = known.sign * layer_strengths(manifest, edit.alpha, known.layers, edit.layers)  # [L]
            total[known.direction] = total[known.direction] + alphas if known.direction in total else alphas
        return total

    def save(self, name: str, request: SaveRequest) -> NamedInfo:
        """Keep an edit under a name.

        Raises:
            InvalidEdit: It does not exist in this model, or its range is empty.
            NameTaken: The name means something else now, and the request does not say to move it.
            CatalogError: Names cannot be given here, or a file cannot be written.
            ServingError: The model cannot be asked.
        """
        manifest = self.manifest()
        direction = resolve_edit(manifest, request.direction).direction
        low, high = request.alpha
        if not low < high:
            raise InvalidEdit(f"alpha must be [low, high] with low < high, got {request.alpha}")
        layer_strengths(manifest, 1.0, request.layers, request.layers or None)  # refuses a layer that is not there
        layers = sorted(set(request.layers))
        if layers == sorted(set(manifest.directions.layers or range(manifest.latent.layers))):
            layers = []  # where directions act anyway
        edit = Named(direction, tuple(layers), (low, high), " ".join(request.note.split()))
        self.names.save(manifest, name, edit, request.move)
        return _named(name, self.names.for_model(manifest)[0][name])

    def remove(self, name: str) -> None:
        """Take a name away; `restore` gives it back.

        Raises:
            UnknownName: No such name can be changed here.
            ServingError: A file cannot be written, or the model cannot be asked.
        """
        self.names.remove(self.manifest(), name)

    def restore(self, name: str) -> NamedInfo:
        """Give back a name that was removed, exactly as it was.

        Raises:
            UnknownName: None of that name was removed here.
            NameTaken: It was given anew meanwhile.
            ServingError: A file cannot be written, or the model cannot be asked.
        """
        manifest = self.manifest()
        self.names.restore(manifest, name)
        return _named(name, self.names.for_model(manifest)[0][name])

    def _named(self, manifest: Manifest, edits: Sequence[Edit]) -> dict[str, Named]:
        """Read the named edits once for a request; none if it names none.

        Raises:
            CatalogError: The catalog file cannot be read.
        """
        if not any(isinstance(edit, NamedEdit) for edit in edits):
            return {}
        return {name: held.edit for name, held in self.names.for_model(manifest)[0].items()}

    def _draw(self, plan: Plan) -> Edited:
        """Draw what a plan makes of the manifest, by one and the same version of the model."""

        def question(client: EditClient) -> Edited:
            with telling(None):  # the page shows each slider's range
                return client.send(plan)

        return self.backend.ask(question)


def _rows(manifest: Manifest, seeds: Sequence[int], rows: Sequence[Strengths], class_id: int | None) -> Request:
    """Ask for one picture for each seed and its strengths; all rows have the same directions."""
    number = resolve_class(manifest, class_id, None)
    codes = np.concatenate([draw_latents(manifest.latent, seed) for seed in seeds])  # [N, D]
    blank = {0: np.zeros(manifest.latent.layers, np.float32)}  # no edit
    filled = [row or blank for row in rows]
    direction = np.array([list(row) for row in filled], np.int64)  # [N, M]
    alpha = np.array([list(row.values()) for row in filled], np.float32)  # [N, M, L]
    classes = None if number is None else np.full(len(codes), number)
    return rows_request(manifest, codes, direction, alpha, classes)


def _named(name: str, held: Held) -> NamedInfo:
    edit = held.edit
    return NamedInfo(
        name=name,
        direction=edit.direction,
        layers=list(edit.layers),
        alpha=list(edit.alpha),
        note=edit.note,
        source="catalog" if held.source == "catalog" else "model",
        removable=held.removable,
    )


def _with_alpha(target: DirectionTarget | NamedTarget, alpha: float) -> Edit:
    if isinstance(target, NamedTarget):
        return NamedEdit(name=target.name, layers=target.layers, alpha=alpha)
    return DirectionEdit(direction=target.direction, layers=target.layers, alpha=alpha)


def _key(edit: DirectionTarget | NamedTarget) -> str:
    return edit.name if isinstance(edit, NamedTarget) else str(edit.direction)


def _asked(edits: Sequence[Edit]) -> dict[str, Any]:
    """The edits as they were asked for, for people who read a recipe; what counts are its resolved rows."""
    asked: dict[str, list[Any]] = {}
    for edit in edits:
        layers = {} if edit.layers is None else {"layers": edit.layers}
        asked.setdefault(_key(edit), []).append({"alpha": edit.alpha, **layers} if layers else edit.alpha)
    return {key: given[0] if len(given) == 1 else given for key, given in asked.items()}


def _of_seed(drawn: Edited, seed: int, edits: dict[str, Any]) -> Edited:
    """Say that the codes were a seed's draw, so that the picture is made again without them."""
    return drawn if drawn.recipe is None else replace(drawn, recipe=drawn.recipe.of_seed(seed, edits))
