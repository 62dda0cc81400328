"""Indicators over a point-in-time view: one value per ticker, NaN where there is not enough history. Causal, since the view is.

A window is never shortened: with fewer observations there is no value. Sums run over the window in its order, so that a value is the same to
the last digit whether it is computed alone or among many (`market/window_table.py`).
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import numpy.typing as npt

from trademesh_gateway.market.point_in_time import Closes, Column, PointInTimeView

SESSIONS_PER_YEAR = 252

_Table = npt.NDArray[np.float64]


def _nothing(view: PointInTimeView) -> Column:
    return np.full(len(view.tickers), np.nan)


def _prices(closes: Closes) -> _Table:
    prices = closes.astype(np.float64)
    prices[closes == 0] = np.nan
    return prices


def _mean_and_deviation(values: _Table, window: int) -> tuple[_Table, _Table]:
    """Of each stretch of `window` rows, the deviation with n - 1."""
    count = len(values) - window + 1
    total = values[:count].copy()
    for place in range(1, window):
        total += values[place : place + count]
    mean = total / window
    squares = (values[:count] - mean) ** 2
    for place in range(1, window):
        squares += (values[place : place + count] - mean) ** 2
    return mean, np.sqrt(squares / (window - 1))


def momentum(view: PointInTimeView, sessions: int, skip: int = 0) -> Column:
    """Return from the close `sessions + skip` ago to the close `skip` ago (Jegadeesh and Titman 1993)."""
    window = sessions + skip + 1
    found = view.windowed(f"momentum {sessions} {skip}", window, partial(_momentum, sessions=sessions, window=window))
    return _nothing(view) if found is None else found


def _momentum(closes: Closes, sessions: int, window: int) -> _Table:
    prices, count = _prices(closes), len(closes) - window + 1
    result: _Table = prices[sessions : sessions + count] / prices[:count] - 1
    return result


def z_score(view: PointInTimeView, sessions: int) -> Column:
    """Deviations (n - 1) of the last close from the mean of the last closes (Chan 2013); 0 where prices do not vary."""
    found = view.windowed(f"z_score {sessions}", sessions, partial(_z_score, window=sessions))
    return _nothing(view) if found is None else found


def _z_score(closes: Closes, window: int) -> _Table:
    prices = _prices(closes)
    mean, deviation = _mean_and_deviation(prices, window)
    safe = np.where(deviation > 0, deviation, 1.0)
    result: _Table = np.where(np.isnan(deviation), np.nan, (prices[window - 1 :] - mean) / safe)
    return result


def volatility(view: PointInTimeView, sessions: int) -> Column:
    """Deviation (n - 1) of logarithmic returns, times the root of 252 (Hull 2018)."""
    found = view.windowed(f"volatility {sessions}", sessions + 1, partial(_volatility, window=sessions))
    return _nothing(view) if found is None else found


def _volatility(closes: Closes, window: int) -> _Table:
    logs = np.log(_prices(closes))
    _, deviation = _mean_and_deviation(logs[1:] - logs[:-1], window)
    result: _Table = deviation * math.sqrt(SESSIONS_PER_YEAR)
    return result
