"""The only way to read the market: as of an instant, and nothing that became known later.

`MarketHistory` grows by blocks as they arrive; a `PointInTimeView` of it is bound to an instant and shows the sessions that had closed
and the news that had been published by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Closes: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NewsFact:
    """One item of news: when it became known and which way it points for a holder (1, -1 or 0)."""

    ticker: str
    published_unix_s: int
    direction: int


class MarketHistory:
    """Closes of the run's tickers by session, in whole micro-dollars, 0 where there is none; and shares traded, plus one, 0 where that is not
    known."""

    def __init__(self, tickers: Sequence[str]) -> None:
        self.tickers = tuple(tickers)
        self._sessions: list[str] = []
        self._known_at: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._closes: Closes = np.zeros((1024, len(tickers)), np.int64)
        self._volumes_plus_one: Closes | None = None
        """As many rows as closes; None as long as no volume was told."""
        self._news: list[NewsFact] = []
        self._news_published: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._sessions)

    def add_sessions(
        self, sessions: Sequence[str], known_at_unix_s: Sequence[int], closes: Closes, volumes_plus_one: Closes | None = None
    ) -> None:
        """Adds the sessions that follow those that are there; one row of closes each, and one of volumes if there are any."""
        count = len(self._sessions)
        if volumes_plus_one is not None and self._volumes_plus_one is None:
            self._volumes_plus_one = np.zeros_like(self._closes)
        while count + len(sessions) > len(self._closes):
            self._closes = np.concatenate([self._closes, np.zeros_like(self._closes)])
            if self._volumes_plus_one is not None:
                self._volumes_plus_one = np.concatenate([self._volumes_plus_one, np.zeros_like(self._volumes_plus_one)])
        self._closes[count : count + len(sessions)] = closes
        if self._volumes_plus_one is not None and volumes_plus_one is not None:
            self._volumes_plus_one[count : count + len(sessions)] = volumes_plus_one
        self._sessions.extend(sessions)
        self._known_at = np.concatenate([self._known_at, np.asarray(known_at_unix_s, np.int64)])

    def add_news(self, news: Sequence[NewsFact]) -> None:
        """Adds news, oldest first, published after what is there."""
        self._news.extend(news)
        published = np.asarray([item.published_unix_s for item in news], np.int64)
        self._news_published = np.concatenate([self._news_published, published])

    def next_session_after(self) -> str:
        """The day after the last session that is there, ISO date; empty if none is."""
        if not self._sessions:
            return ""
        return (date.fromisoformat(self._sessions[-1]) + timedelta(days=1)).isoformat()

    def as_of(self, unix_s: int) -> PointInTimeView:
        """What was known at an instant."""
        return PointInTimeView(self, unix_s)


class PointInTimeView:
    """What was known at one instant."""

    __slots__ = ("_history", "_news_count", "as_of_unix_s", "rows")

    def __init__(self, history: MarketHistory, as_of_unix_s: int) -> None:
        self._history = history
        self.as_of_unix_s = as_of_unix_s
        self.rows = int(np.searchsorted(history._known_at, as_of_unix_s, side="right"))
        """How many sessions had closed."""
        self._news_count = int(np.searchsorted(history._news_published, as_of_unix_s, side="right"))

    @property
    def tickers(self) -> tuple[str, ...]:
        """The columns of closes."""
        return self._history.tickers

    def last_closes(self, count: int) -> Closes:
        """Closes of the last sessions, oldest first, in micro-dollars; fewer rows if fewer are known. Not to be changed."""
        return self._history._closes[max(0, self.rows - count) : self.rows]

    def last_volumes_plus_one(self, count: int) -> Closes | None:
        """Shares traded in the last sessions, plus one, 0 where that is not known, in the columns of the history; None if no volume is."""
        volumes = self._history._volumes_plus_one
        return None if volumes is None else volumes[max(0, self.rows - count) : self.rows]

    def last_session(self) -> str:
        """The newest session that had closed; empty if none had."""
        return self._history._sessions[self.rows - 1] if self.rows else ""

    def news_since(self, unix_s: int) -> list[NewsFact]:
        """News published after an instant, oldest first."""
        first = int(np.searchsorted(self._history._news_published, unix_s, side="right"))
        return self._history._news[first : self._news_count]
