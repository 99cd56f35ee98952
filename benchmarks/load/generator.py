"""Send requests to Triton from a process of its own: closed loop, or with Poisson arrivals.

Started by `load.drive` with a plan in JSON; ends in one JSON line, with lines of progress before. It
imports neither torch nor this project, so it starts at once and leaves the cores to the server.

Closed loop: each client sends its next request when its last was answered. Poisson: requests go out at random times
whatever became of those before, and latency counts from the moment when a request was due, so a generator or a server
that falls behind cannot hide it.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import psutil
from tritonclient.grpc import service_pb2 as pb

from load.wire import SERVICE, Prepared, load_requests

SHARE = 6  # clients on one connection, as perf_analyzer has it
PIXELS_EVERY = 50  # every so many answers of a request its pixels are compared
TIMEOUT_S = 60.0
PAUSE_AFTER_ERROR_S = 0.1
OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1),
           ("grpc.max_receive_message_length", -1)]  # fmt: skip
PARTS = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True)
class Plan:
    """What to send.

    Attributes:
        target: `host:port` of the gRPC interface.
        model: Name of the served model.
        requests: File of `save_requests`.
        clients: Closed-loop clients, or 0 for Poisson arrivals.
        rate: Arrivals in a second.
        seconds: Length of the measurement.
        warm_up_s: Of the same load before it.
        count: End after this many requests instead of `seconds`; 0 for no such limit.
        tell_s: Seconds between two lines of progress.
        seed: Of the arrivals and of who starts with which request.
        pids: Processes by role, whose CPU time is to be reported.
    """

    target: str
    model: str
    requests: str
    clients: int = 0
    rate: float = 0.0
    seconds: float = 5.0
    warm_up_s: float = 1.0
    count: int = 0
    tell_s: float = 1.0
    seed: int = 0
    pids: dict[str, list[int]] = field(default_factory=dict)


class Load:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        """Read the requests; nothing is sent yet."""
        self.plan = plan
        self.requests = load_requests(Path(plan.requests))
        self.latencies: list[float] = []
        self.late: list[float] = []
        self.unpacking = 0.0
        self.errors: Counter[str] = Counter()
        self.sent = self.done = self.rows = self.invalid_rows = 0
        self.start = self.end = 0.0
        self.finished = asyncio.Event()

    async def run(self) -> dict[str, Any]:
        """Send everything and return the figures."""
        plan = self.plan
        connections = -(-plan.clients // SHARE) if plan.clients else SHARE
        channels = [grpc.aio.insecure_channel(plan.target, options=OPTIONS) for _ in range(connections)]
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        calls: list[Callable[..., Awaitable[bytes]]] = [c.unary_unary(f"{SERVICE}/ModelInfer") for c in channels]
        self.start = time.perf_counter() + plan.warm_up_s
        self.end = math.inf if plan.count else self.start + plan.seconds
        watch = asyncio.gather(self._watch(channels[0]), self._progress())
        if plan.clients:
            await asyncio.gather(*(self._client(i, calls[i % len(calls)]) for i in range(plan.clients)))
        else:
            await self._arrivals(calls)
        self.finished.set()
        (before, after), _ = await watch
        await asyncio.gather(*(channel.close() for channel in channels))
        return self._figures(before, after)

    async def _client(self, index: int, call: Callable[..., Awaitable[bytes]]) -> None:
        order = np.random.RandomState([self.plan.seed, index]).permutation(len(self.requests))
        while True:
            for number in order:
                now = time.perf_counter()
                if now >= self.end or (self.plan.count and self.sent >= self.plan.count):
                    return
                if not await self._send(call, self.requests[number], now):
                    await asyncio.sleep(PAUSE_AFTER_ERROR_S)

    async def _arrivals(self, calls: list[Callable[..., Awaitable[bytes]]]) -> None:
        random = np.random.RandomState(self.plan.seed)
        due, tasks = time.perf_counter(), set()
        while True:
            due += random.exponential(1 / self.plan.rate)
            if due >= self.end or (self.plan.count and self.sent >= self.plan.count):
                break
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            self.late.append(time.perf_counter() - due)
            request = self.requests[random.randint(len(self.requests))]
            task = asyncio.ensure_future(self._send(calls[self.sent % len(calls)], request, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def _send(self, call: Callable[..., Awaitable[bytes]], request: Prepared, since: float) -> bool:
        self.sent += 1
        pixels = self.sent % PIXELS_EVERY == 0
        try:
            answer = await call(request.message, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            self.errors[f"{error.code().name}: {' '.join(str(error.details()).split())[:200]}"] += 1
            return False
        came = time.perf_counter()
        fault = request.fault(answer, pixels)
        if fault is not None:
            self.errors[fault[:200]] += 1
        if since >= self.start and came <= self.end:
            self.latencies.append(came - since)
            self.unpacking += time.perf_counter() - came
            self.rows += len(request.valid)
            self.invalid_rows += int((~request.valid).sum())
        self.done += 1
        return True

    async def _watch(self, channel: grpc.aio.Channel) -> tuple[dict[str, Any], dict[str, Any]]:
        """Ask Triton for its sums and the system for CPU times, at both ends of the measurement."""
        ask = channel.unary_unary(
            f"{SERVICE}/ModelStatistics",
            request_serializer=pb.ModelStatisticsRequest.SerializeToString,
            response_deserializer=pb.ModelStatisticsResponse.FromString,
        )

        async def look() -> dict[str, Any]:
            answer = await ask(pb.ModelStatisticsRequest(name=self.plan.model), timeout=TIMEOUT_S)
            stats, times = answer.model_stats[0], os.times()
            cpu = {role: sum(map(_cpu_seconds, pids)) for role, pids in self.plan.pids.items()}
            return {
                "at": time.perf_counter(),
                "requests": stats.inference_stats.success.count,
                "rows": stats.inference_count,
                "executions": stats.execution_count,
                "sizes": {size.batch_size: size.compute_infer.count for size in stats.batch_stats},
                "cpu": {**cpu, "generator": times.user + times.system},
                **{part: getattr(stats.inference_stats, part).ns / 1e6 for part in PARTS},
            }

        await asyncio.sleep(self.start - time.perf_counter())
        before = await look()
        try:
            await asyncio.wait_for(self.finished.wait(), None if self.plan.count else self.end - time.perf_counter())
        except (TimeoutError, asyncio.TimeoutError):
            pass
        return before, await look()

    async def _progress(self) -> None:
        seen = 0
        while not self.finished.is_set():
            ms = [latency * 1e3 for latency in self.latencies[seen:]]  # since the last line
            seen += len(ms)
            p50, p99 = (round(float(value), 2) for value in np.percentile(ms, [50, 99])) if ms else (None, None)
            message = {"done": self.done, "errors": sum(self.errors.values()), "p50_ms": p50, "p99_ms": p99}
            print(json.dumps(message), flush=True)
            try:
                await asyncio.wait_for(self.finished.wait(), self.plan.tell_s)
            except (TimeoutError, asyncio.TimeoutError):
                continue

    def _figures(self, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
        seconds = after["at"] - before["at"] if self.plan.count else self.plan.seconds
        ms = np.asarray(self.latencies or [math.nan]) * 1e3  # [requests]
        requests, executions = (max(1, after[key] - before[key]) for key in ("requests", "executions"))
        sizes = {size: count - before["sizes"].get(size, 0) for size, count in after["sizes"].items()}
        spans = {role: cpu - before["cpu"][role] for role, cpu in after["cpu"].items()}
        return {
            "requests": len(self.latencies),
            "rows": self.rows,
            "invalid_rows": self.invalid_rows,
            "errors": sum(self.errors.values()),
            "error_messages": dict(self.errors.most_common(5)),
            "seconds": round(seconds, 2),
            "requests_per_s": round(len(self.latencies) / seconds, 1),
            "images_per_s": round(self.rows / seconds, 1),
            **{f"p{p}_ms": round(float(np.percentile(ms, p)), 2) for p in (50, 90, 95, 99)},
            "mean_ms": round(float(ms.mean()), 3),
            "max_ms": round(float(ms.max()), 2),
            "late_p99_ms": round(float(np.percentile(self.late, 99)) * 1e3, 2) if self.late else None,
            "unpacking_ms": round(self.unpacking / max(1, len(self.latencies)) * 1e3, 4),
            "server": {f"{part}_ms": round((after[part] - before[part]) / requests, 3) for part in PARTS},
            "mean_batch": round((after["rows"] - before["rows"]) / executions, 2),
            "batch_sizes": {str(size): count for size, count in sorted(sizes.items()) if count},
            "cpu_ms_per_request": {role: round(cpu / requests * 1e3, 3) for role, cpu in spans.items()},
        }


def _cpu_seconds(pid: int) -> float:
    # All threads together, in user and in kernel mode.
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def _run(plan: Plan) -> dict[str, Any]:
    return await Load(plan).run()


if __name__ == "__main__":
    print(json.dumps({"figures": asyncio.run(_run(Plan(**json.loads(sys.argv[1]))))}), flush=True)
