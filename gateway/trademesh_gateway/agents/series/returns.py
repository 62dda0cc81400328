"""What prices gained, and how unsteadily."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trademesh_gateway.agents.indicators import SESSIONS_PER_YEAR
from trademesh_gateway.agents.series.windows import Series, deviation, nothing_like

MOMENTUM_SESSIONS = (5, 10, 20)


def momentum(prices: Series, sessions: int) -> Series:
    """P[t] / P[t - n] - 1, a fraction (Jegadeesh and Titman 1993). Needs those two prices."""
    change = nothing_like(prices)
    change[sessions:] = prices[sessions:] / prices[: max(0, len(prices) - sessions)] - 1
    return change


def mean_momentum(prices: Series, windows: Sequence[int] = MOMENTUM_SESSIONS) -> Series:
    """Mean of the momenta over some windows, a fraction. Needs one price more than the longest has sessions."""
    total: Series = sum((momentum(prices, sessions) for sessions in windows), np.zeros(prices.shape))
    return total / len(windows)


def volatility(prices: Series, sessions: int) -> Series:
    """Deviation (n - 1) of `sessions` logarithmic returns, times the root of 252: a fraction a year (Hull 2018). Needs one price more than
    that."""
    returns = nothing_like(prices)
    logarithms = np.log(prices)
    returns[1:] = logarithms[1:] - logarithms[:-1]
    return deviation(returns, sessions, ddof=1) * math.sqrt(SESSIONS_PER_YEAR)
