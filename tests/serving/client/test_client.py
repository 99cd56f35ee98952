"""The client against a real Triton: every picture equals numpy's own computation."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tiny_editor
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tiny_editor import D, K, L, assert_close, expected
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from serving import EditClient, TritonServer
from serving.errors import InvalidEdit, ManifestError, ModelUnavailable, RequestTimeout, ServerUnavailable, ServingError


def draw(rows: int, edits: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    random = np.random.RandomState(seed)
    z = random.randn(rows, D).astype(np.float32)
    return z, random.randint(0, K, (rows, edits)), random.uniform(-3, 3, (rows, edits, L)).astype(np.float32)


def seed_code(seed: int) -> NDArray[np.float32]:
    return np.random.RandomState(seed).randn(1, D).astype(np.float32)


def infer_raw(url: str, model: str, z: Any, direction: Any, alpha: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Send a request without the client's checks."""
    with triton.InferenceServerClient(url) as connection:
        inputs = []
        for name, array in (("z", z), ("direction", direction), ("alpha", alpha)):
            tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            inputs.append(tensor.set_data_from_numpy(array))
        suffix = ("__0", "__1") if model.endswith("torchscript") else ("", "")
        result = connection.infer(model, inputs)
        return result.as_numpy(f"image{suffix[0]}"), result.as_numpy(f"valid{suffix[1]}")


@pytest.mark.parametrize("model", ["latent_edit", "latent_edit_torchscript"])
@pytest.mark.parametrize(("rows", "edits"), [(1, 1), (2, 3), (8, 1), (20, 2)])
def test_rows_equal_numpy(server: TritonServer, model: str, rows: int, edits: int) -> None:
    request = draw(rows, edits)
    with EditClient(server.grpc_url, model) as client:
        assert_close(client.edit_rows(*request).images, expected(*request))


def test_edit_by_seed(client: EditClient) -> None:
    wanted = expected(seed_code(7), np.array([[1]]), np.full((1, 1, L), 2.5))
    result = client.edit(seed=7, edits={1: 2.5})
    assert_close(result.images, wanted)
    np.testing.assert_array_equal(result.image, result.images[0])
    np.testing.assert_array_equal(np.asarray(result.to_pil()), result.image)


def test_several_edits_named_and_by_index(client: EditClient) -> None:
    alpha = np.array([[[0.0, 3.0], [-1.0, -1.0]]])  # "smile" acts on the second layer only
    wanted = expected(seed_code(3), np.array([[2, 0]]), alpha)
    assert_close(client.edit(seed=3, edits={"smile": 3.0, 0: -1.0}).images, wanted)


def test_layers_and_codes(client: EditClient) -> None:
    z = draw(3, 1)[0]
    alpha = np.broadcast_to(np.array([[2.0, 0.0]]), (3, 1, L))
    result = client.edit(z=z, edits={1: 2.0}, layers=[0])
    assert_close(result.images, expected(z, np.ones((3, 1), int), alpha))
    assert len(result.pil()) == 3
    with pytest.raises(ValueError, match="there are 3 images"):
        result.to_pil()


def test_no_edit_is_strength_zero(client: EditClient) -> None:
    plain = client.edit(seed=7).images
    assert_close(plain, expected(seed_code(7), np.array([[0]]), np.zeros((1, 1, L))))
    np.testing.assert_array_equal(plain, client.edit(seed=7, edits={2: 0.0}).images)


def test_classes_by_default_number_and_name(server: TritonServer) -> None:
    direction, alpha = np.array([[1]]), np.full((1, 1, L), 2.0)
    with EditClient(server.grpc_url, "conditional") as client:
        for chosen, number in (({}, 1), ({"class_id": 0}, 0), ({"class_name": "goldfish"}, 1)):
            wanted = expected(seed_code(7), direction, alpha, np.array([number]))
            assert_close(client.edit(seed=7, edits={1: 2.0}, **chosen).images, wanted)
        assert_close(
            client.sweep(seed=7, direction=1, alphas=[2.0], class_id=0).images[:1],
            expected(seed_code(7), direction, alpha),
        )
        rows, numbers = draw(9, 2), np.arange(9) % 2
        assert_close(client.edit_rows(*rows, numbers).images, expected(*rows, numbers))
        with pytest.raises(InvalidEdit, match=r"row 0: class_id must be in \[0, 2\), got 2"):
            client.edit_rows(*rows, numbers + 2)


def test_sweep_is_in_order(client: EditClient) -> None:
    alphas = [-6.0, -3.0, 0.0, 3.0, 6.0]
    z = np.repeat(seed_code(7), 5, axis=0)
    wanted = expected(z, np.full((5, 1), 1), np.array(alphas)[:, None, None] * np.ones((1, 1, L)))
    assert_close(client.sweep(seed=7, direction=1, alphas=alphas).images, wanted)


@pytest.mark.parametrize("model", ["latent_edit", "together", "latent_edit_torchscript"])
def test_concurrent_requests_of_different_sizes(server: TritonServer, model: str) -> None:
    requests = [draw(1 + index % 4, 1 + index % 3, seed=index) for index in range(24)]
    with EditClient(server.grpc_url, model) as client, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda request: client.edit_rows(*request), requests))
    for request, result in zip(requests, results, strict=True):
        assert_close(result.images, expected(*request))


@pytest.mark.parametrize("model", ["latent_edit", "latent_edit_torchscript"])
def test_a_bad_row_leaves_the_others_alone(server: TritonServer, model: str) -> None:
    z, direction, alpha = draw(6, 2)
    direction[1, 0], direction[2, 1] = K, -1
    alpha[3, 0, 0], z[4, 2] = np.nan, np.inf
    images, valid = infer_raw(server.grpc_url, model, z, direction, alpha)
    assert valid.reshape(-1).tolist() == [True, False, False, False, False, True]
    good = [0, 5]
    assert_close(images[good], expected(z[good], direction[good], alpha[good]))
    assert not images[1:5].any()


def test_a_bad_request_leaves_the_others_of_its_dynamic_batch_alone(server: TritonServer) -> None:
    barrier = threading.Barrier(4)

    def send(index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        z, direction, alpha = draw(2, 1, seed=index)
        if index == 2:
            direction[1, 0] = K + 5
        barrier.wait()
        return infer_raw(server.grpc_url, "together", z, direction, alpha)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(send, range(4)))
    for index, (images, valid) in enumerate(results):
        z, direction, alpha = draw(2, 1, seed=index)
        good = [0] if index == 2 else [0, 1]
        assert valid.reshape(-1).tolist() == [True, index != 2]
        assert_close(images[good], expected(z[good], direction[good], alpha[good]))


def test_a_model_that_raises_fails_only_the_request_at_fault(server: TritonServer) -> None:
    barrier = threading.Barrier(4)

    def send(index: int) -> Any:
        direction = np.full((1, 1), K + 1 if index == 2 else index % K)
        barrier.wait()
        try:
            zeros = np.zeros((1, D), np.float32), direction, np.zeros((1, 1, L), np.float32)
            return int(infer_raw(server.grpc_url, "fragile", *zeros)[0].item())
        except InferenceServerException as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(send, range(4)))
    assert [results[0], results[1], results[3]] == [0, 1, 0]
    assert "out of data bounds" in results[2]
    assert server.log_path is not None
    assert "a batch of 4 requests failed" in server.log_path.read_text()  # they did share one execution


def test_the_server_marks_a_row_that_the_client_let_through(
    client: EditClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    z, direction, alpha = draw(10, 1)
    direction[9, 0] = K
    arrays = {"z": z, "direction": direction, "alpha": alpha}
    monkeypatch.setattr("serving.client.requests.check_rows", lambda *_: arrays)
    with pytest.raises(
        InvalidEdit, match=r"^row 9: the server refused it; .*direction in \[0, 3\), got direction \[3\]"
    ):
        client.edit_rows(z, direction, alpha)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 7, "edits": {3: 1.0}}, r"direction must be in \[0, 3\), got 3"),
        ({"seed": 7, "edits": {0: float("nan")}}, "alpha must be finite, got nan"),
        ({"seed": 7, "edits": {0: [1.0, 2.0, 3.0]}}, "one number or 2 numbers"),
        ({"seed": 7, "class_id": 3}, "has no classes"),
        ({"seed": -1}, "seed must be in"),
        ({"z": [1.0, 2.0]}, r"z must be of shape \[N, 4\] or \[4\], got \[1, 2\]"),
        ({}, "either a seed or z"),
        ({"seed": 1, "z": [0.0] * 4}, "either a seed or z"),
    ],
)
def test_bad_edits_are_not_sent(client: EditClient, arguments: Any, message: str) -> None:
    with pytest.raises(InvalidEdit, match=message):
        client.edit(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"alphas": []}, "at least one"), ({"seed": None, "z": np.zeros((2, 4))}, "a sweep takes one code, got 2")],
)
def test_bad_sweeps(client: EditClient, arguments: Any, message: str) -> None:
    with pytest.raises(InvalidEdit, match=message):
        client.sweep(**{"seed": 1, "direction": 0, **arguments})


def test_the_manifest_comes_from_the_server(client: EditClient) -> None:
    assert client.manifest.generator.name == "tiny"
    assert client.manifest is client.manifest


def test_unknown_model_lists_the_ready_ones(server: TritonServer) -> None:
    with EditClient(server.grpc_url, "nothing") as client, pytest.raises(ModelUnavailable) as caught:
        client.edit(seed=1)
    assert "there is no model 'nothing'" in str(caught.value)
    assert "latent_edit, latent_edit_torchscript" in str(caught.value)


def test_a_model_without_manifest(server: TritonServer) -> None:
    with EditClient(server.grpc_url, "anonymous") as client, pytest.raises(ManifestError, match="has no manifest"):
        client.edit(seed=1)


def test_server_down() -> None:
    with EditClient("127.0.0.1:9") as client, pytest.raises(ServerUnavailable) as caught:
        client.edit(seed=1)
    assert "latentclr serve" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_proxy_is_not_asked_for_this_machine(server: TritonServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with EditClient(server.grpc_url) as client:
        assert client.edit(seed=1).images.shape == (1, 8, 8, 3)


@pytest.mark.parametrize("url", ["localhost", "ftp://127.0.0.1:8001"])
def test_bad_url(url: str) -> None:
    with pytest.raises(ServingError, match="host:port"):
        EditClient(url)


def test_bad_timeout() -> None:
    with pytest.raises(ServingError, match="above 0"):
        EditClient(timeout=0)


def test_timeout(server: TritonServer) -> None:
    # The queue of this model waits 200 ms for company.
    with EditClient(server.grpc_url, "together", timeout=10) as client:
        assert client.manifest.name == tiny_editor.MANIFEST["name"]
        with pytest.raises(RequestTimeout, match=r"within 0\.02 s"):
            client.edit(seed=1, timeout=0.02)
        client.edit(seed=1)
