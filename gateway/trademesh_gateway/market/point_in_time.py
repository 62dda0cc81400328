"""The only way to read the market: as of an instant, and nothing that became known later.

`MarketHistory` grows by blocks as they arrive; a `PointInTimeView` of it is bound to an instant and shows the sessions that had closed
and the news that had been published by then. On prices as traded a view for a session has the splits up to its morning counted in, as
everybody's charts have; what the ledger trades at is never restated.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from trademesh_gateway.market.bar_window import CLOSE, BarWindow, Revision, Values
from trademesh_gateway.market.window_table import Compute, Row, WindowTable
from trademesh_ledger.corporate_actions import CorporateAction, Split
from trademesh_ledger.money import MOST_MICROS, AmountTooLarge, divide_half_even

Closes: TypeAlias = Values
Column: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NewsFact:
    """One item of news: when it became known and which way it points for a holder (1, -1 or 0)."""

    ticker: str
    published_unix_s: int
    direction: int


class MarketHistory:
    """Bars of the run's tickers by session, in whole micro-dollars, 0 where there is none; news; what companies do."""

    def __init__(self, tickers: Sequence[str]) -> None:
        self.tickers = tuple(tickers)
        self.bars = BarWindow(len(self.tickers))
        self._news: list[NewsFact] = []
        self._news_published: list[int] = []
        self._actions: dict[str, list[CorporateAction]] = {}
        self._splits: list[tuple[str, Split]] = []
        self._tables: dict[tuple[str, int], WindowTable[Any]] = {}
        """By name and number of columns."""

    def __len__(self) -> int:
        return len(self.bars.sessions)

    def add_sessions(
        self,
        sessions: Sequence[str],
        known_at_unix_s: Sequence[int],
        closes: Closes,
        fields: Mapping[str, Closes] | None = None,
        revisions: Sequence[Revision] = (),
    ) -> None:
        """Adds the sessions that follow those that are there; one row of closes each, and one of each field that the bars have. Rows of
        `revisions` count from the first of these sessions."""
        self.bars.add(sessions, known_at_unix_s, {CLOSE: closes, **(fields or {})}, revisions)

    def forget_before(self, session: str) -> None:
        """Lets go of sessions that are too far back for anything that is read in this one, and of views of before."""
        if self.bars.forget_before(session):
            self._tables.clear()

    def add_news(self, news: Sequence[NewsFact]) -> None:
        """Adds news, oldest first, published after what is there."""
        self._news.extend(news)
        self._news_published += [item.published_unix_s for item in news]

    def add_actions(self, actions: Sequence[tuple[str, CorporateAction]]) -> None:
        """Adds corporate actions with their ex-dates (ISO), of prices as traded. They are seen on their ex-date, not before."""
        for ex_date, action in actions:
            self._actions.setdefault(ex_date, []).append(action)
            if isinstance(action, Split) and action.ticker in self.tickers:
                self._splits.append((ex_date, action))
        self._splits.sort(key=lambda one: one[0])

    def actions_on(self, session: str, tickers: Collection[str]) -> list[CorporateAction]:
        """What companies do on the morning of a session, of some tickers."""
        return [action for action in self._actions.get(session, ()) if action.ticker in tickers]

    def restated_shares(self, ticker: str, shares: int, told_of: str, session: str) -> int:
        """A number of shares that was told of a day (ISO date), in shares of the morning of a session: with the splits in between."""
        for ex_date, split in self._splits:
            if split.ticker == ticker and told_of < ex_date <= session:
                shares = divide_half_even(shares * split.new, split.old)
        return shares

    def last_session(self) -> str:
        """The last session that is there, known or not, ISO date; empty if none is."""
        return self.bars.sessions[-1] if self.bars.sessions else ""

    def next_session_after(self) -> str:
        """The day after that; empty likewise."""
        last = self.last_session()
        return (date.fromisoformat(last) + timedelta(days=1)).isoformat() if last else ""

    def as_of(self, unix_s: int, session: str = "") -> PointInTimeView:
        """What was known at an instant. For a session (ISO date) that has begun or is about to: with splits up to its morning counted in."""
        return PointInTimeView(self, unix_s, session)


def _in_shares_after(name: str, values: Values, split: Split) -> Values:
    """Values of before a split in shares of after it: prices, or volumes and one. Raises AmountTooLarge."""
    most = 2 * int(values.max()) * max(split.new, split.old)
    # Whole numbers of Python where a product is not sure to fit: those of numpy would begin again at the other end.
    exact = values if most < MOST_MICROS // 2 else values.astype(object)
    if name == "volume_plus_one":
        found = np.where(exact > 0, (exact - 1) * split.new // split.old + 1, 0)
    else:
        found = (2 * exact * split.old + split.new) // (2 * split.new)
    if (largest := int(found.max())) > MOST_MICROS:
        raise AmountTooLarge(f"{name} of {split.ticker} in shares of after {split.new} for {split.old}", largest)
    return found.astype(np.int64, copy=False)


class PointInTimeView:
    """What was known at one instant."""

    __slots__ = ("_columns", "_history", "_news_count", "_revisions", "_splits", "as_of_unix_s", "rows")

    def __init__(self, history: MarketHistory, as_of_unix_s: int, session: str = "") -> None:
        bars = history.bars
        self._history = history
        self.as_of_unix_s = as_of_unix_s
        self.rows = bisect_right(bars.known_at, as_of_unix_s)
        """How many sessions had closed, of those that are still there."""
        self._news_count = bisect_right(history._news_published, as_of_unix_s)
        self._columns = len(history.tickers)
        self._splits = [split for split in history._splits if split[0] <= session] if history._splits and session else []
        self._revisions = bars.revisions_until(as_of_unix_s) if bars.revisions else ()

    def of_first(self, columns: int) -> PointInTimeView:
        """The same without the columns behind the first few: the index, which agents do not trade."""
        same = object.__new__(PointInTimeView)
        same._history, same.as_of_unix_s, same.rows = self._history, self.as_of_unix_s, self.rows
        same._news_count, same._splits, same._revisions = self._news_count, self._splits, self._revisions
        same._columns = columns
        return same

    @property
    def tickers(self) -> tuple[str, ...]:
        """The columns of closes."""
        return self._history.tickers[: self._columns]

    def last_closes(self, count: int) -> Closes:
        """Closes of the last sessions, oldest first, in micro-dollars; fewer rows if fewer are known. Not to be changed."""
        return self._last(CLOSE, self._history.bars.closes(), count)

    def last(self, name: str, count: int) -> Closes | None:
        """Another field of the last bars, likewise; one of OPTIONAL_FIELDS. None if no bar has it."""
        values = self._history.bars.field(name)
        return None if values is None else self._last(name, values, count)

    def _last(self, name: str, values: Closes, count: int) -> Closes:
        first = max(0, self.rows - count)
        found = values[first : self.rows, : self._columns]
        if self._revisions:
            found = self._revised(name, found, self._history.bars.forgotten + first)
        return found if not self._splits else self._restated(name, found, first)

    def _revised(self, name: str, found: Closes, first: int) -> Closes:
        """Rows, the first of which is number `first` of all, with what was told later and by now."""
        result = found
        for one in self._revisions:
            place = one.row - first
            if 0 <= place < len(found) and one.column < self._columns and name in one.values:
                result = result.copy() if result is found else result
                result[place, one.column] = one.values[name]
        return result

    def _restated(self, name: str, found: Closes, first: int) -> Closes:
        """Rows from `first` on in the shares of now: prices x old / new, rounded half up, and volumes the other way round."""
        result = found
        for ex_date, split in self._splits:
            before = bisect_left(self._history.bars.sessions, ex_date, first, self.rows) - first
            column = self._history.tickers.index(split.ticker)
            if before > 0 and column < self._columns:
                result = result.copy() if result is found else result
                result[:before, column] = _in_shares_after(name, result[:before, column], split)
        return result

    def last_session(self) -> str:
        """The newest session that had closed; empty if none had."""
        return self._history.bars.sessions[self.rows - 1] if self.rows else ""

    def session_before_last(self) -> str:
        """The one before it; empty if there is none."""
        return self._history.bars.sessions[self.rows - 2] if self.rows > 1 else ""

    def windowed(self, name: str, window: int, compute: Compute[Row]) -> Row | None:
        """An indicator of the last `window` closes, or what `compute` makes of some; None if fewer are known.

        `compute` makes from n + window - 1 rows of closes the n rows that it gives for each stretch of `window`, each from its own rows alone.
        `name` says which it is, window and all. Rows are computed many at a time, for all of a run once.
        """
        if self.rows < window:
            return None
        if self._splits or self._revisions:
            return compute(self.last_closes(window))[0]
        key = (name, self._columns)
        table = self._history._tables.get(key)
        if table is None:
            table = self._history._tables[key] = WindowTable(window, compute)
        found: Row = table.row(self._history.bars.closes()[:, : self._columns], self.rows - 1)
        return found

    def news_since(self, unix_s: int) -> list[NewsFact]:
        """News published after an instant, oldest first."""
        first = bisect_right(self._history._news_published, unix_s)
        return self._history._news[first : self._news_count]
