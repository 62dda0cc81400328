"""The orders of one session, filled against the desk's account: forced ones first, then those of the open, then those of the close.

    forced  what a margin call closes, at the first of these moments at which anything is done.
    OPEN    orders whose moment is the open, at the open. Limits and stops that it does not execute go on working where the bar's high and low
            are known.
    CLOSE   those that went on working: a limit at its price once the bar went beyond it, a stop at its price or what the bar proves;
            then orders whose moment is the close, at the close.

Prices before slippage are the bar's; a fill at a limit has no slippage, which would be beyond the limit. Pure: it journals nothing and waits
for nothing. Checks and fills are the ledger's (`trademesh_ledger.execution`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from trademesh_gateway.pipeline.broker import Moment, SessionBar, priced
from trademesh_gateway.pipeline.desk_run import DeskRun
from trademesh_gateway.pipeline.order_book import OrderType, SessionOrder, WorkingOrder
from trademesh_gateway.risk.limits import Limit
from trademesh_ledger.execution import Execution, Fill
from trademesh_ledger.margin import closing_part
from trademesh_ledger.money import BASIS_POINTS

_UNBOUND = 2**62


class Expiry(enum.IntEnum):
    """Why an order, or its rest, is in force no more; values are those of gateway.v1.ExpiryReason."""

    TIME = 0
    PARTICIPATION = 1
    SPLIT = 2
    DELISTED = 3


class Filled(NamedTuple):
    """An order, or a part of it, was filled; position and cash are as they were right after it. A forced one has no name."""

    order_id: str
    fill: Fill
    position: int
    cash_micros: int
    remaining: int = 0
    """Shares that stay in force for later sessions."""
    forced: bool = False


class Rejected(NamedTuple):
    """Shares that were not filled, and will not be. `limit` is a value of gateway.v1.LimitCode."""

    order_id: str
    column: int
    limit: int
    quantity: int


class Expired(NamedTuple):
    """Shares that were not filled in the time that they were in force."""

    order_id: str
    ticker: str
    quantity: int
    reason: Expiry = Expiry.TIME


Outcome: TypeAlias = Filled | Rejected | Expired


class Executable(NamedTuple):
    """An order that limits and people let pass: signed shares, and how many of them were to close a position then."""

    order: SessionOrder
    delta: int
    closing: int

    @property
    def working(self) -> WorkingOrder | None:
        """The person's order that it is; None for the desk's own."""
        return self.order.working


def executables(passed: Iterable[tuple[SessionOrder, int]], quantities: Sequence[int]) -> list[Executable]:
    """Orders with the signed shares of each that passed, one after another from what is held, by column."""
    held, found = list(quantities), list[Executable]()
    for order, delta in passed:
        found.append(Executable(order, delta, closing_part(held[order.column], delta)))
        held[order.column] += delta
    return found


class SessionExecution:
    """Executes the orders of one session, at its open and at its close."""

    def __init__(self, desk: DeskRun, orders: Sequence[Executable]) -> None:
        """`orders` are in the order in which they are to be executed."""
        self._desk = desk
        self._moment = desk.rules.fill.moment
        self._orders = orders
        self._intraday: list[Executable] = []
        self._filled_of: dict[int, int] = {}
        self._called = desk.account.call is not None
        """True until the margin call of the last close is answered."""
        self._forced = set[str]()
        """Tickers of which shares were closed by force."""

    @property
    def moments(self) -> list[Moment]:
        """Those at which something is to be done, in their order."""
        due = {self._moment} if self._called else set[Moment]()
        due |= {self._moment_of(one) for one in self._orders}
        if self._moment is Moment.OPEN and any(one.working and one.working.type is not OrderType.MARKET for one in self._orders):
            due.add(Moment.CLOSE)
        return sorted(due)

    def _moment_of(self, one: Executable) -> Moment:
        return (one.working.at if one.working is not None else None) or self._moment

    def at(self, moment: Moment, bar: SessionBar) -> list[Outcome]:
        """Executes the orders of a moment; what came of them, in its order."""
        prices = bar.opens if moment is Moment.OPEN else bar.closes
        known = priced(self._desk.tickers, prices)
        outcomes = list[Outcome]()
        execution = self._desk.account.execution(known)
        if self._called and known:
            self._called = False
            self._force(execution, known, outcomes)
        if moment is Moment.CLOSE:
            for one in self._intraday:
                self._work(execution, one, bar, outcomes)
        for one in self._orders:
            if self._moment_of(one) is moment and not self._is_canceled(one):
                self._execute(execution, one, prices[one.order.column] if prices else 0, bar, outcomes)
        return outcomes

    def _is_canceled(self, one: Executable) -> bool:
        return self._desk.orders.is_canceled(one.order.order_id)

    def _force(self, execution: Execution, prices: dict[str, int], outcomes: list[Outcome]) -> None:
        """Answers a margin call."""
        for fill in self._desk.account.forced_fills(execution, prices):
            self._forced.add(fill.ticker)
            outcomes.append(self._filled("", fill, forced=True))

    def _filled(self, order_id: str, fill: Fill, remaining: int = 0, *, forced: bool = False) -> Filled:
        portfolio = self._desk.portfolio
        self._desk.fills += 1
        return Filled(order_id, fill, portfolio.quantity(fill.ticker), portfolio.cash_micros, remaining, forced)

    def _execute(self, execution: Execution, one: Executable, price: int, bar: SessionBar, outcomes: list[Outcome]) -> None:
        """An order at its moment's price; 0 is none."""
        working, delta = one.working, one.delta
        goes_on = self._moment is Moment.OPEN and working is not None and working.at is None
        if not price:
            if working is None:
                self._desk.orders.end(one.order.order_id)
                outcomes.append(Rejected(one.order.order_id, one.order.column, Limit.NO_PRICE, abs(delta)))
            elif goes_on and working.type is not OrderType.MARKET:
                self._intraday.append(one)
            return
        filled_at = self._desk.rules.costs.fill_price(price, delta)
        if working is not None and not ((not goes_on or working.is_triggered(price)) and working.accepts(filled_at)):
            if goes_on:
                self._intraday.append(one)
            return
        self._fill(execution, one, filled_at, bar, outcomes)

    def _work(self, execution: Execution, one: Executable, bar: SessionBar, outcomes: list[Outcome]) -> None:
        """An order with a limit or a stop, in a session whose high and low tell whether it was executed.

        Without an open it may be that all of the session lay beyond its price: it then gets the worst of the bar that it may.
        """
        working, column = one.working, one.order.column
        if working is None or not bar.has_range(column) or self._is_canceled(one):
            return
        buys, price = working.delta > 0, working.price_micros
        better, worse = (bar.lows[column], bar.highs[column]) if buys else (bar.highs[column], bar.lows[column])
        costs, sign = self._desk.rules.costs, 1 if buys else -1
        if working.type is OrderType.LIMIT:
            if sign * (price - better) > 0:
                nearest = min if buys else max
                self._fill(execution, one, nearest(price, costs.fill_price(worse, one.delta)), bar, outcomes)
        elif sign * (worse - price) >= 0:
            reached = price if sign * (price - better) >= 0 else worse
            self._fill(execution, one, costs.fill_price(reached, one.delta), bar, outcomes)

    def _fill(self, execution: Execution, one: Executable, price: int, bar: SessionBar, outcomes: list[Outcome]) -> None:
        """Fills an order at a price, as far as the session's volume, cash and margin reach."""
        order_id, column, ticker = one.order.order_id, one.order.column, self._desk.tickers[one.order.column]
        wanted = self._still_wanted(one, ticker)
        cut = wanted != one.delta
        if cut:
            outcomes.append(Rejected(order_id, column, Limit.MARGIN_CALL, abs(one.delta) - abs(wanted)))
        room = self._room(column, bar)
        delta = wanted if abs(wanted) <= room else room if wanted > 0 else -room
        rejection = execution.rejection_of(ticker, delta, price) if delta else None
        if rejection is not None:
            part = execution.largest_fill(ticker, delta, price) if self._desk.rules.resize_on_gap else 0
            outcomes.append(Rejected(order_id, column, rejection.refusal.value, abs(wanted) - abs(part)))
            delta = wanted = part
        rest = abs(wanted) - abs(delta)
        # What a margin call has cut was told as refused: of such an order nothing stays.
        stays = rest if one.working is not None and one.working.good_till_canceled and not cut else 0
        if not stays:
            self._desk.orders.end(order_id)
        elif delta:
            self._desk.orders.shrink(order_id, stays)
        if delta:
            fill = execution.fill(ticker, delta, price)
            self._filled_of[column] = self._filled_of.get(column, 0) + abs(delta)
            outcomes.append(self._filled(order_id, fill, stays))
        if rest > stays:
            outcomes.append(Expired(order_id, ticker, rest, Expiry.PARTICIPATION))

    def _still_wanted(self, one: Executable, ticker: str) -> int:
        """Shares of an order that are left where a margin call has closed some of what it was to close: it takes the position no further to the
        other side than it was to."""
        if ticker not in self._forced:
            return one.delta
        return closing_part(self._desk.portfolio.quantity(ticker), one.closing) + one.delta - one.closing

    def _room(self, column: int, bar: SessionBar) -> int:
        """Shares that the session's volume leaves to the run in a ticker."""
        share_bp = self._desk.rules.participation_bp
        told = bar.volumes_plus_one[column] if share_bp and bar.volumes_plus_one else 0
        return max(0, share_bp * (told - 1) // BASIS_POINTS - self._filled_of.get(column, 0)) if told else _UNBOUND
