"""Fetches sessions, bars and news by RPC, in blocks of many sessions ahead of need, into a MarketHistory."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection, Sequence
from itertools import pairwise

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.news.v1 import news_service_pb2, news_service_pb2_grpc
from trademesh.trading.v1 import market_data_pb2 as market
from trademesh.trading.v1 import market_data_service_pb2 as data
from trademesh.trading.v1 import market_data_service_pb2_grpc
from trademesh_gateway.market.bar_window import CLOSE, LONGEST_WINDOW, OPTIONAL_FIELDS, Revision
from trademesh_gateway.market.point_in_time import MarketHistory, NewsFact
from trademesh_gateway.pipeline.broker import SessionTimes
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import RemoteError
from trademesh_ledger.borrow import calendar_days
from trademesh_ledger.corporate_actions import CorporateAction, Delisting, Dividend, Split

SESSIONS_PER_BLOCK = 512
NEWS_PAGE = ACTIONS_PAGE = STATEMENTS_PAGE = 5000
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
        self._end = end
        """Of the bars."""
        self._sessions = data.ListSessionsRequest(set=set_name, start=start, end=end)
        self._tables: Collection[int] = ()
        self._news_digest = hashlib.sha256()
        self._blocks: AsyncIterator[data.StreamBarsResponse] | None = None
        self._as_of = Timestamp()
        self.history = MarketHistory([])
        self.index_name = ""
        self.has_opens = False
        """True if the bars of all the run's tickers have opens."""

    async def open(self, tickers: list[str]) -> list[SessionTimes]:
        """Finds the sessions of the run and prepares to read; the index of the set, if any, is the last column.

        Raises:
            DependencyUnavailable, RemoteError: a service does not answer, or has not the data.
        """
        listing = await self._trading.call(self._market_data.ListInstruments, data.ListInstrumentsRequest(set=self._set), timeout_s=10)
        indexes = [one.ticker for one in listing.sets[0].instruments if one.kind == market.INSTRUMENT_KIND_INDEX]
        self.index_name = indexes[0] if indexes else ""
        self.has_opens = all(one.has_opens for one in listing.sets[0].instruments if one.ticker in tickers)
        answer = await self._trading.call(self._market_data.ListSessions, self._sessions, timeout_s=10)
        sessions = _times(answer.sessions)
        self._as_of = Timestamp(seconds=self._horizon_unix_s(sessions))
        self.history = MarketHistory([*tickers, *indexes])
        self._tables = listing.sets[0].set.tables
        if listing.sets[0].set.adjustment == market.ADJUSTMENT_NONE:
            await self._read_actions(tickers)
        await self._read_news(tickers)
        self._stream_from(await self._first_needed(sessions[0].date))
        return sessions

    async def _first_needed(self, first_session: str) -> str:
        """The first session whose bars anything in the run may look at, ISO date; empty if that is the set's first."""
        request = data.ListSessionsRequest(set=self._set, end=first_session)
        answer = await self._trading.call(self._market_data.ListSessions, request, timeout_s=10)
        return answer.sessions[-LONGEST_WINDOW].session_date if len(answer.sessions) > LONGEST_WINDOW else ""

    def _stream_from(self, start: str) -> None:
        bars = data.StreamBarsRequest(
            set=self._set,
            tickers=self.history.tickers,
            start=start,
            end=self._end,
            as_of=self._as_of,
            sessions_per_block=SESSIONS_PER_BLOCK,
        )
        self._blocks = self._trading.stream(self._market_data.StreamBars, bars, idle_timeout_s=IDLE_TIMEOUT_S)

    def _horizon_unix_s(self, sessions: Sequence[SessionTimes]) -> int:
        """Nothing is read that is known later."""
        return sessions[-1].close_unix_s

    def has(self, session: SessionTimes) -> bool:
        """True if nothing more need be read for a session."""
        return self._blocks is None or self.history.last_session() >= session.date

    async def have(self, session: SessionTimes) -> None:
        """Reads on until a session is there.

        Raises:
            DependencyUnavailable, RemoteError: trading_service does not answer.
        """
        while self._blocks is not None and not self.has(session):
            await self._read_block(self._blocks)

    async def _read_block(self, blocks: AsyncIterator[data.StreamBarsResponse]) -> None:
        """Takes in the next block; after the last one there are no blocks any more."""
        response = await anext(blocks, None)
        if response is None:
            self._blocks = None
            return
        block = response.block
        closes = np.array(block.close_micros, np.int64).reshape(len(block.session_dates), -1)
        told = (block.open_micros, block.high_micros, block.low_micros, block.volume_shares_plus_one)
        fields = {
            name: np.array(values, np.int64).reshape(closes.shape)
            for name, values in zip(OPTIONAL_FIELDS, told, strict=True)
            if len(values)
        }
        self.history.add_sessions(block.session_dates, block.known_at_unix_s, closes, fields, _revisions(block))

    async def shares_outstanding(self, tickers: Sequence[str], as_of_unix_s: int, session: str) -> list[int]:
        """The newest numbers of shares that were filed by an instant, 0 where none was; empty if the set has no statements. On prices as traded
        in shares of the morning of a session (ISO date): a statement tells of the last day of its period. Adjusted prices say nothing of the
        splits that are in them: there, numbers are as filed."""
        if market.DATA_TABLE_FUNDAMENTALS not in self._tables:
            return []
        newest = dict.fromkeys(tickers, 0)
        request = data.ListFundamentalsRequest(
            set=self._set, tickers=tickers, as_of=Timestamp(seconds=as_of_unix_s), page_size=STATEMENTS_PAGE
        )
        while True:
            page = await self._trading.call(self._market_data.ListFundamentals, request, timeout_s=10)
            for one in page.statements:
                # Oldest periods first: the last that says is the newest.
                if one.HasField("shares_outstanding"):
                    newest[one.ticker] = self.history.restated_shares(one.ticker, one.shares_outstanding, one.fiscal_period_end, session)
            if not page.next_page_token:
                return list(newest.values())
            request.page_token = page.next_page_token

    @property
    def news_sha256(self) -> str:
        """Hash of the news that were read."""
        return self._news_digest.hexdigest()

    async def _read_actions(self, tickers: list[str]) -> None:
        """All corporate actions up to the run's end, of prices as traded. They are seen on their ex-dates."""
        request = data.ListCorporateActionsRequest(set=self._set, tickers=tickers, end=self._end, as_of=self._as_of, page_size=ACTIONS_PAGE)
        while True:
            page = await self._trading.call(self._market_data.ListCorporateActions, request, timeout_s=10)
            self.history.add_actions([(one.ex_date, _action(one)) for one in page.actions])
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def _read_news(self, tickers: list[str], after_unix_s: int = 0) -> None:
        """All news up to the run's end: some thousand items. Agents see them by the time at which they became known, and as they were then: what
        was made of an item later is no news to them."""
        request = news_service_pb2.ListNewsRequest(
            set=self._set, tickers=tickers, as_of=self._as_of, page_size=NEWS_PAGE, every_revision=True
        )
        found = list[NewsFact]()
        while True:
            try:
                page = await self._news.call(self._news_stub.ListNews, request, timeout_s=10)
            except RemoteError as error:
                if error.remote_reason == "DATA_ABSENT":
                    return
                raise
            first_told = (one for one in page.items if one.revision <= 1 and one.known_at.seconds > after_unix_s)
            found += [NewsFact(ticker, one.known_at.seconds, one.direction) for one in first_told for ticker in one.tickers]
            if not page.next_page_token:
                # Not page by page: who asks again after a failure must not find some of them twice.
                self.history.add_news(found)
                for fact in found:
                    self._news_digest.update(f"{fact.ticker} {fact.published_unix_s} {fact.direction}\n".encode())
                return
            request.page_token = page.next_page_token

    async def reopen(self) -> None:
        """Begins the stream of bars again after it broke, behind what is there."""
        await self.close()
        self._stream_from(self.history.next_session_after())

    async def close(self) -> None:
        """Ends the stream of bars."""
        blocks, self._blocks = self._blocks, None
        if blocks is not None:
            await blocks.aclose()  # type: ignore[attr-defined]  # ServiceClient.stream is an async generator


def _revisions(block: market.BarBlock) -> list[Revision]:
    """Bars of a block that came, or were told again, after the close of their session."""
    told, columns = block.revisions, len(block.tickers)
    fields = (CLOSE, *OPTIONAL_FIELDS)
    values = (told.close_micros, told.open_micros, told.high_micros, told.low_micros, told.volume_shares_plus_one)
    given = [(name, column) for name, column in zip(fields, values, strict=True) if len(column)]
    return [
        Revision(known_at, cell // columns, cell % columns, {name: column[place] for name, column in given})
        for place, (known_at, cell) in enumerate(zip(told.known_at_unix_s, told.rows, strict=True))
    ]


def _action(told: market.CorporateAction) -> CorporateAction:
    match told.WhichOneof("action"):
        case "split":
            return Split(told.ticker, told.split.new_shares, told.split.old_shares)
        case "delisting":
            return Delisting(told.ticker, told.delisting.last_price_micros)
        case _:
            return Dividend(told.ticker, told.dividend.per_share_micros)


def _times(sessions: Sequence[data.Session]) -> list[SessionTimes]:
    """Sessions with the days between them; after the last one the run charges nothing any more."""
    dates = [one.session_date for one in sessions]
    days = [calendar_days(date, following) for date, following in pairwise(dates)] + [0]
    return [
        SessionTimes(one.session_date, one.open_at.seconds, one.close_at.seconds, count) for one, count in zip(sessions, days, strict=True)
    ]
