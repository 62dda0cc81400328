"""Accounts and feeds of runs, live and finished, are one and the same story."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mesh_processes import Mesh, wait_until

from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh.gateway.v1 import feed_service_pb2_grpc
from trademesh_kernel.client import ServiceClient

pytestmark = pytest.mark.timeout(180)
PORTFOLIO = "trademesh.trading.v1.PortfolioService"
FEED = "trademesh.gateway.v1.FeedService"


@pytest.fixture(scope="module")
def finished(mesh: Mesh) -> dict[str, Any]:
    """A run of half a year that has ended, and its summary."""
    path = mesh.folder / "finished.md"
    path.write_text("---\nsessions: {start: 2008-01-02, end: 2008-06-30}\nsupervision: {linger_s: 0}\n---\n")
    assert mesh.cli("run", "start", str(path), "--run-id", "finished").returncode == 0

    def ended() -> Any:
        shown = mesh.json("run", "show", "finished")
        return shown if shown["run"]["state"] == "RUN_STATE_SUCCEEDED" else None

    found: dict[str, Any] = wait_until(ended, 60, "the end of the run")
    return found


def test_a_finished_run_is_read_from_its_journal(mesh: Mesh, finished: dict[str, Any]) -> None:
    assert "target" not in finished["run"]
    feed_target = finished["run"]["feed_target"]
    portfolio = mesh.grpcurl("trading", f"{PORTFOLIO}/GetPortfolio", {"run_id": "finished"})
    assert portfolio["navMicros"] == finished["summary"]["final_nav_micros"]
    assert portfolio["sessionDate"] == "2008-06-30"
    snapshot = mesh.grpcurl(feed_target, f"{FEED}/GetSnapshot", {"run_id": "finished"})["state"]
    assert snapshot["navMicros"] == portfolio["navMicros"]
    assert snapshot["asOfSequence"] == finished["summary"]["events"]


def test_every_page_of_fills_and_of_the_curve_is_there_once(mesh: Mesh, finished: dict[str, Any]) -> None:
    for call, items, number in (("ListFills", "fills", "trades"), ("ListEquity", "points", "sessions")):
        request: dict[str, Any] = {"run_id": "finished", "page_size": 37}
        found = list[Any]()
        while True:
            page = mesh.grpcurl("trading", f"{PORTFOLIO}/{call}", request)
            found += page[items]
            assert len(page[items]) <= 37
            if "nextPageToken" not in page:
                break
            request["page_token"] = page["nextPageToken"]
        sequences = [int(one["sequence"]) for one in found]
        assert sequences == sorted(set(sequences))
        assert len(found) == int(finished["summary"][number])


def test_performance_agrees_with_the_summary_and_says_why_a_figure_is_absent(mesh: Mesh, finished: dict[str, Any]) -> None:
    figures = mesh.grpcurl("trading", f"{PORTFOLIO}/GetPerformance", {"run_id": "finished"})
    assert figures["sharpe"] == pytest.approx(finished["summary"]["sharpe"])
    assert figures["totalReturn"] == pytest.approx(finished["summary"]["total_return"])
    assert 0 < figures["hitRate"] < 1
    assert figures["turnover"] > 0
    assert 0 < figures["meanGrossExposure"] <= 1.6
    early = mesh.grpcurl("trading", f"{PORTFOLIO}/GetPerformance", {"run_id": "finished", "at_sequence": 5})
    assert "sharpe" not in early
    assert early["undefined"]["sharpe"] == "no session was settled"


def test_the_leaderboard_is_that_of_the_dashboard_file_and_the_report_is_written(mesh: Mesh, finished: dict[str, Any]) -> None:
    agents = mesh.grpcurl("trading", f"{PORTFOLIO}/GetLeaderboard", {"run_id": "finished"})["agents"]
    best = agents[0]
    assert best["rank"] == 1
    assert best["all"]["interval"]["low"] < best["all"]["rate"] < best["all"]["interval"]["high"]
    # 125 sessions and 20 tickers; closes before the first session are known.
    assert best["all"]["predictions"] + best.get("neutral", 0) == 125 * 20
    assert "unknown" not in best["all"]
    rows = json.loads((mesh.folder / "runs" / "finished" / "team_dashboard" / "leaderboard.json").read_text())
    ours = {row["agentId"]: row for row in rows}
    for one in agents:
        row = ours[one["agentId"]]
        for way in ("bull", "bear"):
            assert (row[way]["n"], row[way]["win"]) == (one[way].get("predictions", 0), one[way].get("wins", 0))
    page = mesh.folder / "report.html"
    assert mesh.cli("run", "report", "finished", "-o", str(page)).returncode == 0
    assert f"{best['all']['rate']:.1%}" in page.read_text()
    assert mesh.json("run", "verify", "finished")["verified"]


def test_runs_are_compared_down_to_the_first_difference_and_its_setting(mesh: Mesh, finished: dict[str, Any]) -> None:
    path = mesh.folder / "dear.md"
    path.write_text("---\nsessions: {start: 2008-01-02, end: 2008-06-30}\ncosts: {fee_bp: 20}\n---\n")
    assert mesh.cli("run", "start", str(path), "--run-id", "dear").returncode == 0
    mesh.summary("dear")
    found = mesh.grpcurl("trading", f"{PORTFOLIO}/CompareRuns", {"run_ids": ["finished", "dear"]})
    (parted,) = found["divergences"]
    assert parted["causes"] == ["DIVERGENCE_CAUSE_CONFIGURATION"]
    assert parted["configuration"] == [{"path": "costs.fee_bp", "first": "1", "other": "20"}]
    assert parted["firstPhase"] == "PHASE_EXECUTION"
    assert parted["firstSession"] == parted["firstNavSession"]
    (total,) = [row for row in found["figures"] if row["name"] == "total_return"]
    assert total["cells"][1]["difference"] < 0
    mesh.cli("run", "stop", "dear")


def test_a_live_run_is_asked_and_tells_the_same(mesh: Mesh, finished: dict[str, Any]) -> None:
    path = mesh.folder / "live.md"
    path.write_text("---\nsessions: {start: 2008-01-02, end: 2008-06-30}\n---\n")
    assert mesh.cli("run", "start", str(path), "--run-id", "live").returncode == 0
    summary = mesh.summary("live")
    assert mesh.json("run", "show", "live")["run"]["target"]
    for call in ("GetPerformance", "GetPortfolio", "GetLeaderboard"):
        ours = mesh.grpcurl("trading", f"{PORTFOLIO}/{call}", {"run_id": "live"})
        theirs = mesh.grpcurl("trading", f"{PORTFOLIO}/{call}", {"run_id": "finished"})
        assert {**ours, "asOfSequence": ""} == {**theirs, "asOfSequence": ""}
    assert mesh.grpcurl("trading", f"{PORTFOLIO}/GetPortfolio", {"run_id": "live"})["navMicros"] == summary["final_nav_micros"]
    refused = mesh.refused("trading", f"{FEED}/GetSnapshot", {"run_id": "live"})
    assert "its gateway serves its feed" in refused
    assert mesh.cli("run", "stop", "live").returncode == 0


def test_a_run_that_pauses_has_the_same_figures_as_when_it_is_over(mesh: Mesh) -> None:
    path = mesh.folder / "paused.md"
    path.write_text("---\nsessions: {start: 2008-01-02, end: 2012-12-31}\npipeline: {pace_sessions_per_s: 60}\n---\n")
    assert mesh.cli("run", "start", str(path), "--run-id", "paused").returncode == 0
    run = wait_until(lambda: run_after(mesh, "paused", 30), 30, "thirty sessions")

    # Pages of fills while events arrive.
    request: dict[str, Any] = {"run_id": "paused", "page_size": 3}
    page = mesh.grpcurl("trading", f"{PORTFOLIO}/ListFills", request)
    early = page["fills"]
    mesh.grpcurl(run["target"], "trademesh.gateway.v1.PipelineService/PausePipeline", {"run_id": "paused"})
    early += mesh.grpcurl("trading", f"{PORTFOLIO}/ListFills", {**request, "page_token": page["nextPageToken"]})["fills"]

    newest = mesh.grpcurl("trading", f"{PORTFOLIO}/GetPortfolio", {"run_id": "paused"})
    at = int(newest["asOfSequence"])
    shown = wait_until(lambda: run_at(mesh, "paused", at), 20, "progress at the head")
    assert shown["progress"]["nav_micros"] == newest["navMicros"]
    points = [{}, {"at_sequence": at}, {"at_sequence": at // 2}]
    calls = [(call, point) for call in ("GetPortfolio", "GetPerformance") for point in points]
    live = [mesh.grpcurl("trading", f"{PORTFOLIO}/{call}", {"run_id": "paused", **point}) for call, point in calls]
    assert mesh.cli("run", "stop", "paused").returncode == 0
    fixed = [(call, point or {"at_sequence": at}) for call, point in calls]
    assert [mesh.grpcurl("trading", f"{PORTFOLIO}/{call}", {"run_id": "paused", **point}) for call, point in fixed] == live
    assert mesh.grpcurl("trading", f"{PORTFOLIO}/ListFills", {"run_id": "paused", "page_size": 6})["fills"] == early


def run_after(mesh: Mesh, run_id: str, sessions: int) -> Any:
    """A run, once it has settled so many sessions."""
    run = mesh.json("run", "show", run_id)["run"]
    return run if run.get("progress", {}).get("sessions_settled", 0) >= sessions else None


def run_at(mesh: Mesh, run_id: str, sequence: int) -> Any:
    """A run, once its progress is that of a sequence."""
    run = mesh.json("run", "show", run_id)["run"]
    return run if int(run.get("progress", {}).get("head_sequence", 0)) == sequence else None


async def test_the_feed_of_a_finished_run_has_every_event_once_and_ends(mesh: Mesh, finished: dict[str, Any]) -> None:
    async with ServiceClient(finished["run"]["feed_target"], "trading_service") as client:
        request = feed.SubscribeRequest(run_id="finished", after_sequence=0)
        answers = [answer async for answer in client.stream(client.stub(feed_service_pb2_grpc.FeedServiceStub).Subscribe, request)]
    sequences = [event.sequence for answer in answers for event in answer.events.events]
    head = int(finished["summary"]["events"])
    assert sequences == list(range(1, head + 1))
    assert [answer.WhichOneof("kind") for answer in answers[-2:]] == ["events", "end"]
    assert answers[-1].end.reason == feed.STREAM_END_REASON_RUN_ENDED
    assert answers[-1].end.resume_after_sequence == head


def test_what_is_not_there_is_said(mesh: Mesh, finished: dict[str, Any]) -> None:
    assert "there is no run nobody" in mesh.refused("trading", f"{PORTFOLIO}/GetPortfolio", {"run_id": "nobody"})
    beyond = int(finished["summary"]["events"]) + 1
    refused = mesh.refused("trading", f"{PORTFOLIO}/GetPortfolio", {"run_id": "finished", "at_sequence": beyond})
    assert "OutOfRange" in refused
    assert "SEQUENCE_AHEAD" in refused
