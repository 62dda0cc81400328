"""What limits ask of the market: usual volumes and volatilities, from the history before the decision."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from itertools import pairwise

import numpy as np

from trademesh_gateway.market.point_in_time import MarketHistory
from trademesh_gateway.risk.limits import UNKNOWN_MARKET, Limits
from trademesh_gateway.risk.market import market_of

WIDE = Limits(position_bp=10**6, gross_bp=10**6, net_bp=10**6, drawdown_stop_bp=0, shorts_allowed=True)
"""Limits that bind nothing."""
DOLLAR = 1_000_000


def history_of(closes: list[list[int]], volumes: list[list[int]] | None) -> MarketHistory:
    """A history of two tickers and an index, a session a day; volumes below 0 are not known."""
    history = MarketHistory(["AAA", "BBB", "INDEX"])
    days = [f"2020-01-{day:02}" for day in range(1, len(closes) + 1)]
    known = None if volumes is None else {"volume_plus_one": np.array(volumes, np.int64) + 1}
    history.add_sessions(days, list(range(1, len(closes) + 1)), np.array(closes, np.int64), known)
    return history


def test_the_usual_volume_is_the_mean_of_20_sessions_and_unknown_if_one_is_missing() -> None:
    volumes = [[10 * day, 500, 0] for day in range(1, 26)]
    volumes[10][1] = -1
    history = history_of([[DOLLAR, DOLLAR, DOLLAR]] * 25, volumes)
    limits = replace(WIDE, volume_bp=500)
    assert market_of(history.as_of(19), limits).volume_shares == [-1, -1, -1]
    assert market_of(history.as_of(20), limits).volume_shares == [105, -1, 0]
    assert market_of(history.as_of(25), limits).volume_shares == [155, -1, 0]
    assert market_of(history_of([[DOLLAR] * 3] * 25, None).as_of(25), limits).volume_shares == [-1, -1, -1]


def test_volumes_are_kept_when_the_history_grows_and_when_they_are_told_late() -> None:
    history = MarketHistory(["AAA"])
    days = [f"{day:04}" for day in range(3000)]
    history.add_sessions(days[:1000], range(1000), np.full((1000, 1), DOLLAR))
    for first in (1000, 2000):
        history.add_sessions(
            days[first : first + 1000],
            range(first, first + 1000),
            np.full((1000, 1), DOLLAR),
            {"volume_plus_one": np.full((1000, 1), first)},
        )
    found = history.as_of(3000).last("volume_plus_one", 2100)
    assert found is not None
    assert [found[0, 0], found[99, 0], found[100, 0], found[-1, 0]] == [0, 0, 1000, 2000]


def test_nothing_is_computed_of_the_market_that_no_limit_asks_for() -> None:
    assert market_of(history_of([[DOLLAR] * 3] * 25, [[1] * 3] * 25).as_of(25), WIDE) is UNKNOWN_MARKET


def test_volatilities_are_whole_basis_points_and_zero_where_there_is_none() -> None:
    closes = [[DOLLAR * (100 + day % 2), 0 if day == 4 else DOLLAR, DOLLAR] for day in range(21)]
    limits = replace(WIDE, volatility_target_bp=1500)
    known = market_of(history_of(closes, None).as_of(21), limits).volatility_bp
    moves = [math.log(later[0] / earlier[0]) for earlier, later in pairwise(closes)]
    assert known == [round(statistics.stdev(moves) * math.sqrt(252) * 10_000), 0, 0]
