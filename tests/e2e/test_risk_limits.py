"""Limits of a run as people meet them: configured, checked, shown, told in the journal, and lifted."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from mesh_processes import Mesh, wait_until

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_runs.journal_sqlite import SqliteStore
from trademesh_runs.layout import RunLayout
from trademesh_trading.set_files import load_set
from trademesh_trading.store import EMBEDDED_SETS

pytestmark = pytest.mark.timeout(180)

EVERY_LIMIT = """---
sessions: {start: 2007-06-01, end: 2009-06-01}
risk:
  position: 0.12
  gross: 0.9
  net: 0.6
  drawdown_stop: 0.3
  daily_loss: 0.02
  halted_tickers: [KO]
  not_borrowable: [BAC]
  volatility_target: 0.15
  groups: {tech: {tickers: [AAPL, MSFT], limit: 0.1}}
  concentration: 0.05
  order_size: 0.06
  turnover: 0.4
  orders: 9
---
"""
PIPELINE = "trademesh.gateway.v1.PipelineService"


def started(mesh: Mesh, run_id: str, text: str, *arguments: str) -> None:
    """A run of a configuration."""
    path = mesh.folder / f"{run_id}.md"
    path.write_text(text)
    outcome = mesh.cli("run", "start", str(path), "--run-id", run_id, *arguments)
    assert outcome.returncode == 0, outcome.stderr


def limits_of(mesh: Mesh, run_id: str) -> dict[str, Any]:
    """What GetPipeline tells of the limits."""
    target = mesh.json("run", "show", run_id)["run"]["target"]
    answer: dict[str, Any] = mesh.grpcurl(target, f"{PIPELINE}/GetPipeline", {"run_id": run_id})["pipeline"]
    return answer.get("limits", {})


def gated(mesh: Mesh, run_id: str) -> dict[str, list[tuple[str, events.GateResult]]]:
    """What the gate did in a run: dates and results by limit."""
    found = dict[str, list[tuple[str, events.GateResult]]]()
    for stored in SqliteStore(RunLayout(mesh.runs, run_id).journal).reader().read_kind("orders_gated"):
        event = stored.parse()
        for result in event.orders_gated.results:
            found.setdefault(events.LimitCode.Name(result.limit).removeprefix("LIMIT_CODE_"), []).append((event.session_date, result))
    return found


def test_limits_bind_are_told_and_come_out_the_same_after_a_kill(mesh: Mesh) -> None:
    started(mesh, "limited", EVERY_LIMIT)
    summary = mesh.summary("limited")
    cuts = gated(mesh, "limited")
    assert set(cuts) >= {
        "UNSPECIFIED",
        "TICKER_HALTED",
        "NO_BORROW",
        "DAILY_LOSS",
        "VOL_LIMIT",
        "SECTOR_LIMIT",
        "ORDER_SIZE",
        "ORDER_LIMIT",
    }
    for name, results in cuts.items():
        for _date, one in results:
            assert one.order.quantity <= one.requested_quantity
            assert one.HasField("figure") == (one.unit != events.LIMIT_UNIT_UNSPECIFIED)
            assert one.group == ("tech" if name == "SECTOR_LIMIT" else "")
    assert all(one.order.quantity == 0 for _date, one in cuts["TICKER_HALTED"])

    started(mesh, "limited-killed", EVERY_LIMIT, "--pace", "250")

    def pid_beyond() -> int:
        run = mesh.json("run", "show", "limited-killed")["run"]
        return int(run.get("pid", 0)) if int(run.get("progress", {}).get("sessions_settled", 0)) > 60 else 0

    os.kill(wait_until(pid_beyond, 60, "some sessions"), signal.SIGKILL)
    again = mesh.summary("limited-killed")
    assert again["journal_sha256"] == summary["journal_sha256"]
    assert mesh.json("run", "verify", "limited-killed")["verified"] is True


def test_a_drawdown_stop_holds_over_a_restart_until_a_person_resumes(mesh: Mesh) -> None:
    run_id = "stopped-out"
    started(
        mesh, run_id, "---\nsessions: {start: 2007-06-01, end: 2009-06-01}\nrisk: {drawdown_stop: 0.05}\n---\n", "--pace", "100", "--wait"
    )
    wait_until(lambda: limits_of(mesh, run_id).get("drawdownStopped"), 60, "the stop")
    run = mesh.json("run", "show", run_id)["run"]
    mesh.grpcurl(run["target"], f"{PIPELINE}/PausePipeline", {"run_id": run_id})
    os.kill(int(run["pid"]), signal.SIGKILL)

    def second() -> Any:
        now = mesh.json("run", "show", run_id)["run"]
        return now if now["state"] == "RUN_STATE_RUNNING" and int(now["generation"]) == 2 else None

    target = wait_until(second, 30, "the second gateway")["target"]
    assert limits_of(mesh, run_id)["drawdownStopped"] is True
    # Slowly from here on, so that the lifted stop is seen before the desk may fall again.
    mesh.grpcurl(target, f"{PIPELINE}/SetPace", {"run_id": run_id, "sessions_per_s": 2})
    resumed = mesh.grpcurl(target, f"{PIPELINE}/ResumePipeline", {"run_id": run_id})["pipeline"]
    settled = int(resumed["sessionsSettled"])
    lifted = wait_until(lambda: not limits_of(mesh, run_id).get("drawdownStopped"), 20, "the stop lifted")
    assert lifted
    mesh.grpcurl(target, f"{PIPELINE}/SetPace", {"run_id": run_id, "sessions_per_s": 0})
    mesh.summary(run_id)
    passed = [date for date, one in gated(mesh, run_id)["UNSPECIFIED"] if one.order.quantity]
    dates = [stored.parse().session_date for stored in SqliteStore(RunLayout(mesh.runs, run_id).journal).reader().read_kind("settled")]
    stops = {date for date, one in gated(mesh, run_id)["DRAWDOWN_STOP"]}
    assert min(stops) <= dates[settled]
    assert max(passed) > min(stops), "orders passed again after the stop was lifted"
    assert mesh.json("run", "verify", run_id)["verified"] is True


def test_all_faults_of_limits_are_told_at_once_and_the_defaults_shown(mesh: Mesh) -> None:
    risk = {"halted_tickers": ["APPL"], "daily_loss": 2, "groups": {"tech": {"tickers": ["AAPL", "MSTF"], "limit": -1}}}
    answer = mesh.grpcurl("runtime", "trademesh.runtime.v1.RuntimeService/ValidateRunConfig", {"config": {"risk": risk}})
    assert {one["field"] for one in answer["violations"]} == {
        "risk.halted_tickers", "risk.daily_loss", "risk.groups.tech.tickers", 'risk.groups["tech"].limit'
    }  # fmt: skip
    shown = answer["normalised"]["risk"]
    assert (shown["turnover"], shown["orders"], shown["volatilityPositions"]) == (0, 0, 10)


def test_the_kill_switch_lets_no_order_pass_and_is_shown(mesh: Mesh) -> None:
    started(mesh, "halted", "---\nsessions: {start: 2007-06-01, end: 2007-08-31}\nrisk: {halted: true}\n---\n")
    assert int(mesh.summary("halted").get("trades", 0)) == 0
    limits = limits_of(mesh, "halted")
    assert limits["halted"] is True
    assert [one["limit"] for one in limits["limits"]] == [
        "LIMIT_CODE_RUN_HALTED", "LIMIT_CODE_DRAWDOWN_STOP", "LIMIT_CODE_POSITION_LIMIT", "LIMIT_CODE_GROSS_LIMIT", "LIMIT_CODE_NET_LIMIT"
    ]  # fmt: skip


def test_orders_are_cut_to_a_share_of_the_usual_volume_where_the_set_has_one(mesh: Mesh) -> None:
    """Closes of the embedded set, imported with a volume of 1,000 shares a day for one ticker and none for the other."""
    embedded = load_set(EMBEDDED_SETS / "us20")
    columns = {"AAPL": "1000", "XOM": ""}
    rows = [row for row, day in enumerate(embedded.sessions) if "2006-01-01" <= day <= "2008-06-30"]
    lines = ["ticker,date,close,volume"]
    for ticker, volume in columns.items():
        closes = embedded.close_micros[:, embedded.columns([ticker])[0]]
        lines += [f"{ticker},{embedded.sessions[row]},{int(closes[row]) / 1e6:.6f},{volume}" for row in rows]
    (mesh.folder / "thin.csv").write_text("\n".join(lines) + "\n")
    outcome = mesh.cli("data", "import", "thin.csv", "--name", "thin")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    started(mesh, "thin", "---\nsessions: {start: 2007-06-01}\ndata: {set: thin}\nrisk: {volume_share: 0.1}\n---\n")
    mesh.summary("thin")
    cuts = gated(mesh, "thin")
    assert {(one.order.ticker, one.order.quantity, one.limit_value) for _date, one in cuts["LIQUIDITY"]} == {("AAPL", 100, 0.1)}
    assert any(one.order.ticker == "XOM" and one.order.quantity > 100 for _date, one in cuts["UNSPECIFIED"])
