"""News in memory: versions of items by the time at which each became known, and what was known at an instant. Where they come from is
`derived_sets.py`'s and `imported_sets.py`'s.
"""

from __future__ import annotations

import bisect
import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
import numpy.typing as npt

NEVER = np.iinfo(np.int64).max
"""An instant that does not come."""

Key = tuple[int, int, str]


class DirectionMethod(enum.IntEnum):
    """How it was told which way an item points; values are those of news.v1.DirectionMethod."""

    FIGURES = 1
    STATED = 2
    WORDS = 3


@dataclass(frozen=True, slots=True)
class NewsRecord:
    """One version of an item. `figures` holds only the numbers that it tells; instants are Unix seconds."""

    news_id: str
    kind: int
    tickers: tuple[str, ...]
    session_date: str
    published_unix_s: int
    known_unix_s: int
    revision: int
    headline: str
    direction: int
    method: DirectionMethod
    figures: dict[str, float]
    body: str = ""
    url: str = ""
    publisher: str = ""
    arrival: int = 0
    """Number of the import that it came with; 0 for what comes with the program."""
    ordinal: int = 0
    """Place among items that became known in the same second; equal ones are ordered by their ids."""

    @property
    def key(self) -> Key:
        """Its place in the set, which stays right while more is imported."""
        return (self.known_unix_s, self.ordinal, self.news_id)

    @property
    def day(self) -> str:
        """The session that it is about, else the day on which it was published (UTC); ISO date."""
        return self.session_date or datetime.fromtimestamp(self.published_unix_s, UTC).date().isoformat()

    @property
    def tone(self) -> float:
        """Which way it points and how far, from -1 to 1."""
        if self.method is not DirectionMethod.WORDS:
            return float(self.direction)
        positive, negative = self.figures["positive_words"], self.figures["negative_words"]
        return (positive - negative) / (positive + negative) if positive + negative else 0.0


class NewsSet:
    """All versions of all items of a set, in the order in which they became known. Not changed once it is made."""

    def __init__(self, items: Sequence[NewsRecord]) -> None:
        self.items = tuple(sorted(items, key=lambda item: item.key))
        self.known: npt.NDArray[np.int64] = np.array([item.known_unix_s for item in self.items], np.int64)
        self.published: npt.NDArray[np.int64] = np.array([item.published_unix_s for item in self.items], np.int64)
        self._versions: dict[str, list[int]] = {}
        self.replaced: npt.NDArray[np.int64] = np.full(len(self.items), NEVER, np.int64)
        """When the next version of an item became known."""
        for place, item in enumerate(self.items):
            versions = self._versions.setdefault(item.news_id, [])
            if versions:
                self.replaced[versions[-1]] = item.known_unix_s
            versions.append(place)

    @cached_property
    def newest_arrival(self) -> int:
        """Number of the newest import in it; 0 if it has none."""
        return max((item.arrival for item in self.items), default=0)

    @cached_property
    def _keys(self) -> list[Key]:
        return [item.key for item in self.items]

    def place_after(self, key: Key) -> int:
        """The first place behind a version's."""
        return bisect.bisect_right(self._keys, key)

    def span(self, after_unix_s: int | None, as_of_unix_s: int) -> range:
        """Places of versions that became known after one instant and by another."""
        first = 0 if after_unix_s is None else int(np.searchsorted(self.known, after_unix_s, side="right"))
        return range(first, max(first, int(np.searchsorted(self.known, as_of_unix_s, side="right"))))

    def is_current(self, place: int, as_of_unix_s: int) -> bool:
        """True if a version that was known then was the newest of its item."""
        return bool(self.replaced[place] > as_of_unix_s)

    def current(self, as_of_unix_s: int) -> npt.NDArray[np.bool_]:
        """By place: whether it was known then, and the newest of its item."""
        mask: npt.NDArray[np.bool_] = (self.known <= as_of_unix_s) & (self.replaced > as_of_unix_s)
        return mask

    def versions(self, news_id: str, as_of_unix_s: int) -> list[NewsRecord]:
        """The versions of an item that were known then, oldest first; none if there is no such item, or was not yet."""
        return [self.items[place] for place in self._versions.get(news_id, ()) if self.known[place] <= as_of_unix_s]

    def about(self, ticker: str, as_of_unix_s: int, published_after_unix_s: int | None = None) -> Iterator[NewsRecord]:
        """Items about a ticker as they were known then, by when that version became known; only later ones if said."""
        for place in self._by_ticker.get(ticker, ()):
            if self.known[place] > as_of_unix_s:
                return
            if self.is_current(place, as_of_unix_s) and (published_after_unix_s is None or self.published[place] > published_after_unix_s):
                yield self.items[place]

    @cached_property
    def _by_ticker(self) -> dict[str, list[int]]:
        found = dict[str, list[int]]()
        for place, item in enumerate(self.items):
            for ticker in item.tickers:
                found.setdefault(ticker, []).append(place)
        return found

    @property
    def tickers(self) -> list[str]:
        """All that items are about, in alphabetical order."""
        return sorted(self._by_ticker)
