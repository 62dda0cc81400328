"""The embedded closes as a desk sees them, for tests of its cycle."""

from __future__ import annotations

from functools import cache

import numpy as np

from trademesh_gateway.market.point_in_time import MarketHistory, NewsFact
from trademesh_gateway.pipeline.cycle import ApprovalAnswer, ApprovalQuestion, Emit
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
