"""`trademesh feed tail`: every event once, through the death of a gateway and the end of a run."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mesh_processes import Mesh, wait_until

from trademesh_runs.layout import RunLayout

pytestmark = pytest.mark.timeout(180)
SPAN = "---\nsessions: {start: 2008-01-02, end: 2008-12-31}\nsupervision: {linger_s: 0}\n---\n"


@pytest.fixture(scope="module")
def tailed(mesh: Mesh) -> list[int]:
    """Sequences that a reader saw, from before the run's first session to its end; its gateway was killed on the way."""
    path = mesh.folder / "tailed.md"
    path.write_text(SPAN)
    assert mesh.cli("run", "start", str(path), "--run-id", "tailed", "--pace", "60").returncode == 0
    command = [sys.executable, "-m", "trademesh_cli.main", "feed", "tail", "tailed", "--after", "0", "--json"]
    output = mesh.folder / "tailed.jsonl"
    with output.open("w") as stream:
        reader = subprocess.Popen(command, cwd=mesh.folder, env=mesh.environment, stdout=stream)
    try:
        wait_until(lambda: output.read_text().count("\n") > 300, 60, "events")
        os.kill(int(mesh.json("run", "show", "tailed")["run"]["pid"]), signal.SIGKILL)
        assert reader.wait(90) == 0
    finally:
        reader.kill()
    return [int(json.loads(line)["sequence"]) for line in output.read_text().splitlines()]


def test_a_reader_sees_every_event_once_through_a_dead_gateway_and_the_end(mesh: Mesh, tailed: list[int]) -> None:

    def ended() -> Any:
        run = mesh.json("run", "show", "tailed")["run"]
        return run if run["state"] == "RUN_STATE_SUCCEEDED" else None

    run = wait_until(ended, 20, "the run's end")
    assert int(run["generation"]) == 2
    assert tailed == list(range(1, int(run["progress"]["head_sequence"]) + 1))


def test_a_finished_run_is_told_from_where_one_asks_and_by_kind(mesh: Mesh, tailed: list[int]) -> None:
    outcome = mesh.cli("feed", "tail", "tailed", "--after", str(tailed[-1] - 3))
    assert [int(line.split()[0]) for line in outcome.stdout.splitlines()] == tailed[-3:]
    fills = mesh.cli("feed", "tail", "tailed", "--after", "0", "--kind", "order_filled").stdout.splitlines()
    assert len(fills) == int(mesh.json("run", "show", "tailed")["summary"]["trades"])
    assert all("  order_filled  " in line and " at " in line for line in fills)


def test_a_place_behind_the_last_event_is_refused_when_it_stays_so(mesh: Mesh, tailed: list[int]) -> None:
    outcome = mesh.cli("feed", "tail", "tailed", "--after", str(tailed[-1] + 1))
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("error: ")
    assert f"{tailed[-1] + 1}" in outcome.stderr.replace(",", "")
    assert outcome.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("feed", "tail", "tailed", "--after", str(2**64)),
        ("run", "snapshot", "tailed", "--generation", str(2**32)),
        ("run", "logs", "tailed", "--generation", str(2**64)),
        ("order", "submit", "tailed", "buy", str(10**23), "AAPL"),
        ("order", "submit", "tailed", "buy", "5", "AAPL", "--limit", "1e30"),
    ],
)
def test_a_number_that_no_field_holds_is_refused_in_one_line(mesh: Mesh, arguments: tuple[str, ...]) -> None:
    outcome = mesh.cli(*arguments)
    assert (outcome.returncode, outcome.stderr[:7], outcome.stderr.count("\n")) == (2, "error: ", 1)


def test_a_run_is_told_by_ticker_and_by_agent(mesh: Mesh, tailed: list[int]) -> None:
    fills = mesh.cli("feed", "tail", "tailed", "--after", "0", "--kind", "order_filled").stdout.splitlines()
    ticker = fills[0].partition(" at ")[0].split()[-1]
    of_ticker = mesh.cli("feed", "tail", "tailed", "--after", "0", "--kind", "order_filled", "--ticker", ticker).stdout.splitlines()
    assert of_ticker == [line for line in fills if f" {ticker} at " in line]
    lines = mesh.cli("feed", "tail", "tailed", "--after", "0", "--agent", "portfolio_manager").stdout.splitlines()
    assert lines
    assert {line.split()[2] for line in lines} == {"portfolio_manager"}


def test_quotes_are_told_beside_the_events_of_a_run_that_lives(mesh: Mesh) -> None:
    path = mesh.folder / "quoted.md"
    path.write_text(SPAN)
    assert mesh.cli("run", "start", str(path), "--run-id", "quoted", "--pace", "20").returncode == 0
    command = [
        sys.executable,
        "-m",
        "trademesh_cli.main",
        "feed",
        "tail",
        "quoted",
        "--after",
        "0",
        "--quotes",
        "--ticker",
        "AAPL",
        "--json",
    ]
    output = mesh.folder / "quoted.jsonl"
    with output.open("w") as stream:
        reader = subprocess.Popen(command, cwd=mesh.folder, env=mesh.environment, stdout=stream)
    try:
        wait_until(lambda: output.read_text().count('"quote"') > 3 and output.read_text().count('"sequence"') > 20, 60, "quotes and events")
    finally:
        reader.kill()
        reader.wait(10)
    mesh.json("run", "stop", "quoted")
    whole = output.read_text().rpartition("\n")[0].splitlines()
    quotes = [json.loads(line)["quote"] for line in whole if '"quote"' in line]
    assert {quote["ticker"] for quote in quotes} == {"AAPL"}
    sessions = [quote["session_date"] for quote in quotes]
    assert sessions == sorted(set(sessions)), "conflated, and each newer than the one before"
    assert all(int(quote["price_micros"]) > 0 for quote in quotes)
    # On the way the gateway's log has told what keeps its journal.
    assert sqlite3.sqlite_version in RunLayout(mesh.runs, "quoted").gateway_log(1).read_text()


def test_without_a_place_it_begins_with_what_happens_now(mesh: Mesh, tailed: list[int]) -> None:
    # Of a run that is over nothing happens any more.
    outcome = mesh.cli("feed", "tail", "tailed")
    assert (outcome.returncode, outcome.stdout) == (0, "")


def test_what_cannot_be_told_is_said(mesh: Mesh, tmp_path: Path) -> None:
    assert mesh.cli("feed", "tail", "nobody").returncode == 4
    assert mesh.cli("feed", "tail", "nobody", "--after", "-1").returncode == 2
    alone = Mesh(tmp_path)
    assert alone.cli("feed", "tail", "nobody").returncode == 69
