"""The command line and `up` as people use them: what they type, ports that are taken, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mesh_processes import PROCESSES, Mesh, free_ports, mesh_processes, wait_until

pytestmark = pytest.mark.timeout(300)


def test_the_command_line_takes_what_people_type(mesh: Mesh, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    assert undisturbed
    path = tmp_path / "BOOTSTRAP.md"
    path.write_text("---\nsessions: {start: 2008-01-02, end: 2008-12-31}\n---\n")
    assert mesh.cli("run", "start", str(path), "--run-id", "bracketed", "--pace", "1").returncode == 0
    assert mesh.cli("run", "stop", "bracketed", "--reason", "[/lunch]").returncode == 0
    assert mesh.cli("run", "list").returncode == 0
    assert "[/lunch]" in mesh.cli("run", "show", "bracketed").stdout
    latin = tmp_path / "latin.md"
    latin.write_bytes("---\n---\né".encode("latin-1"))
    for arguments in (["run", "start", str(latin)], ["run", "verify", "../x"]):
        outcome = mesh.cli(*arguments)
        assert (outcome.returncode, outcome.stderr.count("\n")) == (2, 1), outcome.stderr
    # A proxy for the web is not for us.
    mesh.environment["http_proxy"] = "http://127.0.0.1:9"
    try:
        assert mesh.cli("run", "show", "undisturbed").returncode == 0
        assert mesh.cli("probe", f"127.0.0.1:{mesh.ports['news']}").returncode == 0
    finally:
        del mesh.environment["http_proxy"]


def test_watch_tells_json_line_by_line(mesh: Mesh) -> None:
    assert mesh.cli("run", "start", "--run-id", "in-lines", "--pace", "20", "--wait").returncode == 0
    command = [sys.executable, "-m", "trademesh_cli.main", "run", "watch", "in-lines", "--json"]
    with subprocess.Popen(command, cwd=mesh.folder, env=mesh.environment, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        try:
            first, second = (json.loads(watching.stdout.readline()) for _ in range(2))
        finally:
            watching.kill()
    assert first["run_id"] == second["run_id"] == "in-lines"
    mesh.json("run", "stop", "in-lines")


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


def up_environment(ports: list[int]) -> dict[str, str]:
    """An environment in which `trademesh up` uses these ports."""
    content = {name: value for name, value in os.environ.items() if not name.startswith("TRADEMESH_")}
    return content | {f"TRADEMESH_{name.upper()}_LISTEN": f"127.0.0.1:{port}" for name, port in zip(PROCESSES, ports, strict=True)}


def test_a_taken_port_is_named_and_nothing_is_left(tmp_path: Path) -> None:
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
