"""The gate: limits on every order before it is executed. A limit only shrinks an order; what one order leaves free is not handed on.

Orders that reduce a position come first, so that the room they make is there for the others; the others follow by ticker. Each is held
against the book as it would be after those before it, and gets the least that any limit leaves. Reductions pass, all but in a halt, and
so does the part of an order that closes a position. A position that is over a limit already may stay as it is, and is not enlarged.
With `pro_rata` the limits on gross, net and turnover are not met in turn: they scale all openings together (`sharing.py`).

All is whole numbers: bounds are rounded down, to the share; figures are rounded up to the basis point, so that one over its limit reads so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import NamedTuple

from trademesh_gateway.agents.records import Book
from trademesh_gateway.risk.limits import UNITS, UNKNOWN_MARKET, GroupLimit, Limit, Limits, Market, Unit
from trademesh_gateway.risk.projection import Projection
from trademesh_gateway.risk.sharing import Opening, net_holds, share_room
from trademesh_gateway.risk.stops import has_fallen
from trademesh_ledger.margin import closing_part, only_reduces
from trademesh_ledger.money import BASIS_POINTS

__all__ = [
    "UNITS",
    "Gated",
    "GroupLimit",
    "Limit",
    "Limits",
    "Market",
    "Restraint",
    "Unit",
    "apply_limits",
    "most_in_ticker",
    "restraint_of",
]


class Gated(NamedTuple):
    """An order after the gate: signed shares asked for and let pass, and the limit that made the difference."""

    column: int
    requested: int
    allowed: int
    limit: Limit = Limit.NONE
    bound: int | None = None
    """That limit, in its unit (`UNITS`)."""
    figure: int | None = None
    """What the order as asked would have come to."""
    group: str = ""
    """Whose limit it was, for SECTOR_LIMIT."""
    place: int = 0
    """Which of the orders given it is."""


@dataclass(frozen=True, slots=True)
class Restraint:
    """Why no order that opens or enlarges a position passes; in a halt, why none does."""

    limit: Limit
    bound: int | None = None
    figure: int | None = None


def apply_limits(
    orders: Sequence[tuple[int, int]], book: Book, limits: Limits, market: Market = UNKNOWN_MARKET, *, preferred: int = 0
) -> list[Gated]:
    """Puts a session's orders (column, signed shares other than 0) through the limits; results are in the order of execution.

    The first `preferred` of those that do not reduce a position come before the others, also where room is shared pro rata.
    """
    return _pro_rata(orders, book, limits, market, preferred) if limits.pro_rata else _in_turn(orders, book, limits, market, preferred)


def _in_turn(orders: Sequence[tuple[int, int]], book: Book, limits: Limits, market: Market, preferred: int = 0) -> list[Gated]:
    gate, held = _Gate(book, limits, market), book.quantity

    def rank(place: int) -> tuple[bool, bool, int]:
        column, delta = orders[place]
        reduces = only_reduces(held[column], delta)
        return not reduces, not reduces and place >= preferred, column

    return [gate.put(place, *orders[place]) for place in sorted(range(len(orders)), key=rank)]


def _pro_rata(orders: Sequence[tuple[int, int]], book: Book, limits: Limits, market: Market, preferred: int) -> list[Gated]:
    """All but gross, net and turnover in turn; those scale what is left of the openings."""
    results = _in_turn(orders, book, limits.of_each_order, market, preferred)
    held, closed, openings = list(book.quantity), Projection(book, ()), list[Opening]()
    for result in results:
        closing = closing_part(held[result.column], result.allowed)
        closed.take(result.column, closing)
        held[result.column] += result.allowed
        openings.append(Opening(result.allowed - closing, book.price_micros[result.column]))
    shared = _shared(results, openings, closed, limits, book.nav_micros, preferred)
    scaled = [
        result._replace(
            allowed=result.allowed - before.shares + after.shares,
            limit=after.limit,
            bound=after.bound,
            figure=_per(after.asked_micros, book.nav_micros),
            group="",
        )
        if after.limit
        else result
        for result, before, after in zip(results, openings, shared, strict=True)
    ]
    net = closed.net_micros + sum(one.value for one in shared)
    if len({result.column for result in results}) == len(results) and net_holds(net, closed, limits, book.nav_micros):
        return scaled
    # Orders of one ticker may close what another, scaled by now, was to open; and a net may be narrower than a share: looked at once more.
    again = _in_turn([(result.column, result.allowed) for result in scaled], book, limits, market)
    checked = {one.place: one for one in again}
    return [
        result if checked[place].allowed == result.allowed else checked[place]._replace(requested=result.requested, place=result.place)
        for place, result in enumerate(scaled)
    ]


def _shared(
    results: Sequence[Gated], openings: list[Opening], closed: Projection, limits: Limits, nav_micros: int, preferred: int
) -> list[Opening]:
    """Openings scaled to the room there is: first those that are preferred among themselves, then the others in what is left."""
    shared = list(openings)
    book = closed.copy()
    for first in (True, False):
        places = [place for place, result in enumerate(results) if (result.place < preferred) is first]
        scaled = share_room([openings[place] for place in places], book, limits, nav_micros)
        for place, one in zip(places, scaled, strict=True):
            shared[place] = one
            book.take(results[place].column, one.shares)
    return shared


def restraint_of(book: Book, limits: Limits) -> Restraint | None:
    """What holds every order of the session back; None if nothing does."""
    nav, peak, previous = book.nav_micros, book.peak_nav_micros, book.previous_nav_micros
    if limits.halted:
        return Restraint(Limit.RUN_HALTED)
    if has_fallen(peak, nav, limits.drawdown_stop_bp) or book.drawdown_stopped or nav <= 0:
        fall = _per(max(0, peak - nav), peak) if peak > 0 else None
        return Restraint(Limit.DRAWDOWN_STOP, limits.drawdown_stop_bp or None, fall)
    if has_fallen(previous, nav, limits.daily_loss_bp):
        return Restraint(Limit.DAILY_LOSS, limits.daily_loss_bp, _per(previous - nav, previous))
    return None


def most_in_ticker(book: Book, limits: Limits, market: Market, column: int) -> tuple[int, Limit]:
    """The largest absolute value of a position that the limits of its ticker allow, in micro-dollars, and which of them it is."""
    if not limits.volatility_target_bp:
        return limits.position_bp * book.nav_micros // BASIS_POINTS, Limit.POSITION_LIMIT
    return min((most, limit) for limit, _, most in _ticker_bounds(book, limits, market, column))


def _ticker_bounds(book: Book, limits: Limits, market: Market, column: int) -> list[tuple[Limit, int, int]]:
    """Bounds that lie in a ticker alone: which, its basis points of net asset value, and what those come to in micro-dollars.

    By volatility: target / (volatility x root of a number of positions); half the position limit where the volatility is not known.
    """
    nav, position_bp, target_bp = book.nav_micros, limits.position_bp, limits.volatility_target_bp
    bounds = [(Limit.POSITION_LIMIT, position_bp, position_bp * nav // BASIS_POINTS)]
    if target_bp:
        level = market.volatility_bp[column] if market.volatility_bp else 0
        if level > 0:
            # The root of a whole quotient, rounded down, is the quotient of the roots, rounded down: nothing is lost.
            spread = level * level * limits.volatility_positions
            bounds.append((Limit.VOL_LIMIT, isqrt((target_bp * BASIS_POINTS) ** 2 // spread), isqrt((target_bp * nav) ** 2 // spread)))
        else:
            bounds.append((Limit.VOL_LIMIT, position_bp // 2, position_bp * nav // (2 * BASIS_POINTS)))
    return bounds


def _per(amount: int, whole: int) -> int:
    """An amount in basis points of a whole, rounded up."""
    return -(-amount * BASIS_POINTS // whole)


class _Gate:
    """The limits of one session, and the book as its orders change it."""

    def __init__(self, book: Book, limits: Limits, market: Market) -> None:
        self._book = book
        self._limits = limits
        self._market = market
        self._nav = book.nav_micros
        self._projection = Projection(book, limits.groups)
        self._restraint = restraint_of(book, limits)

    def put(self, place: int, column: int, requested: int) -> Gated:
        """Lets pass what may pass of an order."""
        result = self._judge(place, column, requested)
        self._projection.take(column, result.allowed)
        return result

    def _judge(self, place: int, column: int, requested: int) -> Gated:
        limits, restraint = self._limits, self._restraint
        held, price = self._projection.quantity[column], self._book.price_micros[column]
        if price == 0:
            return Gated(column, requested, 0, Limit.NO_PRICE, place=place)
        if restraint is not None and restraint.limit is Limit.RUN_HALTED:
            return Gated(column, requested, 0, Limit.RUN_HALTED, place=place)
        if column in limits.halted_columns:
            return Gated(column, requested, 0, Limit.TICKER_HALTED, place=place)
        if only_reduces(held, requested):
            return Gated(column, requested, requested, place=place)
        # What closes the position passes in any case; only the rest is limited.
        closing = closing_part(held, requested)
        if restraint is not None:
            return Gated(column, requested, closing, restraint.limit, restraint.bound, restraint.figure, place=place)
        if requested < 0 and not limits.shorts_allowed:
            return Gated(column, requested, closing, Limit.SHORT_DISABLED, place=place)
        if requested < 0 and column in limits.not_borrowable:
            return Gated(column, requested, closing, Limit.NO_BORROW, place=place)
        return self._cut(place, column, requested)

    def _cut(self, place: int, column: int, requested: int) -> Gated:
        """An order that opens, enlarges or flips a position, cut to the least that a limit leaves."""
        held, sign = self._projection.quantity[column], 1 if requested > 0 else -1
        allowed, binding = requested, None
        for one in self._bounds(column, held, sign):
            most = max(one[2], sign * held, 0)
            if sign * (held + allowed) > most:
                allowed, binding = sign * most - held, one
        if binding is None:
            return Gated(column, requested, allowed, place=place)
        limit, bound, _, group = binding
        figure = self._figure(limit, column, held, requested, group)
        return Gated(column, requested, allowed, limit, bound, figure, self._limits.groups[group].name if group >= 0 else "", place)

    def _bounds(self, column: int, held: int, sign: int) -> list[tuple[Limit, int, int, int]]:
        """Every limit that is on: its bound, the most shares that the position may have in the order's direction, and its group or -1."""
        limits, book, nav, at = self._limits, self._projection, self._nav, self._book.price_micros[column]
        own = held * at
        bounds = [(limit, bound, most // at, -1) for limit, bound, most in _ticker_bounds(self._book, limits, self._market, column)]
        for group in book.groups_of(column):
            bound = limits.groups[group].limit_bp
            others = book.group_gross_micros[group] - abs(own)
            bounds.append((Limit.SECTOR_LIMIT, bound, (bound * nav // BASIS_POINTS - others) // at, group))
        if limits.concentration_bp:
            room = limits.concentration_bp * nav * nav // BASIS_POINTS - (book.squares - own * own)
            bounds.append((Limit.CONCENTRATION, limits.concentration_bp, isqrt(room) // at if room > 0 else 0, -1))
        room = limits.gross_bp * nav // BASIS_POINTS - (book.gross_micros - abs(own))
        bounds.append((Limit.GROSS_LIMIT, limits.gross_bp, room // at, -1))
        room = limits.net_bp * nav // BASIS_POINTS - sign * (book.net_micros - own)
        bounds.append((Limit.NET_LIMIT, limits.net_bp, room // at, -1))
        if limits.order_size_bp:
            room = limits.order_size_bp * nav // BASIS_POINTS
            bounds.append((Limit.ORDER_SIZE, limits.order_size_bp, sign * held + room // at, -1))
        if limits.turnover_bp:
            room = limits.turnover_bp * nav // BASIS_POINTS - book.traded_micros
            bounds.append((Limit.TURNOVER_LIMIT, limits.turnover_bp, sign * held + room // at, -1))
        if limits.orders_per_session and book.orders >= limits.orders_per_session:
            bounds.append((Limit.ORDER_LIMIT, limits.orders_per_session, sign * held, -1))
        volume = self._market.volume_shares[column] if limits.volume_bp and self._market.volume_shares else -1
        if volume >= 0:
            bounds.append((Limit.LIQUIDITY, limits.volume_bp, sign * held + limits.volume_bp * volume // BASIS_POINTS, -1))
        return bounds

    def _figure(self, limit: Limit, column: int, held: int, requested: int, group: int) -> int | None:
        """What the order as asked would have come to, in the limit's unit; None if that cannot be told."""
        book, nav, price = self._projection, self._nav, self._book.price_micros[column]
        own, after, traded = held * price, (held + requested) * price, abs(requested) * price
        match limit:
            case Limit.ORDER_LIMIT:
                return book.orders + 1
            case Limit.LIQUIDITY:
                volume = self._market.volume_shares[column]
                return _per(abs(requested), volume) if volume else None
            case Limit.CONCENTRATION:
                return _per(book.squares - own * own + after * after, nav * nav)
            case Limit.SECTOR_LIMIT:
                return _per(book.group_gross_micros[group] - abs(own) + abs(after), nav)
            case Limit.GROSS_LIMIT:
                return _per(book.gross_micros - abs(own) + abs(after), nav)
            case Limit.NET_LIMIT:
                return _per(abs(book.net_micros - own + after), nav)
            case Limit.ORDER_SIZE:
                return _per(traded, nav)
            case Limit.TURNOVER_LIMIT:
                return _per(book.traded_micros + traded, nav)
            case _:
                return _per(abs(after), nav)
