"""The web application: page, API, and a clean answer to whatever goes wrong."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serving.errors import FaceError, ServingError
from serving.studio.api import build_router
from serving.studio.assets import Asset, load_assets
from serving.studio.failures import failure, status_of
from serving.studio.security import Guard, Policy, Refused
from serving.studio.service import Service

logger = logging.getLogger(__name__)

_PAGES = {"/": "index.html", "/docs": "docs.html"}


def create_app(service: Service, policy: Policy) -> FastAPI:
    """Build the application.

    Args:
        service: Does the work.
        policy: Decides who is let in.

    Returns:
        An ASGI application.
    """
    app = FastAPI(
        title="latentclr studio",
        version="1",
        description="Edited pictures of a served generator. Failures are `{error: {code, message, where}}`.",
        docs_url=None,  # FastAPI's own page loads its scripts from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    app.include_router(build_router(service, policy))
    _add_pages(app, load_assets())
    app.add_exception_handler(ServingError, _on_serving_error)
    app.add_exception_handler(Refused, _on_refused)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    # A bug is told here rather than by an `Exception` handler, which Starlette lets re-raise into the server's log.
    app.add_middleware(_CatchAll)
    app.add_middleware(Guard, policy=policy)
    return app


def _add_pages(app: FastAPI, assets: dict[str, Asset]) -> None:
    def page(name: str) -> Any:
        def get(request: Request) -> Response:
            return _asset(request, assets[name])

        return get

    for path, name in _PAGES.items():
        app.add_api_route(path, page(name), include_in_schema=False, response_class=Response)

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str, request: Request) -> Response:
        if name not in assets:
            raise HTTPException(404)
        return _asset(request, assets[name])


def _asset(request: Request, asset: Asset) -> Response:
    headers = {"etag": asset.etag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == asset.etag:
        return Response(status_code=304, headers=headers)
    return Response(asset.body, media_type=asset.media_type, headers=headers)


class _CatchAll:
    """Turns an exception that nobody expected into a 500 without its text, which goes to the log."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        started = False

        async def watched(message: Any) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            logger.exception("%s %s", scope.get("method"), scope.get("path"))
            if started:
                raise
            body = failure("internal", "the studio made a mistake; its log says more")
            await JSONResponse(body, 500)(scope, receive, send)


def _on_serving_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    status, code = status_of(error)
    headers = {"retry-after": "1"} if status == 503 else None
    places = error.places if isinstance(error, FaceError) else ()
    return JSONResponse(failure(code, str(error), places=places), status, headers)


def _on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse(failure(error.code, str(error)), error.status)


def _on_invalid(request: Request, error: Exception) -> Response:
    """Name the first field that is wrong; what was sent is not repeated."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    message = str(first.get("msg", "invalid")).removeprefix("Value error, ")
    return JSONResponse(failure("invalid_request", message, ".".join(map(str, first.get("loc", ())))), 422)


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    return JSONResponse(failure(code, str(error.detail)), error.status_code, error.headers)
