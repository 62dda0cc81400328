"""A mesh whose runtime_service is killed, stopped and started again by tests, while runs go on; and calls to it that outlive that."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import psutil
from mesh_processes import Mesh, mesh_processes, wait_until

from trademesh.runtime.v1 import runtime_pb2, runtime_service_pb2, runtime_service_pb2_grpc
from trademesh.runtime.v1.run_config_pb2 import RunConfig

Stub = runtime_service_pb2_grpc.RuntimeServiceStub
RUNNING = runtime_pb2.RUN_STATE_RUNNING
ENDED = (runtime_pb2.RUN_STATE_STOPPED, runtime_pb2.RUN_STATE_SUCCEEDED, runtime_pb2.RUN_STATE_FAILED)


class RuntimeUnderFaults:
    """runtime_service of a mesh, and what tests do to it."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh

    @contextmanager
    def stub(self) -> Iterator[Stub]:
        """Calls on a new channel, which knows nothing of an earlier runtime_service."""
        with grpc.insecure_channel(f"127.0.0.1:{self.mesh.ports['runtime']}") as channel:
            yield Stub(channel)

    def call(self, method: str, request: Any, timeout_s: float = 30) -> Any:
        """One call; waits for a runtime_service that is being started."""
        with self.stub() as stub:
            return getattr(stub, method)(request, timeout=timeout_s, wait_for_ready=True)

    def start_run(self, run_id: str, *, pace: float = 5, autostart: bool = True, end: str = "2009-06-01") -> None:
        """Starts a run that lasts, if it is not told otherwise."""
        config = RunConfig(run_id=run_id, sessions={"start": "2007-06-01", "end": end})
        config.pipeline.pace_sessions_per_s = pace
        config.pipeline.autostart = autostart
        self.call("StartRun", runtime_service_pb2.StartRunRequest(config=config, request_id=str(uuid.uuid4())))

    def answer(self, run_id: str) -> runtime_service_pb2.GetRunResponse:
        """What GetRun says."""
        found: runtime_service_pb2.GetRunResponse = self.call("GetRun", runtime_service_pb2.GetRunRequest(run_id=run_id))
        return found

    def run(self, run_id: str) -> runtime_pb2.Run:
        """A run as it is now."""
        return self.answer(run_id).run

    def until_running(self, run_id: str, within_s: float = 30, generation: int = 1, head: int = 0) -> runtime_pb2.Run:
        """The run once its gateway serves, and has journaled so much."""

        def running() -> runtime_pb2.Run | None:
            run = self.run(run_id)
            far = run.generation >= generation and run.progress.head_sequence >= head
            return run if run.state == RUNNING and far else None

        found: runtime_pb2.Run = wait_until(running, within_s, f"{run_id} running")
        return found

    def until_ended(self, run_id: str, within_s: float = 30) -> runtime_pb2.Run:
        """The run once it has ended."""

        def ended() -> runtime_pb2.Run | None:
            run = self.run(run_id)
            return run if run.state in ENDED else None

        found: runtime_pb2.Run = wait_until(ended, within_s, f"{run_id} ended")
        return found

    def stop(self, run_id: str) -> runtime_pb2.Run:
        """Stops a run."""
        answer: runtime_service_pb2.StopRunResponse = self.call("StopRun", runtime_service_pb2.StopRunRequest(run_id=run_id), 60)
        return answer.run

    def kill(self) -> None:
        """kill -9."""
        self.mesh.processes["runtime"].kill()
        self.mesh.processes["runtime"].wait(10)

    def start(self, *before: str, code: str = "", **environment: str) -> float:
        """Starts runtime_service, behind other commands and with other code if told, and waits until it takes calls; returns when it was started."""
        began = time.monotonic()
        command = [*before, sys.executable, *(["-c", code] if code else ["-m", "trademesh_runtime"])]
        with (self.mesh.folder / "runtime.log").open("ab") as log:
            self.mesh.processes["runtime"] = subprocess.Popen(
                command, cwd=self.mesh.folder, env=self.mesh.environment | environment, stdout=log, stderr=log
            )
        with grpc.insecure_channel(f"127.0.0.1:{self.mesh.ports['runtime']}") as channel:
            grpc.channel_ready_future(channel).result(30)
        return began

    def gateways(self, run_id: str) -> list[psutil.Process]:
        """Gateway processes that live and hold the journal of the run."""
        found = list[psutil.Process]()
        for process in mesh_processes(self.mesh.folder):
            try:
                opened = {item.path for item in process.open_files()}
            except psutil.Error:
                continue
            if str(self.mesh.runs / run_id / "gateway.lock") in opened:
                found.append(process)
        return found


class Watching:
    """A watch of all runs in a thread, over the deaths of its server: what an observer would know."""

    def __init__(self, runtime: RuntimeUnderFaults) -> None:
        self._runtime = runtime
        self.revision: int | None = None
        self.states = dict[str, list[int]]()
        self.known = dict[str, runtime_pb2.Run]()
        self.deleted = list[str]()
        self.resets = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watching:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join(15)
        assert not self._thread.is_alive()

    def _watch(self) -> None:
        while not self._ended.is_set():
            request = runtime_service_pb2.WatchRunsRequest(after_revision=self.revision)
            try:
                with self._runtime.stub() as stub:
                    call = stub.WatchRuns(request, wait_for_ready=True, timeout=60)
                    stop = threading.Thread(target=lambda call=call: (self._ended.wait(), call.cancel()), daemon=True)
                    stop.start()
                    for news in call:
                        self._take(news)
            except grpc.RpcError:
                self._ended.wait(0.02)

    def _take(self, news: runtime_service_pb2.WatchRunsResponse) -> None:
        match news.WhichOneof("kind"):
            case "run":
                run = news.run
                states = self.states.setdefault(run.run_id, [])
                if not states or states[-1] != run.state:
                    states.append(run.state)
                self.known[run.run_id] = run
                self.revision = max(self.revision or 0, run.revision)
            case "deleted":
                self.deleted.append(news.deleted.run_id)
                self.known.pop(news.deleted.run_id, None)
                self.revision = max(self.revision or 0, news.deleted.revision)
            case "reset":
                self.resets += 1
                self.known.clear()
            case "checkpoint":
                self.revision = news.checkpoint.revision


def is_gone(pid: int) -> bool:
    """True if a process has ended, whether or not somebody has taken note of it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def freeze(process: subprocess.Popen[bytes]) -> None:
    """Stops a process where it stands."""
    process.send_signal(signal.SIGSTOP)


def thaw(process: subprocess.Popen[bytes]) -> None:
    """Lets it go on."""
    process.send_signal(signal.SIGCONT)
