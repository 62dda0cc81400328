"""How far a price goes in a session. Needs highs and lows: from closes alone there is no such figure, and none is made up."""

from __future__ import annotations

import numpy as np

from trademesh_gateway.agents.series.averages import wilder
from trademesh_gateway.agents.series.windows import Series, nothing_like


def true_range(highs: Series, lows: Series, closes: Series) -> Series:
    """The session's range with the close before it: max(H - L, |H - P'|, |L - P'|), in the unit of the prices (Wilder 1978). Needs the
    close before."""
    result = nothing_like(closes)
    high, low, before = highs[1:], lows[1:], closes[:-1]
    result[1:] = np.maximum(high - low, np.maximum(np.abs(high - before), np.abs(low - before)))
    return result


def atr(highs: Series, lows: Series, closes: Series, sessions: int = 14) -> Series:
    """Average true range: Wilder's average of it, in the unit of the prices (Wilder 1978). Needs one session more than `sessions`."""
    return wilder(true_range(highs, lows, closes), sessions)
