"""What may be filled: the cash and margin checks at the fill. Only orders that open, enlarge or flip a position are checked.

After Regulation T (12 CFR 220): equity must cover a share of gross exposure, and short proceeds buy nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from trademesh_ledger.costs import CostModel
from trademesh_ledger.money import BASIS_POINTS
from trademesh_ledger.portfolio import Portfolio


@dataclass(frozen=True)
class MarginRules:
    """Borrowing rules of a run; basis points of exposure."""

    enabled: bool = True
    initial_bp: int = 5000
    allow_debit: bool = False


class Refusal(enum.Enum):
    """Why an order may not be filled; values are those of gateway.v1.LimitCode."""

    SHORT_DISABLED = 5
    INSUFFICIENT_CASH = 9
    INSUFFICIENT_MARGIN = 10


def refusal_of(
    portfolio: Portfolio, ticker: str, delta: int, price_micros: int, costs: CostModel, rules: MarginRules, marks_micros: Mapping[str, int]
) -> Refusal | None:
    """Why a fill of `delta` signed shares at a price may not happen; None if it may.

    `marks_micros` values the other positions; the ticker itself is valued at the price.
    """
    held = portfolio.quantity(ticker)
    after = held + delta
    if held * delta < 0 and abs(delta) <= abs(held):
        return None
    if not rules.enabled and after < 0:
        return Refusal.SHORT_DISABLED
    cash = portfolio.cash_micros - delta * price_micros - costs.fee(delta, price_micros)
    if not rules.enabled:
        return Refusal.INSUFFICIENT_CASH if cash < 0 else None
    long = short = 0
    for other, position in portfolio.positions.items():
        if other != ticker:
            value = position.quantity * marks_micros[other]
            if value > 0:
                long += value
            else:
                short -= value
    own = after * price_micros
    long, short = (long + own, short) if own > 0 else (long, short - own)
    equity = cash + long - short
    if BASIS_POINTS * equity < rules.initial_bp * (long + short):
        return Refusal.INSUFFICIENT_MARGIN
    if not rules.allow_debit and cash - short < 0:
        return Refusal.INSUFFICIENT_CASH
    return None


def largest_fill(
    portfolio: Portfolio, ticker: str, delta: int, price_micros: int, costs: CostModel, rules: MarginRules, marks_micros: Mapping[str, int]
) -> int:
    """The largest part of an order, same sign, that may be filled; 0 if none may. Found by bisection: a smaller part never fails where
    a larger one passes, beyond the part that only reduces."""
    sign = 1 if delta > 0 else -1
    held = portfolio.quantity(ticker)
    low = min(abs(held), abs(delta)) if held * delta < 0 else 0
    high = abs(delta)
    while low < high:
        middle = (low + high + 1) // 2
        if refusal_of(portfolio, ticker, sign * middle, price_micros, costs, rules, marks_micros) is None:
            low = middle
        else:
            high = middle - 1
    return sign * low
