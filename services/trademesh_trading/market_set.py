"""What a set of market data is to whoever reads it: its instruments, its sessions, and bars by windows of sessions and tickers.

Where bars come from is not here: `set_files.py` reads folders, `year_pages.py` keeps years at hand, `mock_universe.py` makes bars up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from trademesh_kernel.errors import DataAbsent
from trademesh_trading.bar_matrices import Bars, Flags, Matrix
from trademesh_trading.corporate_actions import ActionRecord
from trademesh_trading.known_tables import KnownTable
from trademesh_trading.packed_columns import PackedBars, packed_bars

OPTIONAL_FIELDS = {"open": "open_micros", "high": "high_micros", "low": "low_micros", "volume": "volume_shares"}


@dataclass(frozen=True)
class SetRecord:
    """What SOURCE.json says of a set."""

    name: str
    snapshot: str
    source: str
    licence: str
    adjustment: str
    calendar: str


@dataclass(frozen=True)
class InstrumentRecord:
    """One instrument of a set; sessions are ISO dates of its first and last bar."""

    ticker: str
    kind: str
    first_session: str
    last_session: str
    fields: frozenset[str]
    """Which of open, high, low and volume its bars have, all or some of them."""


@dataclass(frozen=True)
class MarketSet(ABC):
    """A set. `sessions` are ISO dates, oldest first; `open_unix_s` and `close_unix_s` belong to them. `tables` is what else it has by name."""

    record: SetRecord
    instruments: tuple[InstrumentRecord, ...]
    sessions: tuple[str, ...]
    open_unix_s: npt.NDArray[np.int64]
    close_unix_s: npt.NDArray[np.int64]
    actions: tuple[ActionRecord, ...]
    tables: Mapping[str, KnownTable]

    @abstractmethod
    def window(self, rows: range, columns: Sequence[int]) -> Bars:
        """Bars of some sessions and instruments. May read files; raises DataAbsent where they are damaged."""

    def packed(self, rows: range, columns: Sequence[int]) -> PackedBars:
        """The same as they are sent; raises as `window`."""
        return packed_bars(self.window(rows, columns))

    def message(self, rows: range, columns: Sequence[int]) -> bytes | None:
        """The same as the whole message that is sent, where it was made beforehand and nothing in it depends on when one asks; else None."""
        return None

    def parts(self, rows: range, sessions: int) -> Iterable[range]:
        """Some rows in successive parts of so many sessions at most, as they are best read."""
        return (range(first, min(first + sessions, rows.stop)) for first in range(rows.start, rows.stop, sessions))

    @cached_property
    def _column_of(self) -> dict[str, int]:
        return {instrument.ticker: column for column, instrument in enumerate(self.instruments)}

    def columns(self, tickers: Sequence[str], what: str = "bars") -> Sequence[int]:
        """Columns of tickers, a range of all if none is named; raises DataAbsent, and says what of them was asked for."""
        if not tickers:
            return range(len(self.instruments))
        missing = [ticker for ticker in tickers if ticker not in self._column_of]
        if missing:
            text = f"set {self.record.name} has no {', '.join(missing[:5])}: ListInstruments names what it has"
            raise DataAbsent(text, set=self.record.name, ticker=missing[0], what=what)
        return [self._column_of[ticker] for ticker in tickers]

    def table(self, name: str) -> KnownTable:
        """What a set has besides bars and corporate actions; raises DataAbsent."""
        if name not in self.tables:
            what = name.replace("_", " ")
            text = f"set {self.record.name} has no {what}: its source does not tell them, and nothing is made up in their place"
            raise DataAbsent(text, set=self.record.name, what=what)
        return self.tables[name]

    def rows(self, start: str, end: str, as_of_unix_s: int) -> range:
        """Rows of the sessions from start to end that had closed by then; empty dates are open ends."""
        known = int(np.searchsorted(self.close_unix_s, as_of_unix_s, side="right"))
        first = bisect_left(self.sessions, start) if start else 0
        last = bisect_right(self.sessions, end) if end else len(self.sessions)
        return range(first, max(first, min(last, known)))


@dataclass(frozen=True)
class LoadedSet(MarketSet):
    """A set whose bars are all in memory; matrices are as in `Bars`."""

    open_micros: Matrix | None
    high_micros: Matrix | None
    low_micros: Matrix | None
    close_micros: Matrix
    volume_plus_one: Matrix | None
    quality: Flags

    def window(self, rows: range, columns: Sequence[int]) -> Bars:
        """Bars of some sessions and instruments, out of memory."""
        fields = (self.open_micros, self.high_micros, self.low_micros, self.close_micros, self.volume_plus_one, self.quality)
        return Bars(*fields).window(rows, columns)
