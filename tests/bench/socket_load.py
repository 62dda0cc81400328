"""What many browsers cost the edge: how late events are for 20 timed ones among hundreds, what `broadcast()` alone would cost, and memory.

Nothing is timed in the clients that only drain (`socket_drains.py`, a process of its own); events come from a real run at 200 a second.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil
from edge_client import SUBSCRIBE, edge_client
from mesh_processes import Mesh

from bench.figures import Figure, at_most, percentile, told
from bench.mesh_runs import feed, feed_target
from trademesh.edge.v1 import frame_pb2
from trademesh.gateway.v1 import feed_service_pb2

EVENTS_PER_S = 200
EVENTS_PER_SESSION = 12
TIMED = 20
LISTEN_S = 10.0
THROUGHPUT_ROUNDS = 3
SETTLE_S = 2.0
THROUGHPUT_GOAL = 0.8
BESIDE_ROUNDS = 3
BESIDE_GOAL = 1 / 1.2
IDLE = 1_000
SLOW = 40
STALLED_READERS = 40
STALLED_S = 15.0
RUN = "load"


def socket_figures(mesh: Mesh) -> list[Figure]:
    """Latency with 200 and 500 browsers, throughput with 200."""
    pace = str(round(EVENTS_PER_S / EVENTS_PER_SESSION, 2))
    assert mesh.cli("run", "start", "--run-id", RUN, "--pace", pace, "--wait").returncode == 0, "the run starts"
    figures = list[Figure]()
    port = mesh.ports["edge"]
    for browsers in (200, 500):
        with drains(port, browsers - TIMED, RUN, "drain"):
            late_ms = asyncio.run(_timed_clients(port))
        name = f"event to {browsers} browsers at {len(late_ms) / TIMED / LISTEN_S:.0f} events/s, from its recording to {TIMED} timed ones"
        figures.append(told(f"{name}, p50", "ms", percentile(late_ms, 50)))
        p99 = percentile(late_ms, 99)
        figures.append(at_most(f"{name}, p99", "ms", p99, 100) if browsers == 200 else told(f"{name}, p99", "ms", p99))
    figures += _gateway_latency(mesh)
    figures.append(_beside("browsers among 200 when 20 others read nothing", _browsers_p99(mesh, 0), _browsers_p99(mesh, 20)))
    figures.append(_beside("a gRPC client of the gateway when 20 others read nothing", _gateway_p99(mesh, 0), _gateway_p99(mesh, 20)))
    figures.append(_throughput(mesh))
    mesh.json("run", "stop", RUN)
    return figures


@contextmanager
def drains(port: int, count: int, run_id: str, mode: str) -> Iterator[subprocess.Popen[str]]:
    """So many clients that only drain, connected."""
    command = [sys.executable, "-m", "bench.socket_drains", str(port), str(count), run_id, mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None, "piped"
        assert process.stdout is not None, "piped"
        try:
            assert process.stdout.readline() == "ready\n", "the clients are connected"
            yield process
        finally:
            process.stdin.close()
            process.wait(30)


async def _timed_clients(port: int) -> list[float]:
    found = await asyncio.gather(*(_timed_client(port) for _ in range(TIMED)))
    return [late for client in found for late in client]


async def _timed_client(port: int) -> list[float]:
    late_ms = list[float]()
    async with edge_client(port) as client:
        try:
            async with asyncio.timeout(LISTEN_S):
                async for message in client.subscribe(feed_service_pb2.SubscribeRequest(run_id=RUN)):
                    now = time.time()
                    assert not isinstance(message, frame_pb2.Status), f"ended: {message}"
                    late_ms += [1000 * (now - event.recorded_at.ToNanoseconds() / 1e9) for event in message.events.events]
        except TimeoutError:
            pass
    return late_ms


def _beside(whose: str, calm: Callable[[], float], disturbed: Callable[[], float]) -> Figure:
    """How much later events are for some when others are slow."""
    calm_ms, disturbed_ms = list[float](), list[float]()
    for _ in range(BESIDE_ROUNDS):
        calm_ms.append(calm())
        disturbed_ms.append(disturbed())
    ratio = median(one / other for one, other in zip(calm_ms, disturbed_ms, strict=True))
    name = f"event to {whose}, p99, against the same when nobody is slow"
    return Figure(name, median(disturbed_ms), "ms", median(calm_ms), ratio, BESIDE_GOAL, ratio >= BESIDE_GOAL)


def _browsers_p99(mesh: Mesh, slow: int) -> Callable[[], float]:
    port = mesh.ports["edge"]

    def measured() -> float:
        with drains(port, 200 - TIMED - slow, RUN, "drain"), drains(port, slow, RUN, "stall"):
            return percentile(asyncio.run(_timed_clients(port)), 99)

    return measured


def _gateway_p99(mesh: Mesh, slow: int) -> Callable[[], float]:
    def measured() -> float:
        with stalled_readers(feed_target(mesh, RUN), RUN, slow):
            return percentile(asyncio.run(_gateway_latencies(mesh)), 99)

    return measured


@contextmanager
def stalled_readers(target: str, run_id: str, count: int) -> Iterator[None]:
    """So many gRPC readers that read nothing."""
    command = [sys.executable, "-m", "bench.stalled_readers", target, run_id, str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as readers:
        assert readers.stdin is not None, "piped"
        assert readers.stdout is not None, "piped"
        try:
            assert readers.stdout.readline() == "ready\n", "the readers have begun"
            yield
        finally:
            readers.stdin.close()
            readers.wait(30)


async def _gateway_latencies(mesh: Mesh) -> list[float]:
    late_ms = list[float]()
    try:
        async with asyncio.timeout(LISTEN_S):
            async for message in feed(feed_target(mesh, RUN), feed_service_pb2.SubscribeRequest(run_id=RUN)):
                now = time.time()
                late_ms += [1000 * (now - event.recorded_at.ToNanoseconds() / 1e9) for event in message.events.events]
    except TimeoutError:
        pass
    return late_ms


def _gateway_latency(mesh: Mesh) -> list[Figure]:
    late_ms = asyncio.run(_gateway_latencies(mesh))
    # Events of a backtest wait up to 20 ms for others to share a transaction with: the budget of 5 and 30 ms is from the commit.
    return [
        at_most("event to a gRPC client of the gateway, from its recording, p50", "ms", percentile(late_ms, 50), 5 + 20),
        at_most("event to a gRPC client of the gateway, from its recording, p99", "ms", percentile(late_ms, 99), 30 + 20),
    ]


def _throughput(mesh: Mesh) -> Figure:
    """CPU time of the edge for what 200 browsers get, against `broadcast()` of the same frames at the same times."""
    edge = psutil.Process(mesh.processes["edge"].pid)
    ours, bare = list[float](), list[float]()
    sent_bytes = 0
    for _ in range(THROUGHPUT_ROUNDS):
        with drains(mesh.ports["edge"], 200, RUN, "drain"):
            # Their calls are sent, not yet answered: what it costs to begin is no part of what it costs to send.
            time.sleep(SETTLE_S)
            time_before = _cpu_s(edge)
            frames = asyncio.run(_recorded(mesh.ports["edge"]))
            ours.append(_cpu_s(edge) - time_before)
        sent_bytes = 200 * sum(len(frame) for _, frame in frames)
        bare.append(_bare_cpu_s(mesh.folder / "frames.json", frames))
    ratio = median(theirs / our for our, theirs in zip(ours, bare, strict=True))
    rate = sent_bytes / 1e6 / median(ours)
    name = "bytes to 200 browsers for each CPU second of the edge, against broadcast() of the same frames"
    return Figure(name, rate, "MB/CPU s", sent_bytes / 1e6 / median(bare), ratio, THROUGHPUT_GOAL, ratio >= THROUGHPUT_GOAL)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _recorded(port: int) -> list[tuple[float, bytes]]:
    """The frames that one browser gets in a while, with their times."""
    found = list[tuple[float, bytes]]()
    async with edge_client(port) as client:
        await client.begin(SUBSCRIBE, feed_service_pb2.SubscribeRequest(run_id=RUN).SerializeToString())
        began = time.perf_counter()
        while time.perf_counter() - began < LISTEN_S:
            data = await client.connection.recv()
            assert isinstance(data, bytes), "binary"
            found.append((time.perf_counter() - began, data))
    return found


def _bare_cpu_s(path: Path, frames: list[tuple[float, bytes]]) -> float:
    path.write_text(json.dumps([(at, frame.hex()) for at, frame in frames]))
    command = [sys.executable, "-m", "bench.broadcast_server", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None, "piped"
        assert server.stdout is not None, "piped"
        port = int(server.stdout.readline())
        usage = psutil.Process(server.pid)
        with drains(port, 201, RUN, "bare"):
            before = _cpu_s(usage)
            server.stdin.write("go\n")
            server.stdin.flush()
            assert server.stdout.readline() == "done\n", "all frames are sent"
            spent = _cpu_s(usage) - before
        server.stdin.close()
        server.wait(30)
    return spent


def memory_figures(mesh: Mesh) -> list[Figure]:
    """Resident memory that one more reader costs, of processes that have not had many yet: what others have left would be used again."""
    edge, port = psutil.Process(mesh.processes["edge"].pid), mesh.ports["edge"]
    assert mesh.cli("run", "start", "--run-id", "idle", "--pace", "0.01", "--wait").returncode == 0, "the run starts"
    with drains(port, 20, "idle", "drain"):
        # The first browsers of a run open its hub: that is not theirs.
        before = edge.memory_info().rss
        with drains(port, IDLE, "idle", "drain"):
            idle_kib = (edge.memory_info().rss - before) / IDLE / 1024
    mesh.json("run", "stop", "idle")
    assert mesh.cli("run", "start", "--run-id", "fast", "--pace", "60", "--wait").returncode == 0, "the run starts"
    with drains(port, 20, "fast", "drain"):
        before = _peak_rss(edge, 8)
        with drains(port, SLOW, "fast", "stall"):
            slow_kib = (_peak_rss(edge, 20) - before) / SLOW / 1024
    stalled_kib = _stalled_reader_kib(mesh)
    mesh.json("run", "stop", "fast")
    return [
        at_most(f"memory of the edge for an idle browser ({IDLE:,} of them)", "KiB", idle_kib, 20),
        at_most(f"memory of the edge for a browser that reads nothing of 720 events/s ({SLOW} of them)", "KiB", slow_kib, 1024),
        at_most(f"memory of the gateway for a gRPC reader that reads nothing ({STALLED_READERS} of them)", "KiB", stalled_kib, 256),
    ]


def _peak_rss(process: psutil.Process, seconds: float) -> int:
    peak, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        peak = max(peak, int(process.memory_info().rss))
        time.sleep(0.1)
    return peak


def _stalled_reader_kib(mesh: Mesh) -> float:
    shown = mesh.json("run", "show", "fast")["run"]
    gateway = psutil.Process(int(shown["pid"]))
    first = _peak_rss(gateway, 0.5)
    before = _peak_rss(gateway, STALLED_S)
    # What the run itself adds in such a time is not the readers'.
    run_adds = before - first
    with stalled_readers(shown["target"], "fast", STALLED_READERS):
        during = _peak_rss(gateway, STALLED_S)
    return (during - before - run_adds) / STALLED_READERS / 1024
