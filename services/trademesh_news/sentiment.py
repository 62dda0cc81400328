"""Which way the news of a ticker pointed, as a figure: a mean that halves an item's weight with each half-life of its age. Pure arithmetic.

With fewer than three items there is no figure, and a headline that was told twice counts once (as in the table of tools of the design).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from trademesh_news.news_items import DirectionMethod, NewsRecord
from trademesh_news.words import words_of

LEAST_ITEMS = 3
POSITIVE_OVER = 0.2
WINDOW_S = 14 * 86_400
HALF_LIFE_S = 3 * 86_400.0


@dataclass(frozen=True)
class Sentiment:
    """The figure and what is behind it; None if it is undefined. Items are in the order of their publication."""

    score: float | None
    items: tuple[NewsRecord, ...]

    def count(self, sign: int) -> int:
        """Items that point up (1) or down (-1)."""
        return sum(item.tone * sign > 0 for item in self.items)

    def count_by(self, method: DirectionMethod) -> int:
        """Items whose direction was told in one way."""
        return sum(item.method is method for item in self.items)


def sentiment_of(items: Iterable[NewsRecord], half_life_s: float, methods: Collection[int] = ()) -> Sentiment:
    """The sentiment of items, as they were known at some instant; only of those whose direction was told in some ways, if said."""
    told = dict[tuple[str, ...], NewsRecord]()
    for item in sorted(items, key=lambda item: (item.published_unix_s, item.ordinal, item.news_id)):
        if not methods or item.method in methods:
            told.setdefault(tuple(words_of(item.headline)), item)
    kept = tuple(told.values())
    if len(kept) < LEAST_ITEMS:
        return Sentiment(None, kept)
    # By age behind the newest: a mean is the same at any later instant, and weights do not vanish if all items are old.
    newest = kept[-1].published_unix_s
    weights = [0.5 ** ((newest - item.published_unix_s) / half_life_s) for item in kept]
    score = sum(weight * item.tone for weight, item in zip(weights, kept, strict=True)) / sum(weights)
    return Sentiment(score, kept)
