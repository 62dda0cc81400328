"""Files for dashboards: their keys, what is in them, and that they are the same bytes whenever they are made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from random_journals import filled, write
from trademesh.gateway.v1 import event_pb2 as events
from trademesh_ledger.portfolio import Portfolio
from trademesh_runs.compaction import compact
from trademesh_runs.exports import export_files
from trademesh_runs.fold import portfolio_message, replay_journal
from trademesh_runs.journal import Draft
from trademesh_runs.journal_memory import MemoryStore
from trademesh_runs.layout import RunLayout
from trademesh_runs.scoreboard import Scoreboard

from .dashboard_schemas import SCHEMAS

DOLLAR = 1_000_000
CASH = 100_000 * DOLLAR
TICKERS = ("AAPL", "KO")
AGENTS = ("fundamentals_analyst", "portfolio_manager", "risk_manager", "sentiment_analyst", "technical_analyst")


def fill(account: Portfolio, day: str, ticker: str, delta: int, dollars: int) -> Draft:
    order = filled(account, f"{day}/{ticker}", ticker, delta, dollars * DOLLAR, 0)
    return Draft("order_filled", order, day, 8, item=order.order_id)


def predicted(day: str, agent: str, directions: Sequence[events.Direction.ValueType]) -> Draft:
    rows = [events.Prediction(ticker=ticker, direction=one, confidence=0.6) for ticker, one in zip(TICKERS, directions, strict=True)]
    return Draft("predictions", events.Predictions(predictions=rows), day, 4, agent)


def settled(account: Portfolio, day: str, number: int, closes: dict[str, int], momentum: int | None) -> Draft:
    marks = {ticker: dollars * DOLLAR for ticker, dollars in closes.items()}
    baselines = [events.Baseline(name="equal_weight", nav_micros=CASH + number)]
    if momentum is not None:
        baselines.append(events.Baseline(name="momentum", nav_micros=momentum))
    message = events.Settled(
        session_number=number,
        nav_micros=account.net_asset_value(marks),
        portfolio=portfolio_message(account, marks),
        baselines=baselines,
        close_micros=[marks.get(ticker, 0) for ticker in TICKERS],
    )
    return Draft("settled", message, day, 9)


def two_days(*, momentum: int | None = CASH) -> Iterator[Draft]:
    """The first example of the page's accounting, and a second day on which predictions are scored."""
    account = Portfolio(CASH)
    yield Draft("run_started", events.RunStarted(initial_cash_micros=CASH, tickers=TICKERS, sessions=2, agent_ids=AGENTS))
    yield fill(account, "2025-11-03", "AAPL", 100, 50)
    yield settled(account, "2025-11-03", 1, {"AAPL": 55, "KO": 60}, momentum)
    yield predicted("2025-11-04", "technical_analyst", [events.DIRECTION_UP, events.DIRECTION_DOWN])
    yield predicted("2025-11-04", "sentiment_analyst", [events.DIRECTION_DOWN, events.DIRECTION_NEUTRAL])
    yield fill(account, "2025-11-04", "AAPL", -40, 57)
    yield settled(account, "2025-11-04", 2, {"AAPL": 57, "KO": 60}, momentum)


async def exported(drafts: Sequence[Draft], through: int | None = None) -> dict[str, Any]:
    store = MemoryStore()
    await write(store, drafts)
    reader = store.reader()
    state = replay_journal("demo", reader, through).state()
    files = export_files(RunLayout(Path("/nowhere"), "demo"), state, Scoreboard().catch_up(reader, state.as_of_sequence))
    again = export_files(RunLayout(Path("/nowhere"), "demo"), state, Scoreboard().catch_up(reader, state.as_of_sequence))
    assert files == again
    return {Path(name).stem: json.loads(content) for name, content in files.items() if name.startswith("team_dashboard/")}


@pytest.mark.parametrize("through", [0, 1, 2, 3, 5, 7])
async def test_every_file_has_exactly_the_keys_of_the_page_at_any_moment(through: int) -> None:
    files = await exported(list(two_days()), through)
    assert set(files) == set(SCHEMAS)
    for name, content in files.items():
        jsonschema.validate(content, SCHEMAS[name], cls=jsonschema.Draft202012Validator)


async def test_the_page_s_example_comes_out_as_it_is_there() -> None:
    files = await exported(list(two_days()), 3)
    summary = files["summary"]
    assert (summary["totalAssetValue"], summary["totalReturn"], summary["cashPosition"]) == (100_500.0, pytest.approx(0.5), 95_000.0)
    assert summary["tickerWeights"] == {"AAPL": pytest.approx(5_500 / 100_500)}
    assert summary["equity"] == [{"t": 1762117200000, "v": 100_000.0}, {"t": 1762203600000, "v": 100_500.0}]
    assert files["trades"] == [
        {
            "id": "t_20251103_AAPL_0",
            "timestamp": 1762203600000,
            "trading_date": "2025-11-03",
            "side": "LONG",
            "ticker": "AAPL",
            "qty": 100,
            "price": 50.0,
        }
    ]
    assert [row["ticker"] for row in files["holdings"]] == ["CASH", "AAPL"]
    assert files["stats"]["winRate"] == 0.0
    assert files["stats"]["bullBear"] == {"bull": {"n": 0, "win": 0}, "bear": {"n": 0, "win": 0}}


async def test_the_leaderboard_has_the_team_first_then_ranks_then_those_without_one() -> None:
    rows = (await exported(list(two_days())))["leaderboard"]
    assert [(row["agentId"], row["rank"], row["winRate"]) for row in rows] == [
        ("portfolio_manager", None, None),
        ("risk_manager", None, None),
        ("technical_analyst", 1, 0.5),
        ("sentiment_analyst", 2, 0.0),
        ("fundamentals_analyst", 0, None),
    ]
    technical, sentiment = rows[2], rows[3]
    assert (technical["name"], technical["avatar"], technical["bull"]) == (
        "Technical Analyst",
        "technical",
        {"n": 1, "win": 1, "unknown": 0},
    )
    assert technical["signals"] == [
        {"ticker": "KO", "signal": "bear", "date": "2025-11-04", "is_correct": False, "real_return": 0.0},
        {"ticker": "AAPL", "signal": "bull", "date": "2025-11-04", "is_correct": True, "real_return": pytest.approx(57 / 55 - 1)},
    ]
    assert [one["is_correct"] for one in sentiment["signals"]] == [None, False]


async def test_a_prediction_whose_close_is_missing_is_called_unknown() -> None:
    drafts = list(two_days())
    message = drafts[2].payload
    assert isinstance(message, events.Settled)
    message.close_micros[1] = 0
    rows = {row["agentId"]: row for row in (await exported(drafts))["leaderboard"]}
    ko = rows["technical_analyst"]["signals"][0]
    assert (ko["is_correct"], ko["real_return"]) == ("unknown", None)
    assert rows["technical_analyst"]["bear"] == {"n": 1, "win": 0, "unknown": 1}


async def test_stats_count_closing_trades_and_predictions_of_all_agents() -> None:
    stats = (await exported(list(two_days())))["stats"]
    assert stats["winRate"] == 1.0
    assert stats["bullBear"] == {"bull": {"n": 1, "win": 1}, "bear": {"n": 2, "win": 0}}


async def test_curves_are_drawn_by_index_and_one_without_every_session_is_empty() -> None:
    summary = (await exported(list(two_days())))["summary"]
    times = [[point["t"] for point in summary[name]] for name in ("equity", "baseline", "momentum")]
    assert times[0] == times[1] == times[2]
    assert summary["momentum"][0]["v"] == summary["baseline"][0]["v"] == 100_000.0
    old = (await exported(list(two_days(momentum=None))))["summary"]
    assert (old["momentum"], old["baseline_vw"]) == ([], [])
    assert len(old["baseline"]) == 3


async def test_a_compacted_run_tells_no_leaderboard_since_it_could_only_tell_a_part() -> None:
    store = MemoryStore()
    await write(store, list(two_days()))
    compact("demo", store, 3)
    reader = store.reader()
    state = replay_journal("demo", reader).state()
    files = export_files(RunLayout(Path("/nowhere"), "demo"), state, Scoreboard().catch_up(reader, state.as_of_sequence))
    assert {Path(name).stem for name in files} == {"server_state", "summary", "holdings", "trades"}
