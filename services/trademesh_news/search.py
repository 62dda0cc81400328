"""Full-text search over a set of news, with ranks of what was known at an instant: how rare a word is, is counted among the items of then.

A database's own index ranks by all that it holds, which would tell of later news; so the index is ours. Its formula is SQLite's (FTS5), which
the tests compare it with: Okapi BM25 (Robertson and others 1994), k1 = 1.2, b = 0.75.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from trademesh_news.news_items import NewsRecord, NewsSet
from trademesh_news.words import words_of

K1 = 1.2
B = 0.75
LEAST_RARITY = 1e-6
"""What a word weighs that is in more than half of the items."""
MOST_TERMS = 32

_TERM = re.compile(r'"([^"]*)"?|([^\s"]+)')


@dataclass(frozen=True, slots=True)
class Hit:
    """An item that was found, by its place in the set; more rank is a better fit."""

    place: int
    rank: float


def terms_of(query: str) -> list[tuple[str, ...]]:
    """What must be in an item: single words, and words that must follow each other; the same term counts once. Empty if there is no word."""
    found = dict[tuple[str, ...], None]()
    for quoted, bare in _TERM.findall(query):
        words = tuple(words_of(quoted or bare))
        if words:
            # `profit-warning` is two words, as in the texts, and they must follow each other.
            found[words] = None
    return list(found)[:MOST_TERMS]


class SearchIndex:
    """Where each word is in the texts of a set: in headlines and bodies."""

    def __init__(self, news: NewsSet) -> None:
        self._news = news
        postings = dict[str, dict[int, list[int]]]()
        lengths = np.zeros(len(news.items), np.int64)
        for place, item in enumerate(news.items):
            headline, body = words_of(item.headline), words_of(item.body)
            lengths[place] = len(headline) + len(body)
            # A gap of one: words do not follow each other across the end of a headline.
            for position, word in (*enumerate(headline), *enumerate(body, len(headline) + 1)):
                postings.setdefault(word, {}).setdefault(place, []).append(position)
        self._postings = postings
        self._lengths = lengths

    def search(self, query: str, as_of_unix_s: int, wanted: Callable[[NewsRecord], bool]) -> list[Hit]:
        """Items as known at an instant that hold all terms, those that fit best first and of equals the newest. What is not `wanted` is left
        out, but counts for how rare a word is."""
        current = self._news.current(as_of_unix_s)
        count = int(current.sum())
        if not count:
            return []
        mean_length = float(self._lengths[current].mean())
        scores: dict[int, float] | None = None
        for term in terms_of(query):
            found = {place: times for place, times in self._times(term) if current[place]}
            rarity = max(LEAST_RARITY, math.log((count - len(found) + 0.5) / (len(found) + 0.5)))
            kept = found if scores is None else found.keys() & scores.keys()
            scores = {
                place: (scores or {}).get(place, 0.0)
                + rarity * found[place] * (K1 + 1) / (found[place] + K1 * (1 - B + B * float(self._lengths[place]) / mean_length))
                for place in kept
            }
        hits = [Hit(place, score) for place, score in (scores or {}).items() if wanted(self._news.items[place])]
        return sorted(hits, key=lambda hit: (-hit.rank, -hit.place))

    def _times(self, term: tuple[str, ...]) -> Iterator[tuple[int, int]]:
        """Places that hold a term, and how often."""
        first, *others = (self._postings.get(word, {}) for word in term)
        for place, positions in first.items():
            starts = set(positions)
            for distance, postings in enumerate(others, 1):
                starts &= {position - distance for position in postings.get(place, ())}
            if starts:
                yield place, len(starts)
