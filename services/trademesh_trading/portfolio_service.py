"""PortfolioService: accounts of runs at any sequence, from the same feed that everyone reads, live or finished."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh.gateway.v1 import feed_service_pb2_grpc
from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh.trading.v1 import portfolio_service_pb2 as messages
from trademesh.trading.v1 import portfolio_service_pb2_grpc
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.context import Context
from trademesh_kernel.errors import DependencyUnavailable, SequenceAhead
from trademesh_kernel.paging import page_token, read_page_token
from trademesh_runs.feed_service import FeedServicer
from trademesh_trading.performance import performance_message
from trademesh_trading.run_feeds import ENDED, RunFeeds

DEFAULT_FILLS = 100
DEFAULT_POINTS = 500
EVENTS_PER_PAGE = 1_000
MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_GATEWAYS = 32


class RunReader(Protocol):
    """What this service needs of a run."""

    async def state(self, at: int | None) -> ServerState:
        """The state at a sequence, or the newest."""

    async def page(self, kind: str, after: int, size: int) -> feed.ListEventsResponse:
        """Events of one kind after a sequence."""


class FinishedRun:
    """A run that is read from its journal."""

    def __init__(self, run_id: str, feeds: RunFeeds) -> None:
        self._run_id = run_id
        self._feeds = feeds
        self._servicer = FeedServicer(feeds.finished)

    async def state(self, at: int | None) -> ServerState:
        """The state at a sequence, or the last."""
        source = await self._feeds.finished(self._run_id)
        if at is not None and at > source.head.sequence:
            raise SequenceAhead(at, source.head.sequence)
        return await source.snapshot(at)

    async def page(self, kind: str, after: int, size: int) -> feed.ListEventsResponse:
        """Events of one kind after a sequence."""
        request = feed.ListEventsRequest(run_id=self._run_id, page_size=size, after_sequence=after)
        request.filter.kinds.append(kind)
        # The same code answers RPCs; it does not look at the context.
        return await self._servicer.ListEvents(request, None)  # type: ignore[arg-type]


class LiveRun:
    """A run that is read from its gateway."""

    def __init__(self, run_id: str, gateway: ServiceClient) -> None:
        self._run_id = run_id
        self._gateway = gateway
        self._stub = gateway.stub(feed_service_pb2_grpc.FeedServiceStub)

    async def state(self, at: int | None) -> ServerState:
        """The state at a sequence, or the newest."""
        answer = await self._gateway.call(
            self._stub.GetSnapshot, feed.GetSnapshotRequest(run_id=self._run_id, at_sequence=at), timeout_s=30
        )
        state: ServerState = answer.state
        return state

    async def page(self, kind: str, after: int, size: int) -> feed.ListEventsResponse:
        """Events of one kind after a sequence."""
        request = feed.ListEventsRequest(run_id=self._run_id, page_size=size, after_sequence=after)
        request.filter.kinds.append(kind)
        answer: feed.ListEventsResponse = await self._gateway.call(self._stub.ListEvents, request, timeout_s=30)
        return answer


class RunReaders:
    """Readers of runs, with channels to the gateways that were asked last. End with `close`."""

    def __init__(self, feeds: RunFeeds) -> None:
        self._feeds = feeds
        self._gateways: dict[str, ServiceClient] = {}

    async def find(self, run_id: str) -> RunReader:
        """A reader; raises as `RunFeeds.run`, and DependencyUnavailable while a gateway is being started again."""
        run = await self._feeds.run(run_id)
        if run.state in ENDED:
            return FinishedRun(run_id, self._feeds)
        if not run.target:
            raise DependencyUnavailable(f"gateway of {run_id}", f"the gateway of run {run_id} is not up yet", retry_after_s=0.5)
        client = self._gateways.get(run.target)
        if client is None:
            while len(self._gateways) >= MAX_GATEWAYS:
                await self._gateways.pop(next(iter(self._gateways))).close()
            client = ServiceClient(run.target, f"gateway of {run_id}", max_message_bytes=MAX_ANSWER_BYTES)
            self._gateways[run.target] = client
        return LiveRun(run_id, client)

    async def close(self) -> None:
        """Closes every channel."""
        for client in self._gateways.values():
            await client.close()
        self._gateways.clear()


class PortfolioServicer(portfolio_service_pb2_grpc.PortfolioServiceServicer):
    """Accounts by RPC."""

    def __init__(self, find: Callable[[str], Any]) -> None:
        """`find` gives an awaitable of a RunReader."""
        self._find = find

    async def GetPortfolio(self, request: messages.GetPortfolioRequest, context: Context) -> messages.GetPortfolioResponse:
        reader: RunReader = await self._find(request.run_id)
        state = await reader.state(request.at_sequence if request.HasField("at_sequence") else None)
        return messages.GetPortfolioResponse(
            portfolio=state.portfolio,
            nav_micros=state.nav_micros,
            as_of_sequence=state.as_of_sequence,
            session_date=state.equity[-1].session_date if state.equity else "",
        )

    async def ListFills(self, request: messages.ListFillsRequest, context: Context) -> messages.ListFillsResponse:
        reader: RunReader = await self._find(request.run_id)
        size = request.page_size or DEFAULT_FILLS
        position = read_page_token(request, request.page_token)
        cursor = int(position[0]) if position else 0
        found = list[messages.FillRecord]()
        async for event in _events(reader, "order_filled", cursor):
            if request.ticker in ("", event.order_filled.ticker):
                if len(found) == size:
                    return messages.ListFillsResponse(fills=found, next_page_token=page_token(request, [found[-1].sequence]))
                found.append(messages.FillRecord(sequence=event.sequence, session_date=event.session_date, fill=event.order_filled))
        return messages.ListFillsResponse(fills=found)

    async def ListEquity(self, request: messages.ListEquityRequest, context: Context) -> messages.ListEquityResponse:
        reader: RunReader = await self._find(request.run_id)
        size = request.page_size or DEFAULT_POINTS
        position = read_page_token(request, request.page_token)
        cursor = int(position[0]) if position else 0
        points = [point for point in (await reader.state(None)).equity if point.sequence > cursor]
        more = page_token(request, [points[size - 1].sequence]) if len(points) > size else ""
        return messages.ListEquityResponse(points=points[:size], next_page_token=more)

    async def GetPerformance(self, request: messages.GetPerformanceRequest, context: Context) -> messages.GetPerformanceResponse:
        reader: RunReader = await self._find(request.run_id)
        state = await reader.state(request.at_sequence if request.HasField("at_sequence") else None)
        fills = [event.order_filled async for event in _events(reader, "order_filled", 0, state.as_of_sequence)]
        gross = [_gross_micros(event.settled) async for event in _events(reader, "settled", 0, state.as_of_sequence)]
        return performance_message(state, fills, gross)


async def _events(reader: RunReader, kind: str, after: int, through: int | None = None) -> AsyncIterator[events.Event]:
    """Events of one kind, oldest first, page by page."""
    while True:
        page = await reader.page(kind, after, EVENTS_PER_PAGE)
        for event in page.events:
            if through is not None and event.sequence > through:
                return
            yield event
        if not page.next_page_token:
            return
        after = page.events[-1].sequence


def _gross_micros(settled: events.Settled) -> int:
    return sum(abs(position.quantity) * position.mark_micros for position in settled.portfolio.positions)
