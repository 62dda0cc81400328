"""Translates between news in memory and its messages."""

from __future__ import annotations

import time

from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.news.v1 import news_service_pb2 as messages
from trademesh_news.news_items import DirectionMethod, NewsRecord
from trademesh_news.sentiment import LEAST_ITEMS, POSITIVE_OVER, Sentiment

NEWS_IDS_TOLD = 20


def news_message(item: NewsRecord) -> messages.NewsItem:
    """An item as its message."""
    return messages.NewsItem(
        news_id=item.news_id,
        source=messages.NEWS_SOURCE_IMPORTED if item.arrival else messages.NEWS_SOURCE_DERIVED,
        kind=messages.NewsKind.ValueType(item.kind),
        tickers=item.tickers,
        published_at=Timestamp(seconds=item.published_unix_s),
        session_date=item.session_date,
        headline=item.headline,
        figures=item.figures,
        direction=item.direction,
        direction_method=messages.DirectionMethod.ValueType(item.method),
        known_at=Timestamp(seconds=item.known_unix_s),
        revision=item.revision,
        publisher=item.publisher,
        url=item.url,
    )


def revision_message(item: NewsRecord) -> messages.NewsRevision:
    """A version of an item as its message."""
    return messages.NewsRevision(revision=item.revision, known_at=Timestamp(seconds=item.known_unix_s), headline=item.headline)


def sentiment_message(ticker: str, found: Sentiment) -> messages.TickerSentiment:
    """The sentiment of a ticker as its message."""
    label, undefined = messages.SENTIMENT_LABEL_UNSPECIFIED, ""
    if found.score is None:
        undefined = f"the window has {len(found.items)} items, and {LEAST_ITEMS} are needed"
    elif found.score > POSITIVE_OVER:
        label = messages.SENTIMENT_LABEL_POSITIVE
    elif found.score < -POSITIVE_OVER:
        label = messages.SENTIMENT_LABEL_NEGATIVE
    else:
        label = messages.SENTIMENT_LABEL_NEUTRAL
    return messages.TickerSentiment(
        ticker=ticker,
        score=found.score,
        label=label,
        items=len(found.items),
        positive=found.count(1),
        negative=found.count(-1),
        by_figures=found.count_by(DirectionMethod.FIGURES),
        by_statement=found.count_by(DirectionMethod.STATED),
        by_words=found.count_by(DirectionMethod.WORDS),
        undefined=undefined,
        news_ids=[item.news_id for item in reversed(found.items[-NEWS_IDS_TOLD:])],
    )


def unix_s(instant: Timestamp) -> int:
    """Whole seconds since 1970, rounded down: what is known is known from a whole second on, and no fraction may round up to it."""
    return instant.seconds


def now_unix_s() -> int:
    """The clock's, rounded down likewise."""
    return int(time.time())
