"""Values in words: an array of the values' shape, with `""` where a value is missing. The cuts are those of the sources that the indicators
name; a value on a cut is not beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trademesh_gateway.agents.series.windows import Mask, Series

Labels = npt.NDArray[np.str_]

MISSING = ""
STRONG_MOMENTUM = 0.02
HIGH_VOLATILITY = 0.5
MODERATE_VOLATILITY = 0.25
OVERBOUGHT_RSI = 70
OVERSOLD_RSI = 30
STRETCHED_Z_SCORE = 2


def price_against_average(prices: Series, average: Series) -> Labels:
    """`above`, `below` or `at` a moving average."""
    return _sign(prices - average, "above", "below", "at")


def averages_crossed(fast: Series, slow: Series) -> Labels:
    """`crossed above` and `crossed below` in the session after which a fast average has passed a slow one, else the side it is on: `above`,
    `below`, `at`."""
    side = _sign(fast - slow, "above", "below", "at")
    before = np.full(side.shape, MISSING, side.dtype)
    before[1:] = side[:-1]
    turned = (before != MISSING) & (before != side)
    return np.select(
        [turned & (side == "above"), turned & (side == "below")],
        [np.full(side.shape, "crossed above"), np.full(side.shape, "crossed below")],
        side,
    )


def macd(histogram: Series) -> Labels:
    """`rising` where the line is above its signal, `falling` where it is below, else `level`."""
    return _sign(histogram, "rising", "falling", "level")


def rsi(values: Series) -> Labels:
    """`overbought` over 70, `oversold` under 30, else `neutral`."""
    return _chosen(values, [(values > OVERBOUGHT_RSI, "overbought"), (values < OVERSOLD_RSI, "oversold")], "neutral")


def percent_b(values: Series) -> Labels:
    """`above the band`, `below the band`, or `inside`."""
    return _chosen(values, [(values > 1, "above the band"), (values < 0, "below the band")], "inside")


def momentum(values: Series) -> Labels:
    """Of the mean over several windows: `strong up` over 2 %, `up` over 0, `down` to -2 %, else `strong down`; `none` at 0."""
    cuts = [
        (values > STRONG_MOMENTUM, "strong up"),
        (values > 0, "up"),
        (values < -STRONG_MOMENTUM, "strong down"),
        (values < 0, "down"),
    ]
    return _chosen(values, cuts, "none")


def volatility(values: Series) -> Labels:
    """Of 20 sessions: `high` over 50 % a year, `moderate` over 25 %, else `low`."""
    return _chosen(values, [(values > HIGH_VOLATILITY, "high"), (values > MODERATE_VOLATILITY, "moderate")], "low")


def z_score(values: Series) -> Labels:
    """`stretched up` over 2, `stretched down` under -2, else `usual`."""
    return _chosen(values, [(values > STRETCHED_Z_SCORE, "stretched up"), (values < -STRETCHED_Z_SCORE, "stretched down")], "usual")


def _sign(values: Series, positive: str, negative: str, zero: str) -> Labels:
    return _chosen(values, [(values > 0, positive), (values < 0, negative)], zero)


def _chosen(values: Series, cuts: Sequence[tuple[Mask, str]], otherwise: str) -> Labels:
    conditions = [np.isnan(values), *(where for where, _ in cuts)]
    words = [np.full(values.shape, word) for word in (MISSING, *(word for _, word in cuts))]
    return np.select(conditions, words, np.full(values.shape, otherwise))
