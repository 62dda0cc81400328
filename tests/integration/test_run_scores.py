"""How right agents were, and runs beside each other, over real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from conftest import StartServer
from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.runtime.v1 import runtime_pb2
from trademesh.trading.v1 import portfolio_service_pb2 as messages
from trademesh_kernel.errors import RemoteError
from trademesh_ledger.portfolio import Portfolio
from trademesh_runs.compaction import compact
from trademesh_runs.fold import portfolio_message
from trademesh_runs.journal import Draft
from trademesh_runs.journal_sqlite import SqliteStore
from trading_bench import CASH, PORTFOLIO, Bench, figures, fill, trading_bench, write_journal


@pytest_asyncio.fixture
async def bench(tmp_path: Path, start_server: StartServer) -> AsyncIterator[Bench]:
    """Servers on free ports."""
    async with trading_bench(tmp_path, start_server) as one:
        yield one


def scored_desk(sessions: int, *, fee: int = 0, flips_in: int = 0) -> Iterator[Draft]:
    """A desk with an analyst whose predictions are scored; from a session on its decisions may be others."""
    agents = ["portfolio_manager", "technical_analyst"]
    names = tuple(f"T{number}" for number in range(6))
    started = events.RunStarted(initial_cash_micros=CASH, sessions=sessions, tickers=names, agent_ids=agents, config_sha256=f"{fee}")
    yield Draft("run_started", started)
    account = Portfolio(CASH)
    for number in range(1, sessions + 1):
        day = (date(1990, 1, 1) + timedelta(number)).isoformat()
        up = [(number * (place + 2)) % 5 > 1 for place in range(len(names))]
        rows = [
            events.Prediction(ticker=name, direction=events.DIRECTION_UP if rise else events.DIRECTION_DOWN, confidence=0.6)
            for name, rise in zip(names, up, strict=True)
        ]
        scores = [
            events.Signal(ticker=name, score=0.1 * place if rise else -0.1 * place, stance=events.STANCE_BULLISH)
            for place, (name, rise) in enumerate(zip(names, up, strict=True))
        ]
        quantity = 2 if 0 < flips_in <= number else 1
        yield Draft("signals", events.Signals(signals=scores), day, 2, "technical_analyst")
        yield Draft("predictions", events.Predictions(predictions=rows), day, 4, "technical_analyst")
        decisions = events.Decisions(decisions=[events.Decision(ticker=names[0], quantity=quantity)])
        yield Draft("decisions", decisions, day, 5, "portfolio_manager")
        closes = [10_000_000 + 1_000_000 * ((number * (place + 3)) % 7) for place in range(len(names))]
        yield fill(account, day, names[0], quantity, closes[0], fee)
        nav = account.net_asset_value({names[0]: closes[0]})
        settled = events.Settled(
            session_number=number, nav_micros=nav, portfolio=portfolio_message(account, {names[0]: closes[0]}), close_micros=closes
        )
        yield Draft("settled", settled, day, 9)


async def leaderboard(bench: Bench, run_id: str, at: int | None = None) -> messages.GetLeaderboardResponse:
    """GetLeaderboard."""
    request = messages.GetLeaderboardRequest(run_id=run_id, at_sequence=at)
    answer: messages.GetLeaderboardResponse = await bench.trading.call(bench.trading.stub(PORTFOLIO).GetLeaderboard, request)
    return answer


async def compared(bench: Bench, *run_ids: str) -> messages.CompareRunsResponse:
    """CompareRuns."""
    request = messages.CompareRunsRequest(run_ids=run_ids)
    answer: messages.CompareRunsResponse = await bench.trading.call(bench.trading.stub(PORTFOLIO).CompareRuns, request)
    return answer


async def test_agents_have_the_same_scores_while_the_run_lives_and_afterwards(bench: Bench) -> None:
    gateway = await bench.gateway("run", scored_desk(40))
    head = gateway.feed.head.sequence
    points = [None, 0, 1, 5, 6, 50, head]
    live = [await leaderboard(bench, "run", at) for at in points]
    await gateway.end()
    bench.runtime.say("run", runtime_pb2.RUN_STATE_SUCCEEDED)
    assert [await leaderboard(bench, "run", at) for at in points] == live
    newest = live[0]
    assert [(one.agent_id, one.role) for one in newest.agents] == [
        ("technical_analyst", words.AGENT_ROLE_TECHNICAL_ANALYST),
        ("portfolio_manager", words.AGENT_ROLE_PORTFOLIO_MANAGER),
    ]
    best, manager = newest.agents
    # The first session has no close before it.
    assert (best.all.predictions, best.all.unknown, best.sessions_predicted, best.rank) == (240, 6, 40, 1)
    assert best.all.interval.low < best.all.rate < best.all.interval.high
    assert best.bull.predictions + best.bear.predictions == best.all.predictions
    assert best.information_coefficient.sessions > 30
    assert dict(best.undefined) == {}
    assert not manager.HasField("rank")
    assert "rank" in manager.undefined
    assert (newest.sessions, newest.as_of_sequence) == (40, head)
    assert (live[3].sessions, live[3].agents[0].all.predictions) == (0, 0)
    # All six are unknown: nobody has a rank, and ids decide.
    assert (live[4].sessions, live[4].agents[1].all.predictions, live[4].agents[1].all.unknown) == (1, 6, 6)


async def test_scores_are_refused_beyond_the_head_and_where_events_are_gone(bench: Bench) -> None:
    path = await write_journal(bench.runs, "run", scored_desk(10))
    bench.runtime.say("run", runtime_pb2.RUN_STATE_SUCCEEDED)
    with pytest.raises(RemoteError) as beyond:
        await leaderboard(bench, "run", 99)
    assert beyond.value.remote_reason == "SEQUENCE_AHEAD"
    compact("run", SqliteStore(path), 20)
    for ask in (leaderboard(bench, "run"), compared(bench, "run", "run-2")):
        with pytest.raises(RemoteError) as gone:
            await ask
        assert gone.value.remote_reason == "HISTORY_COMPACTED"


async def test_runs_are_compared_live_or_not_with_where_they_part_and_why(bench: Bench) -> None:
    await bench.gateway("first", scored_desk(20))
    for name, drafts in (
        ("same", scored_desk(20)),
        ("fee", scored_desk(20, fee=1)),
        ("flips", scored_desk(20, flips_in=7)),
    ):
        await write_journal(bench.runs, name, drafts)
        bench.runtime.say(name, runtime_pb2.RUN_STATE_SUCCEEDED)
    bench.runtime.runs["fee"].config.costs.fee_bp = 3
    found = await compared(bench, "first", "same", "fee", "flips")
    assert [(one.run_id, one.sessions, one.first_session) for one in found.runs] == [
        (name, 20, "1990-01-02") for name in ("first", "same", "fee", "flips")
    ]
    same, fee, flips = found.divergences
    assert (same.run_id, same.first_session, list(same.causes)) == ("same", "", [])
    assert (fee.first_session, fee.first_phase) == ("1990-01-02", events.PHASE_SETTLEMENT)
    assert (fee.first_decisions_session, fee.first_nav_session) == ("", "1990-01-02")
    assert list(fee.causes) == [messages.DIVERGENCE_CAUSE_CONFIGURATION]
    assert [one.path for one in fee.configuration] == ["costs.fee_bp"]
    assert (flips.first_session, flips.first_phase, list(flips.agent_ids)) == ("1990-01-08", events.PHASE_DECISION, ["portfolio_manager"])
    assert list(flips.causes) == [messages.DIVERGENCE_CAUSE_DECISIONS]
    total = next(row for row in found.figures if row.name == "total_return")
    assert [cell.difference for cell in total.cells][:2] == [0.0, 0.0]
    assert total.cells[2].difference < 0
    figure = await figures(bench, "flips")
    assert total.cells[3].value == figure.total_return
