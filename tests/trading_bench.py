"""A trading_service with what it asks: a runtime_service that says what it is told to, gateways, and journals they left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from conftest import StartServer
from random_journals import filled
from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh.gateway.v1 import feed_service_pb2_grpc
from trademesh.runtime.v1 import runtime_pb2, runtime_service_pb2, runtime_service_pb2_grpc
from trademesh.trading.v1 import portfolio_service_pb2 as messages
from trademesh.trading.v1 import portfolio_service_pb2_grpc
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.context import Context
from trademesh_kernel.errors import NotFound
from trademesh_kernel.server import MeshServer, registration
from trademesh_ledger.portfolio import Portfolio
from trademesh_runs.feed_service import FeedServicer
from trademesh_runs.feed_source import only_source
from trademesh_runs.journal import Draft, StoredEvent
from trademesh_runs.journal_feed import JournalFeed
from trademesh_runs.journal_sqlite import SqliteReader, SqliteWriter
from trademesh_runs.layout import RunLayout
from trademesh_trading.portfolio_service import PortfolioServicer
from trademesh_trading.run_feeds import RunFeeds
from trademesh_trading.run_readers import RunReaders

CASH = 1_000_000_000_000
PORTFOLIO = portfolio_service_pb2_grpc.PortfolioServiceStub


def fill(account: Portfolio, day: str, ticker: str, delta: int, price_micros: int, fee_micros: int) -> Draft:
    """The only fill of a ticker in a session."""
    order = filled(account, f"{day}/{ticker}", ticker, delta, price_micros, fee_micros)
    return Draft("order_filled", order, day, 9, item=order.order_id)


async def write_journal(runs: Path, run_id: str, drafts: Iterator[Draft], generation: int = 1) -> Path:
    """A journal as a gateway leaves it."""
    layout = RunLayout(runs, run_id)
    layout.make_folders()
    writer = SqliteWriter(layout.journal, run_id, generation, lambda _group: None)
    for draft in drafts:
        writer.append(draft)
        await writer.room()
    await writer.close()
    return layout.journal


class Runtime(runtime_service_pb2_grpc.RuntimeServiceServicer):
    """A runtime_service that says what it is told to."""

    def __init__(self) -> None:
        self.runs: dict[str, runtime_pb2.Run] = {}

    async def GetRun(self, request: runtime_service_pb2.GetRunRequest, context: Context) -> runtime_service_pb2.GetRunResponse:
        run = self.runs.get(request.run_id)
        if run is None:
            raise NotFound("run", request.run_id)
        return runtime_service_pb2.GetRunResponse(run=run)

    def say(self, run_id: str, state: runtime_pb2.RunState.ValueType, target: str = "", generation: int = 1) -> None:
        """Has a run in a state."""
        self.runs[run_id] = runtime_pb2.Run(run_id=run_id, state=state, target=target, generation=generation)


@dataclass
class Bench:
    """A trading_service, its runtime_service, and a folder of runs."""

    runs: Path
    runtime: Runtime
    runtime_server: MeshServer
    trading: ServiceClient
    feeds: RunFeeds
    start_server: StartServer
    keep: list[JournalFeed] = field(default_factory=list)

    async def gateway(self, run_id: str, drafts: Iterator[Draft]) -> LiveGateway:
        """A gateway that has written some events of a run and goes on living."""
        layout = RunLayout(self.runs, run_id)
        layout.make_folders()
        live = LiveGateway(layout.journal, run_id)
        live.add(drafts)
        await live.writer.flush()
        servicer = FeedServicer(only_source(run_id, live.feed))
        server = await self.start_server(
            [registration(feed_service_pb2_grpc.add_FeedServiceServicer_to_server, servicer, feed.DESCRIPTOR, "FeedService")]
        )
        live.server = server
        self.runtime.say(run_id, runtime_pb2.RUN_STATE_RUNNING, server.target)
        return live

    def forget(self, run_id: str) -> None:
        """As if the moment for which an answer is believed had passed."""
        self.feeds.forget(run_id)


class LiveGateway:
    """What trading_service sees of a gateway."""

    def __init__(self, path: Path, run_id: str) -> None:
        self.server: MeshServer | None = None
        self.writer = SqliteWriter(path, run_id, 1, lambda group: self.publish(list(group)))
        self.feed = JournalFeed(run_id, SqliteReader(path), SqliteReader(path), finished=False)

    def publish(self, group: list[StoredEvent]) -> None:
        """Passes on what was committed."""
        self.feed.publish(group)

    def add(self, drafts: Iterator[Draft]) -> None:
        """Takes events in."""
        for draft in drafts:
            self.writer.append(draft)

    async def end(self) -> None:
        """Ends the gateway as its own end does."""
        assert self.server is not None
        self.feed.end()
        await self.server.stop(drain_delay_s=0.0, grace_s=0.0)
        self.feed.close()
        await self.writer.close()


@asynccontextmanager
async def trading_bench(tmp_path: Path, start_server: StartServer) -> AsyncIterator[Bench]:
    """Servers on free ports."""
    runtime = Runtime()  # type: ignore[abstract]  # nothing else is asked of it
    runtime_server = await start_server(
        [
            registration(
                runtime_service_pb2_grpc.add_RuntimeServiceServicer_to_server, runtime, runtime_service_pb2.DESCRIPTOR, "RuntimeService"
            )
        ]
    )
    feeds = RunFeeds(tmp_path, runtime_server.target)
    readers = RunReaders(feeds)
    server = await start_server(
        [
            registration(
                portfolio_service_pb2_grpc.add_PortfolioServiceServicer_to_server,
                PortfolioServicer(readers),
                messages.DESCRIPTOR,
                "PortfolioService",
            ),
            registration(
                feed_service_pb2_grpc.add_FeedServiceServicer_to_server, FeedServicer(feeds.finished), feed.DESCRIPTOR, "FeedService"
            ),
        ]
    )
    async with ServiceClient(server.target, "trading_service") as client:
        yield Bench(tmp_path, runtime, runtime_server, client, feeds, start_server)
    await server.stop(drain_delay_s=0.0, grace_s=0.0)
    await readers.close()
    await feeds.close()


async def figures(
    bench: Bench, run_id: str, at: int | None = None, risk_free_yield: float | None = None
) -> messages.GetPerformanceResponse:
    """GetPerformance."""
    request = messages.GetPerformanceRequest(run_id=run_id, at_sequence=at, risk_free_yield=risk_free_yield)
    answer: messages.GetPerformanceResponse = await bench.trading.call(bench.trading.stub(PORTFOLIO).GetPerformance, request)
    return answer
