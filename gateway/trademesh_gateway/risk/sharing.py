"""Sharing the room that the limits on the whole book leave: what all openings ask together is scaled to it, each by the same factor.

Gross first, then turnover, then the net, of which only the side that goes too far is scaled. Nothing that comes after can break what came
before: to shrink openings lowers gross and turnover. Shares are rounded towards zero; where a net limit is so narrow that this takes the net
too far the other way, that side is scaled in its turn, a few times. Whether the net holds at last is the caller's to see (`net_holds`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from trademesh_gateway.risk.limits import Limit, Limits
from trademesh_gateway.risk.projection import Projection
from trademesh_ledger.money import BASIS_POINTS

_NET_ROUNDS = 4


class Opening(NamedTuple):
    """The part of an order that opens or enlarges a position: signed shares at a price, and the limit that last scaled it."""

    shares: int
    price_micros: int
    limit: Limit = Limit.NONE
    bound: int | None = None
    asked_micros: int = 0
    """What the book would have come to with all openings as they were."""

    @property
    def value(self) -> int:
        """Signed value."""
        return self.shares * self.price_micros


def share_room(openings: Sequence[Opening], closed: Projection, limits: Limits, nav_micros: int) -> list[Opening]:
    """Scales openings to the room of gross, turnover and net limits, on the book after everything that closes was taken in."""
    found = list(openings)
    asked = closed.gross_micros + sum(abs(one.value) for one in found)
    found = _scaled(found, Limit.GROSS_LIMIT, limits.gross_bp, asked, nav_micros)
    if limits.turnover_bp:
        asked = closed.traded_micros + sum(abs(one.value) for one in found)
        found = _scaled(found, Limit.TURNOVER_LIMIT, limits.turnover_bp, asked, nav_micros)
    for _ in range(_NET_ROUNDS):
        net = closed.net_micros + sum(one.value for one in found)
        scaled = _scaled(found, Limit.NET_LIMIT, limits.net_bp, abs(net), nav_micros, side=1 if net > 0 else -1)
        if scaled is found:
            break
        found = scaled
    return found


def net_holds(net_micros: int, closed: Projection, limits: Limits, nav_micros: int) -> bool:
    """True if openings did not take a net beyond its limit, or further on the side on which it was beyond it before."""
    before = closed.net_micros if net_micros > 0 else -closed.net_micros
    return abs(net_micros) <= max(limits.net_bp * nav_micros // BASIS_POINTS, before)


def _scaled(openings: list[Opening], limit: Limit, bound_bp: int, asked: int, nav_micros: int, side: int = 0) -> list[Opening]:
    """Openings of one side, or with 0 of both, so much smaller that what was asked comes down to the bound, or as near as they can bring it."""
    over = asked - bound_bp * nav_micros // BASIS_POINTS
    scalable = sum(abs(one.value) for one in openings if one.value * side >= 0)
    if over <= 0 or not scalable:
        return openings
    kept = max(0, scalable - over)
    return [
        one
        if not one.shares or one.value * side < 0
        else Opening(_part(one.shares, kept, scalable), one.price_micros, limit, bound_bp, asked)
        for one in openings
    ]


def _part(shares: int, numerator: int, denominator: int) -> int:
    part = abs(shares) * numerator // denominator
    return part if shares > 0 else -part
