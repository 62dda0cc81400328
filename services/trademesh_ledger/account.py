"""An account from session to session, as the ledger sees it: corporate actions, forced liquidation, orders, marks, borrow, margin.

    open_session   PREPARE      actions of the ex-date
    execution      EXECUTION    forced orders of a margin call, then whatever the caller executes
    settle         SETTLEMENT   marks, borrow, net asset value, margin call

Knows no clock and no calendar: callers say how many days there are to the next session.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from trademesh_ledger.borrow import BorrowCharge, charge_borrow
from trademesh_ledger.corporate_actions import ActionEffect, CorporateAction, apply_actions
from trademesh_ledger.costs import CostModel
from trademesh_ledger.execution import Execution, Fill
from trademesh_ledger.maintenance import LiquidationPlan, MarginCall, liquidation_plan, margin_call
from trademesh_ledger.margin import MarginRules
from trademesh_ledger.money import check_amount
from trademesh_ledger.portfolio import Portfolio


@dataclass(frozen=True, slots=True)
class ForcedLiquidation:
    """What was closed by force."""

    fills: tuple[Fill, ...]
    insolvent: bool


class Settlement(NamedTuple):
    """An account at a close."""

    nav_micros: int
    borrow: list[BorrowCharge]
    margin_call: MarginCall | None


class Account:
    """A portfolio with its rules and its last marks."""

    def __init__(self, portfolio: Portfolio, costs: CostModel, rules: MarginRules) -> None:
        self.portfolio = portfolio
        self.costs = costs
        self.rules = rules
        self.marks_micros: dict[str, int] = {}
        """The last known price per ticker."""
        self.call: MarginCall | None = None
        """The margin call of the last settlement."""

    def open_session(self, actions: Iterable[CorporateAction]) -> list[ActionEffect]:
        """Applies the corporate actions of this ex-date."""
        return apply_actions(self.portfolio, actions, self.marks_micros)

    def liquidate(self, prices_micros: Mapping[str, int]) -> ForcedLiquidation | None:
        """Answers the margin call of the last settlement at today's prices, before any other order; None if they have answered it.

        Prices are those before slippage; tickers that do not trade today are left out.
        """
        plan = self._plan(prices_micros)
        if plan is None:
            return None
        fills = tuple(self._filled(plan, self.execution(prices_micros), prices_micros))
        return ForcedLiquidation(fills, plan.insolvent)

    def forced_fills(self, execution: Execution, prices_micros: Mapping[str, int]) -> Iterator[Fill]:
        """The same one after another, in a moment whose other orders go through `execution`: each is made when it is taken."""
        plan = self._plan(prices_micros)
        return iter(()) if plan is None else self._filled(plan, execution, prices_micros)

    def _filled(self, plan: LiquidationPlan, execution: Execution, prices_micros: Mapping[str, int]) -> Iterator[Fill]:
        for order in plan.orders:
            yield execution.fill(order.ticker, order.delta, self.costs.fill_price(prices_micros[order.ticker], order.delta))

    def _plan(self, prices_micros: Mapping[str, int]) -> LiquidationPlan | None:
        self.marks_micros.update(prices_micros)
        if self.call is None or margin_call(self.portfolio, self.marks_micros, self.rules) is None:
            return None
        return liquidation_plan(self.portfolio, self.marks_micros, prices_micros, self.costs, self.rules)

    def recall(self) -> None:
        """Finds the margin call of the last settlement again, from its marks: for an account that was put together from a record."""
        self.call = margin_call(self.portfolio, self.marks_micros, self.rules)

    def execution(self, prices_micros: Mapping[str, int]) -> Execution:
        """For the orders of a moment at which these are the prices, before slippage."""
        self.marks_micros.update(prices_micros)
        return Execution(self.portfolio, self.costs, self.rules, self.marks_micros)

    def settle(self, closes_micros: Mapping[str, int], days_to_next_session: int) -> Settlement:
        """Marks at the close, charges borrow until the next session, and compares with the maintenance margin.

        A ticker without a close keeps its last mark.

        Raises:
            AmountTooLarge: the net asset value, or a margin call, cannot be told.
        """
        self.marks_micros.update(closes_micros)
        borrow = charge_borrow(self.portfolio, self.marks_micros, self.costs.borrow_bp, days_to_next_session)
        self.call = margin_call(self.portfolio, self.marks_micros, self.rules)
        nav_micros = self.portfolio.net_asset_value(self.marks_micros)
        check_amount("the net asset value", nav_micros)
        if self.call is not None:
            check_amount("the maintenance margin", max(self.call.required_micros, self.call.amount_micros))
        return Settlement(nav_micros, borrow, self.call)
