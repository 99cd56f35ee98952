"""The asyncio client, and the mode in which the latest edit wins."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from test_client import draw, seed_code
from test_server import wait_until
from tiny_editor import L, assert_close, expected

from serving import AsyncEditClient, AsyncLatestWins, EditClient, LatestWins, TritonServer
from serving.client.edited import Edited
from serving.errors import (
    InvalidEdit,
    ModelUnavailable,
    RequestFailed,
    RequestTimeout,
    ServerUnavailable,
    ServingError,
    Superseded,
)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


def test_the_same_methods_as_the_blocking_client() -> None:
    own = {name for name in vars(EditClient) if not name.startswith("_")}
    assert own == {name for name in vars(AsyncEditClient) if not name.startswith("_")}


def test_pictures_equal_numpy(server: TritonServer) -> None:
    async def work() -> None:
        async with AsyncEditClient(server.grpc_url) as client:
            assert (await client.manifest()).name == "latent_edit"
            assert (await client.refresh()).latent.layers == L
            wanted = expected(seed_code(7), np.array([[1]]), np.full((1, 1, L), 2.5))
            assert_close((await client.edit(seed=7, edits={1: 2.5})).images, wanted)
            assert len(await client.sweep(seed=7, direction="smile", alphas=[-1, 0, 1])) == 3
            requests = [draw(1 + index * 3, 1 + index % 3, seed=index) for index in range(12)]
            results = await asyncio.gather(*(client.edit_rows(*request) for request in requests))
            for request, result in zip(requests, results, strict=True):
                assert_close(result.images, expected(*request))

    run(work())


def test_errors(server: TritonServer) -> None:
    async def work() -> None:
        async with AsyncEditClient(server.grpc_url) as client:
            with pytest.raises(InvalidEdit, match=r"direction must be in \[0, 3\)"):
                await client.edit(seed=1, edits={9: 1.0})
        with pytest.raises(RequestFailed, match="closed"):
            await client.edit(seed=1)
        async with AsyncEditClient(server.grpc_url, "nothing") as client:
            with pytest.raises(ModelUnavailable, match=r"there is no model 'nothing'.*latent_edit"):
                await client.edit(seed=1)
        async with AsyncEditClient(server.grpc_url, "together") as client:
            with pytest.raises(RequestTimeout, match=r"within 0\.05 s"):
                await client.edit(seed=1, timeout=0.05)
        async with AsyncEditClient("127.0.0.1:9", retries=1) as client:
            with pytest.raises(ServerUnavailable, match="latentclr serve"):
                await client.edit(seed=1)

    run(work())
    with pytest.raises(ServingError, match="gRPC only"):
        AsyncEditClient("http://127.0.0.1:1")


class Mute(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A gRPC server that never answers and knows who went away."""

    def __init__(self) -> None:
        self.asked, self.left = threading.Event(), threading.Event()

    def service(self, details: Any) -> Any:
        def answer(request: bytes, context: Any) -> bytes:
            context.add_callback(self.left.set)
            self.asked.set()
            self.left.wait(10)
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def mute_server() -> Iterator[tuple[str, Mute]]:
    mute = Mute()
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[mute])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", mute
    finally:
        mute.left.set()
        server.stop(None).wait()


def test_cancelling_the_task_cancels_the_request() -> None:
    async def work(url: str, mute: Mute) -> None:
        async with AsyncEditClient(url) as client:
            task = asyncio.create_task(client.edit(seed=1))
            assert await asyncio.to_thread(mute.asked.wait, 5)
            assert not mute.left.is_set()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(mute.left.wait, 5)

    with mute_server() as (url, mute):
        run(work(url, mute))


def test_a_deadline_cancels_the_request_of_a_blocking_client() -> None:
    with mute_server() as (url, mute), EditClient(url, timeout=0.2) as client:
        with pytest.raises(RequestTimeout):
            client.edit(seed=1)
        assert mute.left.wait(5)


class Slow:
    """Stands for a client whose server takes its time, and keeps what it was asked."""

    def __init__(self, seconds: float = 0.05) -> None:
        self.seconds, self.asked, self.under_way = seconds, list[int](), 0

    def edit(self, seed: int) -> Edited:
        self.asked.append(seed)
        self.under_way += 1
        assert self.under_way == 1
        time.sleep(self.seconds)
        self.under_way -= 1
        if seed < 0:
            raise InvalidEdit("negative")
        return Edited(np.full((1, 1, 1, 3), seed, np.uint8))

    sweep = edit


class Held(Slow):
    """Draws nothing before it is told to."""

    def __init__(self) -> None:
        super().__init__(0)
        self.go_on = threading.Event()

    def edit(self, seed: int) -> Edited:
        self.asked.append(seed)
        self.go_on.wait(60)
        return Edited(np.full((1, 1, 1, 3), seed, np.uint8))

    sweep = preview = edit


class AsyncSlow(Slow):
    async def edit(self, seed: int) -> Edited:  # type: ignore[override]
        self.asked.append(seed)
        self.under_way += 1
        assert self.under_way == 1
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.under_way -= 1
        if seed < 0:
            raise InvalidEdit("negative")
        return Edited(np.full((1, 1, 1, 3), seed, np.uint8))

    sweep = edit  # type: ignore[assignment]


class TestLatestWins:
    def test_first_and_last_are_drawn(self) -> None:
        client: Any = Slow()
        with LatestWins(client) as slider:
            pending = [slider.submit(seed=0)]
            while not client.asked:
                time.sleep(0.001)
            pending += [slider.submit(seed=seed) for seed in range(1, 10)]
            assert pending[-1].result().images.item(0) == 9
            assert pending[0].result().images.item(0) == 0
            assert all(future.cancelled() for future in pending[1:-1])
        assert client.asked == [0, 9]

    def test_blocking_callers_get_a_typed_error(self) -> None:
        client: Any = Slow(0.2)
        with LatestWins(client) as slider, futures.ThreadPoolExecutor(3) as pool:
            first = pool.submit(slider.edit, seed=0)
            while not client.asked:
                time.sleep(0.001)
            second = pool.submit(slider.sweep, seed=1)
            time.sleep(0.05)
            third = pool.submit(slider.edit, seed=2)
            with pytest.raises(Superseded, match="newer"):
                second.result()
            assert first.result().images.item(0) == 0
            assert third.result().images.item(0) == 2

    def test_closing_is_told_from_a_newer_edit(self) -> None:
        client: Any = Held()
        slider = LatestWins(client)
        with futures.ThreadPoolExecutor(3) as pool:
            first = slider.submit(seed=0)
            wait_until(lambda: bool(client.asked))
            replaced = pool.submit(slider.edit, seed=1)
            wait_until(lambda: slider._newest is not first)
            second = slider._newest
            waits = pool.submit(slider.edit, seed=2)
            wait_until(lambda: slider._newest is not second)
            closing = pool.submit(slider.close)
            try:
                with pytest.raises(Superseded, match="newer"):
                    replaced.result()
                with pytest.raises(RequestFailed, match="closed before the edit was sent"):
                    waits.result()
            finally:
                client.go_on.set()
            closing.result()
            assert first.result().images.item(0) == 0
        for call in (slider.submit, slider.edit, slider.preview, slider.sweep):
            with pytest.raises(RequestFailed, match="closed"):
                call(seed=3)

    def test_an_error_does_not_stop_it(self) -> None:
        client: Any = Slow(0)
        with LatestWins(client) as slider:
            with pytest.raises(InvalidEdit):
                slider.edit(seed=-1)
            assert slider.edit(seed=5).images.item(0) == 5

    def test_against_the_server(self, client: EditClient) -> None:
        with LatestWins(client) as slider:
            pending = [slider.submit(seed=7, edits={1: alpha}) for alpha in np.linspace(-3, 3, 60)]
            last = pending[-1].result()
        wanted = expected(seed_code(7), np.array([[1]]), np.full((1, 1, L), 3.0))
        assert_close(last.images, wanted)


class TestAsyncLatestWins:
    def test_first_and_last_are_drawn(self) -> None:
        async def work() -> None:
            client: Any = AsyncSlow()
            slider = AsyncLatestWins(client)
            first = asyncio.create_task(slider.edit(seed=0))
            await asyncio.sleep(0)
            rest = [asyncio.create_task(slider.edit(seed=seed)) for seed in range(1, 10)]
            results = await asyncio.gather(first, *rest, return_exceptions=True)
            assert [results[0].images.item(0), results[-1].images.item(0)] == [0, 9]
            assert all(isinstance(result, Superseded) for result in results[1:-1])
            assert client.asked == [0, 9]
            assert (await slider.sweep(seed=3)).images.item(0) == 3

        run(work())

    def test_errors_and_cancellation_pass_the_turn_on(self) -> None:
        async def work() -> None:
            client: Any = AsyncSlow(0.02)
            slider = AsyncLatestWins(client)
            bad = asyncio.create_task(slider.edit(seed=-1))
            await asyncio.sleep(0)
            good = asyncio.create_task(slider.edit(seed=1))
            with pytest.raises(InvalidEdit):
                await bad
            assert (await good).images.item(0) == 1
            # The one under way is cancelled, then the one that waits.
            running = asyncio.create_task(slider.edit(seed=2))
            await asyncio.sleep(0.005)
            waiting = asyncio.create_task(slider.edit(seed=3))
            await asyncio.sleep(0)
            running.cancel()
            assert (await waiting).images.item(0) == 3
            running = asyncio.create_task(slider.edit(seed=4))
            await asyncio.sleep(0.005)
            waiting = asyncio.create_task(slider.edit(seed=5))
            await asyncio.sleep(0)
            waiting.cancel()
            assert (await running).images.item(0) == 4
            assert (await slider.edit(seed=6)).images.item(0) == 6
            assert 5 not in client.asked
            # Cancelled in the moment between its turn and its waking.
            running = asyncio.create_task(slider.edit(seed=7))
            await asyncio.sleep(0.005)
            waiting = asyncio.create_task(slider.edit(seed=8))
            await asyncio.sleep(0)
            slider._pass_on()
            waiting.cancel()
            await asyncio.gather(running, waiting, return_exceptions=True)
            assert (await slider.edit(seed=9)).images.item(0) == 9

        run(work())

    def test_against_the_server(self, server: TritonServer) -> None:
        async def work() -> None:
            async with AsyncEditClient(server.grpc_url) as client:
                slider = AsyncLatestWins(client)
                moves = [
                    asyncio.create_task(slider.edit(seed=7, edits={1: float(alpha)}))
                    for alpha in np.linspace(-6, 3, 24)
                ]
                results = await asyncio.gather(*moves, return_exceptions=True)
                wanted = expected(seed_code(7), np.array([[1]]), np.full((1, 1, L), 3.0))
                assert_close(results[-1].images, wanted)
                assert sum(isinstance(result, Superseded) for result in results) > 10

        run(work())
