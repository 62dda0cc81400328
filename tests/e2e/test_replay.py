"""A run that has ended is shown again: at its own pace, step by step, across a killed gateway, and to the same hash."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from mesh_processes import Mesh, wait_until

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1 import pipeline_service_pb2 as pipeline
from trademesh.gateway.v1 import pipeline_service_pb2_grpc

pytestmark = pytest.mark.timeout(180)


def written(mesh: Mesh, name: str, front: str) -> Path:
    path = mesh.folder / f"{name}.md"
    path.write_text(f"---\n{front}\n---\n")
    return path


def begin(mesh: Mesh, run_id: str, front: str) -> None:
    outcome = mesh.cli("run", "start", str(written(mesh, run_id, front)), "--run-id", run_id, "--wait")
    assert outcome.returncode == 0, outcome.stderr


@pytest.fixture(scope="module")
def shown(mesh: Mesh) -> dict[str, Any]:
    """The summary of a run in which people took part, and which has ended."""
    begin(mesh, "shown", "sessions: {start: 2008-01-02, end: 2008-06-30}\npipeline: {autostart: false}")
    mesh.json("order", "submit", "shown", "buy", "10", "KO", "--by", "ada")
    assert mesh.cli("run", "say", "shown", "why GE?").returncode == 0
    with stub_of(mesh, "shown") as stub:
        stub.StartPipeline(pipeline.StartPipelineRequest(run_id="shown"), timeout=20)
    summary = mesh.summary("shown")
    mesh.json("run", "stop", "shown")
    return summary


@contextmanager
def stub_of(mesh: Mesh, run_id: str) -> Iterator[Any]:
    """The pipeline's calls at a run's gateway."""
    target = str(mesh.json("run", "show", run_id)["run"]["target"])
    with grpc.insecure_channel(target.removeprefix("dns:///")) as channel:
        yield pipeline_service_pb2_grpc.PipelineServiceStub(channel)


def test_a_replay_comes_to_the_same_hash_and_is_verified(mesh: Mesh, shown: dict[str, Any]) -> None:
    begin(mesh, "replay-again", "mode: replay\nreplay_of: shown")
    summary = mesh.summary("replay-again")
    assert {name: value for name, value in summary.items() if name not in ("run_id", "events")} == {
        name: value for name, value in shown.items() if name not in ("run_id", "events")
    }
    mesh.json("run", "stop", "replay-again")
    verified = mesh.json("run", "verify", "replay-again")
    assert verified["verified"] is True
    assert mesh.json("run", "show", "replay-again")["run"]["config"]["replay_of"] == "shown"


def test_a_replay_is_stepped_paced_and_goes_on_after_its_gateway_was_killed(mesh: Mesh, shown: dict[str, Any]) -> None:
    begin(mesh, "replay-stepped", "mode: replay\nreplay_of: shown\npipeline: {autostart: false}")
    with stub_of(mesh, "replay-stepped") as stub:
        named = pipeline.GetPipelineRequest(run_id="replay-stepped")
        waiting = stub.GetPipeline(named, timeout=20).pipeline
        assert (waiting.state, waiting.sessions_total, waiting.sessions_settled) == (events.PIPELINE_STATE_READY, int(shown["sessions"]), 0)
        stub.PausePipeline(pipeline.PausePipelineRequest(run_id="replay-stepped"), timeout=20)
        phases = list[int]()
        for _ in range(9):
            answer = stub.StepPipeline(pipeline.StepPipelineRequest(run_id="replay-stepped", size=pipeline.STEP_SIZE_PHASE), timeout=20)
            phases.append(answer.pipeline.phase)
        assert phases == sorted(phases)
        assert stub.GetPipeline(named, timeout=20).pipeline.sessions_settled == 1
        stub.SetPace(pipeline.SetPaceRequest(run_id="replay-stepped", sessions_per_s=20), timeout=20)
        stub.ResumePipeline(pipeline.ResumePipelineRequest(run_id="replay-stepped"), timeout=20)
        wait_until(lambda: stub.GetPipeline(named, timeout=20).pipeline.sessions_settled >= 5, 20, "sessions")
    before = mesh.json("run", "show", "replay-stepped")["run"]
    os.kill(int(before["pid"]), signal.SIGKILL)
    wait_until(lambda: mesh.json("run", "show", "replay-stepped")["run"].get("generation") == 2, 20, "the next gateway")
    wait_until(lambda: mesh.json("run", "show", "replay-stepped")["run"]["state"] == "RUN_STATE_RUNNING", 20, "the next gateway serving")
    with stub_of(mesh, "replay-stepped") as stub:
        stub.SetPace(pipeline.SetPaceRequest(run_id="replay-stepped", sessions_per_s=0), timeout=20)
    summary = mesh.summary("replay-stepped")
    assert summary["journal_sha256"] == shown["journal_sha256"]


def test_the_desk_of_a_replay_takes_no_orders_and_answers_nothing(mesh: Mesh, shown: dict[str, Any]) -> None:
    begin(mesh, "mute", "mode: replay\nreplay_of: shown\npipeline: {autostart: false}")
    with stub_of(mesh, "mute") as stub:
        assert not stub.GetPipeline(pipeline.GetPipelineRequest(run_id="mute"), timeout=20).pipeline.HasField("limits")
        for call, request in (
            (stub.SubmitOrder, pipeline.SubmitOrderRequest(run_id="mute", ticker="KO", side=1, quantity=1)),
            (stub.CancelOrder, pipeline.CancelOrderRequest(run_id="mute", order_id="x")),
            (stub.SendMessage, pipeline.SendMessageRequest(run_id="mute", text="why?")),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                call(request, timeout=20)
            info = error_details_pb2.ErrorInfo()
            assert rpc_status.from_call(refused.value).details[0].Unpack(info)
            assert (refused.value.code(), info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_CONFLICT")
            assert "shows run shown again" in refused.value.details()
    mesh.json("run", "stop", "mute")


def test_what_cannot_be_shown_again_is_told_at_once(mesh: Mesh, shown: dict[str, Any]) -> None:
    for front, what in (
        ("mode: replay", "replay_of: names the run"),
        ("mode: replay\nreplay_of: nobody", "replay_of: there is no run nobody"),
        ("replay_of: shown", "replay_of: is for mode replay"),
        ("mode: replay\nreplay_of: shown\ntickers: [KO]", "tickers: is decided by the run that is shown again"),
    ):
        outcome = mesh.cli("run", "start", str(written(mesh, "wrong", front)))
        assert outcome.returncode == 2, outcome.stdout
        assert what in outcome.stderr
