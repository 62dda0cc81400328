"""Runs on a real mesh: start, crash, resume, control, verify."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest
from mesh_processes import PROCESSES, SERVICES, Mesh, free_ports, mesh_processes, wait_until

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def undisturbed(mesh: Mesh, two_years: Path) -> dict[str, Any]:
    """The summary of a run that nobody disturbed."""
    assert mesh.cli("run", "start", str(two_years), "--run-id", "undisturbed").returncode == 0
    return mesh.summary("undisturbed")


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
    summary = mesh.summary("killed")
    assert {**summary, "run_id": "", "events": ""} == {**undisturbed, "run_id": "", "events": ""}
    assert int(mesh.json("run", "show", "killed")["run"]["generation"]) > 5
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


def test_every_fault_of_a_configuration_is_told(mesh: Mesh, tmp_path: Path) -> None:
    path = tmp_path / "BOOTSTRAP.md"
    path.write_text("---\ntickers: [AAPL, TSLA]\nsessions: {start: 2009-01-01, end: 2031-01-01}\nrisk: {gross: -1}\n---\n")
    outcome = mesh.cli("run", "start", str(path))
    assert outcome.returncode == 2
    for part in ("TSLA", "sessions.end", "risk.gross"):
        assert part in outcome.stderr


def test_a_run_that_is_not_there_is_said(mesh: Mesh) -> None:
    outcome = mesh.cli("run", "show", "nobody")
    assert (outcome.returncode, outcome.stderr) == (4, "error: there is no run nobody\n")


def test_nothing_but_runtime_service_starts_a_gateway(tmp_path: Path) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "trademesh_gateway"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert outcome.returncode == 64
    assert outcome.stderr.count("\n") == 1
    assert "trademesh run start" in outcome.stderr


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


def up_environment(ports: list[int]) -> dict[str, str]:
    """An environment in which `trademesh up` uses these ports."""
    content = {name: value for name, value in os.environ.items() if not name.startswith("TRADEMESH_")}
    return content | {f"TRADEMESH_{name.upper()}_LISTEN": f"127.0.0.1:{port}" for name, port in zip(PROCESSES, ports, strict=True)}


def test_a_taken_port_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    import socket

    ports = free_ports(5)
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", ports[1]))
        squatter.listen()
        outcome = subprocess.run(
            [sys.executable, "-m", "trademesh_cli.main", "up"],
            cwd=tmp_path,
            env=up_environment(ports),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert outcome.returncode != 0
    assert outcome.stderr.count("\n") == 1
    assert str(ports[1]) in outcome.stderr
    assert "trading_service" in outcome.stderr
    assert mesh_processes(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "up.log"
    with log.open("wb") as stderr:
        up = subprocess.Popen(
            [sys.executable, "-m", "trademesh_cli.main", "up"], cwd=tmp_path, env=up_environment(free_ports(5)), stderr=stderr
        )
    try:
        wait_until(lambda: "trademesh is up" in log.read_text(), 60, "the mesh")
        wait_until(lambda: len(mesh_processes(tmp_path)) >= 7, 30, "the gateway")
        up.send_signal(number)
        assert up.wait(60) == 0
    finally:
        up.kill()
    assert mesh_processes(tmp_path) == []
