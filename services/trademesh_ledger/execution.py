"""Orders filled one after another against one account, at the prices of one moment: price, check, fill or rejection.

Which orders there are, and their sequence, is the pipeline's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from trademesh_ledger.costs import CostModel
from trademesh_ledger.margin import MarginRules, OtherPositions, largest_part, rejection_of
from trademesh_ledger.portfolio import FillEffect, Portfolio
from trademesh_ledger.rejections import Refusal, Rejection


class Fill(NamedTuple):
    """What an order got. The fee is the whole order's, paid once."""

    ticker: str
    delta: int
    price_micros: int
    fee_micros: int
    effect: FillEffect


class Execution:
    """The checks and fills of one moment.

    Keeps the sums of exposure, so that an order costs as much with 2,000 positions as with 20. While it is in use, fills go through it and
    the marks stay as they are.
    """

    def __init__(self, portfolio: Portfolio, costs: CostModel, rules: MarginRules, marks_micros: Mapping[str, int]) -> None:
        """`marks_micros` values positions, and has every ticker that may be traded; a fill values its own ticker at its price."""
        self._portfolio = portfolio
        self._costs = costs
        self._rules = rules
        self._marks = marks_micros
        self._long_micros, self._short_micros = portfolio.exposure(marks_micros)

    def execute(self, ticker: str, delta: int, market_price_micros: int) -> Fill | Rejection:
        """Fills an order whole, at the market price after slippage and tick, or rejects it and changes nothing.

        A flip is one order: both of its legs happen or neither does.
        """
        if ticker not in self._marks:
            return Rejection(ticker, delta, Refusal.UNKNOWN_TICKER)
        if delta == 0:
            return Rejection(ticker, delta, Refusal.BAD_QUANTITY)
        price = self._costs.fill_price(market_price_micros, delta)
        if price <= 0:
            return Rejection(ticker, delta, Refusal.NO_PRICE)
        return self.rejection_of(ticker, delta, price) or self.fill(ticker, delta, price)

    def rejection_of(self, ticker: str, delta: int, fill_price_micros: int) -> Rejection | None:
        """Why a fill at a price, slippage included, may not happen; None if it may."""
        return rejection_of(self._portfolio, ticker, delta, fill_price_micros, self._costs, self._rules, self._others(ticker))

    def largest_fill(self, ticker: str, delta: int, fill_price_micros: int) -> int:
        """The largest part of an order, same sign, that may be filled at a price; 0 if none may."""
        return largest_part(self._portfolio, ticker, delta, fill_price_micros, self._costs, self._rules, self._others(ticker))

    def fill(self, ticker: str, delta: int, fill_price_micros: int) -> Fill:
        """Fills without a check, at a price with slippage included: for orders that were checked, and for forced ones."""
        others = self._others(ticker)
        fee = self._costs.fee(delta, fill_price_micros)
        effect = self._portfolio.apply_fill(ticker, delta, fill_price_micros, fee)
        value = self._portfolio.quantity(ticker) * self._marks[ticker]
        self._long_micros = others.long_micros + max(value, 0)
        self._short_micros = others.short_micros + max(-value, 0)
        return Fill(ticker, delta, fill_price_micros, fee, effect)

    def _others(self, ticker: str) -> OtherPositions:
        held = self._portfolio.quantity(ticker)
        value = held * self._marks[ticker] if held else 0
        return OtherPositions(self._long_micros - max(value, 0), self._short_micros - max(-value, 0))
