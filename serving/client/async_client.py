"""The client for asyncio, over gRPC.

    async with AsyncEditClient("127.0.0.1:8001") as client:
        edited = await client.edit(seed=7, edits={3: 4.0})

Cancelling the task cancels the request: the server drops it if it still waits there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.grpc.aio as triton
from numpy.typing import ArrayLike, NDArray
from tritonclient.utils import InferenceServerException

from serving.client.address import parse_address
from serving.client.connection import DOOR_S, PROBE_S, STALE
from serving.client.description import Answer, Description
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
    CodeNeeded,
    Codes,
    Inverted,
    OfPhoto,
    asked,
    check_encoder,
    encoder_info,
    has_encoder,
    is_encoder_of,
    no_encoder,
    of_photo,
    pictures_of,
)
from serving.client.preview import check_has_preview, check_preview, has_preview, is_preview_of, not_served
from serving.client.requests import (
    TURNS,
    Arrays,
    Plan,
    Request,
    Subject,
    check_answer,
    edit_request,
    rows_request,
    sweep_request,
    unsettled,
)
from serving.client.retry import Attempts, check_patience, check_timeout
from serving.contract.edits import Strength
from serving.contract.layout import DEFAULT_MODEL, encoder_of, preview_of
from serving.contract.manifest import Manifest
from serving.errors import InvalidEdit, ManifestError, ModelUnavailable, NoEncoder, NoPreview, ServingError

if TYPE_CHECKING:
    from serving.client.photos import Align, Picture


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
        self._preview: AsyncEditClient | None = None
        self._encoder: AsyncEditClient | None = None
        self._codes = Codes()
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
        photo: Picture | Inverted | None = None,
        keep: bool = False,
        layers: Sequence[int] | None = None,
        class_id: int | None = None,
        class_name: str | None = None,
        timeout: float | None = None,
    ) -> Edited:
        """Apply edits, all together, to one seed or to each given code; see `EditClient.edit`."""
        of = await asyncio.to_thread(asked, photo, keep) if photo is not None else asked(photo, keep)
        subject = Subject(seed, z, w, layers, class_id, class_name, of)
        return await self.send(lambda manifest: edit_request(manifest, subject, edits), timeout)

    async def preview(
        self,
        seed: int | None = None,
        edits: Mapping[int | str, Strength] | None = None,
        *,
        z: ArrayLike | None = None,
        w: ArrayLike | None = None,
        photo: Picture | Inverted | None = None,
        keep: bool = False,
        layers: Sequence[int] | None = None,
        class_id: int | None = None,
        class_name: str | None = None,
        timeout: float | None = None,
    ) -> Edited:
        """Do as `edit`, smaller and sooner; see `EditClient.preview`."""
        of = await asyncio.to_thread(asked, photo, keep) if photo is not None else asked(photo, keep)
        subject = Subject(seed, z, w, layers, class_id, class_name, of)
        return await self.send_preview(lambda manifest: edit_request(manifest, subject, edits), timeout)

    async def sweep(
        self,
        seed: int | None = None,
        direction: int | str = 0,
        alphas: Sequence[Strength] = (-6, -3, 0, 3, 6),
        *,
        z: ArrayLike | None = None,
        w: ArrayLike | None = None,
        photo: Picture | Inverted | None = None,
        keep: bool = False,
        layers: Sequence[int] | None = None,
        class_id: int | None = None,
        class_name: str | None = None,
        timeout: float | None = None,
    ) -> Edited:
        """Walk along one direction, in one batched request; see `EditClient.sweep`."""
        of = await asyncio.to_thread(asked, photo, keep) if photo is not None else asked(photo, keep)
        subject = Subject(seed, z, w, layers, class_id, class_name, of)
        return await self.send(lambda manifest: sweep_request(manifest, subject, direction, alphas), timeout)

    async def invert(
        self,
        photo: Picture,
        *,
        align: Align = "auto",
        face: int | None = None,
        timeout: float | None = None,
    ) -> Inverted:
        """Find the code of a photo, for any number of edits; see `EditClient.invert`."""
        return await self._find_code(await asyncio.to_thread(of_photo, photo, align, face), timeout)

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
        return await self._send(plan, timeout, self._find_code)

    async def _send(
        self, plan: Plan, timeout: float | None, find_code: Callable[[OfPhoto, float | None], Awaitable[Inverted]]
    ) -> Edited:
        for _ in range(TURNS):
            description = await self._describe(timeout)
            try:
                request = plan(description.manifest)
            except CodeNeeded as needed:
                needed.photo.found = await find_code(needed.photo, timeout)
                continue
            except (InvalidEdit, NoPreview, NoEncoder):
                if not await self._outdated(description, timeout):
                    raise
                continue
            images = await self._draw(request, description, timeout)
            if images:
                pictures = request.finished(np.concatenate(images))
                return Edited(pictures, request.recipe.made_by(description.name), request.inverted)
        raise unsettled(description.name)

    async def send_preview(self, plan: Plan, timeout: float | None = None) -> Edited:
        """Send what a plan makes of the manifest to the model's preview; see `EditClient.send_preview`."""
        full = await self._full(has_preview, timeout)
        check_has_preview(full, self._model)

        def paired(preview: Manifest) -> Request:
            now = full if self._description is None else self._description.manifest  # it may have been asked again
            check_preview(preview, now, self._model)
            return plan(replace(preview, encoder=now.encoder))  # which a preview does not tell

        if self._preview is None:
            url = self._address.target
            self._preview = AsyncEditClient(url, preview_of(self._model), self._timeout, retries=self._retries)
            self._preview._closed = self._closed
        try:
            its = (await self._preview._describe(timeout)).manifest
            full = await self._full(lambda manifest: is_preview_of(its, manifest), timeout)
            drawn = await self._preview._send(paired, timeout, self._find_code)
            return Edited(drawn.images, inverted=drawn.inverted)
        except ModelUnavailable as error:
            raise not_served(self._model, str(error)) from error

    async def _find_code(self, wanted: OfPhoto, timeout: float | None) -> Inverted:
        """See `EditClient._find_code`."""
        if self._encoder is None:
            url = self._address.target
            self._encoder = AsyncEditClient(url, encoder_of(self._model), self._timeout, retries=self._retries)
            self._encoder._closed = self._closed
        asked = self._encoder
        for _ in range(TURNS):
            full = await self._full(has_encoder, timeout)
            known = self._codes.get(wanted, encoder_info(full, self._model))
            if known is not None:
                return known
            try:
                description = await asked._describe(timeout)
                if not is_encoder_of(description.manifest, full) and await asked._outdated(description, timeout):
                    description = await asked._describe(timeout)
                encoder = description.manifest
                full = await self._full(partial(is_encoder_of, encoder), timeout)
                info = check_encoder(encoder, full, self._model)
                cut = await asyncio.to_thread(wanted.cut, info, encoder.generator.size)
                answer, now = await asked._infer(description, pictures_of(cut), timeout)
            except ModelUnavailable as error:
                raise no_encoder(self._model, str(error)) from error
            if now is not None:
                found = wanted.answered(info, encoder, cut, answer)
                self._codes.put(wanted, found)
                return found
        raise unsettled(encoder_of(self._model))

    async def _full(self, wanted: Callable[[Manifest], bool], timeout: float | None) -> Manifest:
        """See `EditClient._full`."""
        description = await self._describe(timeout)
        if not wanted(description.manifest) and await self._outdated(description, timeout):
            description = await self._describe(timeout)
        return description.manifest

    async def close(self) -> None:
        """Close the connection."""
        self._closed = True
        beside, self._preview, self._encoder = (self._preview, self._encoder), None, None
        for other in beside:
            if other is not None:
                await other.close()
        client, self._client = self._client, None
        if client is not None:
            await client.close()

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

    async def _draw(self, request: Request, description: Description, timeout: float | None) -> list[NDArray[np.uint8]]:
        """Draw all parts of a request; nothing if another version than the one described drew one of them."""
        images = []
        for start, arrays in request.parts(description):
            answer, now = await self._infer(description, arrays, timeout)
            if now is None:
                return []
            description = now
            images.append(check_answer(description.manifest, arrays, start, answer))
        return images

    async def _infer(
        self, description: Description, arrays: Arrays, timeout: float | None
    ) -> tuple[Answer, Description | None]:
        """Run one request, and compare the version that drew with the one described; see `Connection.drawn_by`."""
        outputs = requested(description)
        result = await self._ask("infer", timeout, self._model, tensors(arrays), outputs=outputs)
        answer = read_answer(result, description)
        now = description.seen(answer.version)
        if now is not description and self._description is description:
            self._description = now
        return answer, now

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
