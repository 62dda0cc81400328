"""Further skills of the technical analyst, off unless a configuration names them: each reads one indicator and says how far it leans.

An average that remembers everything is read over the newest `SEEN_SESSIONS` closes, which is all that has weight in it; fewer are seen only
while no more are known. Such an average is a sum of its values by fixed weights, and is computed as one: going from session to session costs a
hundred times as much.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from trademesh_gateway.agents.series import averages, oscillators
from trademesh_gateway.agents.series.windows import Series, sma
from trademesh_gateway.market.point_in_time import Column, PointInTimeView

Reading = tuple[str, Column, Column]
"""Name of the figure, the figure, and the lean from -1 to 1; NaN where there is too little history."""

SEEN_SESSIONS = 250
FULL_TREND = 0.1
"""So far a middle average is from a long one, as a fraction of it, when the lean is whole."""
FULL_MACD = 0.01
"""The same for MACD's histogram, as a fraction of the price."""
FULL_RSI = 30
"""The same for points of the index from its middle."""


def trend(prices: Series) -> Reading:
    """With the trend: the average of 50 sessions over that of 200."""
    ratio = _newest(sma(prices[-50:], 50)) / _newest(sma(prices[-200:], 200)) - 1
    return "sma_50_over_200", ratio, np.clip(ratio / FULL_TREND, -1, 1)


def macd(prices: Series) -> Reading:
    """With the histogram of MACD 12/26/9, as a fraction of the price."""
    figure = newest_of(_macd_histogram, prices) / _newest(prices)
    return "macd_histogram_of_price", figure, np.clip(figure / FULL_MACD, -1, 1)


def rsi(prices: Series) -> Reading:
    """Against what was bought or sold too much."""
    changes = prices[1:] - prices[:-1]
    gains, losses = newest_of(_wilder_14, np.maximum(changes, 0)), newest_of(_wilder_14, np.maximum(-changes, 0))
    moved = gains + losses > 0
    figure = np.where(np.isnan(gains), np.nan, oscillators.NEITHER_GAINS_NOR_LOSSES)
    figure[moved] = 100 * gains[moved] / (gains[moved] + losses[moved])
    return "rsi_14", figure, np.clip((oscillators.NEITHER_GAINS_NOR_LOSSES - figure) / FULL_RSI, -1, 1)


def bollinger(prices: Series) -> Reading:
    """Back into the band: whole on its edges."""
    figure = _newest(oscillators.bollinger(prices[-20:]).percent_b)
    return "percent_b_20", figure, np.clip(1 - 2 * figure, -1, 1)


READINGS: dict[str, tuple[Callable[[Series], Reading], float]] = {
    "trend": (trend, 0.3),
    "macd": (macd, 0.2),
    "rsi": (rsi, 0.2),
    "bollinger": (bollinger, 0.2),
}
"""By skill: what reads, and its share in the score."""


def seen_prices(view: PointInTimeView) -> Series:
    """Prices that skills read, in micro-dollars, NaN where there is none."""
    closes = view.last_closes(SEEN_SESSIONS)
    return np.where(closes == 0, np.nan, closes.astype(np.float64))


def newest_of(average: Callable[[Series], Series], values: Series) -> Column:
    """The last row of a function that is linear in its values. Tickers that lack one of them have it session by session."""
    if not len(values):
        return _newest(values)
    # Added up in the order of the rows, so that the sum is the same everywhere.
    total: Column = (_weights(average, len(values))[:, np.newaxis] * values).sum(axis=0)
    lacking = np.isnan(total)
    if lacking.any():
        total[lacking] = average(values[:, lacking])[-1]
    return total


@cache
def _weights(average: Callable[[Series], Series], sessions: int) -> Column:
    """What each session's value weighs in the last row: what the function makes of that value alone."""
    weights: Column = average(np.eye(sessions))[-1]
    return weights


def _macd_histogram(prices: Series) -> Series:
    return averages.macd(prices).histogram


def _wilder_14(values: Series) -> Series:
    return averages.wilder(values, 14)


def _newest(values: Series) -> Column:
    """The last row; missing values if there is none."""
    newest: Column = values[-1] if len(values) else np.full(values.shape[1:], np.nan)
    return newest
