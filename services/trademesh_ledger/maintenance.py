"""What must be kept while positions are open: maintenance margin, the margin call, and what is closed by force if nobody answers it.

After FINRA rule 4210(c): a share of long market value; per short the greater of a share of its value and $5.00 per share, and under $5.00
the greater of its whole value and $2.50 per share. The check when a position is opened is in `margin.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trademesh_ledger.costs import CostModel
from trademesh_ledger.margin import MarginRules
from trademesh_ledger.money import BASIS_POINTS, MICROS_PER_DOLLAR
from trademesh_ledger.portfolio import Portfolio

LOW_PRICE_MICROS = 5 * MICROS_PER_DOLLAR
LEAST_PER_SHORT_SHARE_MICROS = 5 * MICROS_PER_DOLLAR
LEAST_PER_LOW_PRICED_SHORT_SHARE_MICROS = 5 * MICROS_PER_DOLLAR // 2


@dataclass(frozen=True, slots=True)
class MarginCall:
    """Net asset value at a close is below what must be kept."""

    nav_micros: int
    required_micros: int
    """Rounded up to whole micro-dollars: a net asset value passes this figure exactly when it passes the fraction."""

    @property
    def amount_micros(self) -> int:
        """What is missing."""
        return self.required_micros - self.nav_micros


@dataclass(frozen=True, slots=True)
class ForcedOrder:
    """Signed shares that are traded to close a position or a part of it."""

    ticker: str
    delta: int


@dataclass(frozen=True, slots=True)
class LiquidationPlan:
    """What is closed by force, in this sequence."""

    orders: tuple[ForcedOrder, ...]
    insolvent: bool
    """True if net asset value is not above zero, before or after."""


def required_per_share(quantity: int, mark_micros: int, rules: MarginRules) -> int:
    """Maintenance margin of one share of a position, in micro-dollars x 10,000, so that it is exact. The sign of `quantity` counts."""
    if quantity > 0:
        return rules.maintenance_long_bp * mark_micros
    if mark_micros >= LOW_PRICE_MICROS:
        return max(rules.maintenance_short_bp * mark_micros, BASIS_POINTS * LEAST_PER_SHORT_SHARE_MICROS)
    return BASIS_POINTS * max(mark_micros, LEAST_PER_LOW_PRICED_SHORT_SHARE_MICROS)


def margin_call(portfolio: Portfolio, marks_micros: Mapping[str, int], rules: MarginRules) -> MarginCall | None:
    """The call that these marks make; None if enough is there, or if the run has no margin."""
    if not rules.enabled or not rules.maintained:
        return None
    nav, of_shorts, long = portfolio.cash_micros, 0, 0
    for ticker, position in portfolio.positions.items():
        quantity, mark = position.quantity, marks_micros[ticker]
        if quantity > 0:
            long += quantity * mark
        else:
            nav += quantity * mark
            of_shorts -= quantity * required_per_share(quantity, mark, rules)
    # Of long positions as much is required per share as `required_per_share` says, and so of their sum.
    nav, required = nav + long, rules.maintenance_long_bp * long + of_shorts
    return MarginCall(nav, -(-required // BASIS_POINTS)) if BASIS_POINTS * nav < required else None


def liquidation_plan(
    portfolio: Portfolio, marks_micros: Mapping[str, int], prices_micros: Mapping[str, int], costs: CostModel, rules: MarginRules
) -> LiquidationPlan:
    """What must be closed so that net asset value, after slippage and fees, is at least the maintenance margin of what stays.

    The position with the largest requirement comes first, ties by ticker; of each as few shares as suffice, and all of it if they do not.
    A net asset value that is not above zero closes everything.

    `marks_micros` values positions now; `prices_micros` is what they trade at, before slippage: a position without one cannot be closed
    and is passed over.
    """
    nav = portfolio.net_asset_value(marks_micros)
    insolvent = nav <= 0
    closings = [
        _Closing(
            ticker,
            position.quantity,
            required_per_share(position.quantity, marks_micros[ticker], rules),
            marks_micros[ticker],
            costs.fill_price(prices_micros.get(ticker, 0), -position.quantity),
            costs,
        )
        for ticker, position in portfolio.positions.items()
    ]
    required = sum(closing.required for closing in closings)
    orders = list[ForcedOrder]()
    for closing in sorted(closings, key=lambda one: (-one.required, one.ticker)):
        if BASIS_POINTS * nav >= required and not insolvent:
            break
        if closing.ticker in prices_micros:
            shares = abs(closing.held) if insolvent else closing.fewest(required - BASIS_POINTS * nav)
            orders.append(ForcedOrder(closing.ticker, -shares if closing.held > 0 else shares))
            nav += closing.gain_micros(shares)
            required -= shares * closing.required_per_share
    return LiquidationPlan(tuple(orders), insolvent or nav <= 0)


@dataclass(frozen=True, slots=True)
class _Closing:
    """A position on its way out. Margins are in micro-dollars x 10,000."""

    ticker: str
    held: int
    required_per_share: int
    mark_micros: int
    fill_price_micros: int
    costs: CostModel

    @property
    def required(self) -> int:
        return abs(self.held) * self.required_per_share

    def gain_micros(self, shares: int) -> int:
        """What closing shares does to net asset value: slippage and the fee, both losses."""
        sign = 1 if self.held > 0 else -1
        return sign * shares * (self.fill_price_micros - self.mark_micros) - self.costs.fee(shares, self.fill_price_micros)

    def fewest(self, missing: int) -> int:
        """The fewest shares that free what is missing, or all. Bisection: a further share frees more margin than it costs."""
        low, high = 1, abs(self.held)
        while low < high:
            middle = (low + high) // 2
            if middle * self.required_per_share + BASIS_POINTS * self.gain_micros(middle) >= missing:
                high = middle
            else:
                low = middle + 1
        return high
