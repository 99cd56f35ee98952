"""The studio's API, fuzzed from its own OpenAPI document against the real server."""

from __future__ import annotations

from typing import Any

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="pip install schemathesis")

import hypothesis  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


OPERATIONS = [
    "GET /api/health", "GET /api/model", "GET /api/classes", "POST /api/image", "POST /api/gallery", "POST /api/sweep",
    "POST /api/thumbnails", "POST /api/code", "GET /api/catalog", "PUT /api/catalog/{name}",
    "DELETE /api/catalog/{name}", "POST /api/catalog/{name}/restore", "POST /api/preview", "POST /api/session",
    "POST /api/photos", "GET /api/photos/{photo}", "GET /api/photos/{photo}/picture",
    "POST /api/photos/{photo}/refine", "DELETE /api/photos/{photo}",
]  # fmt: skip

# Their names are guesses, and there is no such edit; and random bytes are no photo.
BY_NAME = tuple(name for name in OPERATIONS if "{name}" in name or "photos" in name)
TAKE_NOTHING = ("GET /api/health", "GET /api/model", "GET /api/catalog")


@pytest.fixture(scope="module")
def document(shared_studio: Any) -> Any:
    """The OpenAPI document as the studio serves it."""
    return schemathesis.openapi.from_url(f"{shared_studio.url}/openapi.json")


def test_all_operations_are_fuzzed(document: Any) -> None:
    found = [result.ok() for result in document.get_all_operations()]
    assert sorted(f"{one.method.upper()} {one.path}" for one in found) == sorted(OPERATIONS)


POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE


@pytest.mark.parametrize(
    ("name", "mode"),
    # What takes nothing cannot be asked wrongly.
    [(name, POSITIVE) for name in OPERATIONS] + [(name, NEGATIVE) for name in OPERATIONS if name not in TAKE_NOTHING],
)
def test_nothing_breaks_and_every_answer_is_documented(document: Any, name: str, mode: Any) -> None:
    method, path = name.split()
    operation = document[path][method]
    seen = []

    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis.settings(
        max_examples=40, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate],
    )  # fmt: skip
    def run(case: Any) -> None:
        response = case.call()
        seen.append(response.status_code)
        case.validate_response(response, checks=CHECKS)

    run()
    if mode is NEGATIVE:
        # What takes no body is wrong by the type of one.
        assert any(status in ((415,) if name.endswith(("restore", "refine")) else (400, 422)) for status in seen)
    elif name not in BY_NAME:
        assert any(status < 300 for status in seen)
        assert 422 not in seen, "a request that fits the document is never of the wrong type"


def test_the_page_works_after_all_that(studio: Any) -> None:
    assert studio.http.get("/api/health").json()["ready"]
    assert studio.http.post("/api/image", json={"seed": 1}).status_code == 200
