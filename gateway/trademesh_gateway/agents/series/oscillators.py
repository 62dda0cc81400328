"""Where a price stands within what it did lately."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trademesh_gateway.agents.series.averages import wilder
from trademesh_gateway.agents.series.windows import Series, deviation, nothing_like, sma

NEITHER_GAINS_NOR_LOSSES = 50.0
MIDDLE_OF_THE_BAND = 0.5


class Bollinger(NamedTuple):
    """Bollinger's bands in the unit of the prices, and the place of the price in them: 0 on the lower one, 1 on the upper."""

    lower: Series
    middle: Series
    upper: Series
    percent_b: Series


def rsi(prices: Series, sessions: int = 14) -> Series:
    """Relative strength index, 0 to 100: gains as a share of gains and losses, both as Wilder's averages (Wilder 1978). A price that did not
    move in either direction is at 50. Needs one price more than `sessions`."""
    changes = nothing_like(prices)
    changes[1:] = prices[1:] - prices[:-1]
    gains, losses = wilder(np.maximum(changes, 0), sessions), wilder(np.maximum(-changes, 0), sessions)
    return _share(100 * gains, gains + losses, NEITHER_GAINS_NOR_LOSSES)


def bollinger(prices: Series, sessions: int = 20, width: float = 2) -> Bollinger:
    """Bands `width` deviations of a population round the mean (Bollinger 2001). A price that did not move is in the middle. Needs `sessions`
    prices in a row."""
    middle = sma(prices, sessions)
    reach = width * deviation(prices, sessions, ddof=0)
    lower, upper = middle - reach, middle + reach
    return Bollinger(lower, middle, upper, _share(prices - lower, 2 * reach, MIDDLE_OF_THE_BAND))


def z_score(prices: Series, sessions: int = 20) -> Series:
    """Deviations (n - 1) of the price from its mean (Chan 2013); 0 for one that did not move. Needs `sessions` prices in a row."""
    return _share(prices - sma(prices, sessions), deviation(prices, sessions, ddof=1), 0.0)


def _share(part: Series, whole: Series, of_nothing: float) -> Series:
    result: Series = np.where(whole == 0, of_nothing, part / np.where(whole == 0, 1.0, whole))
    return result
