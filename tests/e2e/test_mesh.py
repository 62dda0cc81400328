"""Runs on a real mesh: start, crash, resume, control, verify."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import uuid
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from mesh_processes import SERVICES, Mesh, mesh_processes, wait_until

from trademesh.runtime.v1 import runtime_pb2, runtime_service_pb2, runtime_service_pb2_grpc
from trademesh.runtime.v1.run_config_pb2 import RunConfig

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_reaches_its_end_and_is_proved_from_its_journal(mesh: Mesh, undisturbed: dict[str, Any]) -> None:
    assert int(undisturbed["sessions"]) == 504
    assert int(undisturbed["trades"]) > 100
    verified = mesh.json("run", "verify", "undisturbed")
    assert verified["journal_sha256"] == undisturbed["journal_sha256"]
    assert "state/server_state.json" in verified["files"]


def test_cli_and_grpcurl_show_the_same_net_asset_value(mesh: Mesh, undisturbed: dict[str, Any]) -> None:
    shown = mesh.json("run", "show", "undisturbed")
    head = shown["run"]["progress"]["head_sequence"]
    answer = mesh.grpcurl(
        shown["run"]["target"], "trademesh.gateway.v1.FeedService/GetSnapshot", {"run_id": "undisturbed", "at_sequence": head}
    )
    assert answer["state"]["navMicros"] == undisturbed["final_nav_micros"] == shown["run"]["progress"]["nav_micros"]


def test_a_gateway_killed_again_and_again_ends_as_if_nothing_had_been(mesh: Mesh, two_years: Path, undisturbed: dict[str, Any]) -> None:
    assert mesh.cli("run", "start", str(two_years), "--run-id", "killed", "--pace", "250").returncode == 0
    goals = sorted(random.Random(7).sample(range(200, 3900), 10))
    for goal in goals:

        def pid_beyond(goal: int = goal) -> int:
            run = mesh.json("run", "show", "killed")["run"]
            beyond = int(run.get("progress", {}).get("head_sequence", 0)) >= goal and run["state"] == "RUN_STATE_RUNNING"
            return int(run.get("pid", 0)) if beyond else 0

        os.kill(wait_until(pid_beyond, 60, f"sequence {goal}"), signal.SIGKILL)
        wait_until(lambda: mesh.json("run", "show", "killed")["run"]["state"] != "RUN_STATE_RUNNING", 10, "the death is noticed")
        # The delay before a restart doubles, and would be a minute after the eighth: we don't wait for it.
        assert mesh.cli("run", "restart", "killed").returncode == 0
    summary = mesh.summary("killed")
    assert {**summary, "run_id": "", "events": ""} == {**undisturbed, "run_id": "", "events": ""}
    assert int(mesh.json("run", "show", "killed")["run"]["generation"]) > 10
    assert mesh.json("run", "verify", "killed")["journal_sha256"] == undisturbed["journal_sha256"]


def test_one_changed_byte_of_the_journal_is_found(mesh: Mesh, undisturbed: dict[str, Any]) -> None:
    assert undisturbed
    copy = mesh.runs / "tampered"
    shutil.copytree(mesh.runs / "undisturbed", copy)
    connection = sqlite3.connect(copy / "journal.db")
    (data,) = connection.execute("SELECT data FROM events WHERE sequence = 700").fetchone()
    connection.execute("UPDATE events SET data = ? WHERE sequence = 700", (data[:-1] + bytes([data[-1] ^ 1]),))
    connection.commit()
    connection.close()
    outcome = mesh.cli("run", "verify", "tampered")
    assert outcome.returncode == 1
    assert "700" in outcome.stderr or "not what was written" in outcome.stderr


def test_pause_step_and_resume_do_what_they_say(mesh: Mesh, two_years: Path, undisturbed: dict[str, Any]) -> None:
    assert mesh.cli("run", "start", str(two_years), "--run-id", "stepped", "--pace", "20", "--wait").returncode == 0
    target = mesh.json("run", "show", "stepped")["run"]["target"]

    def control(call: str, **request: Any) -> dict[str, Any]:
        answer = mesh.grpcurl(target, f"trademesh.gateway.v1.PipelineService/{call}", {"run_id": "stepped", **request})
        return dict(answer["pipeline"])

    wait_until(lambda: control("GetPipeline").get("sessionsSettled", 0) > 2, 20, "some sessions")
    paused = control("PausePipeline", reason="lunch")
    assert (paused["state"], paused["reason"]) == ("PIPELINE_STATE_PAUSED", "lunch")
    assert control("PausePipeline")["sessionsSettled"] == paused["sessionsSettled"]
    stepped = control("StepPipeline", size="STEP_SIZE_CYCLE")
    again = control("StepPipeline", size="STEP_SIZE_CYCLE")
    assert again["sessionsSettled"] == stepped["sessionsSettled"] + 1
    assert control("GetPipeline")["headSequence"] == again["headSequence"]
    control("SetPace", sessions_per_s=0)
    assert control("ResumePipeline")["state"] == "PIPELINE_STATE_RUNNING"
    assert mesh.summary("stepped")["journal_sha256"] == undisturbed["journal_sha256"]
    stopped = mesh.json("run", "stop", "stepped")
    assert stopped["state"] == "RUN_STATE_SUCCEEDED"
    assert "pid" not in stopped


def test_a_pause_survives_the_death_of_the_gateway(mesh: Mesh, two_years: Path) -> None:
    assert mesh.cli("run", "start", str(two_years), "--run-id", "asleep", "--pace", "20", "--wait").returncode == 0
    run = mesh.json("run", "show", "asleep")["run"]
    mesh.grpcurl(run["target"], "trademesh.gateway.v1.PipelineService/PausePipeline", {"run_id": "asleep"})
    os.kill(int(run["pid"]), signal.SIGKILL)

    def second() -> Any:
        now = mesh.json("run", "show", "asleep")["run"]
        return now if now["state"] == "RUN_STATE_RUNNING" and int(now["generation"]) == 2 else None

    target = wait_until(second, 30, "the second gateway")["target"]
    pipeline = mesh.grpcurl(target, "trademesh.gateway.v1.PipelineService/GetPipeline", {"run_id": "asleep"})["pipeline"]
    assert pipeline["state"] == "PIPELINE_STATE_PAUSED"
    stopped = mesh.json("run", "stop", "asleep")
    assert stopped["state"] == "RUN_STATE_STOPPED"
    assert not psutil.pid_exists(int(mesh.json("run", "show", "asleep")["run"].get("pid", 0)) or 2**22 + 1)


def test_the_same_request_id_is_the_same_run(mesh: Mesh) -> None:
    request = {"config": {"sessions": {"start": "2008-01-02", "end": "2008-01-31"}}, "request_id": str(uuid.uuid4())}
    method = "trademesh.runtime.v1.RuntimeService/StartRun"
    assert mesh.grpcurl("runtime", method, request)["run"]["runId"] == mesh.grpcurl("runtime", method, request)["run"]["runId"]


def test_calls_with_one_request_id_at_the_same_time_are_one_run(mesh: Mesh) -> None:
    config = RunConfig(sessions={"start": "2008-01-02", "end": "2008-01-31"})
    request = runtime_service_pb2.StartRunRequest(config=config, request_id=str(uuid.uuid4()))
    with grpc.insecure_channel(f"127.0.0.1:{mesh.ports['runtime']}") as channel:
        stub = runtime_service_pb2_grpc.RuntimeServiceStub(channel)
        answers = [call.result() for call in [stub.StartRun.future(request, timeout=30) for _ in range(8)]]
    assert len({answer.run.run_id for answer in answers}) == 1


def test_stops_around_a_start_are_never_overtaken_by_it(mesh: Mesh) -> None:
    config = RunConfig(sessions={"start": "2007-06-01", "end": "2009-06-01"}, pipeline={"pace_sessions_per_s": 1})
    with grpc.insecure_channel(f"127.0.0.1:{mesh.ports['runtime']}") as channel:
        stub = runtime_service_pb2_grpc.RuntimeServiceStub(channel)
        for number in range(3):
            config.run_id = f"overtaken-{number}"
            starting = stub.StartRun.future(runtime_service_pb2.StartRunRequest(config=config), timeout=30)
            stop = runtime_service_pb2.StopRunRequest(run_id=config.run_id)
            # Again and again from before the run is there: the first that finds it is the one that counts.
            call = stub.StopRun.future(stop, timeout=30)
            while call.code() is grpc.StatusCode.NOT_FOUND:
                call = stub.StopRun.future(stop, timeout=30)
            stopped = call.result().run
            starting.result()
            assert stopped.state == runtime_pb2.RUN_STATE_STOPPED
            now = stub.GetRun(runtime_service_pb2.GetRunRequest(run_id=config.run_id), timeout=30).run
            assert (now.state, now.pid) == (runtime_pb2.RUN_STATE_STOPPED, 0)
        left = [process for process in mesh_processes(mesh.folder) if "trademesh_gateway" in " ".join(process.cmdline())]
        known = {run.pid for run in stub.ListRuns(runtime_service_pb2.ListRunsRequest(page_size=500), timeout=30).runs if run.pid}
        assert {process.pid for process in left} == known


def test_a_run_can_be_proved_while_it_goes_on_and_after_it_was_cut_off(mesh: Mesh, two_years: Path) -> None:
    assert mesh.cli("run", "start", str(two_years), "--run-id", "proved-live", "--pace", "100", "--wait").returncode == 0
    for _ in range(5):
        outcome = mesh.cli("run", "verify", "proved-live")
        assert outcome.returncode == 0, outcome.stderr
    run = mesh.json("run", "show", "proved-live")["run"]
    os.kill(int(run["pid"]), signal.SIGKILL)
    mesh.json("run", "stop", "proved-live")
    outcome = mesh.cli("run", "verify", "proved-live")
    assert outcome.returncode == 0, outcome.stderr


def test_a_gateway_whose_data_is_away_is_left_alone_and_goes_on_when_it_is_back(tmp_path: Path, two_years: Path) -> None:
    mesh = Mesh(tmp_path)
    # Thirty times as fast: the patience at the start is a second.
    mesh.environment["TRADEMESH_RUNTIME_TIMER_SCALE"] = "0.034"
    try:
        mesh.start(*SERVICES)
        mesh.wait_ready(*SERVICES)
        assert mesh.cli("run", "start", str(two_years), "--run-id", "hungry", "--pace", "50", "--wait").returncode == 0
        mesh.processes["trading"].kill()
        mesh.processes["trading"].wait(10)
        first = mesh.json("run", "show", "hungry")["run"]
        os.kill(int(first["pid"]), signal.SIGKILL)

        def degraded() -> Any:
            run = mesh.json("run", "show", "hungry")["run"]
            return run if run["state"] == "RUN_STATE_DEGRADED" and int(run["generation"]) > int(first["generation"]) else None

        waiting = wait_until(degraded, 30, "DEGRADED")
        mesh.start("trading")
        mesh.wait_ready("trading")
        summary = mesh.summary("hungry")
        assert int(summary["sessions"]) == 504
        assert mesh.json("run", "show", "hungry")["run"]["generation"] == waiting["generation"]
    finally:
        mesh.stop()


def test_a_folder_with_a_journal_that_the_registry_does_not_know_is_not_overwritten(mesh: Mesh, undisturbed: dict[str, Any]) -> None:
    assert undisturbed
    shutil.copytree(mesh.runs / "undisturbed", mesh.runs / "unknown")
    before = (mesh.runs / "unknown" / "BOOTSTRAP.md").read_bytes()
    outcome = mesh.cli("run", "start", "--run-id", "unknown")
    assert (outcome.returncode, outcome.stderr) == (1, "error: there is a journal of run unknown already\n")
    assert (mesh.runs / "unknown" / "BOOTSTRAP.md").read_bytes() == before


@pytest.mark.parametrize("order", [("edge", "runtime", "news", "trading", "agent"), ("news", "agent", "edge", "runtime", "trading")])
def test_services_may_start_in_any_order(tmp_path: Path, two_years: Path, order: tuple[str, ...]) -> None:
    mesh = Mesh(tmp_path)
    try:
        mesh.start(order[0])
        mesh.wait_ready(order[0])
        mesh.start(*order[1:])
        mesh.wait_ready(*SERVICES)
        assert mesh.cli("run", "start", str(two_years), "--run-id", "any-order").returncode == 0
        assert int(mesh.summary("any-order")["sessions"]) == 504
    finally:
        mesh.stop()


def test_runtime_service_killed_and_started_again_adopts_its_gateway(tmp_path: Path, two_years: Path) -> None:
    mesh = Mesh(tmp_path)
    try:
        mesh.start(*SERVICES)
        mesh.wait_ready(*SERVICES)
        assert mesh.cli("run", "start", str(two_years), "--run-id", "orphan", "--pace", "20", "--wait").returncode == 0
        before = mesh.json("run", "show", "orphan")["run"]
        mesh.processes["runtime"].kill()
        mesh.processes["runtime"].wait(10)
        mesh.start("runtime")
        mesh.wait_ready("runtime")

        def adopted() -> Any:
            now = mesh.json("run", "show", "orphan")["run"]
            return now if now["state"] == "RUN_STATE_RUNNING" else None

        after = wait_until(adopted, 20, "adoption")
        assert (after["pid"], after["generation"], after["target"]) == (before["pid"], before["generation"], before["target"])
    finally:
        mesh.stop()
    assert mesh_processes(tmp_path) == []


def test_legacy_folders_are_not_read(mesh: Mesh, undisturbed: dict[str, Any]) -> None:
    for name in ("live", "production", "backtest"):
        # Each holds what the reference system had there: a whole run, in the folder itself and one level down.
        for folder in (mesh.folder / name, mesh.folder / name / f"legacy-{name}"):
            shutil.copytree(mesh.runs / "undisturbed", folder)
    assert not [run["run_id"] for run in mesh.json("run", "list") if run["run_id"].startswith("legacy-")]
    for name in ("live", "production", "backtest"):
        assert mesh.cli("run", "show", f"legacy-{name}").returncode == 4
    assert mesh.json("run", "verify", "undisturbed")["journal_sha256"] == undisturbed["journal_sha256"]
