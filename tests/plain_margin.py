"""The checks at a fill by looking at every other position: what an execution, which keeps sums, is compared with."""

from __future__ import annotations

from collections.abc import Mapping

from trademesh_ledger.costs import CostModel
from trademesh_ledger.margin import MarginRules, OtherPositions, largest_part, rejection_of
from trademesh_ledger.portfolio import Portfolio
from trademesh_ledger.rejections import Refusal


def refusal_of(
    portfolio: Portfolio, ticker: str, delta: int, price_micros: int, costs: CostModel, rules: MarginRules, marks_micros: Mapping[str, int]
) -> Refusal | None:
    """Why a fill of `delta` signed shares at a price may not happen; None if it may. `marks_micros` values the other positions."""
    rejection = rejection_of(portfolio, ticker, delta, price_micros, costs, rules, _others(portfolio, ticker, marks_micros))
    return None if rejection is None else rejection.refusal


def largest_fill(
    portfolio: Portfolio, ticker: str, delta: int, price_micros: int, costs: CostModel, rules: MarginRules, marks_micros: Mapping[str, int]
) -> int:
    """The largest part of an order, same sign, that may be filled; 0 if none may. `marks_micros` as for `refusal_of`."""
    return largest_part(portfolio, ticker, delta, price_micros, costs, rules, _others(portfolio, ticker, marks_micros))


def _others(portfolio: Portfolio, ticker: str, marks_micros: Mapping[str, int]) -> OtherPositions:
    values = [one.quantity * marks_micros[other] for other, one in portfolio.positions.items() if other != ticker]
    return OtherPositions(sum(value for value in values if value > 0), -sum(value for value in values if value < 0))
