"""The gate: limits on every order before it is executed. A limit only shrinks an order; what one order leaves free is not handed on.

Orders that reduce a position come first, so that the room they make is there for the others.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from trademesh_gateway.agents.records import Book

BASIS_POINTS = 10_000


class Limit(enum.IntEnum):
    """Limits that the gate knows; values are those of gateway.v1.LimitCode."""

    NONE = 0
    NO_PRICE = 3
    DRAWDOWN_STOP = 4
    SHORT_DISABLED = 5
    POSITION_LIMIT = 6
    GROSS_LIMIT = 7
    NET_LIMIT = 8


@dataclass(frozen=True)
class Limits:
    """Limits of a run as whole basis points of net asset value; `drawdown_stop_bp` 0 is off."""

    position_bp: int
    gross_bp: int
    net_bp: int
    drawdown_stop_bp: int
    shorts_allowed: bool


@dataclass(frozen=True, slots=True)
class Gated:
    """An order after the gate: signed shares asked for and let pass, and the limit that made the difference."""

    column: int
    requested: int
    allowed: int
    limit: Limit
    limit_bp: int = 0
    figure_bp: int = 0


def apply_limits(orders: Sequence[tuple[int, int]], book: Book, limits: Limits) -> list[Gated]:
    """Puts orders (column, signed shares other than 0) through the limits, on the book as it would be after those before it."""
    nav = book.nav_micros
    quantity = list(book.quantity)
    stopped = limits.drawdown_stop_bp > 0 and (nav - book.peak_nav_micros) * BASIS_POINTS <= -limits.drawdown_stop_bp * book.peak_nav_micros
    results = list[Gated]()
    for column, requested in sorted(orders, key=lambda order: (not reduces(book.quantity[order[0]], order[1]), order[0])):
        result = _one(column, requested, quantity, book, limits, stopped)
        quantity[column] += result.allowed
        results.append(result)
    return results


def reduces(held: int, delta: int) -> bool:
    """True for an order that takes from a position and does not turn it."""
    return held * delta < 0 and abs(delta) <= abs(held)


def _one(column: int, requested: int, quantity: list[int], book: Book, limits: Limits, stopped: bool) -> Gated:
    held, price, nav = quantity[column], book.price_micros[column], book.nav_micros
    if price == 0:
        return Gated(column, requested, 0, Limit.NO_PRICE)
    if reduces(held, requested):
        return Gated(column, requested, requested, Limit.NONE)
    # What closes the position passes in any case; only the rest is limited.
    closing = -held if held * requested < 0 else 0
    sign = 1 if requested > 0 else -1
    if stopped or nav <= 0:
        return Gated(column, requested, closing, Limit.DRAWDOWN_STOP, limits.drawdown_stop_bp)
    if sign < 0 and not limits.shorts_allowed:
        return Gated(column, requested, closing, Limit.SHORT_DISABLED)
    allowed, limit, limit_bp, figure_bp = requested, Limit.NONE, 0, 0
    others_gross = others_net = 0
    for place, shares in enumerate(quantity):
        if place != column:
            value = shares * book.price_micros[place]
            others_gross += abs(value)
            others_net += value
    for name, bound_bp, room_micros in (
        (Limit.POSITION_LIMIT, limits.position_bp, limits.position_bp * nav // BASIS_POINTS),
        (Limit.GROSS_LIMIT, limits.gross_bp, limits.gross_bp * nav // BASIS_POINTS - others_gross),
        (Limit.NET_LIMIT, limits.net_bp, limits.net_bp * nav // BASIS_POINTS - sign * others_net),
    ):
        # A position that is over a limit already may stay as it is, and is not enlarged.
        most = max(room_micros // price, sign * held, 0)
        if sign * (held + allowed) > most:
            figure_bp = _figure_bp(name, held + requested, price, others_gross, others_net, nav)
            allowed, limit, limit_bp = sign * most - held, name, bound_bp
    return Gated(column, requested, allowed, limit, limit_bp, figure_bp)


def _figure_bp(limit: Limit, after: int, price: int, others_gross: int, others_net: int, nav: int) -> int:
    """What the order as asked would have come to, in basis points of net asset value."""
    value = after * price
    amount = {Limit.POSITION_LIMIT: abs(value), Limit.GROSS_LIMIT: others_gross + abs(value), Limit.NET_LIMIT: abs(others_net + value)}[
        limit
    ]
    return amount * BASIS_POINTS // nav
