"""What a reader gets of real runs on a real mesh of processes: sessions per second, events per second, and how late an event is."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import grpc
from edge_client import edge_client
from mesh_processes import PROCESSES, Mesh, running_mesh

from bench.figures import ROUNDS, Figure, against, at_least, interleaved
from trademesh.gateway.v1 import feed_service_pb2, feed_service_pb2_grpc

DEMO_SESSIONS = 8313
DEMO_WITHIN_S = 60.0
REPLAY_GOAL = 0.6
LATENCY_S = 4.0
"""How long each round of the latencies listens; at 20 sessions a second that is about 900 events."""


def run_figures() -> list[Figure]:
    """Figures of the demo run, at full speed and at 20 sessions a second."""
    with tempfile.TemporaryDirectory(prefix="trademesh-bench-") as name, running_mesh(Path(name), *PROCESSES) as mesh:
        finished, figure = _sessions_per_s(mesh)
        figures = [figure, replay_rate(mesh, finished)]
        mesh.json("run", "stop", finished)
        return figures + _latencies(mesh)


def _sessions_per_s(mesh: Mesh) -> tuple[str, Figure]:
    """From StartRun to the last event, of 33 years and 20 tickers. Returns a finished run too."""
    rates = list[float]()
    run_id = ""
    for number in range(ROUNDS):
        if run_id:
            mesh.json("run", "stop", run_id)
        run_id = f"demo-{number}"
        started = time.perf_counter()
        assert mesh.cli("run", "start", "--run-id", run_id, "--wait").returncode == 0, "the demo starts"
        last = asyncio.run(until_finished(mesh, run_id))
        rates.append(DEMO_SESSIONS / (time.perf_counter() - started))
        assert last == DEMO_SESSIONS, f"{last} sessions"
    name = f"demo through the whole mesh, {DEMO_SESSIONS} sessions of 20 tickers"
    return run_id, at_least(name, "sessions/s", rates, DEMO_SESSIONS / DEMO_WITHIN_S)


async def until_finished(mesh: Mesh, run_id: str) -> int:
    """Follows a feed to the event that ends the run; how many sessions it tells of."""
    request = feed_service_pb2.SubscribeRequest(
        run_id=run_id, after_sequence=0, filter=feed_service_pb2.EventFilter(kinds=["run_finished"])
    )
    async for message in feed(feed_target(mesh, run_id), request):
        for event in message.events.events:
            return int(event.run_finished.sessions)
    raise AssertionError("the feed ended before the run")


def feed_target(mesh: Mesh, run_id: str) -> str:
    """Who serves a run's feed now."""
    return str(mesh.json("run", "show", run_id)["run"]["feed_target"])


async def feed(target: str, request: feed_service_pb2.SubscribeRequest) -> AsyncIterator[Any]:
    """What a Subscribe call answers."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = feed_service_pb2_grpc.FeedServiceStub(channel)
        call = stub.Subscribe(request, timeout=120)
        try:
            async for message in call:
                yield message
        finally:
            call.cancel()


def replay_rate(mesh: Mesh, run_id: str) -> Figure:
    """The whole journal of a finished demo to one subscriber, against a bare server that has the same messages ready in memory."""
    target = feed_target(mesh, run_id)
    head = int(mesh.summary(run_id)["events"])
    recording = mesh.folder / "messages.json"
    messages = asyncio.run(_recorded(target, run_id, head))
    recording.write_text(json.dumps([message.hex() for message in messages]))
    command = [sys.executable, "-m", "bench.replay_server", str(recording)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as bare:
        assert bare.stdin is not None, "piped"
        assert bare.stdout is not None, "piped"
        replay = f"127.0.0.1:{int(bare.stdout.readline())}"
        try:
            rates = interleaved(
                lambda: asyncio.run(_rate(target, run_id, head)),
                lambda: asyncio.run(_rate(replay, run_id, head)),
            )
        finally:
            bare.stdin.close()
            bare.wait(10)
    return against("journal to a subscriber, against a bare stream of the same messages", "events/s", *rates, REPLAY_GOAL)


async def _recorded(target: str, run_id: str, head: int) -> list[bytes]:
    found = list[bytes]()
    async for message in feed(target, feed_service_pb2.SubscribeRequest(run_id=run_id, after_sequence=0)):
        found.append(message.SerializeToString())
        if message.events.last_sequence >= head:
            break
    return found


async def _rate(target: str, run_id: str, head: int) -> float:
    started = time.perf_counter()
    count = 0
    async for message in feed(target, feed_service_pb2.SubscribeRequest(run_id=run_id, after_sequence=0)):
        count += len(message.events.events)
        if message.events.last_sequence >= head:
            break
    assert count == head, f"{count} of {head} events"
    return count / (time.perf_counter() - started)


def _latencies(mesh: Mesh) -> list[Figure]:
    """From an event's recording to its arrival: at a WebSocket client of the edge, against a gRPC client of the gateway itself."""
    assert mesh.cli("run", "start", "--run-id", "paced", "--pace", "20", "--wait").returncode == 0, "the run starts"
    target = feed_target(mesh, "paced")
    socket, direct = list[list[float]](), list[list[float]]()

    def at_socket() -> float:
        socket.append(asyncio.run(_socket_latencies(mesh.ports["edge"])))
        return 0.0

    def at_gateway() -> float:
        direct.append(asyncio.run(_gateway_latencies(target)))
        return 0.0

    interleaved(at_socket, at_gateway)
    mesh.json("run", "stop", "paced")
    return [
        against(
            f"an event to a WebSocket client, {name}, against a gRPC client of the gateway",
            "ms",
            [of(one) for one in socket[1:]],
            [of(one) for one in direct[1:]],
        )
        for name, of in (("p50", median), ("p99", lambda values: quantiles(values, n=100)[98]))
    ]


async def _socket_latencies(port: int) -> list[float]:
    async with edge_client(port) as client:
        messages = client.subscribe(feed_service_pb2.SubscribeRequest(run_id="paced"))
        return await _listen(messages)


async def _gateway_latencies(target: str) -> list[float]:
    return await _listen(feed(target, feed_service_pb2.SubscribeRequest(run_id="paced")))


async def _listen(messages: AsyncIterator[Any]) -> list[float]:
    """Milliseconds of each event that comes in within a while."""
    found = list[float]()
    try:
        async with asyncio.timeout(LATENCY_S):
            async for message in messages:
                now = time.time()
                for event in message.events.events:
                    found.append(1000 * (now - event.recorded_at.ToNanoseconds() / 1e9))
    except TimeoutError:
        pass
    assert len(found) >= 100, f"only {len(found)} events in {LATENCY_S} s"
    return found
