"""What may be filled: the cash and margin checks at the fill. Only orders that open, enlarge or flip a position are checked.

After Regulation T (12 CFR 220): equity must cover a share of gross exposure, and short proceeds buy nothing. What must be kept once a
position is open is in `maintenance.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from trademesh_ledger.costs import CostModel
from trademesh_ledger.money import BASIS_POINTS
from trademesh_ledger.portfolio import Portfolio
from trademesh_ledger.rejections import Refusal, Rejection


@dataclass(frozen=True)
class MarginRules:
    """Borrowing rules of a run; basis points of market value."""

    enabled: bool = True
    initial_bp: int = 5000
    allow_debit: bool = False
    maintenance_long_bp: int = 2500
    maintenance_short_bp: int = 3000
    maintained: bool = True
    """False: no margin is asked for once a position is open, and nothing is closed by force."""


class OtherPositions(NamedTuple):
    """Market value of all positions but the order's own, both without sign."""

    long_micros: int
    short_micros: int


def only_reduces(held: int, delta: int) -> bool:
    """True if an order of `delta` signed shares closes a position of `held`, or a part of it. Such orders are never checked."""
    return held * delta < 0 and abs(delta) <= abs(held)


def closing_part(held: int, delta: int) -> int:
    """The part of an order of `delta` signed shares that closes a position of `held`, same sign; 0 if none does."""
    return 0 if held * delta >= 0 else delta if abs(delta) <= abs(held) else -held


def rejection_of(
    portfolio: Portfolio, ticker: str, delta: int, price_micros: int, costs: CostModel, rules: MarginRules, others: OtherPositions
) -> Rejection | None:
    """Why a fill of `delta` signed shares at a price may not happen, with the amounts; None if it may.

    The ticker itself is valued at the price, so equity falls by the fee alone.
    """
    held = portfolio.quantity(ticker)
    if only_reduces(held, delta):
        return None
    after = held + delta
    if not rules.enabled and after < 0:
        return Rejection(ticker, delta, Refusal.SHORT_DISABLED)
    fee = costs.fee(delta, price_micros)
    cash = portfolio.cash_micros - delta * price_micros - fee
    if not rules.enabled:
        spent = delta * price_micros + fee
        return Rejection(ticker, delta, Refusal.INSUFFICIENT_CASH, spent, portfolio.cash_micros) if cash < 0 else None
    own = after * price_micros
    long = others.long_micros + max(own, 0)
    short = others.short_micros + max(-own, 0)
    equity = cash + long - short
    required = rules.initial_bp * (long + short)
    if BASIS_POINTS * equity < required:
        # Rounded up: an equity in whole micro-dollars passes this figure exactly when it passes the fraction.
        return Rejection(ticker, delta, Refusal.INSUFFICIENT_MARGIN, -(-required // BASIS_POINTS), equity)
    if not rules.allow_debit and cash < short:
        return Rejection(ticker, delta, Refusal.INSUFFICIENT_CASH, short, cash)
    return None


def largest_part(
    portfolio: Portfolio, ticker: str, delta: int, price_micros: int, costs: CostModel, rules: MarginRules, others: OtherPositions
) -> int:
    """The largest part of an order, same sign, that may be filled; 0 if none may.

    Found by bisection: beyond the part that only reduces, a further share adds to the exposure and to the fee, and never to cash less
    short positions, so where a larger part passes a smaller one does.
    """
    sign = 1 if delta > 0 else -1
    low, high = 0, abs(delta)
    while low < high:
        middle = (low + high + 1) // 2
        if rejection_of(portfolio, ticker, sign * middle, price_micros, costs, rules, others) is None:
            low = middle
        else:
            high = middle - 1
    return sign * low
