"""What a program hands to the client is checked with the client's own errors, before anything is sent."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny_editor

from serving.client.async_client import AsyncEditClient
from serving.client.client import EditClient
from serving.client.requests import Subject, edit_request, rows_request, sweep_request
from serving.contract.manifest import Manifest, parse_manifest
from serving.errors import InvalidEdit, ServingError


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return parse_manifest(json.dumps(tiny_editor.MANIFEST))


@pytest.mark.parametrize(
    ("subject", "edits", "message"),
    [
        ({"seed": 1.5}, {}, "seed must be a whole number, got 1.5"),
        ({"seed": True}, {}, "seed must be a whole number, got True"),
        ({"seed": "7"}, {}, "seed must be a whole number, got '7'"),
        ({"seed": 10**5000}, {}, "seed must be a whole number of at most 64 bits"),
        ({"seed": 1}, [1], r"edits must be a table from directions or names to strengths, got \[1\]"),
        ({"seed": 1}, 7, "edits must be a table"),
        ({"seed": 1, "layers": 5}, {0: 1.0}, "layers must be a list of latent inputs, got 5"),
        ({"seed": 1, "layers": "0"}, {0: 1.0}, "layers must be a list of latent inputs, got '0'"),
        ({"seed": 1, "layers": [0.0]}, {0: 1.0}, "layers must be a whole number, got 0.0"),
        ({"seed": 1, "layers": [[0]]}, {0: 1.0}, r"layers must be a whole number, got \[0\]"),
        ({"seed": 1}, {0: 1j}, "alpha must be an array of numbers, got complex128"),
        ({"seed": 1}, {0: "1"}, "alpha must be an array of numbers"),
        ({"seed": 1}, {0: True}, "alpha must be an array of numbers, got bool"),
        ({"seed": 1}, {0: [[1], [2, 3]]}, "alpha must be an array of numbers"),
        ({"seed": 1}, {0: 10**400}, "alpha must be an array of numbers"),
        ({"seed": 1, "class_id": 1.5}, {}, "class_id must be|has no classes"),
        ({"z": np.zeros((1, 6), complex)}, {}, "z must be an array of numbers, got complex128"),
        ({"z": np.zeros((1, 6), "M8[s]")}, {}, r"z must be an array of numbers, got datetime64\[s\]"),
        ({"z": np.zeros((1, 6), "m8[s]")}, {}, r"z must be an array of numbers, got timedelta64\[s\]"),
        ({"z": np.zeros((1, 6), object)}, {}, "z must be an array of numbers, got object"),
        ({"z": np.zeros((1, 6), "V8")}, {}, "z must be an array of numbers"),
        ({"z": np.zeros((1, 6), "f4,i4")}, {}, "z must be an array of numbers"),
        ({"z": {}}, {}, "z must be an array of numbers"),
    ],
)
def test_an_edit(manifest, subject, edits, message):
    with pytest.raises(InvalidEdit, match=message) as caught:
        edit_request(manifest, Subject(**subject), edits)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("alphas", [5, "12", None, np.float32(3)])
def test_a_sweep(manifest, alphas):
    with pytest.raises(InvalidEdit, match="alphas must be a list of strengths"):
        sweep_request(manifest, Subject(seed=1), 0, alphas)


def test_rows(manifest):
    dim, layers = manifest.latent.dim, manifest.latent.layers
    z, alpha = np.zeros((1, dim)), np.zeros((1, 1, layers))
    with pytest.raises(InvalidEdit, match="direction must be an array of numbers, got complex128"):
        rows_request(manifest, z, np.zeros((1, 1), complex), alpha, None)
    with pytest.raises(InvalidEdit, match="alpha must be an array of numbers, got bool"):
        rows_request(manifest, z, np.zeros((1, 1), int), alpha.astype(bool), None)


@pytest.mark.parametrize("client", [EditClient, AsyncEditClient])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": "x"}, "timeout must be a number of seconds, got 'x'"),
        ({"timeout": float("nan")}, "timeout must be above 0 seconds and finite, got nan"),
        ({"timeout": float("inf")}, "timeout must be above 0 seconds and finite, got inf"),
        ({"timeout": None}, "timeout must be a number of seconds, got None"),
        ({"retries": 1.5}, "retries must be a whole number, got 1.5"),
        ({"url": 8001}, "the url must be a text"),
    ],
)
def test_a_connection(client, options, message):
    with pytest.raises(ServingError, match=message):
        client(**options)
