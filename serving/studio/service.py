"""What the studio does, without HTTP: requests -> arrays -> pictures, and the catalog."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.client.alpha_range import telling
from serving.client.edited import Edited
from serving.client.photos import CENTRE, Inverted
from serving.client.refine import MOST_NUMBERS
from serving.client.requests import Request, Subject, edit_request, rows_request, walk_request
from serving.contract.certificate import picture_psnr
from serving.contract.edits import edit_alphas, layer_strengths, resolve_class, resolve_edit
from serving.contract.errors import CatalogError
from serving.contract.latents import draw_latents
from serving.contract.manifest import Manifest
from serving.contract.manifest import NamedEdit as Named
from serving.errors import InvalidEdit, NoPreview
from serving.studio.backend import Backend
from serving.studio.models import (
    ClassInfo,
    DirectionEdit,
    DirectionInfo,
    DirectionTarget,
    Edit,
    Effect,
    GalleryRequest,
    ImageRequest,
    ModelInfo,
    NamedEdit,
    NamedInfo,
    NamedTarget,
    PhotoInfo,
    SaveRequest,
    SubjectRequest,
    SweepRequest,
    ThumbnailsRequest,
)
from serving.studio.names import Held, Names
from serving.studio.photos import HeldPhoto, Photos
from serving.studio.pictures import check_size
from serving.studio.snippets import PhotoCode, python_code
from serving.studio.thumbnails import Thumbnails, shrink

Strengths = dict[int | str, NDArray[np.float32]]
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
        self.photos = Photos()
        self._thumbnails = Thumbnails()

    def manifest(self) -> Manifest:
        """What the model says of itself.

        Raises:
            ServingError: It cannot be asked.
        """
        return self.backend.client.manifest

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
            width=manifest.generator.size[1],
            preview=manifest.preview.size[0] if manifest.preview else None,
            seeds=manifest.latent.input == "z",
            photos=manifest.encoder is not None,
            random_weights=manifest.generator.random_weights,
            weights_sha256=manifest.generator.weights_sha256,
            directions=manifest.directions.count,
            layers=manifest.latent.layers,
            default_layers=list(manifest.directions.layers),
            alpha_range=list(manifest.directions.alpha_range),
            scores=[
                DirectionInfo(
                    range=list(score.range),
                    twin_of=score.twin_of,
                    name=score.name,
                    top=[Effect(attribute=attribute, effect=effect) for attribute, effect in score.top],
                )
                for score in manifest.directions.scores
            ],
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
        """Draw one picture, with the recipe of its seed or photo.

        Raises:
            InvalidEdit: Something is out of the model's range.
            UnknownPhoto: The photo is not held.
            ServingError: The model cannot be asked.
        """
        if request.paste:
            if request.photo is None:
                raise InvalidEdit("paste needs a photo")
            check_size(1, self.photos.get(request.photo).inverted.photo.size, request.scale)

        def plan(manifest: Manifest, subject: Subject) -> Request:
            check_size(1, manifest.generator.size, request.scale)
            row = self._strengths(self._with_names(manifest, request.edits), request.edits)
            return edit_request(manifest, subject, row)

        drawn = self._draw(request, plan)
        return _asked(drawn.pasted() if request.paste else drawn, request.edits)

    def preview(self, request: ImageRequest) -> Edited:
        """Draw one picture small, while a slider moves; in full where the server has no preview.

        Raises:
            InvalidEdit: Something is out of the model's range.
            ServingError: The model cannot be asked.
        """

        def plan(manifest: Manifest, subject: Subject) -> Request:
            check_size(1, manifest.generator.size, request.scale)
            # Names are those of the full model: the studio may know more of them than the preview does.
            row = self._strengths(self._with_names(self.manifest(), request.edits), request.edits)
            return edit_request(manifest, subject, row)

        try:
            return self._draw(request, plan, small=True)
        except NoPreview:
            return replace(self.image(request.model_copy(update={"paste": False})), recipe=None)

    def gallery(self, request: GalleryRequest) -> Edited:
        """Draw several seeds with the same edits, one picture each; without a recipe, which has one seed.

        Raises:
            InvalidEdit: Something is out of the model's range.
            ServingError: The model cannot be asked.
        """

        def plan(manifest: Manifest) -> Request:
            check_size(len(request.seeds), manifest.generator.size, request.scale)
            row = self._strengths(self._with_names(manifest, request.edits), request.edits)
            codes = np.concatenate([draw_latents(manifest.latent, seed) for seed in request.seeds])  # [N, D]
            return edit_request(manifest, Subject(z=codes, class_id=request.class_id), row)

        with telling(None):  # the page shows each slider's range
            return replace(self.backend.client.send(plan), recipe=None)

    def sweep(self, request: SweepRequest) -> Edited:
        """Draw one seed or photo at each of N strengths of one edit, with its recipe.

        Raises:
            InvalidEdit: Something is out of the model's range.
            ServingError: The model cannot be asked.
        """
        walks = [[*request.edits, _with_alpha(request.walk, alpha)] for alpha in request.alphas]

        def plan(manifest: Manifest, subject: Subject) -> Request:
            check_size(len(walks), manifest.generator.size, request.scale, beside=request.format != "gif")
            named = self._with_names(manifest, walks[0])  # once: a file that changes must not change some rows
            rows = [self._strengths(named, edits) for edits in walks]
            return walk_request(manifest, subject, rows)

        return _asked(self._draw(request, plan), request.edits, {_key(request.walk): list(request.alphas)})

    def thumbnails(self, request: ThumbnailsRequest) -> NDArray[np.uint8]:
        """Draw one seed or photo with each of N edits alone, small: those that are not remembered in one batch.

        Returns:
            RGB pictures [N, H, W, 3], the longer side as asked for.

        Raises:
            InvalidEdit: Something is out of the model's range.
            ServingError: The model cannot be asked.
        """
        model = self.manifest()
        number = resolve_class(model, request.class_id, None)
        named = self._with_names(model, request.edits)
        edits = [edit_alphas(named, _key(edit), edit.alpha, edit.layers) for edit in request.edits]
        photo = None if request.photo is None else self.photos.get(request.photo).inverted
        its = (request.seed, None if photo is None else photo.codes.tobytes(), request.keep and request.photo)
        keys = [(its, number, request.side, direction, alphas.tobytes()) for direction, alphas in edits]
        known = self._thumbnails.known(model, keys)
        new = {key: edit for key, edit in zip(keys, edits, strict=True) if key not in known}
        if not new:
            return np.stack([known[key] for key in keys])
        asked: list[Manifest] = []

        def plan(manifest: Manifest, subject: Subject) -> Request:
            asked.append(manifest)
            codes = np.repeat(subject.codes(manifest), len(new), axis=0)  # [N, D]
            direction = [[direction] for direction, _ in new.values()]  # [N, 1]
            alpha = np.stack([alphas for _, alphas in new.values()])[:, None]  # [N, 1, L]
            rows = rows_request(manifest, codes, direction, alpha, None if number is None else [number] * len(new))
            return rows.of_photo(subject.photo, subject.keep) if isinstance(subject.photo, Inverted) else rows

        result = self._draw(request, plan)
        drawn = shrink(result.images, request.side)
        if asked[-1] != model or result.inverted is not photo:  # another version, whose names and pictures are its own
            return self.thumbnails(request)
        known |= dict(zip(new, drawn, strict=True))
        self._thumbnails.keep(model, {key: known[key] for key in new})
        return np.stack([known[key] for key in keys])

    def python_code(self, request: ImageRequest) -> str:
        """Write Python that makes a picture again.

        Raises:
            ServingError: As `image`.
        """
        manifest, photo = self.manifest(), None
        if request.photo is not None:
            held = self.photos.get(request.photo)
            photo = PhotoCode(held.face, held.inverted.how, held.inverted.refined)
        strengths = self._strengths(self._with_names(manifest, request.edits), request.edits)
        return python_code(self.backend.url, self.backend.model, request, strengths, manifest.directions.layers, photo)

    def add_photo(self, content: bytes, align: str, face: int | None) -> PhotoInfo:
        """Find the code of a photo, and hold both.

        Args:
            content: Of the photo's file.
            align: `auto` to look for a face where the model draws them, or `centre`.
            face: Which of its faces, from left to right, with `auto`.

        Raises:
            FaceError: There is no face, or several and none was chosen.
            PhotoError: It is no photo, or too large.
            InvalidEdit: There can be no choice of a face.
            NoEncoder: The model takes no photos.
            ServingError: The model cannot be asked.
        """
        client = self.backend.client
        with telling(None):
            found = client.invert(content, align=align, face=face)
            drawn = client.edit(photo=found)
        assert drawn.inverted is not None  # of another encoder, if one was published between the two
        its = drawn.inverted
        return _photo(self.photos.add(its, picture_psnr(its.picture, drawn.image), face))

    def photo(self, key: str) -> PhotoInfo:
        """Describe a photo.

        Raises:
            UnknownPhoto: It is not held.
        """
        return _photo(self.photos.get(key))

    def photo_picture(self, key: str) -> Edited:
        """Return what the model sees of a photo.

        Raises:
            UnknownPhoto: It is not held.
        """
        return Edited(self.photos.get(key).inverted.picture[None])

    def refine_photo(self, key: str) -> PhotoInfo:
        """Do one more step of refinement of a photo's code.

        Raises:
            UnknownPhoto: It is not held.
            InvalidEdit: Its code is too large for this.
            ServingError: The model cannot be asked.
        """
        held = self.photos.get(key)
        held.refine(self.backend.client)
        return _photo(held)

    def remove_photo(self, key: str) -> None:
        """Forget a photo."""
        self.photos.remove(key)

    def save(self, name: str, request: SaveRequest) -> NamedInfo:
        """Keep an edit under a name.

        Raises:
            InvalidEdit: It does not exist in this model, or its range is empty.
            NameTaken: The name means something else now, and the request does not say to move it.
            CatalogError: Names cannot be given here, or a file cannot be written; or the name went again meanwhile.
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
        edit = Named(direction, tuple(layers), (low, high), request.note, request.reverse)
        self.names.save(manifest, name, edit, request.move)
        return self._kept(manifest, name)

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
            CatalogError: It stands where it stood, but this model cannot carry it out.
            ServingError: A file cannot be written, or the model cannot be asked.
        """
        manifest = self.manifest()
        self.names.restore(manifest, name)
        return self._kept(manifest, name)

    def _kept(self, manifest: Manifest, name: str) -> NamedInfo:
        """Describe an edit that has just been written.

        Raises:
            CatalogError: It is not among those that the model can carry out.
        """
        held, problems = self.names.for_model(manifest)
        if name not in held:
            problem = next((line for line in problems if f" {name}: " in f" {line}"), "it was taken away again")
            raise CatalogError(f"{name} was written, but cannot be used: {problem}")
        return _named(name, held[name])

    def _with_names(self, manifest: Manifest, edits: Sequence[Edit]) -> Manifest:
        """The model with the names that this studio knows, read once for a request; not if it names none.

        Raises:
            CatalogError: The catalog file cannot be read.
        """
        if not any(isinstance(edit, NamedEdit) for edit in edits):
            return manifest
        return replace(manifest, edits={name: held.edit for name, held in self.names.for_model(manifest)[0].items()})

    @staticmethod
    def _strengths(manifest: Manifest, edits: Sequence[Edit]) -> Strengths:
        """Resolve edits; those of one direction are added, as p + sum of alpha * d(p) does."""
        total: Strengths = {}
        for edit in edits:
            direction, alphas = edit_alphas(manifest, _key(edit), edit.alpha, edit.layers)  # [L]
            total[direction] = total[direction] + alphas if direction in total else alphas
        return total

    def _draw(
        self, request: SubjectRequest, plan: Callable[[Manifest, Subject], Request], *, small: bool = False
    ) -> Edited:
        """Draw what a plan makes of the manifest and the subject, by one and the same version of the model."""
        held = None if request.photo is None else self.photos.get(request.photo)
        photo = None if held is None else held.inverted
        subject = Subject(request.seed, class_id=request.class_id, photo=photo, keep=request.keep)
        with telling(None):  # the page shows each slider's range
            drawn = self.backend.client.send_subject(subject, lambda its: partial(_planned, plan, its), small=small)
        if held is not None and photo is not None and drawn.inverted not in (None, photo):
            held.found_again(photo, drawn.inverted)
        return drawn


def _planned(plan: Callable[[Manifest, Subject], Request], subject: Subject, manifest: Manifest) -> Request:
    return plan(manifest, subject)


def _photo(held: HeldPhoto) -> PhotoInfo:
    its = held.inverted
    height, width = its.photo.size
    return PhotoInfo(
        photo=held.key,
        width=width,
        height=height,
        how="centre" if its.how == CENTRE else "face",
        psnr=held.psnr,
        refined=its.refined,
        refinable=its.codes.size <= MOST_NUMBERS,
    )


def _named(name: str, held: Held) -> NamedInfo:
    edit = held.edit
    return NamedInfo(
        name=name,
        direction=edit.direction,
        layers=list(edit.layers),
        alpha=list(edit.alpha),
        note=edit.note,
        reverse=edit.reverse,
        source="catalog" if held.source == "catalog" else "model",
        removable=held.removable,
    )


def _with_alpha(target: DirectionTarget | NamedTarget, alpha: float) -> Edit:
    if isinstance(target, NamedTarget):
        return NamedEdit(name=target.name, layers=target.layers, alpha=alpha)
    return DirectionEdit(direction=target.direction, layers=target.layers, alpha=alpha)


def _key(edit: DirectionTarget | NamedTarget) -> int | str:
    return edit.name if isinstance(edit, NamedTarget) else edit.direction


def _asked(drawn: Edited, edits: Sequence[Edit], walked: dict[int | str, Any] | None = None) -> Edited:
    """Let the recipe tell the edits as they were asked for, for people; what counts are its resolved rows."""
    asked: dict[str, list[Any]] = {}
    for edit in edits:
        layers = {} if edit.layers is None else {"layers": edit.layers}
        asked.setdefault(str(_key(edit)), []).append({"alpha": edit.alpha, **layers} if layers else edit.alpha)
    told = {key: given[0] if len(given) == 1 else given for key, given in asked.items()}
    told |= {str(key): alphas for key, alphas in (walked or {}).items()}
    return drawn if drawn.recipe is None else replace(drawn, recipe=replace(drawn.recipe, edits=told))
