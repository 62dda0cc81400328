"""Translates between news in memory and its messages."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.news.v1 import news_service_pb2 as messages
from trademesh_news.store import NewsRecord


def news_message(item: NewsRecord) -> messages.NewsItem:
    """An item as its message."""
    return messages.NewsItem(
        news_id=item.news_id,
        source=messages.NEWS_SOURCE_DERIVED,
        kind=messages.NewsKind.ValueType(item.kind),
        tickers=[item.ticker],
        published_at=Timestamp(seconds=item.published_unix_s),
        session_date=item.session_date,
        headline=item.headline,
        figures=item.figures,
        direction=item.direction,
    )


def unix_s(instant: Timestamp) -> int:
    """Whole seconds since 1970, rounded down: what is known is known from a whole second on, and no fraction may round up to it."""
    return instant.seconds
