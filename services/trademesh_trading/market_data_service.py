"""MarketDataService: data sets and live quotes by RPC. Nothing of a set is answered that was known later than the request's `as_of`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date

from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.trading.v1 import market_data_pb2 as market
from trademesh.trading.v1 import market_data_service_pb2 as messages
from trademesh.trading.v1 import market_data_service_pb2_grpc
from trademesh_kernel.context import Context
from trademesh_kernel.errors import DataAbsent, FieldViolation, InvalidRequest
from trademesh_kernel.logs import get_logger
from trademesh_kernel.paging import page_token, read_page_place
from trademesh_kernel.validation import check_dates
from trademesh_trading import wire
from trademesh_trading.calendars import MOST_YEARS, recorded_sessions
from trademesh_trading.corporate_actions import actions_known
from trademesh_trading.quote_streams import QuoteStreams
from trademesh_trading.store import MarketStore

DEFAULT_PAGE_SIZE = 500
DEFAULT_BLOCK_SESSIONS = 256


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
        sessions = [
            messages.Session(session_date=session, open_at=Timestamp(seconds=opens), close_at=Timestamp(seconds=closes))
            for session, opens, closes in times
        ]
        return messages.ListSessionsResponse(sessions=sessions)

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

    async def ListBars(self, request: messages.ListBarsRequest, context: Context) -> messages.ListBarsResponse:
        check_dates(request, "start", "end")
        data = await asyncio.to_thread(self._store.get, request.set)
        columns = data.columns(request.tickers)
        rows = data.rows(request.start, request.end, unix_s(request.as_of))
        size = request.page_size or DEFAULT_PAGE_SIZE
        # A cell is one ticker's place in one session; the token names the first that was not looked at.
        cell = read_page_place(request, request.page_token) or 0
        bars = list[market.Bar]()
        while cell < len(rows) * len(columns) and len(bars) < size:
            bar = wire.bar_message(data, rows[cell // len(columns)], columns[cell % len(columns)])
            cell += 1
            if bar is not None:
                bars.append(bar)
        more = cell < len(rows) * len(columns)
        return messages.ListBarsResponse(bars=bars, next_page_token=page_token(request, [cell]) if more else "")

    async def StreamBars(self, request: messages.StreamBarsRequest, context: Context) -> AsyncIterator[messages.StreamBarsResponse]:
        check_dates(request, "start", "end")
        data = await asyncio.to_thread(self._store.get, request.set)
        columns = data.columns(request.tickers)
        rows = data.rows(request.start, request.end, unix_s(request.as_of))
        size = request.sessions_per_block or DEFAULT_BLOCK_SESSIONS
        for first in range(rows.start, rows.stop, size):
            part = range(first, min(first + size, rows.stop))
            yield messages.StreamBarsResponse(block=wire.block_message(data, part, columns))

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
