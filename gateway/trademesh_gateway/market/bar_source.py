"""Fetches sessions, bars and news by RPC, in blocks of many sessions ahead of need, into a MarketHistory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.news.v1 import news_service_pb2, news_service_pb2_grpc
from trademesh.trading.v1 import market_data_pb2 as market
from trademesh.trading.v1 import market_data_service_pb2 as data
from trademesh.trading.v1 import market_data_service_pb2_grpc
from trademesh_gateway.market.point_in_time import MarketHistory, NewsFact
from trademesh_gateway.pipeline.cycle import SessionTimes
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import RemoteError

SESSIONS_PER_BLOCK = 512
NEWS_PAGE = 5000
IDLE_TIMEOUT_S = 30.0
"""A trading_service that sends no block for so long hangs: the gateway then says so by its readiness, and asks again."""


class BarSource:
    """The run's market data, read from trading_service and news_service."""

    def __init__(self, trading: ServiceClient, news: ServiceClient, set_name: str, start: str, end: str) -> None:
        self._trading = trading
        self._news = news
        self._market_data = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
        self._news_stub = news.stub(news_service_pb2_grpc.NewsServiceStub)
        self._set = set_name
        self._start = start
        self._end = end
        self._blocks: AsyncIterator[data.StreamBarsResponse] | None = None
        self._as_of = Timestamp()
        self.history = MarketHistory([])
        self.index_name = ""

    async def open(self, tickers: list[str]) -> list[SessionTimes]:
        """Finds the sessions of the run and prepares to read; the index of the set, if any, is the last column.

        Raises:
            DependencyUnavailable, RemoteError: a service does not answer, or has not the data.
        """
        listing = await self._trading.call(self._market_data.ListInstruments, data.ListInstrumentsRequest(set=self._set), timeout_s=10)
        indexes = [one.ticker for one in listing.sets[0].instruments if one.kind == market.INSTRUMENT_KIND_INDEX]
        self.index_name = indexes[0] if indexes else ""
        request = data.ListSessionsRequest(set=self._set, start=self._start, end=self._end)
        answer = await self._trading.call(self._market_data.ListSessions, request, timeout_s=10)
        sessions = [SessionTimes(one.session_date, one.open_at.seconds, one.close_at.seconds) for one in answer.sessions]
        self._as_of = Timestamp(seconds=sessions[-1].close_unix_s)
        self.history = MarketHistory([*tickers, *indexes])
        await self._read_news(tickers)
        bars = data.StreamBarsRequest(
            set=self._set, tickers=self.history.tickers, end=self._end, as_of=self._as_of, sessions_per_block=SESSIONS_PER_BLOCK
        )
        self._blocks = self._trading.stream(self._market_data.StreamBars, bars, idle_timeout_s=IDLE_TIMEOUT_S)
        return sessions

    def has(self, session: SessionTimes) -> bool:
        """True if nothing more need be read for a session."""
        return self._blocks is None or self.history.as_of(session.close_unix_s).last_session() == session.date

    async def have(self, session: SessionTimes) -> None:
        """Reads on until a session is there.

        Raises:
            DependencyUnavailable, RemoteError: trading_service does not answer.
        """
        while self._blocks is not None and not self.has(session):
            response = await anext(self._blocks, None)
            if response is None:
                self._blocks = None
                return
            block = response.block
            closes = np.array(block.close_micros, np.int64).reshape(len(block.session_dates), -1)
            told = block.volume_shares_plus_one
            volumes = np.array(told, np.int64).reshape(closes.shape) if told else None
            self.history.add_sessions(block.session_dates, block.known_at_unix_s, closes, volumes)

    async def _read_news(self, tickers: list[str]) -> None:
        """All news up to the run's end: some thousand items. Agents see them by the time at which they were published."""
        request = news_service_pb2.ListNewsRequest(set=self._set, tickers=tickers, as_of=self._as_of, page_size=NEWS_PAGE)
        while True:
            try:
                page = await self._news.call(self._news_stub.ListNews, request, timeout_s=10)
            except RemoteError as error:
                if error.remote_reason == "DATA_ABSENT":
                    return
                raise
            facts = [NewsFact(ticker, one.published_at.seconds, one.direction) for one in page.items for ticker in one.tickers]
            self.history.add_news(facts)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def reopen(self) -> None:
        """Begins the stream of bars again after it broke, behind what is there."""
        await self.close()
        start = self.history.next_session_after()
        bars = data.StreamBarsRequest(
            set=self._set,
            tickers=self.history.tickers,
            start=start,
            end=self._end,
            as_of=self._as_of,
            sessions_per_block=SESSIONS_PER_BLOCK,
        )
        self._blocks = self._trading.stream(self._market_data.StreamBars, bars, idle_timeout_s=IDLE_TIMEOUT_S)

    async def close(self) -> None:
        """Ends the stream of bars."""
        blocks, self._blocks = self._blocks, None
        if blocks is not None:
            await blocks.aclose()  # type: ignore[attr-defined]  # ServiceClient.stream is an async generator
