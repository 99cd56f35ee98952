"""What killed clients and timed-out requests leave in the server's list of shared memory: bounded, and cleared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from test_transports import connect

from serving import RequestTimeout, TritonServer
from serving.client import region_names, shared_memory
from serving.client.region_names import GRACE_S, Owner, is_lost, make_name, this_process

CLIENTS, THREADS = 20, 4
# All in one process group, whose members are forked before gRPC has started anything.
MANY = """
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
from serving import EditClient
from serving.client import shared_memory

shared_memory._LEASE_S, shared_memory._LONGEST_S = 0.1, 0.05
for _ in range(int(sys.argv[2])):
    if os.fork() == 0:
        client = EditClient(sys.argv[1], "together", shared_memory=True)
        with ThreadPoolExecutor(int(sys.argv[3])) as pool:
            list(pool.map(lambda seed: client.edit(seed=seed), range(int(sys.argv[3]))))
        os.write(1, f"{os.getpid()}\\n".encode())  # whole, whatever the others write at the same time
        time.sleep(600)
time.sleep(600)
"""


def start_of(pid: str | int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@contextmanager
def clients(server: TritonServer, count: int) -> Iterator[tuple[set[str], int]]:
    """Clients that have drawn pictures and do nothing now: their numbers, and that of the group to kill."""
    command = [sys.executable, "-c", MANY, server.grpc_url, str(count), str(THREADS)]
    owners: list[Owner] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            pids = {process.stdout.readline().strip() for _ in range(count)}
            owners = [Owner(this_process().namespace, int(pid), start_of(pid)) for pid in pids]
            yield pids, process.pid
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    # Only the first process is this one's child; the kernel may take its time to end the others on a busy machine.
    deadline = time.monotonic() + 60
    while not all(owner.is_gone() for owner in owners):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def connection(server: TritonServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc_url) as connected:
        yield connected


def regions(connection: triton.InferenceServerClient, *pids: str) -> set[str]:
    """The registered regions of some processes, by default of this one."""
    names = connection.get_system_shared_memory_status(client_timeout=60).regions
    return {name for name in names if name.split("_")[3] in (pids or (str(os.getpid()),))}


def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a minute had passed."""
    monkeypatch.setattr(region_names, "GRACE_S", -5.0)
    monkeypatch.setattr(shared_memory, "GRACE_S", -5.0)


@pytest.mark.slow
def test_the_next_client_clears_what_killed_ones_left(
    server: TritonServer, connection: triton.InferenceServerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with clients(server, 2) as (living, _):
        with clients(server, CLIENTS) as (killed, group):
            assert CLIENTS <= len(regions(connection, *killed)) <= CLIENTS * THREADS
        assert group > 0
        kept = regions(connection, *living)
        assert kept
        with connect(server, "shared") as client:  # the server may still write for them
            client.edit(seed=1)
        assert regions(connection, *killed)
        no_grace(monkeypatch)
        with connect(server, "shared") as client:
            client.edit(seed=1)
        assert not regions(connection, *killed)
        assert regions(connection, *living) == kept


def test_time_outs_leave_few_regions_and_only_for_a_while(
    server: TritonServer, connection: triton.InferenceServerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = regions(connection)
    with connect(server, "shared", "together") as client:
        assert client.manifest
        for _ in range(50):
            with pytest.raises(RequestTimeout):
                client.edit(seed=1, timeout=0.03)
        left = regions(connection) - before
        assert 1 <= len(left) <= 8
        client.edit(seed=1)  # over gRPC, and after all those before it
        with monkeypatch.context() as patched:
            no_grace(patched)
            client.edit(seed=1)
            assert not left & regions(connection)
            assert len(regions(connection) - before) == 1
    assert not regions(connection) - before


def test_what_closed_clients_left_is_cleared_by_the_same_process(
    server: TritonServer, connection: triton.InferenceServerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = regions(connection)
    with monkeypatch.context() as patched:
        patched.setattr(shared_memory, "_LEASE_S", 0.1)
        for _ in range(3):
            with connect(server, "shared", "together") as client:
                assert client.manifest
                with pytest.raises(RequestTimeout):
                    client.edit(seed=1, timeout=0.1)
    left = regions(connection) - before
    with connect(server, "shared", "together") as client:
        client.edit(seed=1)
        assert left <= regions(connection)
    no_grace(monkeypatch)
    with connect(server, "shared") as client:
        client.edit(seed=1)
    assert not left & regions(connection)


def test_many_threads_share_a_bounded_number(
    server: TritonServer, connection: triton.InferenceServerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = regions(connection)
    monkeypatch.setattr(shared_memory, "_MOST", 3)
    with connect(server, "shared", "together") as client:
        with ThreadPoolExecutor(12) as pool:
            images = list(pool.map(lambda _: client.edit(seed=5).images, range(24)))
        assert 1 <= len(regions(connection) - before) <= 3
    assert not regions(connection) - before
    for image in images[1:]:
        np.testing.assert_array_equal(image, images[0])


def test_a_region_is_replaced_before_its_time_is_over(
    server: TritonServer, connection: triton.InferenceServerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = regions(connection)
    monkeypatch.setattr(shared_memory, "_LEASE_S", 0.0)
    with connect(server, "shared") as client:
        client.edit(seed=1, timeout=20)
        first = regions(connection) - before
        client.edit(seed=1, timeout=25)  # within the 40 seconds that the region has
        assert regions(connection) - before == first
        client.edit(seed=1, timeout=50)
        second = regions(connection) - before
        assert len(second) == 1 and not first & second


class TestOwners:
    def test_this_process_is_not_gone(self) -> None:
        assert this_process().pid == os.getpid()
        assert this_process().start > 0
        assert not this_process().is_gone()

    def test_dead_ones_are_reaped_or_not(self) -> None:
        me = this_process()
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
            owner = Owner(me.namespace, process.pid, start_of(process.pid))
            assert not owner.is_gone()
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert owner.is_gone()  # a zombie
        assert owner.is_gone()

    def test_a_later_process_of_the_same_number_is_another(self) -> None:
        me = this_process()
        assert Owner(me.namespace, me.pid, me.start - 1).is_gone()

    @pytest.mark.parametrize("namespace", [0, 1])
    def test_other_containers_are_not_judged(self, namespace: int) -> None:
        assert not Owner(namespace, 2**22 + 1, 1).is_gone()
        assert Owner(this_process().namespace, 2**22 + 1, 1).is_gone()

    def test_only_names_of_ours_and_only_in_time(self) -> None:
        assert is_lost(make_name(time.monotonic() - GRACE_S - 5))
        assert not is_lost(make_name(time.monotonic()))
        assert not any(map(is_lost, ("", "r", "latentclr_client_" + "0" * 32, "latentclr_client_1_1_1_1_x")))
        assert not is_lost(f"latentclr_client_1_4194305_1_0_{'0' * 32}")


def test_a_name_of_endless_digits_is_nobodys() -> None:
    """The names come from the server, and Python refuses to read so many digits."""
    assert not is_lost(f"latentclr_client_1_2_3_{'9' * 5000}_{'a' * 32}")
