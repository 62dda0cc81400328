"""The embedded closes as a desk sees them, for tests of its cycle."""

from __future__ import annotations

from datetime import date
from functools import cache
from typing import Any

import numpy as np

from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_gateway.configuration import desk_at, rules_of
from trademesh_gateway.market.point_in_time import MarketHistory, NewsFact
from trademesh_gateway.pipeline.broker import BarBroker, SessionTimes
from trademesh_gateway.pipeline.cycle import ApprovalAnswer, ApprovalQuestion, Ask, Cycle, Emit
from trademesh_gateway.pipeline.desk_run import DeskRun
from trademesh_runs.run_config import normalised
from trademesh_trading.market_set import LoadedSet
from trademesh_trading.set_files import load_set
from trademesh_trading.store import EMBEDDED_SETS

FIRST, SESSIONS = 300, 90
CASH = 1_000_000_000_000


@cache
def us20() -> LoadedSet:
    """The embedded set."""
    return load_set(EMBEDDED_SETS / "us20")


def history(through: int, *, later_factor: float = 1.0, cut: int | None = None) -> MarketHistory:
    """The first rows of the set; rows after `cut` are changed by a factor, and news is made of big moves."""
    data = us20()
    columns = [*range(20), 25]
    closes = data.close_micros[:through][:, columns].copy()
    if cut is not None:
        closes[cut:] = (closes[cut:] * later_factor).astype(np.int64)
    found = MarketHistory([data.instruments[column].ticker for column in columns])
    found.add_sessions(data.sessions[:through], data.close_unix_s[:through].tolist(), closes)
    news = list[NewsFact]()
    for row in range(1, through):
        for column in range(20):
            change = closes[row, column] / closes[row - 1, column] - 1
            if abs(change) > 0.05:
                news.append(NewsFact(found.tickers[column], int(data.close_unix_s[row]) + 1800, 1 if change > 0 else -1))
    found.add_news(news)
    return found


async def no_one(_question: ApprovalQuestion, _emit: Emit) -> ApprovalAnswer:
    """Nobody is to be asked here."""
    raise AssertionError


def times_of(row: int) -> SessionTimes:
    """A session of the set."""
    data = us20()
    days = (date.fromisoformat(data.sessions[row + 1]) - date.fromisoformat(data.sessions[row])).days
    return SessionTimes(data.sessions[row], int(data.open_unix_s[row]), int(data.close_unix_s[row]), days)


def new_desk(config: RunConfig | None = None) -> DeskRun:
    """The built-in desk on the 20 stocks, before its first session."""
    return desk_at(rules_of(normalised(config or RunConfig())), history(FIRST).tickers[:20], CASH, "SP500")


def cycle_of(desk: DeskRun, market: MarketHistory, number: int, emit: Emit, ask: Ask = no_one, **fields: Any) -> Cycle:
    """A session, counted from 1 at FIRST."""
    return Cycle(desk, market, BarBroker(market), times_of(FIRST + number - 1), number, emit, ask, **fields)


async def run_phase(cycle: Cycle, phase: int) -> None:
    """One phase to its end."""
    rest = cycle.run(phase)
    if rest is not None:
        await rest
