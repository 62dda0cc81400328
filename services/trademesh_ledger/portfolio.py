"""The account: cash, positions at cost, and what a fill, a dividend, a split or a borrow charge does to them.

After every change, exactly:

    cash + sum of costs      = initial cash + realised - fees - borrow + dividends
    net asset value          = initial cash + realised + unrealised - fees - borrow + dividends

Average cost is `cost / quantity`, for display only. Margin is computed from this state and never moved out of cash (`margin.py`).
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from trademesh_ledger.money import BASIS_POINTS, divide_half_even

DAYS_PER_YEAR = 360
"""Borrow cost accrues actual/360."""


class LegKind(enum.Enum):
    """What a part of a fill does to a position; values are those of gateway.v1.LegKind."""

    BUY = 1
    SELL = 2
    SHORT = 3
    COVER = 4


class Leg(NamedTuple):
    """A part of a fill."""

    kind: LegKind
    quantity: int


@dataclass(slots=True)
class Position:
    """Signed shares and their signed total cost: above zero if long, below if short."""

    quantity: int = 0
    cost_micros: int = 0


class FillEffect(NamedTuple):
    """What a fill did."""

    legs: tuple[Leg, ...]
    realised_micros: int


class Portfolio:
    """An account that changes. Amounts are whole micro-dollars."""

    __slots__ = ("borrow_micros", "cash_micros", "dividends_micros", "fees_micros", "initial_cash_micros", "positions", "realised_micros")

    def __init__(self, initial_cash_micros: int) -> None:
        self.initial_cash_micros = initial_cash_micros
        self.cash_micros = initial_cash_micros
        self.realised_micros = 0
        self.fees_micros = 0
        self.borrow_micros = 0
        self.dividends_micros = 0
        self.positions: dict[str, Position] = {}
        """Only positions that are not zero."""

    def __eq__(self, other: object) -> bool:
        """True if every amount and position is the same."""
        return isinstance(other, Portfolio) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def quantity(self, ticker: str) -> int:
        """Signed shares held."""
        position = self.positions.get(ticker)
        return 0 if position is None else position.quantity

    def apply_fill(self, ticker: str, delta: int, price_micros: int, fee_micros: int) -> FillEffect:
        """Takes in a fill of `delta` signed shares, which is not zero. One that changes the sign of the position is two legs."""
        position = self.positions.setdefault(ticker, Position())
        held = position.quantity
        if held == 0 or (held > 0) == (delta > 0):
            legs: tuple[Leg, ...] = (self._open(position, delta, price_micros),)
            realised = 0
        elif abs(delta) <= abs(held):
            leg, realised = self._reduce(position, delta, price_micros)
            legs = (leg,)
        else:
            closing, realised = self._reduce(position, -held, price_micros)
            legs = (closing, self._open(position, delta + held, price_micros))
        self.realised_micros += realised
        self.cash_micros -= delta * price_micros + fee_micros
        self.fees_micros += fee_micros
        if position.quantity == 0:
            del self.positions[ticker]
        return FillEffect(legs, realised)

    @staticmethod
    def _open(position: Position, delta: int, price_micros: int) -> Leg:
        position.cost_micros += delta * price_micros
        position.quantity += delta
        return Leg(LegKind.BUY if delta > 0 else LegKind.SHORT, abs(delta))

    @staticmethod
    def _reduce(position: Position, delta: int, price_micros: int) -> tuple[Leg, int]:
        # Closing all takes the whole cost: no residue of rounding stays behind.
        part = _signed_share(position.cost_micros, abs(delta), abs(position.quantity))
        position.cost_micros -= part
        position.quantity += delta
        return Leg(LegKind.SELL if delta < 0 else LegKind.COVER, abs(delta)), -delta * price_micros - part

    def charge_borrow(self, ticker: str, mark_micros: int, borrow_bp: int, days: int) -> int:
        """Takes the cost of borrowing a short position for some calendar days; returns it."""
        held = self.quantity(ticker)
        if held >= 0:
            return 0
        charge = divide_half_even(-held * mark_micros * borrow_bp * days, BASIS_POINTS * DAYS_PER_YEAR)
        self.cash_micros -= charge
        self.borrow_micros += charge
        return charge

    def pay_dividend(self, ticker: str, per_share_micros: int) -> int:
        """Books a cash dividend on its ex-date; shorts pay it. Returns the signed amount."""
        amount = self.quantity(ticker) * per_share_micros
        self.cash_micros += amount
        self.dividends_micros += amount
        return amount

    def split(self, ticker: str, new: int, old: int, last_price_micros: int) -> int:
        """Turns `old` shares into `new`; a fraction is paid in cash at the price before the split. Returns that cash."""
        position = self.positions.get(ticker)
        if position is None:
            return 0
        sign = 1 if position.quantity > 0 else -1
        total = abs(position.quantity) * new
        whole, rest = divmod(total, old)
        in_lieu = sign * divide_half_even(rest * last_price_micros, new)
        part = _signed_share(position.cost_micros, rest, total)
        self.cash_micros += in_lieu
        self.realised_micros += in_lieu - part
        position.cost_micros -= part
        position.quantity = sign * whole
        if whole == 0:
            del self.positions[ticker]
        return in_lieu

    def net_asset_value(self, marks_micros: Mapping[str, int]) -> int:
        """Cash and positions at their marks; each held ticker needs one."""
        quantities = [position.quantity for position in self.positions.values()]
        held: int = sum(map(operator.mul, quantities, map(marks_micros.__getitem__, self.positions)))
        return self.cash_micros + held

    def unrealised_micros(self, marks_micros: Mapping[str, int]) -> int:
        """What positions are worth at their marks beyond their cost; each held ticker needs one."""
        return sum(position.quantity * marks_micros[ticker] - position.cost_micros for ticker, position in self.positions.items())

    def exposure(self, marks_micros: Mapping[str, int]) -> tuple[int, int]:
        """Market value of long and of short positions, both without sign."""
        long = short = 0
        for ticker, position in self.positions.items():
            value = position.quantity * marks_micros[ticker]
            if value > 0:
                long += value
            else:
                short -= value
        return long, short

    def balances(self) -> bool:
        """True if the first identity of this module holds."""
        costs = sum(position.cost_micros for position in self.positions.values())
        result = self.realised_micros - self.fees_micros - self.borrow_micros + self.dividends_micros
        return self.cash_micros + costs == self.initial_cash_micros + result

    def copy(self) -> Portfolio:
        """An account of its own with the same content."""
        same = Portfolio(self.initial_cash_micros)
        for name in ("cash_micros", "realised_micros", "fees_micros", "borrow_micros", "dividends_micros"):
            setattr(same, name, getattr(self, name))
        same.positions = {ticker: Position(position.quantity, position.cost_micros) for ticker, position in self.positions.items()}
        return same


def _signed_share(amount: int, part: int, whole: int) -> int:
    """amount x part / whole, rounded half to even on the magnitude, so that long and short round alike."""
    share = divide_half_even(abs(amount) * part, whole)
    return share if amount >= 0 else -share
