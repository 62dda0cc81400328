"""Where a session's prices come from, and when: the one place in which a backtest and a desk on paper differ.

A backtest has every bar before it asks (`BarBroker`); who trades by the clock waits for the open and the close. Both give the same record, and
the same ledger fills at it (`execution.py`).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from trademesh_gateway.market.point_in_time import MarketHistory


@dataclass(frozen=True, slots=True)
class SessionTimes:
    """A session of the exchange."""

    date: str
    open_unix_s: int
    close_unix_s: int
    days_to_next: int = 0
    """Calendar days to the session that follows in the run; 0 after the last one."""


class Moment(enum.IntEnum):
    """What the cycle of a session waits for."""

    DECISION = 0
    OPEN = 1
    CLOSE = 2


class SessionBar(NamedTuple):
    """What is known of a session at one of its moments, by column: micro-dollars, 0 where there is no price. Empty: of no ticker at all."""

    opens: Sequence[int] = ()
    highs: Sequence[int] = ()
    lows: Sequence[int] = ()
    closes: Sequence[int] = ()
    volumes_plus_one: Sequence[int] = ()
    """Shares traded plus one, 0 where it is not known."""

    def has_range(self, column: int) -> bool:
        """True if it is known between which prices a ticker was traded."""
        return bool(self.highs) and bool(self.lows) and self.highs[column] > 0 and self.lows[column] > 0


def priced(tickers: Sequence[str], prices: Sequence[int]) -> dict[str, int]:
    """Prices by ticker, without those that are not there; further prices are left out, and there may be none at all."""
    found = dict(zip(tickers, prices, strict=False))
    return found if all(prices) else {ticker: price for ticker, price in found.items() if price}


class Broker(Protocol):
    """Tells a session's prices once they are there."""

    def is_time(self, session: SessionTimes, moment: Moment) -> bool:
        """True if a moment of a session has come, and its prices are known."""

    async def until(self, session: SessionTimes, moment: Moment) -> None:
        """Waits for it. May raise Interrupted, to be asked again."""

    def is_over(self, session: SessionTimes, moment: Moment) -> bool:
        """True if a moment has passed by the clock: who decides after it decides too late to be filled at it."""

    def bar(self, session: SessionTimes, moment: Moment) -> SessionBar:
        """What is known then: at OPEN the opens, and at CLOSE everything."""


class BarBroker:
    """Recorded bars: every moment has come, and each order is filled at the price that the bar has."""

    def __init__(self, history: MarketHistory) -> None:
        """`history` has the session's bars when it is asked for one."""
        self._history = history
        self._last: tuple[str, Moment, SessionBar] = ("", Moment.DECISION, SessionBar())
        """The bar that was told last: orders are filled and marks set at the same close."""

    def is_time(self, session: SessionTimes, moment: Moment) -> bool:
        """Always."""
        return True

    async def until(self, session: SessionTimes, moment: Moment) -> None:
        """Returns at once."""

    def is_over(self, session: SessionTimes, moment: Moment) -> bool:
        """Never: no clock runs."""
        return False

    def bar(self, session: SessionTimes, moment: Moment) -> SessionBar:
        """The recorded bar. Volume is told at OPEN, too: what a fill there is held against is the session's whole (`execution.participation`)."""
        date, told_at, told = self._last
        if date != session.date or told_at is not moment:
            told = self._bar(session, moment)
            self._last = (session.date, moment, told)
        return told

    def _bar(self, session: SessionTimes, moment: Moment) -> SessionBar:
        row = self._history.bars.row_of(session.date)
        if row is None:
            return SessionBar((), (), (), [0] * len(self._history.tickers))
        at_close = moment is Moment.CLOSE
        return SessionBar(
            self._values("open", row),
            self._values("high", row) if at_close else (),
            self._values("low", row) if at_close else (),
            self._values("close", row) if at_close else (),
            self._values("volume_plus_one", row),
        )

    def _values(self, name: str, row: int) -> Sequence[int]:
        values = self._history.bars.field(name)
        if values is None:
            return ()
        found: list[int] = values[row].tolist()
        return found
