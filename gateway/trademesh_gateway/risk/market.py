"""What the limits need to know of the market, as whole numbers: the last place where it is a float is here."""

from __future__ import annotations

import numpy as np

from trademesh_gateway.agents.indicators import volatility
from trademesh_gateway.market.point_in_time import PointInTimeView
from trademesh_gateway.risk.limits import BASIS_POINTS, UNKNOWN_MARKET, Limits, Market

VOLATILITY_SESSIONS = 20


def market_of(view: PointInTimeView, limits: Limits) -> Market:
    """Computed only if a limit asks for it. Volatilities are rounded half to even; the gateway reads no volumes yet, so none is known."""
    if not limits.volatility_target_bp:
        return UNKNOWN_MARKET
    level = volatility(view, VOLATILITY_SESSIONS)
    return Market(volatility_bp=np.rint(np.nan_to_num(level) * BASIS_POINTS).astype(np.int64).tolist())
