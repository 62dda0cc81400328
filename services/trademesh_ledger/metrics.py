"""Figures of performance over net asset values at successive closes. Ratios are floats; a figure that is undefined is None, with the
reason beside it, and never 0, infinite or NaN."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

SESSIONS_PER_YEAR = 252
SMALLEST_DEVIATION = 1e-12

_OVER_VALUES = (
    "total_return",
    "cagr",
    "annualised_volatility",
    "sharpe",
    "sortino",
    "max_drawdown",
    "max_drawdown_sessions",
    "calmar",
)


@dataclass
class Performance:
    """Figures of a run; fractions, not percent. `undefined` says why a figure is None."""

    sessions: int
    total_return: float | None = None
    cagr: float | None = None
    annualised_volatility: float | None = None
    sharpe: float | None = None
    sortino: float | None = None
    max_drawdown: float | None = None
    max_drawdown_sessions: int | None = None
    calmar: float | None = None
    undefined: dict[str, str] = field(default_factory=dict)


def performance(values_micros: Sequence[int]) -> Performance:
    """Figures over V_0 (initial cash) to V_n (net asset value at the n-th close), risk-free rate 0.

    Total return V_n/V_0 - 1; CAGR and annualised volatility (Bacon 2008); Sharpe ratio (Sharpe 1994); Sortino ratio (Sortino and Price
    1994); deepest drawdown and the longest run of sessions below an earlier peak (Bacon 2008); Calmar ratio (Young 1991).
    """
    found = Performance(sessions=max(0, len(values_micros) - 1))
    if found.sessions == 0 or values_micros[0] <= 0:
        reason = "no session was settled" if found.sessions == 0 else "the initial cash is not above zero"
        found.undefined = dict.fromkeys(_OVER_VALUES, reason)
        return found
    values = [float(value) for value in values_micros]
    found.total_return = values[-1] / values[0] - 1
    if values[-1] > 0:
        try:
            found.cagr = (values[-1] / values[0]) ** (SESSIONS_PER_YEAR / found.sessions) - 1
        except OverflowError:
            found.undefined["cagr"] = "a year at the rate of so few sessions is beyond all numbers"
    else:
        found.undefined["cagr"] = "the last value is not above zero"
    _drawdown(found, values)
    _ratios(found, [after / before - 1 for before, after in itertools.pairwise(values) if before > 0])
    if found.cagr is not None and found.max_drawdown:
        found.calmar = found.cagr / abs(found.max_drawdown)
    else:
        found.undefined["calmar"] = "there was no drawdown" if found.cagr is not None else found.undefined["cagr"]
    return found


def _drawdown(found: Performance, values: list[float]) -> None:
    peak, deepest, below, longest = values[0], 0.0, 0, 0
    for value in values[1:]:
        if value >= peak:
            peak, below = value, 0
        else:
            below += 1
            longest = max(longest, below)
            deepest = min(deepest, value / peak - 1)
    found.max_drawdown, found.max_drawdown_sessions = deepest, longest


def _ratios(found: Performance, returns: list[float]) -> None:
    count = len(returns)
    if count < 2:
        for name in ("annualised_volatility", "sharpe"):
            found.undefined[name] = "needs two sessions"
    mean = math.fsum(returns) / count if count else 0.0
    if count >= 2:
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in returns) / (count - 1))
        found.annualised_volatility = deviation * math.sqrt(SESSIONS_PER_YEAR)
        if deviation >= SMALLEST_DEVIATION:
            found.sharpe = mean / deviation * math.sqrt(SESSIONS_PER_YEAR)
        else:
            found.undefined["sharpe"] = "returns do not vary"
    downside = math.sqrt(math.fsum(min(value, 0.0) ** 2 for value in returns) / count) if count else 0.0
    if downside >= SMALLEST_DEVIATION:
        found.sortino = mean / downside * math.sqrt(SESSIONS_PER_YEAR)
    else:
        found.undefined["sortino"] = "no session lost"


@dataclass(frozen=True)
class ClosingTrade:
    """What closing a position, or a part of it, brought; micro-dollars. The fee is the part of the order's that falls on those shares."""

    realised_micros: int
    fee_micros: int


def hit_rate(trades: Sequence[ClosingTrade]) -> float | None:
    """Share of closing trades with a gain after fees, among those with a gain or a loss; None without any (Pardo 2008)."""
    results = [trade.realised_micros - trade.fee_micros for trade in trades]
    decided = sum(result != 0 for result in results)
    return sum(result > 0 for result in results) / decided if decided else None


def profit_factor(trades: Sequence[ClosingTrade]) -> float | None:
    """Gains over losses of closing trades, after fees; None without losses (Pardo 2008)."""
    results = [trade.realised_micros - trade.fee_micros for trade in trades]
    losses = -sum(result for result in results if result < 0)
    return sum(result for result in results if result > 0) / losses if losses else None


def turnover(traded_micros: int, values_micros: Sequence[int]) -> float | None:
    """Half the value traded, over the mean value of the account, per year of 252 sessions; None where no session was settled.

    `values_micros` as for `performance`; the mean is over the closes (Bacon 2008).
    """
    closes = values_micros[1:]
    mean = math.fsum(closes) / len(closes) if closes else 0.0
    return traded_micros / 2 / mean * SESSIONS_PER_YEAR / len(closes) if mean > 0 else None


def mean_gross_exposure(gross_micros: Sequence[int], values_micros: Sequence[int]) -> float | None:
    """Mean over sessions of the sum of absolute positions over net asset value; both at the closes, where the value is above zero."""
    ratios = [gross / value for gross, value in zip(gross_micros, values_micros, strict=True) if value > 0]
    return math.fsum(ratios) / len(ratios) if ratios else None
