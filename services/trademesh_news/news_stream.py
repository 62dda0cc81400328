"""What a stream of news sends next: what is known and was not sent yet. Whoever follows a stream is two numbers, so that a slow one costs
nothing and misses nothing, also of what is imported late and became known long ago.
"""

from __future__ import annotations

from dataclasses import dataclass

from trademesh_news.news_items import NewsRecord, NewsSet


@dataclass(frozen=True, slots=True)
class Cursor:
    """All that was known at an instant of the imports up to one was sent."""

    known_unix_s: int
    arrival: int


def cursor_at(news: NewsSet, unix_s: int) -> Cursor:
    """Where a stream stands that has sent all that a set held at an instant."""
    return Cursor(unix_s, news.newest_arrival)


def unsent(news: NewsSet, cursor: Cursor | None, after_unix_s: int | None, as_of_unix_s: int) -> list[NewsRecord]:
    """Versions that became known after one instant and by another and were not sent yet, by when they became known."""
    span = news.span(after_unix_s, as_of_unix_s)
    if cursor is None:
        return list(news.items[span.start : span.stop])
    if news.newest_arrival <= cursor.arrival:
        span = range(max(span.start, news.span(cursor.known_unix_s, as_of_unix_s).start), span.stop)
    found = (news.items[place] for place in span)
    return [item for item in found if item.known_unix_s > cursor.known_unix_s or item.arrival > cursor.arrival]
