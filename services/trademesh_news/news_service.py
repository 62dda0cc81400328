"""NewsService: items by RPC. Nothing is answered that became known later than the request's `as_of`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from weakref import WeakKeyDictionary

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.news.v1 import news_service_pb2 as messages
from trademesh.news.v1 import news_service_pb2_grpc
from trademesh_kernel.context import Context
from trademesh_kernel.errors import FieldViolation, InvalidRequest, NotFound, PageTokenInvalid
from trademesh_kernel.paging import fitting, page_token, read_page_place, read_page_token
from trademesh_news import wire
from trademesh_news.news_items import Key, NewsRecord, NewsSet
from trademesh_news.news_stream import Cursor, cursor_at, unsent
from trademesh_news.search import SearchIndex, terms_of
from trademesh_news.sentiment import HALF_LIFE_S, WINDOW_S, sentiment_of
from trademesh_news.store import NewsStore

DEFAULT_PAGE_SIZE = 100
DEFAULT_HITS = 50
DEFAULT_TICKERS = 100
BATCH_ITEMS = 500
CHECKPOINT_S = 5.0
POLL_S = 0.5
"""So often a stream looks whether the clock has reached an item, or something was imported."""


class NewsServicer(news_service_pb2_grpc.NewsServiceServicer):
    """News by RPC. End streams with `drain`."""

    def __init__(self, store: NewsStore, *, now_unix_s: Callable[[], int] = wire.now_unix_s, checkpoint_s: float = CHECKPOINT_S) -> None:
        self._store = store
        self._now = now_unix_s
        self._checkpoint_s = checkpoint_s
        self._draining = asyncio.Event()
        self._indexes: WeakKeyDictionary[NewsSet, SearchIndex] = WeakKeyDictionary()

    def drain(self) -> None:
        """Ends every stream with its cursor."""
        self._draining.set()

    async def ListNews(self, request: messages.ListNewsRequest, context: Context) -> messages.ListNewsResponse:
        return await asyncio.to_thread(self._list, request)

    def _list(self, request: messages.ListNewsRequest) -> messages.ListNewsResponse:
        news, as_of = self._store.get(request.set), wire.unix_s(request.as_of)
        after = wire.unix_s(request.published_after) if request.HasField("published_after") else None
        span, key = news.span(after, as_of), _key_of(request)
        tickers = frozenset(request.tickers)
        size = request.page_size or DEFAULT_PAGE_SIZE
        found = list[NewsRecord]()
        for place in range(span.start if key is None else max(span.start, news.place_after(key)), span.stop):
            item = news.items[place]
            if tickers.isdisjoint(item.tickers) and tickers:
                continue
            if request.every_revision or news.is_current(place, as_of):
                found.append(item)
                # One more than asked for tells whether there is a next page.
                if len(found) > size:
                    break
        page = fitting([wire.news_message(item) for item in found[:size]], lambda item: item.ByteSize())
        more = len(page) < len(found)
        return messages.ListNewsResponse(
            items=page, next_page_token=page_token(request, [*found[len(page) - 1].key]) if more and page else ""
        )

    async def GetNewsItem(self, request: messages.GetNewsItemRequest, context: Context) -> messages.GetNewsItemResponse:
        news = await asyncio.to_thread(self._store.get, request.set)
        versions = news.versions(request.news_id, wire.unix_s(request.as_of))
        if not versions:
            raise NotFound("news item", request.news_id)
        return messages.GetNewsItemResponse(
            item=wire.news_message(versions[-1]), body=versions[-1].body, revisions=map(wire.revision_message, versions)
        )

    async def SearchNews(self, request: messages.SearchNewsRequest, context: Context) -> messages.SearchNewsResponse:
        if not terms_of(request.query):
            raise InvalidRequest([FieldViolation("query", "has no word: words are letters and digits")])
        return await asyncio.to_thread(self._search, request)

    def _search(self, request: messages.SearchNewsRequest) -> messages.SearchNewsResponse:
        news = self._store.get(request.set)
        index = self._indexes.get(news)
        if index is None:
            index = self._indexes[news] = SearchIndex(news)
        after = wire.unix_s(request.published_after) if request.HasField("published_after") else None
        tickers = frozenset(request.tickers)

        def wanted(item: NewsRecord) -> bool:
            return (after is None or item.published_unix_s > after) and not (tickers and tickers.isdisjoint(item.tickers))

        hits = index.search(request.query, wire.unix_s(request.as_of), wanted)
        first = read_page_place(request, request.page_token) or 0
        shown = hits[first : first + (request.page_size or DEFAULT_HITS)]
        page = fitting(
            [messages.NewsHit(item=wire.news_message(news.items[hit.place]), rank=hit.rank) for hit in shown], lambda hit: hit.ByteSize()
        )
        last = first + len(page)
        return messages.SearchNewsResponse(
            hits=page, next_page_token=page_token(request, [last]) if last < len(hits) and page else "", total=len(hits)
        )

    async def ListSentiment(self, request: messages.ListSentimentRequest, context: Context) -> messages.ListSentimentResponse:
        return await asyncio.to_thread(self._sentiments, request)

    def _sentiments(self, request: messages.ListSentimentRequest) -> messages.ListSentimentResponse:
        news, as_of = self._store.get(request.set), wire.unix_s(request.as_of)
        after = wire.unix_s(request.published_after) if request.HasField("published_after") else as_of - WINDOW_S
        half_life_s = request.half_life.ToNanoseconds() / 1e9 if request.HasField("half_life") else HALF_LIFE_S
        tickers, size = list(request.tickers) or news.tickers, request.page_size or DEFAULT_TICKERS
        rest = iter(tickers[_place_behind(tickers, request) :])
        found = list[messages.TickerSentiment]()
        for ticker in rest:
            if len(found) == size:
                return messages.ListSentimentResponse(sentiments=found, next_page_token=page_token(request, [found[-1].ticker]))
            one = sentiment_of(news.about(ticker, as_of, after), half_life_s, request.methods)
            if request.tickers or one.items:
                found.append(wire.sentiment_message(ticker, one))
        return messages.ListSentimentResponse(sentiments=found)

    async def StreamNews(self, request: messages.StreamNewsRequest, context: Context) -> AsyncIterator[messages.StreamNewsResponse]:
        cursor = _cursor_of(request)
        after = wire.unix_s(request.published_after) if request.HasField("published_after") else None
        tickers, loop = frozenset(request.tickers), asyncio.get_running_loop()
        told_at = float("-inf")
        while True:
            horizon = wire.unix_s(request.as_of) if request.HasField("as_of") else self._now()
            news = await asyncio.to_thread(self._store.get, request.set)
            found = unsent(news, cursor, after, horizon)
            for batch in _batches([item for item in found if not (tickers and tickers.isdisjoint(item.tickers))]):
                if self._draining.is_set():
                    break
                yield messages.StreamNewsResponse(batch=messages.NewsBatch(items=batch))
                told_at = float("-inf")
            else:
                cursor = cursor_at(news, horizon)
            if self._draining.is_set() or request.HasField("as_of"):
                break
            if loop.time() - told_at >= self._checkpoint_s:
                told_at = loop.time()
                yield messages.StreamNewsResponse(
                    checkpoint=messages.NewsCheckpoint(cursor=_cursor_text(request, cursor), at=Timestamp(seconds=horizon))
                )
            await self._pause()
        end = messages.NewsStreamEnd(reason=messages.NEWS_STREAM_END_REASON_COMPLETE, cursor=_cursor_text(request, cursor))
        if self._draining.is_set():
            end.reason = messages.NEWS_STREAM_END_REASON_DRAINING
            end.retry_after.CopyFrom(Duration(seconds=1))
        yield messages.StreamNewsResponse(end=end)

    async def _pause(self) -> None:
        """Until it is worth to look again."""
        try:
            async with asyncio.timeout(min(POLL_S, self._checkpoint_s)):
                await self._draining.wait()
        except TimeoutError:
            return


def _batches(items: Sequence[NewsRecord]) -> Iterator[Sequence[messages.NewsItem]]:
    """Items as messages that a client with gRPC's default limits can receive."""
    place = 0
    while place < len(items):
        batch = fitting([wire.news_message(item) for item in items[place : place + BATCH_ITEMS]], lambda item: item.ByteSize())
        place += len(batch)
        yield batch


def _key_of(request: messages.ListNewsRequest) -> Key | None:
    """The version that the page before ended with."""
    match read_page_token(request, request.page_token):
        case None:
            return None
        case [int() as known, int() as ordinal, str() as news_id]:
            return known, ordinal, news_id
    raise PageTokenInvalid("ListNews")


def _place_behind(tickers: Sequence[str], request: messages.ListSentimentRequest) -> int:
    """Where the page begins in a list of tickers."""
    match read_page_token(request, request.page_token):
        case None:
            return 0
        case [str() as ticker] if ticker in tickers:
            return tickers.index(ticker) + 1
    raise PageTokenInvalid("ListSentiment")


def _cursor_text(request: messages.StreamNewsRequest, cursor: Cursor | None) -> str:
    return "" if cursor is None else page_token(request, [cursor.known_unix_s, cursor.arrival])


def _cursor_of(request: messages.StreamNewsRequest) -> Cursor | None:
    match read_page_token(request, request.resume_after):
        case None:
            return None
        case [int() as known, int() as arrival]:
            return Cursor(known, arrival)
    raise PageTokenInvalid("StreamNews")
