"""The client for asyncio, over gRPC.

    async with AsyncEditClient("127.0.0.1:8001") as client:
        edited = await client.edit(seed=7, edits={3: 4.0})

Cancelling the task cancels the request: the server drops it if it still waits there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton
from numpy.typing import ArrayLike, NDArray
from tritonclient.utils import InferenceServerException

from serving.client.address import parse_address
from serving.client.beside import ENCODER, PREVIEW
from serving.client.connection import DOOR_S, PROBE_S, STALE
from serving.client.description import Description
from serving.client.doors import wrong_door
from serving.client.edited import Edited
from serving.client.failures import Failure, Kind, as_seen_before, asks_for_door, asks_for_models, explain
from serving.client.grpc_transport import (
    channel_options,
    read_answer,
    read_config,
    ready_names,
    requested,
    tensors,
    to_failure,
)
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
from serving.client.retry import Attempts, check_patience, check_timeout
from serving.contract.edits import Strength
from serving.contract.layout import DEFAULT_MODEL, encoder_of, preview_of
from serving.contract.manifest import Manifest
from serving.contract.photo.crop import Crop
from serving.errors import InvalidEdit, ManifestError, ModelUnavailable, NoEncoder, NoPreview, ServingError


class AsyncEditClient:
    """`EditClient` for asyncio: the same methods, awaited. Belongs to the event loop that first uses it."""

    def __init__(
        self, url: str = "127.0.0.1:8001", model: str = DEFAULT_MODEL, timeout: float = 30.0, *, retries: int = 3
    ) -> None:
        """Describe the connection; nothing is sent until it is used.

        Args:
            url: `host:port` of Triton's gRPC interface.
            model: Name of the served model.
            timeout: Seconds to wait for each answer, further attempts included.
            retries: Further attempts while the server is unavailable, with growing pauses; nothing else is repeated.

        Raises:
            ServingError: One of them is out of range.
        """
        check_patience(timeout, retries)
        if parse_address(url).protocol != "grpc":
            raise ServingError(f"AsyncEditClient speaks gRPC only: give host:port, got {url!r}")
        self._address = parse_address(url, "grpc")
        self._model, self._timeout, self._retries = model, timeout, retries
        self._client: Any = None
        self._beside: dict[str, AsyncEditClient] = {}  # preview and encoder, by name
        self._photos = PhotoMemory()
        self._closed = False
        self._description: Description | None = None
        self._seen = False

    async def manifest(self) -> Manifest:
        """What the model says about itself; see `EditClient.manifest`."""
        return (await self._describe(None)).manifest

    async def description(self) -> Description:
        """How the server has the model configured; see `EditClient.description`."""
        return await self._describe(None)

    async def refresh(self) -> Manifest:
        """Ask the model again what it is; see `EditClient.refresh`."""
        self._description = None
        return await self.manifest()

    async def edit(
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
        """Apply edits, all together, to one seed or to each given code; see `EditClient.edit`."""
        subject = Subject(seed, z, w, layers, class_id, class_name, photo, keep)
        return await self.send_subject(
            subject, lambda its: lambda manifest: edit_request(manifest, its, edits), timeout
        )

    async def preview(
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
        """Do as `edit`, smaller and sooner; see `EditClient.preview`."""
        subject = Subject(seed, z, w, layers, class_id, class_name, photo, keep)
        return await self.send_subject(
            subject, lambda its: lambda manifest: edit_request(manifest, its, edits), timeout, small=True
        )

    async def sweep(
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
        """Walk along one direction, in one batched request; see `EditClient.sweep`."""
        subject = Subject(seed, z, w, layers, class_id, class_name, photo, keep)
        return await self.send_subject(
            subject, lambda its: lambda manifest: sweep_request(manifest, its, direction, alphas), timeout
        )

    async def invert(
        self,
        photo: Source,
        *,
        align: str | Crop = AUTO,
        face: int | None = None,
        timeout: float | None = None,
    ) -> Inverted:
        """Find the code of a photo; see `EditClient.invert`."""
        full = await self._full(ENCODER.had_by, timeout)
        ENCODER.check_had(full, self._model)
        framed = await asyncio.to_thread(self._photos.frame, full, photo, align, face)
        codes = self._photos.code(framed, full)
        if codes is None:
            codes, full = await self._encode(framed, timeout)
            codes = self._photos.keep(framed, full, codes)
        return framed.inverted(codes, full)

    async def edit_rows(
        self,
        z: ArrayLike,
        direction: ArrayLike,
        alpha: ArrayLike,
        class_id: ArrayLike | None = None,
        *,
        timeout: float | None = None,
    ) -> Edited:
        """Send rows as they are; see `EditClient.edit_rows`."""
        return await self.send(lambda manifest: rows_request(manifest, z, direction, alpha, class_id), timeout)

    async def send(self, plan: Plan, timeout: float | None = None) -> Edited:
        """Send what a plan makes of the manifest; see `EditClient.send`."""
        images, request, description = await self._send(plan, timeout)
        return request.finish(images, description.name)

    async def send_preview(self, plan: Plan, timeout: float | None = None, photo: Inverted | None = None) -> Edited:
        """Send what a plan makes of the manifest to the model's preview; see `EditClient.send_preview`."""
        full = await self._full(PREVIEW.had_by, timeout)
        PREVIEW.check_had(full, self._model)

        def paired(preview: Manifest) -> Request:
            PREVIEW.check(preview, full, self._model)
            if photo is not None:
                check_same_encoder(photo, full)
            return plan(preview)

        small = self._client_of(preview_of(self._model))
        try:
            its = (await small._describe(timeout)).manifest
            full = await self._full(lambda manifest: PREVIEW.is_of(its, manifest), timeout)
            images, request, description = await small._send(paired, timeout)
            return request.finish(images, description.name, with_recipe=False)
        except ModelUnavailable as error:
            raise PREVIEW.not_served(self._model, str(error)) from error

    async def send_subject(
        self,
        subject: Subject,
        plan_of: Callable[[Subject], Plan],
        timeout: float | None = None,
        *,
        small: bool = False,
    ) -> Edited:
        """See `EditClient.send_subject`."""
        for _ in range(TURNS):
            photo = None if subject.photo is None else await self._inverted(subject.photo, timeout)
            its = subject if photo is None else replace(subject, photo=photo)
            try:
                if small:
                    return await self.send_preview(plan_of(its), timeout, photo)
                return await self.send(plan_of(its), timeout)
            except OtherEncoder:
                continue
        raise unsettled(self._model)

    async def _inverted(self, photo: Source | Inverted, timeout: float | None) -> Inverted:
        """See `EditClient._inverted`."""
        if not isinstance(photo, Inverted):
            return await self.invert(photo, timeout=timeout)
        encoder = (await self._describe(timeout)).manifest.encoder
        if encoder is not None and encoder.sha256 == photo.encoder:
            return photo
        return found_again(photo, await self.invert(photo.photo, align=photo.crop, timeout=timeout))

    async def _encode(self, framed: Framed, timeout: float | None) -> tuple[NDArray[np.float32], Manifest]:
        """See `EditClient._encode`."""
        full = await self._full(ENCODER.had_by, timeout)

        def paired(encoder: Manifest) -> Request:
            ENCODER.check(encoder, full, self._model)
            return encode_request(framed)

        encoding = self._client_of(encoder_of(self._model))
        try:
            its = (await encoding._describe(timeout)).manifest
            full = await self._full(lambda manifest: ENCODER.is_of(its, manifest), timeout)
            return (await encoding._send(paired, timeout))[0], full
        except ModelUnavailable as error:
            raise ENCODER.not_served(self._model, str(error)) from error

    def _client_of(self, model: str) -> AsyncEditClient:
        """Return the client of a model that was published beside this one."""
        if model not in self._beside:
            beside = AsyncEditClient(self._address.target, model, self._timeout, retries=self._retries)
            beside._closed = self._closed
            self._beside[model] = beside
        return self._beside[model]

    async def _send(self, plan: Plan, timeout: float | None) -> tuple[NDArray[Any], Request, Description]:
        for _ in range(TURNS):
            description = await self._describe(timeout)
            try:
                request = plan(description.manifest)
            except (InvalidEdit, NoEncoder, NoPreview):
                if not await self._outdated(description, timeout):
                    raise
                continue
            images = await self._draw(request, description, timeout)
            if images:
                return np.concatenate(images), request, description
        raise unsettled(description.name)

    async def _full(self, wanted: Callable[[Manifest], bool], timeout: float | None) -> Manifest:
        """See `EditClient._full`."""
        description = await self._describe(timeout)
        if not wanted(description.manifest) and await self._outdated(description, timeout):
            description = await self._describe(timeout)
        return description.manifest

    async def close(self) -> None:
        """Close the connection."""
        self._closed = True
        beside, self._beside = self._beside, {}
        for client in beside.values():
            await client.close()
        own, self._client = self._client, None
        if own is not None:
            await own.close()

    async def __aenter__(self) -> AsyncEditClient:
        """Return the client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        await self.close()

    async def _describe(self, timeout: float | None) -> Description:
        description = self._description
        if description is None:
            answer = await self._ask("get_model_config", timeout, self._model)
            self._description = description = read_config(answer.config)
            self._seen = True
        return description

    async def _outdated(self, description: Description, timeout: float | None) -> bool:
        """See `Connection.outdated`."""
        patience = self._timeout if timeout is None else check_timeout(timeout)
        try:
            answer = await self._call("get_model_config", self._model, client_timeout=min(patience, PROBE_S))
            now = read_config(answer.config)
        except (Failure, ManifestError):
            return False
        if now.manifest == description.manifest:
            return False
        self._description = now
        return True

    async def _draw(self, request: Request, description: Description, timeout: float | None) -> list[NDArray[Any]]:
        """Draw all parts of a request; nothing if another version than the one described drew one of them."""
        images = []
        for start, arrays in request.parts(description):
            outputs = requested(description)
            result = await self._ask("infer", timeout, self._model, tensors(arrays), outputs=outputs)
            try:
                answer = read_answer(result, description)
            except Failure as failure:
                raise await self._explain(failure, PROBE_S) from failure
            now = description.seen(answer.version)
            if now is not description and self._description is description:
                self._description = now
            if now is None:
                return []
            description = now
            images.append(check_answer(description.manifest, arrays, start, answer))
        return images

    async def _ask(self, method: str, timeout: float | None, *arguments: Any, **options: Any) -> Any:
        """Put a question, again while the server is unavailable."""
        patience = self._timeout if timeout is None else check_timeout(timeout)
        attempts = Attempts(patience, self._retries)
        while True:
            try:
                return await self._call(method, *arguments, client_timeout=attempts.left(), **options)
            except Failure as met:
                failure = as_seen_before(met) if self._seen else met
                if failure.kind is Kind.UNAVAILABLE:
                    self._description = None
                try:
                    pause = attempts.pause_after(failure)
                except Failure:
                    error = await self._explain(failure, patience)
                    raise error from failure
            await asyncio.sleep(pause)

    async def _explain(self, failure: Failure, patience: float) -> ServingError:
        ready = None
        if asks_for_models(failure):
            try:
                limit = min(patience, PROBE_S)
                ready = ready_names(await self._call("get_model_repository_index", client_timeout=limit))
            except Failure:
                ready = None
        door = ""
        if asks_for_door(failure, ready):
            door = await asyncio.to_thread(wrong_door, self._address, min(patience, DOOR_S))
        error = explain(failure, self._address.target, self._model, patience, ready, door)
        if isinstance(error, STALE):
            self._description = None
        return error

    async def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        if self._closed:
            raise Failure(Kind.CLOSED, "closed")
        if self._client is None:  # here and not earlier: the channel binds itself to the running event loop
            options_ = channel_options(self._address)
            self._client = triton.InferenceServerClient(self._address.target, channel_args=options_)
        question: Callable[..., Awaitable[Any]] = getattr(self._client, method)
        try:
            return await question(*arguments, **options)
        except InferenceServerException as error:
            raise to_failure(error) from error
