"""What the limits need to know of the market, as whole numbers: the last place where it is a float is here."""

from __future__ import annotations

import numpy as np

from trademesh_gateway.agents.indicators import volatility
from trademesh_gateway.market.point_in_time import PointInTimeView
from trademesh_gateway.risk.limits import UNKNOWN_MARKET, Limits, Market
from trademesh_ledger.money import BASIS_POINTS

SESSIONS = 20


def market_of(view: PointInTimeView, limits: Limits) -> Market:
    """Computed only if a limit asks for it. Volatilities are rounded half to even, mean volumes down; neither is known of a ticker that lacks
    one of the sessions."""
    if not limits.volatility_target_bp and not limits.volume_bp:
        return UNKNOWN_MARKET
    volatilities = np.rint(np.nan_to_num(volatility(view, SESSIONS)) * BASIS_POINTS).astype(np.int64).tolist()
    return Market(volatilities, _mean_volumes(view) if limits.volume_bp else ())


def _mean_volumes(view: PointInTimeView) -> list[int]:
    count = len(view.tickers)
    told = view.last("volume_plus_one", SESSIONS)
    if told is None or len(told) < SESSIONS:
        return [-1] * count
    means = told.sum(axis=0) // SESSIONS - 1
    found: list[int] = np.where((told > 0).all(axis=0), means, -1).tolist()
    return found
