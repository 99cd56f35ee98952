"""The studio's HTTP API: thin functions from typed requests to the service."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Path, Query, Request, Response

from serving.client.edited import Edited
from serving.studio import security
from serving.studio.models import (
    ClassInfo,
    Code,
    FailureBody,
    GalleryRequest,
    Health,
    ImageRequest,
    ModelInfo,
    Name,
    NamedInfo,
    PhotoInfo,
    PhotoKey,
    SaveRequest,
    SignIn,
    SweepRequest,
    ThumbnailsRequest,
)
from serving.studio.pictures import MEDIA_TYPES, encode_gif, encode_row
from serving.studio.service import Service
from serving.studio.snippets import curl_code

_REASONS = {
    400: "Out of the model's range, or a request that cannot be read",
    401: "A token is needed",
    403: "From another origin",
    404: "There is no such thing",
    408: "The body did not arrive in time",
    409: "The name means something else now, or names cannot be read or written",
    413: "The body is too large",
    415: "The content type is not application/json, or application/octet-stream for a photo",
    422: "Not of the documented type",
    423: "Another process changes the model repository",
    429: "Too many wrong tokens",
    502: "The model refused, failed or does not describe itself",
    503: "The model server or the model is not there",
    504: "The model server took too long",
}


def _failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": FailureBody, "description": _REASONS[status]} for status in statuses}


EVERYWHERE = _failures(400, 401, 403, 408, 413, 415, 422, 429)
_MODEL = _failures(502, 503, 504)
_NAMED = _failures(409, 423)
_PHOTO = _failures(404)


def _pictures(*kinds: str) -> dict[int | str, dict[str, Any]]:
    content = {MEDIA_TYPES[kind]: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    return {200: {"description": "The picture", "content": content}}


class PictureResponse(Response):
    """A picture; which kind, the request says."""

    media_type = None


def build_router(service: Service, policy: security.Policy) -> APIRouter:
    """Make the routes under /api.

    Args:
        service: Does the work.
        policy: Knows the token.
    """
    router = APIRouter(prefix="/api", responses=EVERYWHERE)

    @router.get("/health", tags=["model"])
    def health() -> Health:
        """Ask whether the model server and the model are ready. The answer is always 200."""
        problem = service.backend.problem()
        return Health(ready=not problem, message=problem)

    @router.get("/model", tags=["model"], responses=_MODEL)
    def model() -> ModelInfo:
        """Describe the model and its named edits."""
        return service.describe()

    @router.get("/classes", tags=["model"], responses=_MODEL)
    def classes(
        q: Annotated[str, Query(max_length=100, description="Part of a name, or a number.")] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> list[ClassInfo]:
        """Find classes of a conditional generator; none for others."""
        return service.search_classes(q, limit)

    @router.post(
        "/image",
        tags=["pictures"],
        response_class=PictureResponse,
        responses={**_MODEL, **_NAMED, **_PHOTO, **_pictures("png", "jpeg", "webp")},
    )
    def image(body: ImageRequest) -> Response:
        """Draw one picture."""
        started = time.perf_counter()
        result = service.image(body)
        drawn = time.perf_counter()
        return _picture(encode_row(result, body.format, body.quality, body.scale), body.format, started, drawn)

    @router.post(
        "/preview",
        tags=["pictures"],
        response_class=PictureResponse,
        responses={**_MODEL, **_NAMED, **_PHOTO, **_pictures("png", "jpeg", "webp")},
    )
    def preview(body: ImageRequest) -> Response:
        """Draw one picture small and soon, while a slider moves; in full if the model has no preview."""
        started = time.perf_counter()
        result = service.preview(body)
        drawn = time.perf_counter()
        return _picture(encode_row(result, body.format, body.quality, body.scale), body.format, started, drawn)

    @router.post(
        "/gallery",
        tags=["pictures"],
        response_class=PictureResponse,
        responses={**_MODEL, **_NAMED, **_pictures("png", "jpeg", "webp")},
    )
    def gallery(body: GalleryRequest) -> Response:
        """Draw several seeds in one batch, side by side in one picture."""
        started = time.perf_counter()
        result = service.gallery(body)
        drawn = time.perf_counter()
        return _picture(encode_row(result, body.format, body.quality, body.scale), body.format, started, drawn)

    @router.post(
        "/sweep",
        tags=["pictures"],
        response_class=PictureResponse,
        responses={**_MODEL, **_NAMED, **_PHOTO, **_pictures("png", "jpeg", "webp", "gif")},
    )
    def sweep(body: SweepRequest) -> Response:
        """Draw one seed at several strengths of one edit, in one batch: a strip, or an animation."""
        started = time.perf_counter()
        result = service.sweep(body)
        drawn = time.perf_counter()
        if body.format == "gif":
            return _picture(encode_gif(result.images, body.scale), "gif", started, drawn)
        labels = [f"{alpha:+g}" if alpha else "0" for alpha in body.alphas] if body.labels else []
        return _picture(encode_row(result, body.format, body.quality, body.scale, labels), body.format, started, drawn)

    @router.post(
        "/thumbnails",
        tags=["pictures"],
        response_class=PictureResponse,
        responses={**_MODEL, **_NAMED, **_PHOTO, **_pictures("png", "jpeg", "webp")},
    )
    def thumbnails(body: ThumbnailsRequest) -> Response:
        """Draw one seed with each of several edits alone, small, side by side; drawn once, then remembered."""
        started = time.perf_counter()
        result = Edited(service.thumbnails(body))
        drawn = time.perf_counter()
        return _picture(encode_row(result, body.format, body.quality, 1), body.format, started, drawn)

    @router.post("/code", tags=["pictures"], responses={**_MODEL, **_NAMED, **_PHOTO})
    def code(body: ImageRequest, request: Request) -> Code:
        """Write Python and a curl command that make a picture again."""
        base = str(request.base_url).rstrip("/")
        return Code(python=service.python_code(body), curl=curl_code(base, body, policy.wants_token))

    @router.post(security.PHOTOS.removeprefix("/api"), tags=["photos"], responses=_MODEL)
    def add_photo(
        file: Annotated[bytes, Body(media_type="application/octet-stream", description="A picture's file.")],
        align: Annotated[Literal["auto", "centre"], Query(description="Look for a face, or take the middle.")] = "auto",
        face: Annotated[int | None, Query(ge=0, le=1000, description="Which one, from left to right.")] = None,
    ) -> PhotoInfo:
        """Find the code of a photo, and hold both in memory: the photo is never written, and forgotten in time."""
        return service.add_photo(file, align, face)

    @router.get("/photos/{photo}", tags=["photos"], responses=_PHOTO)
    def photo(photo: Annotated[PhotoKey, Path()]) -> PhotoInfo:
        """Describe a photo."""
        return service.photo(photo)

    @router.get(
        "/photos/{photo}/picture",
        tags=["photos"],
        response_class=PictureResponse,
        responses={**_PHOTO, **_pictures("png")},
    )
    def photo_picture(photo: Annotated[PhotoKey, Path()]) -> Response:
        """Return what the model sees of a photo."""
        started = time.perf_counter()
        result = service.photo_picture(photo)
        return _picture(encode_row(result, "png", 90, 1), "png", started, time.perf_counter())

    @router.post("/photos/{photo}/refine", tags=["photos"], responses={**_MODEL, **_PHOTO})
    def refine_photo(photo: Annotated[PhotoKey, Path()]) -> PhotoInfo:
        """Do one more step of refinement: the unedited picture comes nearer to the photo."""
        return service.refine_photo(photo)

    @router.delete("/photos/{photo}", tags=["photos"], status_code=204)
    def remove_photo(photo: Annotated[PhotoKey, Path()]) -> None:
        """Forget a photo."""
        service.remove_photo(photo)

    @router.get("/catalog", tags=["catalog"], responses={**_MODEL, **_NAMED})
    def catalog() -> list[NamedInfo]:
        """List the named edits: the model's own and its run's."""
        return service.describe().edits

    @router.put("/catalog/{name}", tags=["catalog"], responses={**_MODEL, **_NAMED})
    def save(name: Annotated[Name, Path()], body: SaveRequest) -> NamedInfo:
        """Keep an edit under a name. One that means something else now is told (409) and left, unless `move` is set."""
        return service.save(name, body)

    @router.delete(
        "/catalog/{name}", tags=["catalog"], status_code=204, responses={**_MODEL, **_failures(404), **_NAMED}
    )
    def delete(name: Annotated[str, Path(min_length=1, max_length=100)]) -> None:
        """Take a name away; `restore` gives it back as it was."""
        service.remove(name)

    @router.post("/catalog/{name}/restore", tags=["catalog"], responses={**_MODEL, **_failures(404), **_NAMED})
    def restore(name: Annotated[str, Path(min_length=1, max_length=100)]) -> NamedInfo:
        """Give back a name that this studio removed, exactly as it was."""
        return service.restore(name)

    @router.post("/session", tags=["access"], status_code=204)
    async def session(body: SignIn, request: Request, response: Response) -> None:
        """Exchange the token for a cookie that scripts cannot read."""
        if policy.wants_token and not policy.try_token(body.token, security.address_of(request.scope)):
            raise security.Refused(401, "token", "this is not the token that the studio was started with")
        if policy.wants_token:
            response.headers["set-cookie"] = policy.cookie()

    return router


def _picture(data: bytes, kind: str, started: float, drawn: float) -> Response:
    """Send a picture, and how long its parts took (milliseconds)."""
    written = time.perf_counter()
    timing = f"model;dur={(drawn - started) * 1e3:.1f}, encode;dur={(written - drawn) * 1e3:.1f}"
    return Response(data, media_type=MEDIA_TYPES[kind], headers={"server-timing": timing})
