"""How long supervision takes: a death and a hang noticed, a gateway up again, twenty gateways adopted. On a real mesh with the timers that
people get."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from faulty_gateway import AFTER_BOUND_S
from mesh_processes import SERVICES, Mesh, running_mesh, wait_until

from bench.figures import Figure, at_most, percentile, told
from trademesh.gateway.v1 import pipeline_service_pb2, pipeline_service_pb2_grpc
from trademesh.runtime.v1 import runtime_pb2 as runtime
from trademesh.runtime.v1 import runtime_service_pb2 as messages
from trademesh.runtime.v1 import runtime_service_pb2_grpc
from trademesh_runs.layout import RunLayout

KILLS = 40
HANGS = 5
RESTARTS = 5
ADOPTED_RUNS = 20
UP_WITHIN_S = 60.0
CYCLE_DEADLINE_S = 3
FAULTY_GATEWAY = Path(__file__).resolve().parents[1] / "faults" / "faulty_gateway.py"


class Watch:
    """Follows WatchRuns in a thread, and keeps when each state of a run was first heard of."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self.stub: Any = runtime_service_pb2_grpc.RuntimeServiceStub(self._channel)
        self._call: Any = None
        self._closed = False
        self._news = threading.Condition()
        self._runs: dict[str, runtime.Run] = {}
        self._heard: dict[tuple[str, int], float] = {}
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        while not self._closed:
            try:
                self._call = self.stub.WatchRuns(messages.WatchRunsRequest(), wait_for_ready=True)
                for message in self._call:
                    now = time.perf_counter()
                    if message.HasField("run"):
                        with self._news:
                            self._runs[message.run.run_id] = message.run
                            self._heard[message.run.run_id, message.run.state] = now
                            self._news.notify_all()
            except grpc.RpcError:
                # A service that starts puts its callers off.
                time.sleep(0.02)

    def run(self, run_id: str) -> runtime.Run:
        """A run as it was last heard of."""
        return self._runs[run_id]

    def knows(self, run_id: str) -> bool:
        """True once a run was heard of."""
        return run_id in self._runs

    def heard(self, run_id: str, state: int, after: float) -> bool:
        """True if a state of a run was heard of later than a moment."""
        return self._heard.get((run_id, state), 0.0) > after

    def heard_after(self, run_id: str, states: tuple[int, ...], after: float, within_s: float = UP_WITHIN_S) -> float:
        """When one of these states was heard of, later than a moment; fails if it is not in time."""

        def found() -> float | None:
            times = [at for state in states if (at := self._heard.get((run_id, state), 0.0)) > after]
            return min(times) if times else None

        with self._news:
            assert self._news.wait_for(lambda: found() is not None, within_s), f"{run_id}: {states} not within {within_s:g} s"
            at = found()
        assert at is not None, "waited for"
        return at

    def close(self) -> None:
        """Ends the watch."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()
        self._channel.close()


@contextmanager
def watched_mesh(**environment: str) -> Iterator[tuple[Mesh, Watch]]:
    """The services, and what runtime_service says of their runs. `environment` is theirs."""
    with tempfile.TemporaryDirectory(prefix="trademesh-bench-") as name, running_mesh(Path(name), *SERVICES, **environment) as mesh:
        watch = Watch(f"127.0.0.1:{mesh.ports['runtime']}")
        try:
            yield mesh, watch
        finally:
            watch.close()


def supervision_figures() -> list[Figure]:
    """Death, hang, restart and adoption."""
    with watched_mesh() as (mesh, watch):
        return [*_deaths(mesh, watch), _hang(mesh, watch), *_faulty_hangs(), *_restarts(mesh, watch), _adoption(mesh)]


def _start(mesh: Mesh, run_id: str, *arguments: str) -> None:
    assert mesh.cli("run", "start", "--run-id", run_id, "--wait", *arguments).returncode == 0, f"{run_id} starts"


def _again(watch: Watch, run_id: str) -> float:
    """Restarts a run that has lost its gateway without waiting out its delay; seconds until it serves."""
    began = time.perf_counter()
    watch.stub.RestartRun(messages.RestartRunRequest(run_id=run_id), timeout=30)
    return watch.heard_after(run_id, (runtime.RUN_STATE_RUNNING,), began) - began


def _deaths(mesh: Mesh, watch: Watch) -> list[Figure]:
    _start(mesh, "killed", "--pace", "1")
    noticed_ms = list[float]()
    for _ in range(KILLS):
        killed = time.perf_counter()
        os.kill(watch.run("killed").pid, signal.SIGKILL)
        noticed_ms.append(1000 * (watch.heard_after("killed", (runtime.RUN_STATE_BACKOFF,), killed) - killed))
        _again(watch, "killed")
    mesh.json("run", "stop", "killed")
    name = f"death of a gateway, from SIGKILL to the word on WatchRuns, {KILLS} deaths"
    return [told(f"{name}, p50", "ms", percentile(noticed_ms, 50)), at_most(f"{name}, p99", "ms", percentile(noticed_ms, 99), 50)]


def _hang(mesh: Mesh, watch: Watch) -> Figure:
    _start(mesh, "hung", "--pace", "1")
    noticed_s = list[float]()
    for _ in range(HANGS):
        stopped = time.perf_counter()
        os.kill(watch.run("hung").pid, signal.SIGSTOP)
        noticed_s.append(watch.heard_after("hung", (runtime.RUN_STATE_HUNG,), stopped) - stopped)
        watch.heard_after("hung", (runtime.RUN_STATE_BACKOFF,), stopped)
        _again(watch, "hung")
    mesh.json("run", "stop", "hung")
    return at_most(f"hang of a gateway (SIGSTOP), longest of {HANGS}", "s", max(noticed_s), 5)


def _faulty_hangs() -> list[Figure]:
    """Gateways whose loop or pipeline stands still, by the fault that their run asks for (`tests/faults/faulty_gateway.py`)."""
    with watched_mesh(TRADEMESH_GATEWAY_COMMAND=f"{sys.executable} {FAULTY_GATEWAY}") as (mesh, watch):
        blocked_s = [_blocked(mesh, watch, f"blocked-{number}") for number in range(HANGS)]
        stuck_s = [_stuck(mesh, watch, f"stuck-{number}") for number in range(HANGS)]
    return [
        at_most(f"hang of a gateway (its loop blocked), longest of {HANGS}", "s", max(blocked_s), 5),
        at_most(f"hang of a gateway (its pipeline stuck), beyond the cycle's deadline, longest of {HANGS}", "s", max(stuck_s), 5),
    ]


def _faulty(mesh: Mesh, run_id: str, fault: str) -> None:
    bootstrap = mesh.folder / f"{run_id}.md"
    bootstrap.write_text(f"---\npipeline: {{pace_sessions_per_s: 1, cycle_deadline_s: {CYCLE_DEADLINE_S}}}\n---\nfault: {fault}\n")
    _start(mesh, run_id, str(bootstrap))


def _blocked(mesh: Mesh, watch: Watch, run_id: str) -> float:
    """Seconds from the moment in which the loop stops, a second after the gateway has said who it is."""
    _faulty(mesh, run_id, "blocked-loop")
    blocked_at = RunLayout(mesh.runs, run_id).gateway_identity.stat().st_mtime + AFTER_BOUND_S
    hung = watch.heard_after(run_id, (runtime.RUN_STATE_HUNG,), 0.0)
    noticed_s = time.time() - (time.perf_counter() - hung) - blocked_at
    mesh.json("run", "stop", run_id)
    return noticed_s


def _stuck(mesh: Mesh, watch: Watch, run_id: str) -> float:
    """Seconds from the deadline of the cycle that is stuck."""
    _faulty(mesh, run_id, "stuck-pipeline")
    with grpc.insecure_channel(watch.run(run_id).target) as channel:
        stub: Any = pipeline_service_pb2_grpc.PipelineServiceStub(channel)
        request = pipeline_service_pb2.GetPipelineRequest(run_id=run_id)
        began = wait_until(lambda: stub.GetPipeline(request, timeout=5).pipeline.cycle_started_at.ToNanoseconds(), 10, "a cycle")
    hung = watch.heard_after(run_id, (runtime.RUN_STATE_HUNG,), 0.0)
    noticed_s = time.time() - (time.perf_counter() - hung) - began / 1e9 - CYCLE_DEADLINE_S
    mesh.json("run", "stop", run_id)
    return noticed_s


def _restarts(mesh: Mesh, watch: Watch) -> list[Figure]:
    _start(mesh, "decades")
    events = int(mesh.summary("decades")["events"])
    serving_s, up_s = list[float](), list[float]()
    for _ in range(RESTARTS):
        killed = time.perf_counter()
        os.kill(watch.run("decades").pid, signal.SIGKILL)
        # First without us: the delay is in it. Then without the delay.
        up_s.append(watch.heard_after("decades", (runtime.RUN_STATE_RUNNING,), killed) - killed)
        killed = time.perf_counter()
        os.kill(watch.run("decades").pid, signal.SIGKILL)
        watch.heard_after("decades", (runtime.RUN_STATE_BACKOFF,), killed)
        serving_s.append(_again(watch, "decades"))
    mesh.json("run", "stop", "decades")
    return [
        at_most(f"restart to SERVING with {events:,} events, without the delay, longest of {RESTARTS}", "s", max(serving_s), 2),
        at_most(f"kill to SERVING with {events:,} events, with the delay, longest of {RESTARTS}", "s", max(up_s), 5),
    ]


def _adoption(mesh: Mesh) -> Figure:
    for number in range(ADOPTED_RUNS):
        _start(mesh, f"adopted-{number}", "--pace", "0.1")
    mesh.processes["runtime"].kill()
    mesh.processes["runtime"].wait()
    began = time.perf_counter()
    mesh.start("runtime")
    watch = Watch(f"127.0.0.1:{mesh.ports['runtime']}")
    try:
        runs = [f"adopted-{number}" for number in range(ADOPTED_RUNS)]
        last = max(watch.heard_after(run_id, (runtime.RUN_STATE_RUNNING,), 0.0) for run_id in runs)
        generations = {watch.run(run_id).generation for run_id in runs}
    finally:
        watch.close()
    assert generations == {1}, f"started again: generations {generations}"
    return at_most(f"{ADOPTED_RUNS} gateways adopted, from the start of the new runtime_service process", "s", last - began, 3)
