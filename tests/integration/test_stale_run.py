"""A run that holds what is no longer traded, through real services: after five sessions without a close a person is to look."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest
from mesh_processes import SERVICES, running_mesh, wait_until

pytestmark = pytest.mark.timeout(180)


def sessions(count: int) -> list[str]:
    """Weekdays of a month of 2021 without a holiday."""
    days = (date(2021, 3, 1) + timedelta(days=number) for number in range(60))
    return [day.isoformat() for day in days if day.weekday() < 5][:count]


def test_a_run_is_paused_once_what_it_holds_has_had_no_close_for_five_sessions(tmp_path: Path) -> None:
    prices = tmp_path / "prices"
    prices.mkdir()
    for ticker, count in (("KEPT", 20), ("GONE", 8)):
        rows = [f"{day},{100 + number}" for number, day in enumerate(sessions(count))]
        (prices / f"{ticker}.csv").write_text("\n".join(["date,close", *rows]) + "\n")
    bootstrap = tmp_path / "BOOTSTRAP.md"
    bootstrap.write_text(
        "---\ndata: {set: gone}\nrisk: {position: 1, gross: 2, net: 2}\nagents: {portfolio_manager: {skills: [monthly-equal-weight]}}\n---\n"
    )
    with running_mesh(tmp_path, *SERVICES) as mesh:
        imported = mesh.cli("data", "import", str(prices), "--name", "gone")
        assert imported.returncode == 0, imported.stderr
        started = mesh.cli("run", "start", str(bootstrap), "--run-id", "stale", "--wait")
        assert started.returncode == 0, started.stderr

        def pipeline() -> dict[str, object]:
            target = mesh.json("run", "show", "stale")["run"]["feed_target"]
            answer = mesh.grpcurl(target, "trademesh.gateway.v1.PipelineService/GetPipeline", {"run_id": "stale"})
            found: dict[str, object] = answer["pipeline"]
            return found

        wait_until(lambda: pipeline().get("state") == "PIPELINE_STATE_PAUSED", 30, "the run to pause")
        assert pipeline()["reason"] == "no close for 5 sessions of what is held: GONE"
        assert pipeline()["sessionsSettled"] == 13
