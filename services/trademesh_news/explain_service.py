"""ExplainService: why a price moved. Prices come from trading_service by RPC, under the caller's own `as_of`."""

from __future__ import annotations

import asyncio

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.news.v1 import explain_service_pb2 as messages
from trademesh.news.v1 import explain_service_pb2_grpc, news_service_pb2
from trademesh.trading.v1 import market_data_pb2 as market
from trademesh.trading.v1 import market_data_service_pb2, market_data_service_pb2_grpc
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.context import Context
from trademesh_kernel.errors import DataAbsent, FieldViolation, InvalidRequest
from trademesh_kernel.validation import check_dates
from trademesh_news import wire
from trademesh_news.market_model import TooFewObservationsError, split_move
from trademesh_news.store import NewsStore

DEFAULT_WINDOW_SESSIONS = 252


class ExplainServicer(explain_service_pb2_grpc.ExplainServiceServicer):
    """Explanations by RPC."""

    def __init__(self, store: NewsStore, trading: ServiceClient) -> None:
        self._store = store
        self._trading = trading
        self._market_data = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)

    async def ExplainMove(self, request: messages.ExplainMoveRequest, context: Context) -> messages.ExplainMoveResponse:
        check_dates(request, "start", "end")
        end = request.end or request.start
        if end < request.start:
            raise InvalidRequest([FieldViolation("end", "is before start")])
        index = await self._index_of(request.set)
        if request.ticker == index:
            raise InvalidRequest([FieldViolation("ticker", f"{index} is what moves are explained by")])
        sessions, closes = await self._closes(request.set, [request.ticker, index], end, request.as_of)
        try:
            first, last = sessions.index(request.start), sessions.index(end)
        except ValueError:
            text = "is not a session in which both the ticker and the index have prices, or was not known at as_of"
            raise InvalidRequest([FieldViolation("start" if request.start not in sessions else "end", text)]) from None
        try:
            parts = split_move(closes[:, 0], closes[:, 1], first, last, request.window_sessions or DEFAULT_WINDOW_SESSIONS)
        except TooFewObservationsError as error:
            raise DataAbsent(str(error), set=request.set, ticker=request.ticker, what="history") from error
        return messages.ExplainMoveResponse(
            log_return=parts.log_return,
            market_part=parts.market_part,
            own_part=parts.own_part,
            model=messages.MarketModel(
                market_ticker=index,
                beta=parts.beta,
                alpha=parts.alpha,
                r_squared=parts.r_squared,
                window_sessions=parts.window_end_row - parts.window_start_row + 1,
                window_start=sessions[parts.window_start_row],
                window_end=sessions[parts.window_end_row],
                residual_deviation=parts.residual_deviation,
            ),
            news=await self._news(request, sessions[first], sessions[last]),
        )

    async def _index_of(self, set_name: str) -> str:
        """The instrument that stands for the market; raises DataAbsent if the set has none."""
        request = market_data_service_pb2.ListInstrumentsRequest(set=set_name)
        sets = (await self._trading.call(self._market_data.ListInstruments, request)).sets
        for instrument in sets[0].instruments:
            if instrument.kind == market.INSTRUMENT_KIND_INDEX:
                return str(instrument.ticker)
        raise DataAbsent(f"set {set_name} has no index to compare with", set=set_name, what="index")

    async def _closes(
        self, set_name: str, tickers: list[str], end: str, as_of: Timestamp
    ) -> tuple[list[str], np.ndarray[tuple[int, int], np.dtype[np.int64]]]:
        """Sessions in which all tickers have a close, and the closes, a row per session."""
        request = market_data_service_pb2.StreamBarsRequest(set=set_name, tickers=tickers, end=end, as_of=as_of, sessions_per_block=2048)
        sessions, rows = list[str](), list[np.ndarray[tuple[int, int], np.dtype[np.int64]]]()
        async for response in self._trading.stream(self._market_data.StreamBars, request, timeout_s=20):
            block = response.block
            sessions += block.session_dates
            rows.append(np.array(block.close_micros, np.int64).reshape(-1, len(tickers)))
        closes = np.concatenate(rows) if rows else np.zeros((0, len(tickers)), np.int64)
        complete = np.all(closes > 0, axis=1)
        return [session for session, there in zip(sessions, complete, strict=True) if there], closes[complete]

    async def _news(self, request: messages.ExplainMoveRequest, first: str, last: str) -> list[news_service_pb2.NewsItem]:
        try:
            news = await asyncio.to_thread(self._store.get, request.set)
        except DataAbsent:
            return []
        known = news.about(request.ticker, wire.unix_s(request.as_of))
        return [wire.news_message(item) for item in known if first <= item.day <= last]
