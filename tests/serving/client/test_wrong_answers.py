"""A server that answers wrongly over gRPC: a `ServingError` says so, and no picture comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tiny_editor import MANIFEST, SIZE, config
from tritonclient.grpc import service_pb2 as pb

from serving import AsyncEditClient, EditClient
from serving.client.failures import Failure, Kind, explain
from serving.contract.pbtxt import read_pbtxt
from serving.errors import RequestFailed

Outputs = dict[str, tuple[str, list[int], bytes]]
"""Type, shape and bytes by name."""
PIXELS = bytes(SIZE * SIZE * 3)
IMAGE, VALID = ("UINT8", [1, SIZE, SIZE, 3], PIXELS), ("BOOL", [1, 1], b"\1")
GOOD: Outputs = {"image": IMAGE, "valid": VALID}
WRONG: dict[str, tuple[Outputs, str]] = {
    "no pictures": ({"valid": VALID}, "lacks the output 'image'"),
    "no marks": ({"image": IMAGE}, "lacks the output 'valid'"),
    "nothing": ({}, "lacks the output 'image'"),
    "few bytes": ({**GOOD, "image": ("UINT8", IMAGE[1], PIXELS[1:])}, "'image' cannot be read"),
    "half a number": ({**GOOD, "valid": ("FP32", [1, 1], b"abc")}, "'valid' cannot be read"),
    "half a text": ({**GOOD, "valid": ("BYTES", [1, 1], b"abcdefg")}, "'valid' cannot be read"),
    "real marks": ({**GOOD, "valid": ("FP32", [1, 1], bytes(4))}, "marked 1 rows with float32"),
    "many marks": ({**GOOD, "valid": ("BOOL", [1, 2], b"\1\1")}, r"marked 1 rows with bool of shape \[1, 2\]"),
    "real pixels": ({**GOOD, "image": ("FP32", IMAGE[1], 4 * PIXELS)}, "pictures as float32"),
    "seven channels": ({**GOOD, "image": ("UINT8", [1, 8, 8, 7], bytes(448))}, r"shape \[1, 8, 8, 7\]"),
    "another size": ({**GOOD, "image": ("UINT8", [1, 4, 4, 3], bytes(48))}, r"expected uint8 of shape \[1, 8, 8, 3\]"),
    "many rows": ({**GOOD, "image": ("UINT8", [2, 8, 8, 3], 2 * PIXELS)}, r"shape \[2, 8, 8, 3\]"),
    "a text": ({**GOOD, "image": ("BYTES", [1], b"\1\0\0\0a")}, "pictures as object"),
}


class Wrong(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Describes the tiny editor, and answers each request with the same outputs."""

    def __init__(self, model: Any, outputs: Outputs) -> None:
        self._answers = {"ModelConfig": pb.ModelConfigResponse(config=model), "ModelInfer": self._drawn(outputs)}

    @staticmethod
    def _drawn(outputs: Outputs) -> Any:
        answer = pb.ModelInferResponse(model_name="latent_edit", model_version="1")
        for name, (kind, shape, data) in outputs.items():
            answer.outputs.add(name=name, datatype=kind, shape=shape)
            answer.raw_output_contents.append(data)
        return answer

    def service(self, details: Any) -> Any:
        answer = self._answers.get(details.method.rpartition("/")[2])
        data = b"" if answer is None else answer.SerializeToString()
        return grpc.unary_unary_rpc_method_handler(lambda request, context: data)


@contextmanager
def wrong_server(folder: Path, outputs: Outputs) -> Iterator[str]:
    path = folder / "config.pbtxt"
    path.write_text(config(MANIFEST["name"]))
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Wrong(read_pbtxt(path), outputs)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_the_server_of_these_tests_can_be_right(tmp_path: Path) -> None:
    with wrong_server(tmp_path, GOOD) as url, EditClient(url) as client:
        assert client.edit(seed=1).images.tobytes() == PIXELS


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_answer_is_a_failed_request(case: str, tmp_path: Path) -> None:
    outputs, message = WRONG[case]

    async def ask(url: str) -> None:
        async with AsyncEditClient(url) as client:
            await client.edit(seed=1)

    with wrong_server(tmp_path, outputs) as url:
        with EditClient(url) as client, pytest.raises(RequestFailed, match=message) as caught:
            client.edit(seed=1)
        assert "\n" not in str(caught.value)
        with pytest.raises(RequestFailed, match=message):
            asyncio.run(ask(url))


@pytest.mark.parametrize("case", ["no pictures", "no marks", "seven channels", "real marks"])
def test_a_wrong_answer_through_shared_memory_leaves_no_region_in_use(case: str, tmp_path: Path) -> None:
    """A client has few of them, and one that stays in use for ever is one less."""
    with wrong_server(tmp_path, WRONG[case][0]) as url, EditClient(url, shared_memory=True) as client:
        for _ in range(2):
            with pytest.raises(RequestFailed):
                client.edit(seed=1)
        transport: Any = client._connection._transport
        assert (len(transport._regions._idle), transport._regions._used) == (1, set())


def test_the_words_of_a_server_are_nothing_that_a_terminal_obeys() -> None:
    failure = Failure(Kind.NOT_FOUND, "no\n\x1b[2J")
    assert str(failure) == "no [2J"
    assert "ready models: a[2J" in str(explain(failure, "127.0.0.1:8001", "m", 1, ["a\x1b[2J"]))
