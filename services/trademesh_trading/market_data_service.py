"""MarketDataService: data sets and live quotes by RPC. Nothing of a set is answered that was known later than the request's `as_of`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import date
from functools import partial
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.trading.v1 import market_data_service_pb2 as messages
from trademesh.trading.v1 import market_data_service_pb2_grpc
from trademesh_kernel.context import Context
from trademesh_kernel.errors import DataAbsent, FieldViolation, InvalidRequest
from trademesh_kernel.logs import get_logger
from trademesh_kernel.paging import page_token, read_page_place
from trademesh_kernel.stages import answers_in_bytes
from trademesh_kernel.validation import check_dates
from trademesh_trading import wire
from trademesh_trading.bar_rows import BarQuestion, page_of_bars
from trademesh_trading.block_making import made_ahead
from trademesh_trading.calendars import MOST_YEARS, recorded_sessions
from trademesh_trading.corporate_actions import actions_known
from trademesh_trading.known_tables import Condition, ended_within, known_after
from trademesh_trading.packed_columns import sessions_of_block
from trademesh_trading.quote_streams import QuoteStreams
from trademesh_trading.store import MarketStore

DEFAULT_PAGE_SIZE = 500


class MarketDataServicer(market_data_service_pb2_grpc.MarketDataServiceServicer):
    """Data sets by RPC."""

    def __init__(self, store: MarketStore, quotes: QuoteStreams | None = None) -> None:
        """`quotes`: None: there is no provider of live quotes."""
        self._store = store
        self._quotes = quotes or QuoteStreams()
        self._log = get_logger("market data")

    async def ListInstruments(self, request: messages.ListInstrumentsRequest, context: Context) -> messages.ListInstrumentsResponse:
        names = [request.set] if request.set else await asyncio.to_thread(self._store.names)
        response = messages.ListInstrumentsResponse()
        for name in names:
            try:
                data = await asyncio.to_thread(self._store.get, name)
            except DataAbsent as error:
                if request.set:
                    raise
                # One damaged set must not hide the others.
                self._log.warning("a set is left out", set=name, reason=error.message)
                continue
            response.sets.add(set=wire.set_message(data), instruments=[wire.instrument_message(value) for value in data.instruments])
        return response

    async def GetInstrument(self, request: messages.GetInstrumentRequest, context: Context) -> messages.GetInstrumentResponse:
        data = await asyncio.to_thread(self._store.get, request.set)
        (column,) = data.columns([request.ticker], "instrument")
        return messages.GetInstrumentResponse(instrument=wire.instrument_message(data.instruments[column]), set=wire.set_message(data))

    async def ListSessions(self, request: messages.ListSessionsRequest, context: Context) -> messages.ListSessionsResponse:
        check_dates(request, "start", "end")
        if request.calendar:
            table = await asyncio.to_thread(recorded_sessions, request.calendar, *_span_of_calendar(request))
            times = [(session.isoformat(), opens, closes) for session, opens, closes in table.iter_rows()]
        elif request.set:
            data = await asyncio.to_thread(self._store.get, request.set)
            rows = data.rows(request.start, request.end, 2**62)
            times = [(data.sessions[row], int(data.open_unix_s[row]), int(data.close_unix_s[row])) for row in rows]
        else:
            raise InvalidRequest([FieldViolation("set", "must name a set, where calendar names no calendar")])
        response = messages.ListSessionsResponse()
        for session, opens, closes in times:
            # In place: sessions of decades that are made first are all copied once more, four times the work.
            one = response.sessions.add(session_date=session)
            one.open_at.seconds, one.close_at.seconds = opens, closes
        return response

    async def ListCorporateActions(
        self, request: messages.ListCorporateActionsRequest, context: Context
    ) -> messages.ListCorporateActionsResponse:
        check_dates(request, "start", "end")
        data = await asyncio.to_thread(self._store.get, request.set)
        tickers = {data.instruments[column].ticker for column in data.columns(request.tickers, "corporate actions")}
        found = actions_known(data.actions, tickers, request.start, request.end, unix_s(request.as_of))
        first = read_page_place(request, request.page_token) or 0
        last = first + (request.page_size or DEFAULT_PAGE_SIZE)
        return messages.ListCorporateActionsResponse(
            actions=[wire.action_message(one) for one in found[first:last]],
            next_page_token=page_token(request, [last]) if last < len(found) else "",
        )

    async def ListFundamentals(self, request: messages.ListFundamentalsRequest, context: Context) -> messages.ListFundamentalsResponse:
        check_dates(request, "start", "end")
        rows, token = await self._page_of_table("fundamentals", request, ended_within(request.start, request.end))
        return messages.ListFundamentalsResponse(statements=[wire.statement_message(row) for row in rows], next_page_token=token)

    async def ListInsiderTrades(self, request: messages.ListInsiderTradesRequest, context: Context) -> messages.ListInsiderTradesResponse:
        within = [known_after(unix_s(request.known_after))] if request.HasField("known_after") else []
        rows, token = await self._page_of_table("insider_trades", request, within)
        return messages.ListInsiderTradesResponse(trades=[wire.insider_trade_message(row) for row in rows], next_page_token=token)

    async def _page_of_table(
        self,
        name: str,
        request: messages.ListFundamentalsRequest | messages.ListInsiderTradesRequest,
        within: Sequence[Condition],
    ) -> tuple[list[dict[str, Any]], str]:
        """Rows of a page, and the token of the next; raises DataAbsent where the set has no such table, or not the ticker."""
        data = await asyncio.to_thread(self._store.get, request.set)
        table = data.table(name)
        data.columns(request.tickers, name.replace("_", " "))
        first = read_page_place(request, request.page_token) or 0
        size = request.page_size or DEFAULT_PAGE_SIZE
        known = await asyncio.to_thread(table.known, request.tickers, within, unix_s(request.as_of), all_revisions=request.all_revisions)
        more = first + size < known.height
        return known.slice(first, size).to_dicts(), page_token(request, [first + size]) if more else ""

    async def ListBars(self, request: messages.ListBarsRequest, context: Context) -> messages.ListBarsResponse:
        check_dates(request, "start", "end")
        data = await asyncio.to_thread(self._store.get, request.set)
        columns = data.columns(request.tickers)
        rows = data.rows(request.start, request.end, unix_s(request.as_of))
        size = request.page_size or DEFAULT_PAGE_SIZE
        # The token names the first cell that was not looked at.
        cell = read_page_place(request, request.page_token) or 0
        asked = BarQuestion(data, rows, columns, unix_s(request.as_of))
        bars, more = await asyncio.to_thread(page_of_bars, asked, cell, size)
        return messages.ListBarsResponse(
            bars=[wire.bar_message(bar) for bar in bars], next_page_token="" if more is None else page_token(request, [more])
        )

    @answers_in_bytes
    async def StreamBars(self, request: messages.StreamBarsRequest, context: Context) -> AsyncIterator[bytes]:  # type: ignore[override]  # encoded
        check_dates(request, "start", "end")
        data = await asyncio.to_thread(self._store.get, request.set)
        columns = data.columns(request.tickers)
        as_of_unix_s = unix_s(request.as_of)
        rows = data.rows(request.start, request.end, as_of_unix_s)
        parts = data.parts(rows, sessions_of_block(len(columns), request.sessions_per_block))
        responses = wire.BlockResponses(data, columns, as_of_unix_s)
        async with aclosing(made_ahead(partial(responses.response, part) for part in parts)) as blocks:
            async for block in blocks:
                yield block

    async def GetQuotes(self, request: messages.GetQuotesRequest, context: Context) -> messages.GetQuotesResponse:
        return await self._quotes.get(request)

    async def StreamQuotes(self, request: messages.StreamQuotesRequest, context: Context) -> AsyncIterator[messages.StreamQuotesResponse]:
        async for message in self._quotes.stream(request):
            yield message


def _span_of_calendar(request: messages.ListSessionsRequest) -> tuple[date, date]:
    """First and last day of a calendar that are asked for; raises InvalidRequest."""
    wrong = [FieldViolation("set", "must be empty, where calendar names a calendar")] if request.set else []
    missing = [field for field in ("start", "end") if not getattr(request, field)]
    wrong += [FieldViolation(field, "must be there: a calendar has no beginning and no end") for field in missing]
    if not missing:
        first, last = date.fromisoformat(request.start), date.fromisoformat(request.end)
        if last < first:
            wrong.append(FieldViolation("end", f"{last} is before {first}"))
        if last.year - first.year > MOST_YEARS:
            wrong.append(FieldViolation("end", f"is more than {MOST_YEARS} years after start"))
    if wrong:
        raise InvalidRequest(wrong)
    return first, last


def unix_s(instant: Timestamp) -> int:
    """Whole seconds since 1970, rounded down: what is known is known from a whole second on, and no fraction may round up to it."""
    return instant.seconds
