"""The last trade of a ticker, and those around round instants. Takes trades in as they arrive, and tells which count: one that was told before,
and one that is older than the newest, do not. Pure, without a clock.
"""

from __future__ import annotations

from collections import OrderedDict
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


class Tape:
    """The trades of one ticker, as far as they are kept."""

    def __init__(self) -> None:
        self.last: Trade | None = None
        self._same_instant = set[tuple[int, int]]()
        """Price and volume of the trades in the millisecond of the last."""
        self._firsts = OrderedDict[int, Trade]()
        """The first trade at or after a step, by the number of the step."""
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
        self._firsts.setdefault(trade.traded_unix_ms // _STEP_MS, trade)
        self._lasts[-(-trade.traded_unix_ms // _STEP_MS)] = trade
        for kept in (self._firsts, self._lasts):
            while len(kept) > KEPT_STEPS:
                kept.popitem(last=False)
        return Fate.TAKEN

    def first_from(self, unix_s: int) -> Trade | None:
        """The first trade at or after a whole five minutes, if there was one since."""
        step = unix_s // STEP_S
        return next((trade for at, trade in self._firsts.items() if at >= step), None)

    def last_until(self, unix_s: int) -> Trade | None:
        """The last trade at or before a whole five minutes, if one is kept."""
        step = unix_s // STEP_S
        return next((trade for at, trade in reversed(self._lasts.items()) if at <= step), None)
