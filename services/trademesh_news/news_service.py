"""NewsService: items by RPC. Nothing is answered that was published later than the request's `as_of`."""

from __future__ import annotations

import asyncio

from trademesh.news.v1 import news_service_pb2 as messages
from trademesh.news.v1 import news_service_pb2_grpc
from trademesh_kernel.context import Context
from trademesh_kernel.paging import page_token, read_page_place
from trademesh_news import wire
from trademesh_news.store import NewsStore

DEFAULT_PAGE_SIZE = 100


class NewsServicer(news_service_pb2_grpc.NewsServiceServicer):
    """News by RPC."""

    def __init__(self, store: NewsStore) -> None:
        self._store = store

    async def ListNews(self, request: messages.ListNewsRequest, context: Context) -> messages.ListNewsResponse:
        news = await asyncio.to_thread(self._store.get, request.set)
        after = wire.unix_s(request.published_after) if request.HasField("published_after") else None
        span = news.span(after, wire.unix_s(request.as_of))
        tickers = frozenset(request.tickers)
        size = request.page_size or DEFAULT_PAGE_SIZE
        place = max(span.start, read_page_place(request, request.page_token) or 0)
        items = list[messages.NewsItem]()
        while place < span.stop and len(items) < size:
            item = news.items[place]
            place += 1
            if not tickers or item.ticker in tickers:
                items.append(wire.news_message(item))
        token = page_token(request, [place]) if place < span.stop else ""
        return messages.ListNewsResponse(items=items, next_page_token=token)
