"""PortfolioService: accounts of runs at any sequence, whether a run lives or not. Where a run is read is `run_readers.py`'s."""

from __future__ import annotations

import asyncio
import time

from trademesh.gateway.v1.state_pb2 import EquityPoint, ServerState
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh.trading.v1 import portfolio_service_pb2 as messages
from trademesh.trading.v1 import portfolio_service_pb2_grpc
from trademesh_kernel.context import Context
from trademesh_kernel.errors import PageTokenInvalid
from trademesh_kernel.paging import page_token, read_page_place, read_page_token
from trademesh_runs.account_history import HISTORY_KINDS, AccountHistory
from trademesh_runs.fold import equity_point
from trademesh_runs.scoreboard import Scoreboard
from trademesh_trading.kept_orders import KeptOrders
from trademesh_trading.leaderboard import SCORED_KINDS, leaderboard_message
from trademesh_trading.order_history import ORDER_KINDS, OrderHistory, matches
from trademesh_trading.performance import performance_message
from trademesh_trading.run_comparison import COMPARED_KINDS, RunFacts, compared_run, divergence, figure_rows
from trademesh_trading.run_readers import Found, RunReader, RunReaders
from trademesh_trading.wire import position_message

DEFAULT_POSITIONS = 100
DEFAULT_ORDERS = 100
DEFAULT_FILLS = 100
DEFAULT_POINTS = 500


class PortfolioServicer(portfolio_service_pb2_grpc.PortfolioServiceServicer):
    """Accounts by RPC. A page token is the sequence of the last item, or the sequence at which the list was read and a place in it: both stay
    right while events arrive."""

    def __init__(self, runs: RunReaders) -> None:
        self._runs = runs
        self._orders = KeptOrders(time.monotonic)

    async def GetPortfolio(self, request: messages.GetPortfolioRequest, context: Context) -> messages.GetPortfolioResponse:
        at = request.at_sequence if request.HasField("at_sequence") else None

        async def ask(reader: RunReader) -> ServerState:
            return await reader.state(at)

        state = await self._runs.ask(request.run_id, ask)
        return messages.GetPortfolioResponse(
            portfolio=state.portfolio,
            nav_micros=state.nav_micros,
            as_of_sequence=state.as_of_sequence,
            session_date=state.equity[-1].session_date if state.equity else "",
        )

    async def ListPositions(self, request: messages.ListPositionsRequest, context: Context) -> messages.ListPositionsResponse:
        at, place = _pinned_page(request)

        async def ask(reader: RunReader) -> ServerState:
            return await reader.state(at)

        state = await self._runs.ask(request.run_id, ask)
        wanted = [one for one in state.portfolio.positions if request.ticker in ("", one.ticker)]
        after = place + (request.page_size or DEFAULT_POSITIONS)
        return messages.ListPositionsResponse(
            positions=map(position_message, wanted[place:after]),
            next_page_token=page_token(request, [state.as_of_sequence, after]) if after < len(wanted) else "",
            as_of_sequence=state.as_of_sequence,
            session_date=state.equity[-1].session_date if state.equity else "",
        )

    async def ListOrders(self, request: messages.ListOrdersRequest, context: Context) -> messages.ListOrdersResponse:
        at, place = _pinned_page(request)
        history = self._orders.get(request.run_id, at) if request.page_token and at is not None else None
        if history is None:
            history = await self._order_history(request.run_id, at)
            self._orders.keep(request.run_id, history)
        through, orders = history.through, history.orders
        wanted = await asyncio.to_thread(lambda: [one for one in orders.values() if matches(one, request)])
        after = place + (request.page_size or DEFAULT_ORDERS)
        return messages.ListOrdersResponse(
            orders=wanted[place:after],
            next_page_token=page_token(request, [through, after]) if after < len(wanted) else "",
            as_of_sequence=through,
        )

    async def _order_history(self, run_id: str, at: int | None) -> OrderHistory:
        async def ask(reader: RunReader) -> OrderHistory:
            history = OrderHistory()
            history.through = await reader.take(ORDER_KINDS, at, history.add)
            if history.undescribed:
                await reader.take(("decisions",), history.through, history.add_decisions)
            return history

        return await self._runs.ask(run_id, ask)

    async def ListFills(self, request: messages.ListFillsRequest, context: Context) -> messages.ListFillsResponse:
        size = request.page_size or DEFAULT_FILLS
        cursor = read_page_place(request, request.page_token) or 0

        async def ask(reader: RunReader) -> Found:
            # One more than asked for tells whether there is a next page.
            return await reader.events("order_filled", cursor, size + 1, lambda event: request.ticker in ("", event.order_filled.ticker))

        found, compacted_through = await self._runs.ask(request.run_id, ask)
        fills = [
            messages.FillRecord(sequence=event.sequence, session_date=event.session_date, fill=event.order_filled) for event in found[:size]
        ]
        return messages.ListFillsResponse(
            fills=fills,
            next_page_token=page_token(request, [fills[-1].sequence]) if len(found) > size else "",
            compacted_through=compacted_through,
        )

    async def ListEquity(self, request: messages.ListEquityRequest, context: Context) -> messages.ListEquityResponse:
        size = request.page_size or DEFAULT_POINTS
        cursor = read_page_place(request, request.page_token) or 0

        async def ask(reader: RunReader) -> list[EquityPoint]:
            settled, compacted_through = await reader.events("settled", cursor, size + 1, lambda _event: True)
            if cursor < compacted_through:
                # The events of these points are gone; the state has them all.
                return [point for point in (await reader.state(None)).equity if point.sequence > cursor][: size + 1]
            return [equity_point(event.session_date, event.settled, event.sequence) for event in settled]

        found = await self._runs.ask(request.run_id, ask)
        points = found[:size]
        return messages.ListEquityResponse(
            points=points, next_page_token=page_token(request, [points[-1].sequence]) if len(found) > size else ""
        )

    async def GetPerformance(self, request: messages.GetPerformanceRequest, context: Context) -> messages.GetPerformanceResponse:
        at = request.at_sequence if request.HasField("at_sequence") else None

        async def ask(reader: RunReader) -> messages.GetPerformanceResponse:
            history = AccountHistory()
            through = await reader.take(HISTORY_KINDS, at, history.add)
            return await asyncio.to_thread(performance_message, history, through, request.risk_free_yield)

        return await self._runs.ask(request.run_id, ask)

    async def GetLeaderboard(self, request: messages.GetLeaderboardRequest, context: Context) -> messages.GetLeaderboardResponse:
        at = request.at_sequence if request.HasField("at_sequence") else None

        async def ask(reader: RunReader) -> messages.GetLeaderboardResponse:
            board = Scoreboard()
            through = await reader.take(SCORED_KINDS, at, board.add)
            return await asyncio.to_thread(leaderboard_message, board, through)

        return await self._runs.ask(request.run_id, ask)

    async def CompareRuns(self, request: messages.CompareRunsRequest, context: Context) -> messages.CompareRunsResponse:
        found, figures = messages.CompareRunsResponse(), list[messages.GetPerformanceResponse]()
        first = RunFacts(RunConfig())
        # One after the other: two runs at once are all that is in memory.
        for place, run_id in enumerate(request.run_ids):
            facts = await self._facts(run_id)
            figures.append(await asyncio.to_thread(performance_message, facts.history, facts.through))
            found.runs.append(compared_run(run_id, facts))
            if place == 0:
                first = facts
            else:
                found.divergences.append(await asyncio.to_thread(divergence, run_id, first, facts))
        found.figures.extend(figure_rows(figures))
        return found

    async def _facts(self, run_id: str) -> RunFacts:
        config = await self._runs.config(run_id)

        async def ask(reader: RunReader) -> RunFacts:
            facts = RunFacts(config)
            facts.through = await reader.take(COMPARED_KINDS, None, facts.add)
            return facts

        return await self._runs.ask(run_id, ask)


def _pinned_page(request: messages.ListPositionsRequest | messages.ListOrdersRequest) -> tuple[int | None, int]:
    """The sequence at which a list is read, None for the newest, and the place where the page begins. Later pages are of the first one's."""
    match read_page_token(request, request.page_token):
        case None:
            return (request.at_sequence if request.HasField("at_sequence") else None), 0
        case [int() as at, int() as place] if at >= 0 and place >= 0:
            return at, place
    raise PageTokenInvalid(request.DESCRIPTOR.name.removesuffix("Request"))
