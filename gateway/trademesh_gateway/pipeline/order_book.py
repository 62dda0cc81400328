"""Orders of people that are in force, and which of them take part in a session. Pure: it journals nothing and asks nobody.

An order is in force from the first session whose limits had not been applied when it came. One that is canceled after them is left out when
orders are executed; one that is canceled after it had its part in the execution of a session that is not settled keeps what it got. So a
session that is done again after a crash has the same orders. The desk's own orders are here only to be canceled: they live for the session
that decides on them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from trademesh_gateway.pipeline.broker import Moment

MOST_WORKING = 1_000
"""No more orders are taken in: each is looked at in each session, and is in each state that is told."""


class OrderType(enum.IntEnum):
    """At what price an order is executed; values are those of gateway.v1.OrderType."""

    MARKET = 1
    LIMIT = 2
    STOP = 3


@dataclass(frozen=True, slots=True)
class WorkingOrder:
    """An order of a person. `delta` is signed shares, `price_micros` the limit or the stop and 0 for a market order."""

    order_id: str
    ticker: str
    delta: int
    type: OrderType
    price_micros: int
    good_till_canceled: bool
    from_session: int
    at: Moment | None = None
    """When it is executed, for orders that are for one moment of one session; None: at the run's."""

    def is_triggered(self, price_micros: int) -> bool:
        """False for a stop that a price has not reached; 0 is no price."""
        if self.type is not OrderType.STOP:
            return True
        if self.delta > 0:
            return price_micros >= self.price_micros
        return 0 < price_micros <= self.price_micros

    def accepts(self, price_micros: int) -> bool:
        """False for a price that is worse than the limit."""
        if self.type is not OrderType.LIMIT:
            return True
        return price_micros <= self.price_micros if self.delta > 0 else price_micros >= self.price_micros


class SessionOrder(NamedTuple):
    """An order of the session in hand: the desk's own, or a person's, which is `working`. `column` is its ticker's place in the run."""

    order_id: str
    column: int
    delta: int
    working: WorkingOrder | None = None


@dataclass(frozen=True, slots=True)
class Cancellation:
    """How far an order had come when it was canceled: sessions counted from 1, 0 for none."""

    gated_in_session: int = 0
    """The session whose limits it had passed."""
    executed_in_session: int = 0
    """The session, not settled yet, in whose execution it had its part."""


class _Stage(enum.Enum):
    OPEN = enum.auto()
    GATED = enum.auto()
    EXECUTED = enum.auto()
    SETTLED = enum.auto()


class TooLateError(Exception):
    """The order is being executed, or was."""


class OrderBook:
    """The orders in force. Between two cycles it stands after the settlement of the last one."""

    def __init__(
        self, sessions_settled: int = 0, working: Iterable[WorkingOrder] = (), canceled: Mapping[str, Cancellation] | None = None
    ) -> None:
        """
        Args:
            working: orders in force after the last settlement, and those that came after it.
            canceled: those of them, or of the desk's, that were canceled since.
        """
        self._session = sessions_settled
        self._stage = _Stage.SETTLED
        self._closed_before = False
        told = canceled or {}
        self._canceled = {name: one.gated_in_session for name, one in told.items() if one.gated_in_session and not one.executed_in_session}
        self._ending = {name for name, one in told.items() if one.executed_in_session}
        """Canceled after their part in the execution of the session in hand: out of force once they had it."""
        self._working = {order.order_id: order for order in working if told.get(order.order_id) != Cancellation()}
        self._gated: dict[str, str] = {}
        self._executed_before: frozenset[str] = frozenset()
        self._partly = set[str]()
        """Those of which a part was executed in the session in hand."""

    @property
    def working(self) -> list[WorkingOrder]:
        """Orders in force, oldest first."""
        return [order for name, order in self._working.items() if name not in self._canceled and name not in self._ending]

    @property
    def next_session(self) -> int:
        """The session from which an order that comes now is in force."""
        return self._session if self._stage is _Stage.OPEN and not self._closed_before else self._session + 1

    def begin(self, session: int, *, gated_before: bool = False, executed_before: Collection[str] = ()) -> None:
        """A session's cycle begins.

        Args:
            gated_before: an earlier gateway has applied limits in it, or given it up, so that what comes now is for the next one.
            executed_before: ids of orders that an earlier gateway has executed in it, as far as the journal tells: they are executed again.
        """
        self._session, self._stage, self._closed_before = session, _Stage.OPEN, gated_before
        self._gated, self._executed_before, self._partly = {}, frozenset(executed_before), set()

    def add(self, order: WorkingOrder) -> None:
        """Takes an order in."""
        self._working[order.order_id] = order

    def due(self, last_price_micros: Callable[[str], int], *, within_session: bool = False) -> list[WorkingOrder]:
        """Orders for the limits of the session in hand, oldest first; from now on those that come are for the next one.

        `within_session`: stops are reached by prices of the session itself, so all are due, also those that the last known price has not reached.
        """
        self._stage = _Stage.GATED
        found = [
            order
            for order in self._in_force()
            if (within_session and order.at is None) or order.is_triggered(last_price_micros(order.ticker))
        ]
        self._gated |= {order.order_id: order.ticker for order in found}
        return found

    def also_gated(self, desk_orders: Mapping[str, str]) -> None:
        """The desk's own orders of the session, tickers by order id: they can be canceled, too."""
        self._gated |= desk_orders

    def _in_force(self) -> list[WorkingOrder]:
        return [order for order in self._working.values() if order.from_session <= self._session]

    def ticker_of(self, order_id: str) -> str | None:
        """The ticker of an order that is in force or passes the phases of the session in hand."""
        if order_id in self._working:
            return self._working[order_id].ticker
        return self._gated.get(order_id) if self._stage is _Stage.GATED else None

    def cancel(self, order_id: str) -> Cancellation:
        """Takes an order out of force; returns how far it had come.

        Raises:
            TooLateError: it is being executed, or is no longer in force.
        """
        order = self._working.get(order_id)
        if self._had_its_part(order):
            self._ending.add(order_id)
            return self._keeps_what_it_got(order_id)
        if self._stage in (_Stage.OPEN, _Stage.GATED) and order_id in self._executed_before:
            raise TooLateError(order_id)
        if self._stage is _Stage.GATED and order_id in self._gated:
            self._canceled[order_id] = self._session
            return Cancellation(self._session)
        if order is None:
            raise TooLateError(order_id)
        if self._closed_before and self._stage is _Stage.OPEN and order.from_session <= self._session:
            self._canceled[order_id] = self._session
            return Cancellation(self._session)
        del self._working[order_id]
        return Cancellation()

    def _had_its_part(self, order: WorkingOrder | None) -> bool:
        """True for an order that the session in hand has executed already, as far as it could."""
        if order is None:
            return False
        return order.order_id in self._partly or (self._stage is _Stage.EXECUTED and order.from_session <= self._session)

    def _keeps_what_it_got(self, order_id: str) -> Cancellation:
        if self._stage is _Stage.EXECUTED:
            self._end_what_was_canceled()
        return Cancellation(self._session if order_id in self._gated else 0, self._session)

    def _end_what_was_canceled(self) -> None:
        for order_id in self._ending:
            self._working.pop(order_id, None)
        self._ending.clear()

    def begin_execution(self) -> None:
        """Orders are executed from now on; nothing is canceled any more."""
        self._stage = _Stage.EXECUTED

    def is_canceled(self, order_id: str) -> bool:
        """True for an order that was canceled after it had passed the limits of the session in hand."""
        return self._canceled.get(order_id) == self._session

    def end(self, order_id: str) -> None:
        """An order is out of force: executed, refused or void."""
        self._working.pop(order_id, None)
        self._gated.pop(order_id, None)

    def shrink(self, order_id: str, shares: int) -> None:
        """A part of an order was executed: so many shares of it stay in force."""
        order = self._working[order_id]
        self._working[order_id] = replace(order, delta=shares if order.delta > 0 else -shares)
        self._partly.add(order_id)

    def end_all(self, tickers: Collection[str]) -> list[WorkingOrder]:
        """Ends orders of earlier sessions in some tickers: their prices and shares mean something else from now on. Returns them."""
        ended = [order for order in self._working.values() if order.ticker in tickers and order.from_session < self._session]
        for order in ended:
            del self._working[order.order_id]
        return ended

    def close(self) -> list[WorkingOrder]:
        """The session's orders are executed, or void: nothing is canceled any more, and what was canceled is forgotten. Returns orders for the
        day that were not executed, which are out of force now."""
        self._stage = _Stage.EXECUTED
        for order_id in [order_id for order_id, session in self._canceled.items() if session == self._session]:
            del self._canceled[order_id]
            self._working.pop(order_id, None)
        self._end_what_was_canceled()
        expired = [order for order in self._in_force() if not order.good_till_canceled]
        for order in expired:
            del self._working[order.order_id]
        return expired

    def settle(self) -> None:
        """The session in hand is settled, and is not done again."""
        self._stage = _Stage.SETTLED
        self._gated, self._partly = {}, set()
