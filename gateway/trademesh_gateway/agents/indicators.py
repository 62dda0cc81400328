"""Indicators over a point-in-time view: one value per ticker, NaN where there is not enough history. Causal, since the view is.

A window is never shortened: with fewer observations there is no value.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from trademesh_gateway.market.point_in_time import Closes, PointInTimeView

Column = npt.NDArray[np.float64]

SESSIONS_PER_YEAR = 252


def _nothing(view: PointInTimeView) -> Column:
    return np.full(len(view.tickers), np.nan)


def _prices(closes: Closes) -> npt.NDArray[np.float64]:
    prices = closes.astype(np.float64)
    prices[closes == 0] = np.nan
    return prices


def momentum(view: PointInTimeView, sessions: int, skip: int = 0) -> Column:
    """Return from the close `sessions + skip` ago to the close `skip` ago (Jegadeesh and Titman 1993)."""
    closes = view.last_closes(sessions + skip + 1)
    if len(closes) < sessions + skip + 1:
        return _nothing(view)
    prices = _prices(closes[[0, sessions]])
    result: Column = prices[1] / prices[0] - 1
    return result


def z_score(view: PointInTimeView, sessions: int) -> Column:
    """Deviations (n - 1) of the last close from the mean of the last closes (Chan 2013); 0 where prices do not vary."""
    closes = view.last_closes(sessions)
    if len(closes) < sessions:
        return _nothing(view)
    prices = _prices(closes)
    deviation = prices.std(axis=0, ddof=1)
    safe = np.where(deviation > 0, deviation, 1.0)
    result: Column = np.where(np.isnan(deviation), np.nan, (prices[-1] - prices.mean(axis=0)) / safe)
    return result


def volatility(view: PointInTimeView, sessions: int) -> Column:
    """Deviation (n - 1) of logarithmic returns, times the root of 252 (Hull 2018)."""
    closes = view.last_closes(sessions + 1)
    if len(closes) < sessions + 1:
        return _nothing(view)
    logs = np.log(_prices(closes))
    result: Column = (logs[1:] - logs[:-1]).std(axis=0, ddof=1) * math.sqrt(SESSIONS_PER_YEAR)
    return result
