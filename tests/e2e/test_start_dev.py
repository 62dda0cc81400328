"""What a newcomer does: a fresh clone, one command, on the default ports. These tests run one at a time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mesh_processes import PROCESSES, mesh_processes, wait_until

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_PORTS = (8000, 8001, 8002, 8003, 8765)
pytestmark = pytest.mark.timeout(900)


def environment() -> dict[str, str]:
    """What a newcomer's shell has: nothing of ours, and no virtual environment."""
    found = {name: value for name, value in os.environ.items() if not name.startswith(("TRADEMESH_", "PYTEST_", "VIRTUAL_ENV"))}
    return found | {"PATH": os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if not part.startswith(str(ROOT)))}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What a clone of this tree would hold: files that git knows or would take in."""
    folder = tmp_path_factory.mktemp("fresh") / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for port in DEFAULT_PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    yield folder
    for left in mesh_processes(folder):
        left.kill()


def start_dev(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["./start-dev.sh", *arguments], cwd=clone, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )


def test_start_dev_in_a_fresh_clone_runs_the_demo_to_the_same_hash_twice(clone: Path) -> None:
    summaries = list[dict[str, Any]]()
    for _ in range(2):
        outcome = start_dev(clone, "--exit")
        assert outcome.returncode == 0, outcome.stderr[-4000:]
        summaries.append(json.loads(outcome.stdout))
        assert mesh_processes(clone) == []
    first, second = summaries
    assert list(first) == [
        "run_id", "sessions", "final_nav_micros", "total_return", "sharpe", "max_drawdown", "trades", "events", "journal_sha256"
    ]  # fmt: skip
    assert first["sessions"] == 8313
    assert {**first, "run_id": ""} == {**second, "run_id": ""}
    verified = subprocess.run(
        [".venv/bin/trademesh", "run", "verify", first["run_id"], "--json"],
        cwd=clone,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)["journal_sha256"] == first["journal_sha256"]
    journal = clone / "runs" / first["run_id"] / "journal.db"
    assert journal.stat().st_size <= 60 * 1024 * 1024


def test_start_dev_with_a_taken_port_names_it_and_leaves_nothing(clone: Path) -> None:
    assert start_dev(clone, "--help").returncode == 0
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", 8002))
        squatter.listen()
        outcome = start_dev(clone)
    assert outcome.returncode not in (0, 130)
    assert outcome.stderr.count("\n") == 1
    assert "8002" in outcome.stderr
    assert "news_service" in outcome.stderr
    assert mesh_processes(clone) == []


@pytest.mark.parametrize("whom", ["the group, as a terminal does", "the one process, as a supervisor does"])
def test_start_dev_stops_everything_when_it_is_told_to(clone: Path, tmp_path: Path, whom: str) -> None:
    assert start_dev(clone, "--help").returncode == 0
    log = tmp_path / "start-dev.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(["./start-dev.sh"], cwd=clone, env=environment(), stderr=stderr, start_new_session=True)
    try:
        wait_until(lambda: "trademesh is up" in log.read_text(), 120, "the mesh")
        wait_until(lambda: len(mesh_processes(clone)) >= len(PROCESSES) + 2, 60, "the gateway")
        if whom.startswith("the group"):
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.terminate()
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert mesh_processes(clone) == []


def test_reload_restarts_what_has_changed_and_survives_a_source_that_does_not_start(clone: Path, tmp_path: Path) -> None:
    assert start_dev(clone, "--help").returncode == 0
    log = tmp_path / "reload.log"
    news = clone / "services" / "trademesh_news" / "news_service.py"
    agents = clone / "gateway" / "trademesh_gateway" / "agents" / "analysts.py"
    before = {path: path.read_text() for path in (news, agents)}

    def said(text: str) -> int:
        return log.read_text().count(f"trademesh up: {text}")

    def run() -> dict[str, Any]:
        shown = subprocess.run(
            [".venv/bin/trademesh", "run", "list", "--json"], cwd=clone, env=environment(), capture_output=True, text=True, check=False
        )
        return next((one for one in json.loads(shown.stdout) if one["state"] == "RUN_STATE_RUNNING"), {}) if shown.stdout else {}

    def healthy() -> bool:
        return subprocess.run([".venv/bin/trademesh", "probe", "127.0.0.1:8002"], cwd=clone, env=environment(), check=False).returncode == 0

    with log.open("wb") as stderr:
        process = subprocess.Popen(["./start-dev.sh", "--reload"], cwd=clone, env=environment(), stderr=stderr, start_new_session=True)
    try:
        wait_until(lambda: "trademesh is up" in log.read_text(), 120, "the mesh")
        first = wait_until(run, 60, "the demo")
        news.write_text(before[news] + "this is not Python\n")
        wait_until(lambda: said("news_service ended with status 1"), 60, "the word on the fault")
        assert process.poll() is None
        news.write_text(before[news])
        wait_until(healthy, 60, "news_service again")
        agents.write_text(before[agents] + "# A change.\n")
        wait_until(lambda: said(f"restarting the gateway of {first['run_id']}"), 60, "the gateway's restart")
        second = wait_until(lambda: (now := run()) and int(now["generation"]) > int(first["generation"]) and now, 60, "the next generation")
        assert (second["run_id"], said("restarting trading_service")) == (first["run_id"], 0)
    finally:
        for path, text in before.items():
            path.write_text(text)
        process.terminate()
        try:
            assert process.wait(90) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert mesh_processes(clone) == []
