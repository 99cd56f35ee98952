"""A client for a served editor.

    with EditClient("127.0.0.1:8001") as client:
        client.edit(seed=7, edits={3: 4.0}).save("edited.png")

It needs only the address: the model describes itself (see `serving.contract.manifest`). `async_client` has the same
for asyncio, `latest` a mode for sliders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serving.client.address import Address, parse_address
from serving.client.beside import ENCODER, PREVIEW
from serving.client.connection import Connection, Transport
from serving.client.description import Description
from serving.client.edited import Edited
from serving.client.photos import (
    AUTO,
    Framed,
    Inverted,
    OtherEncoder,
    PhotoMemory,
    Source,
    check_same_encoder,
    found_again,
)
from serving.client.requests import (
    TURNS,
    Plan,
    Request,
    Subject,
    check_answer,
    edit_request,
    encode_request,
    rows_request,
    sweep_request,
    unsettled,
)
from serving.contract.edits import Strength
from serving.contract.layout import DEFAULT_MODEL, encoder_of, preview_of
from serving.contract.manifest import Manifest
from serving.contract.photo.crop import Crop
from serving.errors import InvalidEdit, ModelUnavailable, NoEncoder, NoPreview, ServingError

__all__ = ["EditClient", "Edited"]


class EditClient:
    """Sends edits to one served editor over connections that are kept open; threads may share it."""

    def __init__(
        self,
        url: str = "127.0.0.1:8001",
        model: str = DEFAULT_MODEL,
        timeout: float = 30.0,
        *,
        protocol: str | None = None,
        retries: int = 3,
        shared_memory: bool | str = "auto",
    ) -> None:
        """Describe the connection; nothing is sent until it is used.

        Args:
            url: `host:port` of Triton's gRPC interface, or `http://host:port` of its HTTP interface.
            model: Name of the served model.
            timeout: Seconds to wait for each answer, further attempts included.
            protocol: `grpc` or `http`, where the url does not say.
            retries: Further attempts while the server is unavailable, with growing pauses; nothing else is repeated.
            shared_memory: Let pictures come through this machine's shared memory: "auto" (if the server can, and the
                answer is large), True (it must) or False. gRPC only.

        Raises:
            ServingError: One of them is out of range.
        """
        address = parse_address(url, protocol)
        transport = _transport(address, shared_memory)
        self._model = model
        self._connection = Connection(transport, address, model, timeout, retries)
        self._preview = Connection(transport, address, preview_of(model), timeout, retries)
        self._encoder = Connection(transport, address, encoder_of(model), timeout, retries)
        self._photos = PhotoMemory()

    @property
    def manifest(self) -> Manifest:
        """What the model says about itself; asked for once, and again when another version answers.

        Raises:
            ServerUnavailable: No server answers.
            ModelUnavailable: The server has no such model, or it is not ready.
            ManifestError: The model has no manifest that this client understands.
        """
        return self._connection.describe().manifest

    @property
    def description(self) -> Description:
        """How the server has the model configured: its engine, versions and batch size; asked for as the manifest is.

        Raises:
            ServingError: As `manifest`.
        """
        return self._connection.describe()

    def refresh(self) -> Manifest:
        """Ask the model again what it is, to see a version that was published meanwhile.

        Raises:
            ServingError: As `manifest`.
        """
        self._connection.forget()
        return self.manifest

    def edit(
        self,
        seed: int | None = None,
        edits: Mapping[int | str, Strength] | None = None,
        *,
        z: ArrayLike | None = None,
        w: ArrayLike | None = None,
        photo: Source | Inverted | None = None,
        keep: bool = False,
        layers: Sequence[int] | None = None,
        class_id: int | None = None,
        class_name: str | None = None,
        timeout: float | None = None,
    ) -> Edited:
        """Apply edits, all together, to one seed or to each given code.

        Args:
            seed: The picture to edit, in [0, 2**32); or give `z` or `w`, whichever the model takes.
            edits: Strength (a number, or one for each of the L layers) by direction index or edit name. A named edit
                brings its own layers. Without edits, the unedited picture.
            z: Codes [N, D] or [D] instead of a seed.
            w: Codes from GAN inversion for a model exported with `--latent-input w` ([N, D] or [D]) or `w+` ([N, L, D]
                or [L, D]).
            photo: A photo instead of a seed: a path, a file's content, a picture of Pillow's, pixels, or what `invert`
                returned, which costs nothing more.
            keep: Of a photo, draw only what the edit changes, and keep the photo's own pixels elsewhere.
            layers: Latent inputs at which the edits act; narrows a named edit to these. By default a direction acts
                where the run was trained to (`manifest.directions.layers`, its `feed_layers`).
            class_id: Class number, for conditional generators; their default if not given.
            class_name: The same by name.
            timeout: Seconds to wait for each answer, instead of the client's.

        Returns:
            N pictures (one for a seed).

        Raises:
            InvalidEdit: Something is out of range; the message says what and which range.
            ServingError: The server cannot answer; see `manifest`.
        """
        subject = Subject(seed, z, w, layers, class_id, class_name, photo, keep)
        return self.send_subject(subject, lambda its: lambda manifest: edit_request(manifest, its, edits), timeout)

    def preview(
        self,
        seed: int | None = None,
        edits: Mapping[int | str, Strength] | None = None,
        *,
        z: ArrayLike | None = None,
        w: ArrayLike | None = None,
        photo: Source | Inverted | None = None,
        keep: bool = False,
        layers: Sequence[int] | None = None,
        class_id: int | None = None,
        class_name: str | None = None,
        timeout: float | None = None,
    ) -> Edited:
        """Do as `edit`, smaller and sooner: for while a slider moves.

        The model must have been exported with `--preview PIXELS`; `manifest.preview` tells the size. The pictures carry
        no recipe. Nothing else is drawn instead: who would rather wait than go without catches `NoPreview`.

        Args:
            seed: As in `edit`.
            edits: As in `edit`.
            z: As in `edit`.
            w: As in `edit`.
            photo: As in `edit`.
            keep: As in `edit`.
            layers: As in `edit`.
            class_id: As in `edit`.
            class_name: As in `edit`.
            timeout: Seconds to wait for each answer, instead of the client's.

        Returns:
            N pictures of the preview's size.

        Raises:
            NoPreview: The model has no preview, or the server does not serve it.
            InvalidEdit: Something is out of range.
            ServingError: The server cannot answer; see `manifest`.
        """
        subject = Subject(seed, z, w, layers, class_id, class_name, photo, keep)
        return self.send_subject(
            subject, lambda its: lambda manifest: edit_request(manifest, its, edits), timeout, small=True
        )

    def sweep(
        self,
        seed: int | None = None,
        direction: int | str = 0,
        alphas: Sequence[Strength] = (-6, -3, 0, 3, 6),
        *,
        z: ArrayLike | None = None,
        w: ArrayLike | None = None,
        photo: Source | Inverted | None = None,
        keep: bool = False,
        layers: Sequence[int] | None = None,
        class_id: int | None = None,
        class_name: str | None = None,
        timeout: float | None = None,
    ) -> Edited:
        """Walk along one direction, in one batched request.

        Args:
            seed: The picture to edit; or give `z` or `w`.
            direction: Direction index or edit name.
            alphas: The strengths, at least one.
            z: One code, [D] or [1, D], instead of a seed.
            w: One code from GAN inversion, as in `edit`.
            photo: As in `edit`.
            keep: As in `edit`.
            layers: Latent inputs at which the edit acts, as in `edit`.
            class_id: Class number, for conditional generators.
            class_name: The same by name.
            timeout: Seconds to wait for each answer, instead of the client's.

        Returns:
            One picture for each alpha, in order.

        Raises:
            InvalidEdit: Something is out of range.
            ServingError: The server cannot answer; see `manifest`.
        """
        subject = Subject(seed, z, w, layers, class_id, class_name, photo, keep)
        return self.send_subject(
            subject, lambda its: lambda manifest: sweep_request(manifest, its, direction, alphas), timeout
        )

    def invert(
        self,
        photo: Source,
        *,
        align: str | Crop = AUTO,
        face: int | None = None,
        timeout: float | None = None,
    ) -> Inverted:
        """Find the code of a photo, for `edit(photo=...)`, `sweep` and `preview`; asked for once for each photo.

        The model must have been exported with `--with-encoder`. The photo goes to the server as the model's own size.

        Args:
            photo: A path, a file's content, a picture of Pillow's, or pixels [h, w, 3] uint8.
            align: `auto` lays a face where the model has its own, if it draws faces and the extra `faces` is installed,
                and takes the middle otherwise; `centre` takes the middle; or the crop.
            face: Which of several faces, from left to right, from 0 on.
            timeout: Seconds to wait for each answer, instead of the client's.

        Returns:
            The code and the photo.

        Raises:
            NoEncoder: The model has no encoder, or the server does not serve it.
            PhotoError: It is no photo, too large, or shows no face or several.
            ServingError: The server cannot answer; see `manifest`.
        """
        full = self._full(ENCODER.had_by, timeout)
        ENCODER.check_had(full, self._model)
        framed = self._photos.frame(full, photo, align, face)
        codes = self._photos.code(framed, full)
        if codes is None:
            codes, full = self._encode(framed, timeout)
            codes = self._photos.keep(framed, full, codes)
        return framed.inverted(codes, full)

    def edit_rows(
        self,
        z: ArrayLike,
        direction: ArrayLike,
        alpha: ArrayLike,
        class_id: ArrayLike | None = None,
        *,
        timeout: float | None = None,
    ) -> Edited:
        """Send rows as they are, in requests of at most the model's batch size.

        Args:
            z: Codes as the model takes them: z or w [N, D], w+ [N, L, D].
            direction: Direction indices [N, M].
            alpha: Strengths [N, M, L].
            class_id: Class numbers [N], for conditional generators only.
            timeout: Seconds to wait for each answer, instead of the client's.

        Returns:
            N pictures.

        Raises:
            InvalidEdit: A shape is wrong or a row out of range; the message names the row.
            ServingError: The server cannot answer; see `manifest`.
        """
        return self.send(lambda manifest: rows_request(manifest, z, direction, alpha, class_id), timeout)

    def send(self, plan: Plan, timeout: float | None = None) -> Edited:
        """Send what a plan makes of the manifest; resolved and drawn by one and the same version of the model.

        A server that polls turns to another version whenever one is published. Its answers then say so, and the
        request is planned anew with the new manifest.

        Args:
            plan: Makes the request, such as `lambda manifest: rows_request(manifest, z, direction, alpha, None)`.
            timeout: Seconds to wait for each answer, instead of the client's.

        Returns:
            The pictures; their recipe names the files that drew them.

        Raises:
            InvalidEdit: The plan found something out of range.
            ServingError: The server cannot answer; see `manifest`.
        """
        images, request, description = self._send(self._connection, plan, timeout)
        return request.finish(images, description.name)

    def send_preview(self, plan: Plan, timeout: float | None = None, photo: Inverted | None = None) -> Edited:
        """Send what a plan makes of the manifest to the model's preview; see `preview` and `send`.

        Args:
            plan: As in `send`.
            timeout: As in `send`.
            photo: Whose code the plan brings, if it is a photo's; it must be of the full model's encoder.

        Raises:
            NoPreview: The model has no preview, or the server does not serve it.
            ServingError: As `send`.
        """

        def paired(preview: Manifest) -> Request:
            full = self._full(lambda manifest: PREVIEW.is_of(preview, manifest), timeout)
            PREVIEW.check(preview, full, self._model)
            if photo is not None:
                check_same_encoder(photo, full)
            return plan(preview)

        PREVIEW.check_had(self._full(PREVIEW.had_by, timeout), self._model)
        try:
            images, request, description = self._send(self._preview, paired, timeout)
            return request.finish(images, description.name, with_recipe=False)
        except ModelUnavailable as error:
            raise PREVIEW.not_served(self._model, str(error)) from error

    def send_subject(
        self,
        subject: Subject,
        plan_of: Callable[[Subject], Plan],
        timeout: float | None = None,
        *,
        small: bool = False,
    ) -> Edited:
        """Find the code of a subject's photo, if it is one, and send; again if another encoder is served by now.

        Args:
            subject: Whose picture is edited.
            plan_of: Makes the plan of the subject with its photo's code; see `send`.
            timeout: As in `send`.
            small: Whether the model's preview draws; see `send_preview`.

        Raises:
            ServingError: As `invert`, and `send` or `send_preview`.
        """
        for _ in range(TURNS):
            photo = None if subject.photo is None else self._inverted(subject.photo, timeout)
            its = subject if photo is None else replace(subject, photo=photo)
            try:
                return self.send_preview(plan_of(its), timeout, photo) if small else self.send(plan_of(its), timeout)
            except OtherEncoder:  # and `send` has looked: the next description is of the newer version
                continue
        raise unsettled(self._model)

    def _inverted(self, photo: Source | Inverted, timeout: float | None) -> Inverted:
        """Return the code of a photo, which is found anew if it is of another encoder than the one described."""
        if not isinstance(photo, Inverted):
            return self.invert(photo, timeout=timeout)
        encoder = self._connection.describe(timeout).manifest.encoder
        if encoder is not None and encoder.sha256 == photo.encoder:
            return photo
        return found_again(photo, self.invert(photo.photo, align=photo.crop, timeout=timeout))

    def _encode(self, framed: Framed, timeout: float | None) -> tuple[NDArray[np.float32], Manifest]:
        """Ask the encoder that was published with the model; returns the code, and the full model's manifest."""
        full = self._full(ENCODER.had_by, timeout)

        def paired(encoder: Manifest) -> Request:
            nonlocal full
            full = self._full(lambda manifest: ENCODER.is_of(encoder, manifest), timeout)
            ENCODER.check(encoder, full, self._model)
            return encode_request(framed)

        try:
            return self._send(self._encoder, paired, timeout)[0], full
        except ModelUnavailable as error:
            raise ENCODER.not_served(self._model, str(error)) from error

    def _full(self, wanted: Callable[[Manifest], bool], timeout: float | None) -> Manifest:
        """Return the full model's manifest, asked for again if it is not as wanted: another may have been published."""
        description = self._connection.describe(timeout)
        if not wanted(description.manifest) and self._connection.outdated(description, timeout):
            description = self._connection.describe(timeout)
        return description.manifest

    def _send(
        self, connection: Connection, plan: Plan, timeout: float | None
    ) -> tuple[NDArray[Any], Request, Description]:
        for _ in range(TURNS):
            description = connection.describe(timeout)
            try:
                request = plan(description.manifest)
            except (InvalidEdit, NoEncoder, NoPreview):  # a version that was published since may know the name
                if not connection.outdated(description, timeout):
                    raise
                continue
            images = self._draw(connection, request, description, timeout)
            if images:
                return np.concatenate(images), request, description
        raise unsettled(description.name)

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def __enter__(self) -> EditClient:
        """Return the client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    @staticmethod
    def _draw(
        connection: Connection, request: Request, description: Description, timeout: float | None
    ) -> list[NDArray[Any]]:
        """Draw all parts of a request; nothing if another version than the one described drew one of them."""
        images = []
        for start, arrays in request.parts(description):
            answer = connection.infer(description, arrays, timeout)
            now = connection.drawn_by(description, answer)
            if now is None:
                return []
            description = now
            images.append(check_answer(description.manifest, arrays, start, answer))
        return images


def _transport(address: Address, shared_memory: bool | str) -> Transport:
    """Choose who speaks; the libraries of the other are not needed."""
    if not isinstance(shared_memory, bool) and shared_memory != "auto":
        raise ServingError(f'shared_memory must be True, False or "auto", got {shared_memory!r}')
    if address.protocol == "http":
        from serving.client.http_transport import HttpTransport

        if shared_memory is True:
            raise ServingError("shared_memory needs the gRPC interface")
        return HttpTransport(address)
    from serving.client.grpc_transport import GrpcTransport
    from serving.client.shared_memory import SMALLEST, Regions

    options: dict[str, Any] = {}
    if shared_memory is True or (shared_memory == "auto" and address.is_loopback):
        required = shared_memory is True
        options["regions"] = Regions(0 if required else SMALLEST, required)
    return GrpcTransport(address, **options)
