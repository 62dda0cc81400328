"""Calls and messages per second of a server in a process of its own: by the clock, and by the CPU time of the server.

The second says what a busier machine would see: by the clock, a client as slow as the server hides half of what the server costs.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import psutil

from bench.figures import Figure, against, interleaved
from trademesh.gateway.v1 import feed_service_pb2, feed_service_pb2_grpc

IN_FLIGHT = 64
RUN_ID = "bench"


@dataclass(frozen=True)
class Rates:
    """Of one round."""

    per_s: float
    per_server_cpu_s: float


class EchoServer:
    """A child process that serves `echo_server.py`."""

    def __init__(self, kind: str, messages: int) -> None:
        command = [sys.executable, "-m", "bench.echo_server", kind, str(messages)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None, "piped"
        self.target = f"127.0.0.1:{int(self._process.stdout.readline())}"
        self._usage = psutil.Process(self._process.pid)

    def cpu_s(self) -> float:
        """CPU time so far."""
        times = self._usage.cpu_times()
        return float(times.user + times.system)

    def measure(self, work: Callable[[str], Awaitable[int]]) -> Rates:
        """Does some work against the server, which returns how much it was."""
        cpu_s, started = self.cpu_s(), time.perf_counter()
        done = asyncio.run(work(self.target))  # type: ignore[arg-type]  # every work here is a coroutine
        seconds = time.perf_counter() - started
        return Rates(done / seconds, done / max(1e-6, self.cpu_s() - cpu_s))

    def stop(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None, "piped"
        assert self._process.stdout is not None, "piped"
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@contextmanager
def echo_servers(messages: int) -> Iterator[tuple[EchoServer, EchoServer]]:
    """Ours and a bare one."""
    started = list[EchoServer]()
    try:
        for kind in ("kernel", "bare"):
            started.append(EchoServer(kind, messages))
        yield started[0], started[1]
    finally:
        for server in started:
            server.stop()


def unary(calls: int) -> Callable[[str], Awaitable[int]]:
    """So many GetSnapshot calls, 64 in flight."""

    async def work(target: str) -> int:
        async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub: Any = feed_service_pb2_grpc.FeedServiceStub(channel)
            request = feed_service_pb2.GetSnapshotRequest(run_id=RUN_ID)

            async def some(count: int) -> None:
                for _ in range(count):
                    await stub.GetSnapshot(request, timeout=30)

            await asyncio.gather(*(some(calls // IN_FLIGHT) for _ in range(IN_FLIGHT)))
        return calls // IN_FLIGHT * IN_FLIGHT

    return work


async def stream(target: str) -> int:
    """All messages of one Subscribe call."""
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub: Any = feed_service_pb2_grpc.FeedServiceStub(channel)
        count = 0
        async for _ in stub.Subscribe(feed_service_pb2.SubscribeRequest(run_id=RUN_ID, after_sequence=0), timeout=60):
            count += 1
        return count


def kernel_figures(calls: int = 32_000, messages: int = 120_000) -> list[Figure]:
    """What the kernel leaves of a bare server's throughput."""
    found = list[Figure]()
    with echo_servers(messages) as (kernel, bare):
        for what, unit, work, goal in (
            ("unary", "calls", unary(calls), 0.85),
            ("stream", "messages", stream, 0.9),
        ):
            ours, theirs = list[Rates](), list[Rates]()

            def one(work: Any = work, rates: list[Rates] = ours) -> float:
                rates.append(kernel.measure(work))
                return rates[-1].per_s

            def other(work: Any = work, rates: list[Rates] = theirs) -> float:
                rates.append(bare.measure(work))
                return rates[-1].per_s

            by_clock = interleaved(one, other)
            # The round that warms up is the first of each list.
            by_cpu = [rate.per_server_cpu_s for rate in ours[1:]], [rate.per_server_cpu_s for rate in theirs[1:]]
            found.append(against(f"kernel against bare grpc.aio, {what}", f"{unit}/s", *by_clock, goal))
            found.append(against(f"kernel against bare grpc.aio, {what}, by the server's CPU", f"{unit}/CPU s", *by_cpu, goal))
    return found
