"""Figures of performance over net asset values at successive closes, and over the trades between them. Ratios are floats; a figure that
is undefined is None, with the reason beside it, and never 0, infinite or NaN. Scores of agents are `scores.py`'s.

Where others define the same, the tests hold us to `empyrical-reloaded` at 1e-9: total return, CAGR, volatility, Sharpe, Sortino, maximum
drawdown, Calmar. What differs, and why:

- empyrical answers NaN or infinity where a figure is undefined, and a number between 1e12 and 1e17 where returns vary by rounding alone. A single session that lost
  has a Sortino ratio here and none there.
- empyrical takes returns; the loss of more than everything (a value below zero) has none, so only total return and drawdown are told.
- Sharpe's risk-free rate is taken off each session; empyrical means the same by `risk_free`, as a rate of one session.
- Calmar is over the whole run, not over the last 36 months (Young 1991). quantstats' CAGR counts calendar days, ours sessions.
- hit rate and profit factor count closing legs after fees, not sessions: quantstats' `win_rate` and `profit_factor` are of returns.
- turnover is half of what was traded, over the mean value, a year (purchases and sales are not told apart).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from trademesh_ledger.money import divide_half_even

SESSIONS_PER_YEAR = 252
SHORT_SAMPLE_SESSIONS = 63
"""Below a quarter of a year, a rate for the year says little."""
SMALLEST_DEVIATION = 1e-12
SHORT_SAMPLE = "SHORT_SAMPLE"

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
    """Figures of a run; fractions, not percent. `undefined` says why a figure is None, `flags` what to think of those that are not."""

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
    flags: tuple[str, ...] = ()


def session_rate(yearly_yield: float) -> float:
    """The rate of one session that compounds to a yearly yield; the yield is above -1."""
    return math.expm1(math.log1p(yearly_yield) / SESSIONS_PER_YEAR)


def performance(values_micros: Sequence[int], risk_free_yield: float = 0.0) -> Performance:
    """Figures over V_0 (initial cash) to V_n (net asset value at the n-th close); the risk-free yield is a year's.

    Total return V_n/V_0 - 1; CAGR (V_n/V_0)^(252/n) - 1 and annualised volatility sd(r) sqrt(252), sd with n - 1 (Bacon 2008); Sharpe ratio
    mean(r - f)/sd(r - f) sqrt(252) (Sharpe 1994); Sortino ratio mean(r - f)/sqrt(sum min(r - f, 0)^2/n) sqrt(252) (Sortino and Price 1994);
    deepest fall from an earlier peak, V_0 included, and the longest run of sessions below one, the open one included (Bacon 2008); Calmar
    ratio CAGR/abs(deepest fall) (Young 1991). f is `session_rate` of the yield. A CAGR of fewer than 63 sessions is flagged.
    """
    found = Performance(sessions=max(0, len(values_micros) - 1))
    if found.sessions == 0 or values_micros[0] <= 0:
        reason = "no session was settled" if found.sessions == 0 else "the initial cash is not above zero"
        found.undefined = dict.fromkeys(_OVER_VALUES, reason)
        return found
    values = [float(value) for value in values_micros]
    found.total_return = values[-1] / values[0] - 1
    _growth(found, values)
    _drawdown(found, values)
    if min(values[:-1]) > 0:
        _ratios(found, [after / before - 1 for before, after in itertools.pairwise(values)], session_rate(risk_free_yield))
    else:
        reason = "the account was worth nothing before a session, which has no return then"
        found.undefined |= dict.fromkeys(("annualised_volatility", "sharpe", "sortino"), reason)
    _calmar(found)
    return found


def _growth(found: Performance, values: list[float]) -> None:
    if values[-1] <= 0:
        found.undefined["cagr"] = "the last value is not above zero"
        return
    try:
        found.cagr = (values[-1] / values[0]) ** (SESSIONS_PER_YEAR / found.sessions) - 1
    except OverflowError:
        found.undefined["cagr"] = "a year at the rate of so few sessions is beyond all numbers"
        return
    if found.sessions < SHORT_SAMPLE_SESSIONS:
        found.flags = (SHORT_SAMPLE,)


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


def _ratios(found: Performance, returns: list[float], risk_free: float) -> None:
    count = len(returns)
    mean, year = math.fsum(returns) / count - risk_free, math.sqrt(SESSIONS_PER_YEAR)
    if count >= 2:
        deviation = math.sqrt(math.fsum((value - risk_free - mean) ** 2 for value in returns) / (count - 1))
        found.annualised_volatility = deviation * year
        if deviation >= SMALLEST_DEVIATION:
            found.sharpe = mean / deviation * year
        else:
            found.undefined["sharpe"] = "returns do not vary"
    else:
        found.undefined |= dict.fromkeys(("annualised_volatility", "sharpe"), "needs two sessions")
    downside = math.sqrt(math.fsum(min(value - risk_free, 0.0) ** 2 for value in returns) / count)
    if downside >= SMALLEST_DEVIATION:
        found.sortino = mean / downside * year
    else:
        found.undefined["sortino"] = "no session lost" if risk_free == 0 else "no session fell behind the risk-free rate"


def _calmar(found: Performance) -> None:
    if found.cagr is None:
        found.undefined["calmar"] = found.undefined["cagr"]
    elif not found.max_drawdown:
        found.undefined["calmar"] = "there was no drawdown"
    else:
        ratio = found.cagr / abs(found.max_drawdown)
        if math.isfinite(ratio):
            found.calmar = ratio
        else:
            found.undefined["calmar"] = "a year at the rate of so few sessions is beyond all numbers"


@dataclass(frozen=True)
class ClosingTrade:
    """What closing a position, or a part of it, brought; micro-dollars. The fee is the part of the order's that falls on those shares."""

    realised_micros: int
    fee_micros: int


def closing_fee(fee_micros: int, closed: int, quantity: int) -> int:
    """The part of an order's fee that falls on the shares that closed a position, of all its shares; rounded half to even."""
    return divide_half_even(fee_micros * closed, quantity)


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


def mean_exposure(amounts_micros: Sequence[int], values_micros: Sequence[int]) -> float | None:
    """Mean over sessions of an amount over net asset value; both at the closes, where the value is above zero. None without any.

    With the sum of absolute positions it is the gross exposure, with the signed sum the net one (Bacon 2008).
    """
    ratios = [amount / value for amount, value in zip(amounts_micros, values_micros, strict=True) if value > 0]
    return math.fsum(ratios) / len(ratios) if ratios else None


def share_invested(gross_micros: Sequence[int]) -> float | None:
    """Share of sessions that closed with a position; None without a session. Gross values at the closes."""
    return sum(gross > 0 for gross in gross_micros) / len(gross_micros) if gross_micros else None
