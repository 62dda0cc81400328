"""Averages that remember everything, each new value weighing most: the exponential one, Wilder's, and MACD, which is made of them.

Both begin with the simple mean of the first n values. Where a value is missing they end, and begin again with the next n.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trademesh_gateway.agents.series.windows import Series, nothing_like, sma


class Macd(NamedTuple):
    """Moving average convergence and divergence, in the unit of the prices."""

    line: Series
    signal: Series
    histogram: Series


def ema(values: Series, sessions: int) -> Series:
    """Exponential moving average: e += 2 / (n + 1) (P - e) (Murphy 1999). Needs `sessions` values in a row."""
    return _smoothed(values, sessions, 2 / (sessions + 1))


def wilder(values: Series, sessions: int) -> Series:
    """Wilder's average: w += (x - w) / n (Wilder 1978). Needs `sessions` values in a row."""
    return _smoothed(values, sessions, 1 / sessions)


def macd(prices: Series, fast: int = 12, slow: int = 26, signal: int = 9) -> Macd:
    """The fast average less the slow one, that line's own average, and the difference of both (Appel 2005). Needs `slow + signal - 1` prices
    in a row, of which the line alone needs `slow`."""
    line = ema(prices, fast) - ema(prices, slow)
    average = ema(line, signal)
    return Macd(line, average, line - average)


def _smoothed(values: Series, sessions: int, share: float) -> Series:
    """`share` is what a new value weighs. Goes from session to session, all tickers at once."""
    seeds = sma(values, sessions)
    result = nothing_like(values)
    before = np.full(values.shape[1:], np.nan)
    for row in range(sessions - 1, len(values)):
        moved = before + share * (values[row] - before)
        before = np.where(np.isnan(moved), seeds[row], moved)
        result[row] = before
    return result
