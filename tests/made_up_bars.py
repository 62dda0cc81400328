"""Small markets whose every price is said by a test, in dollars; and the embedded closes in the same form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache

import numpy as np

from real_closes import FIRST, SESSIONS, history, times_of
from trademesh_gateway.market.point_in_time import MarketHistory
from trademesh_gateway.pipeline.broker import SessionTimes
from trademesh_ledger.corporate_actions import CorporateAction

DOLLAR = 1_000_000
FIRST_DAY = date(2020, 1, 6)
Prices = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Stage:
    """What a desk trades: bars, and the sessions of its run, counted from 1."""

    history: MarketHistory
    tickers: tuple[str, ...]
    index_name: str
    sessions: int
    times: Callable[[int], SessionTimes]


@cache
def real_stage() -> Stage:
    """The 20 stocks of the embedded set with their index, from FIRST on."""
    market = history(FIRST + SESSIONS)
    return Stage(market, market.tickers[:20], "SP500", SESSIONS, lambda number: times_of(FIRST + number - 1))


def day(row: int) -> str:
    """The ISO date of a row; a session every day."""
    return (FIRST_DAY + timedelta(days=row)).isoformat()


def times(row: int, last: int) -> SessionTimes:
    """A row as a session, from 14:30 to 21:00 UTC; behind the last one there is none."""
    midnight = int(datetime.fromisoformat(day(row)).replace(tzinfo=UTC).timestamp())
    return SessionTimes(day(row), midnight + 52_200, midnight + 75_600, int(row < last))


def stage(
    closes: Prices,
    *,
    opens: Prices | None = None,
    highs: Prices | None = None,
    lows: Prices | None = None,
    volumes: Prices | None = None,
    actions: Sequence[tuple[int, CorporateAction]] = (),
    before: int = 1,
) -> Stage:
    """A market without an index. Each ticker has a price per row, 0 for none; volumes are shares, below 0 if not known.

    Args:
        actions: with the sessions of the run on whose morning they are done, counted from 1.
        before: rows before the run's first session, which are known when it begins.
    """
    tickers, rows = tuple(closes), len(next(iter(closes.values())))

    def table(prices: Prices | None) -> np.ndarray[tuple[int, int], np.dtype[np.int64]] | None:
        if prices is None:
            return None
        return np.array([[round(prices[ticker][row] * DOLLAR) for ticker in tickers] for row in range(rows)], np.int64)

    known = None if volumes is None else np.array([[int(volumes[ticker][row]) + 1 for ticker in tickers] for row in range(rows)], np.int64)
    market, told = MarketHistory(tickers), table(closes)
    assert told is not None
    market.add_actions([(day(before + number - 1), action) for number, action in actions])
    fields = {"open": table(opens), "high": table(highs), "low": table(lows), "volume_plus_one": known}
    known_at = [times(row, rows).close_unix_s for row in range(rows)]
    market.add_sessions(
        [day(row) for row in range(rows)], known_at, told, {name: field for name, field in fields.items() if field is not None}
    )
    return Stage(market, tickers, "", rows - before, lambda number: times(before + number - 1, rows - 1))
