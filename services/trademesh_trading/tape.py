"""The last trade of a ticker, those around round instants, and the prices between two of them. Takes trades in as they arrive, and tells which count: one that was told before,
and one that is older than the newest, do not. Pure, without a clock.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

from trademesh_trading.quote_provider import Trade

STEP_S = 300
"""Exchanges open and close on whole five minutes: around those the trades are kept."""

KEPT_STEPS = 288
"""A day of them with trades."""

MOST_SAME_INSTANT = 1024
"""So many different trades of one millisecond are remembered."""

_STEP_MS = STEP_S * 1000


class Fate(Enum):
    """What becomes of a trade."""

    TAKEN = "taken"
    DUPLICATE = "duplicate"
    LATE = "late"


@dataclass(slots=True)
class _Step:
    """The trades from one round instant up to the next."""

    first: Trade
    high_micros: int
    low_micros: int


class Tape:
    """The trades of one ticker, as far as they are kept."""

    def __init__(self) -> None:
        self.last: Trade | None = None
        self._same_instant = set[tuple[int, int]]()
        """Price and volume of the trades in the millisecond of the last."""
        self._steps = OrderedDict[int, _Step]()
        """By the number of the instant that they begin with."""
        self._lasts = OrderedDict[int, Trade]()
        """The last trade at or before a step, but after the one before."""

    def take(self, trade: Trade) -> Fate:
        """Takes in a trade."""
        told = (trade.price_micros, trade.volume_shares)
        if self.last is not None and trade.traded_unix_ms < self.last.traded_unix_ms:
            return Fate.LATE
        same_instant = self.last is not None and trade.traded_unix_ms == self.last.traded_unix_ms
        if same_instant and told in self._same_instant:
            return Fate.DUPLICATE
        if not same_instant or len(self._same_instant) >= MOST_SAME_INSTANT:
            self._same_instant.clear()
        self._same_instant.add(told)
        self.last = trade
        price = trade.price_micros
        step = self._steps.setdefault(trade.traded_unix_ms // _STEP_MS, _Step(trade, price, price))
        step.high_micros, step.low_micros = max(step.high_micros, price), min(step.low_micros, price)
        self._lasts[-(-trade.traded_unix_ms // _STEP_MS)] = trade
        while len(self._steps) > KEPT_STEPS:
            self._steps.popitem(last=False)
        while len(self._lasts) > KEPT_STEPS:
            self._lasts.popitem(last=False)
        return Fate.TAKEN

    def first_from(self, unix_s: int) -> Trade | None:
        """The first trade at or after a whole five minutes, if there was one since."""
        step = unix_s // STEP_S
        return next((found.first for at, found in self._steps.items() if at >= step), None)

    def last_until(self, unix_s: int) -> Trade | None:
        """The last trade at or before a whole five minutes, if one is kept."""
        step = unix_s // STEP_S
        return next((trade for at, trade in reversed(self._lasts.items()) if at <= step), None)

    def range_between(self, from_unix_s: int, until_unix_s: int) -> tuple[int, int] | None:
        """Highest and lowest price, in micro-dollars, from one whole five minutes up to another, without that one; None: there was no trade."""
        first, last = from_unix_s // STEP_S, until_unix_s // STEP_S
        found = [step for at, step in self._steps.items() if first <= at < last]
        return (max(step.high_micros for step in found), min(step.low_micros for step in found)) if found else None
