"""A gateway without a runtime_service: the test is its supervisor. It gives the ticket, sends heartbeats or leaves them out, and reads the
last words."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from fault_timers import FULL, FULL_TEST_TIMEOUT_S
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mesh_processes import Mesh, wait_until

from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh.gateway.v1 import feed_service_pb2_grpc, pipeline_service_pb2_grpc, supervision_service_pb2_grpc
from trademesh.gateway.v1 import pipeline_service_pb2 as pipeline
from trademesh.gateway.v1 import supervision_service_pb2 as supervision
from trademesh.gateway.v1.event_pb2 import Event
from trademesh.gateway.v1.state_pb2 import Pipeline
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_gateway.launch import LAUNCH_VARIABLE
from trademesh_runs.bootstrap import write_bootstrap
from trademesh_runs.journal_sqlite import SqliteReader
from trademesh_runs.layout import RunLayout
from trademesh_runs.run_config import normalised

NONCE = "0123456789abcdef"
STREAM_S = FULL_TEST_TIMEOUT_S if FULL else 60
TICKERS = ("AAPL", "BAC", "GE", "JNJ", "KO", "MSFT")


def configuration(**fields: Any) -> RunConfig:
    """Some tickers and three months, as far as nothing else is said."""
    config = RunConfig(**fields)
    config.tickers.extend(() if config.tickers else TICKERS)
    if not config.sessions.start:
        config.sessions.start, config.sessions.end = "2008-01-02", "2008-03-31"
    return normalised(config)


class LoneGateway:
    """A gateway process and the calls to it."""

    def __init__(
        self, mesh: Mesh, run_id: str, config: RunConfig | None, *, generation: int = 1, runs: Path | None = None, **ticket: Any
    ) -> None:
        """Without a configuration the run is one that an earlier gateway has begun. `ticket` are fields of the launch ticket."""
        self.run_id = run_id
        self.layout = RunLayout(runs or mesh.runs, run_id)
        self.generation = generation
        self._environment = {name: value for name, value in mesh.environment.items() if not name.startswith("TRADEMESH_GATEWAY_LAUNCH")}
        if config is not None:
            self.layout.make_folders()
            self.layout.bootstrap.write_text(write_bootstrap(config))
        self.ticket = {
            "run_id": run_id,
            "runs_dir": str(self.layout.runs_dir),
            "generation": generation,
            "nonce": NONCE,
            "run_nonce": run_id,
            "bind": "127.0.0.1:0",
            "advertise": "",
            "trading_target": mesh.environment["TRADEMESH_TRADING_TARGET"],
            "news_target": mesh.environment["TRADEMESH_NEWS_TARGET"],
            "agent_target": mesh.environment["TRADEMESH_AGENT_TARGET"],
            **ticket,
        }
        self.target = ""

    def start(self, **environment: str) -> None:
        """Starts the process, and does not wait."""
        self._ours, theirs = socket.socketpair()
        with self.layout.gateway_log(self.generation).open("ab") as log, theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trademesh_gateway"],
                env={**self._environment, **environment, LAUNCH_VARIABLE: str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._ours.sendall(json.dumps(self.ticket).encode() + b"\n")

    def wait_bound(self, within_s: float = 30.0) -> None:
        """Waits until it says where it serves."""
        self._ours.settimeout(within_s)
        with self._ours, self._ours.makefile("r") as lines:
            for line in lines:
                message = json.loads(line)
                if message["kind"] == "bound":
                    self.target = message["target"]
                    break
        assert self.target, f"it ended first: {self.log()}"
        self.channel = grpc.insecure_channel(self.target, [("grpc.use_local_subchannel_pool", 1)])
        self.pipeline_stub: Any = pipeline_service_pb2_grpc.PipelineServiceStub(self.channel)
        self.feed_stub: Any = feed_service_pb2_grpc.FeedServiceStub(self.channel)
        self._supervision_stub: Any = supervision_service_pb2_grpc.SupervisionServiceStub(self.channel)
        self._health_stub: Any = health_pb2_grpc.HealthStub(self.channel)

    def beat(self) -> supervision.HeartbeatResponse:
        """One heartbeat."""
        request = supervision.HeartbeatRequest(generation=self.generation, nonce=NONCE)
        answer: supervision.HeartbeatResponse = self._supervision_stub.Heartbeat(request, timeout=10)
        return answer

    def drain(self, within_s: float = 5.0) -> int:
        """Drains it; returns the journal's head."""
        within = Duration()
        within.FromMilliseconds(round(within_s * 1000))
        request = supervision.DrainRequest(generation=self.generation, nonce=NONCE, within=within)
        return int(self._supervision_stub.Drain(request, timeout=within_s + 10).head_sequence)

    def serving(self, name: str = "") -> bool:
        """Readiness, or what another health name says."""
        answer = self._health_stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def now(self) -> Pipeline:
        """Where the pipeline stands."""
        answer: pipeline.GetPipelineResponse = self.pipeline_stub.GetPipeline(pipeline.GetPipelineRequest(run_id=self.run_id), timeout=10)
        return answer.pipeline

    def call(self, method: str, **fields: Any) -> Pipeline:
        """One of the calls that steer the pipeline, for example `StopPipeline`."""
        request = getattr(pipeline, f"{method}Request")(run_id=self.run_id, **fields)
        answer: Pipeline = getattr(self.pipeline_stub, method)(request, timeout=30).pipeline
        return answer

    def watch(self) -> Any:
        """A stream of WatchPipeline."""
        return self.pipeline_stub.WatchPipeline(pipeline.WatchPipelineRequest(run_id=self.run_id), timeout=60)

    def subscribe(self, after: int = 0) -> Any:
        """A stream of events."""
        return self.feed_stub.Subscribe(feed.SubscribeRequest(run_id=self.run_id, after_sequence=after), timeout=STREAM_S)

    def wait_end(self, within_s: float = 30.0) -> tuple[int, str]:
        """Waits for its end; exit status and last words."""
        code = self.process.wait(within_s)
        words = json.loads(self.layout.gateway_exit.read_text())
        return code, str(words["reason"]) if words["generation"] == self.generation else ""

    def terminate(self) -> tuple[int, str]:
        """SIGTERM, and its end."""
        self.process.terminate()
        return self.wait_end()

    def events(self, *kinds: str) -> list[Event]:
        """What the journal on disk holds, of these kinds or of all."""
        reader = SqliteReader(self.layout.journal)
        try:
            found = [stored.parse() for stored in reader.read(0, 1_000_000)]
        finally:
            reader.close()
        return [event for event in found if not kinds or event.WhichOneof("payload") in kinds]

    def log(self) -> str:
        """What it wrote on stderr."""
        return self.layout.gateway_log(self.generation).read_text()

    def close(self) -> None:
        """Ends it, however it stands."""
        if hasattr(self, "channel"):
            self.channel.close()
        if hasattr(self, "process") and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGCONT)
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        if hasattr(self, "_ours"):
            self._ours.close()


@contextmanager
def lone_gateway(mesh: Mesh, run_id: str, config: RunConfig | None, **options: Any) -> Iterator[LoneGateway]:
    """A gateway that serves, for a while. Options that are in capitals are variables of its environment."""
    environment = {name: str(options.pop(name)) for name in list(options) if name.isupper()}
    found = LoneGateway(mesh, run_id, config, **options)
    try:
        found.start(**environment)
        found.wait_bound()
        yield found
    finally:
        found.close()


def wait_state(gateway: LoneGateway, state: int, within_s: float = 30.0) -> Pipeline:
    """Waits until the pipeline is in a state."""

    def reached() -> Pipeline | None:
        now = gateway.now()
        return now if now.state == state else None

    found: Pipeline = wait_until(reached, within_s, f"the pipeline in state {state}")
    return found
