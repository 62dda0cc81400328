"""A run on paper for tests: real trading_service and news_service, a local provider of quotes, a journal on disk, the gateway's own sessions,
and one clock for all that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from pydantic import SecretStr

from conftest import StartServer
from finnhub_server import KEY, FinnhubServer
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.news.v1 import news_service_pb2, news_service_pb2_grpc
from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh.trading.v1 import market_data_service_pb2, market_data_service_pb2_grpc
from trademesh_gateway.configuration import rules_of
from trademesh_gateway.launch import LaunchTicket
from trademesh_gateway.observed_prices import observed_prices
from trademesh_gateway.opening import Opened, open_run
from trademesh_gateway.order_desk import OrderDesk
from trademesh_gateway.paper_floor import PaperFloor, PaperParts
from trademesh_gateway.pipeline.controller import Controller
from trademesh_gateway.pipeline.cycle_clock import CycleClock
from trademesh_gateway.pipeline.paper_broker import Patience
from trademesh_gateway.session_loop import SessionLoop
from trademesh_gateway.stop_history import hear, stops_after
from trademesh_gateway.trading_floor import Floor
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.health import Readiness
from trademesh_kernel.server import MeshServer, registration
from trademesh_news.news_service import NewsServicer
from trademesh_news.store import NewsStore
from trademesh_runs.fold import Fold, replay_journal
from trademesh_runs.journal import Draft, StoredEvent, all_events
from trademesh_runs.journal_sqlite import SqliteStore
from trademesh_runs.journal_writer import GroupWriter
from trademesh_runs.run_config import normalised
from trademesh_trading.calendars import sessions_of_calendar
from trademesh_trading.finnhub import Finnhub, LinkTimers
from trademesh_trading.importer import ImportOrder, import_set
from trademesh_trading.live_quotes import LiveQuotes
from trademesh_trading.market_data_service import MarketDataServicer
from trademesh_trading.quote_streams import QuoteStreams
from trademesh_trading.store import MarketStore
from waiting import until

TICKERS = ("AAPL", "MSFT")


def unix_s(instant: str) -> int:
    """Seconds since 1970 of an instant in UTC, such as 2026-11-27T14:30:00."""
    return int(datetime.fromisoformat(instant).replace(tzinfo=UTC).timestamp())


@dataclass
class TestClock:
    """A clock that stands until the test moves it."""

    __test__ = False
    unix_s: float

    def now_unix_s(self) -> float:
        return self.unix_s

    def nanoseconds(self) -> int:
        return round(self.unix_s * 1000) * 1_000_000


def make_bars(folder: Path, last: date) -> Path:
    """Half a year of daily closes up to a day: AAPL rises, MSFT falls, both with some noise. Files as a user has them."""
    sessions = sessions_of_calendar("XNYS", date(last.year, last.month - 6, 1), last)["session"].to_list()
    folder.mkdir(parents=True)
    for ticker, first, slope in (("AAPL", 150.0, 0.6), ("MSFT", 400.0, -0.7)):
        rows = [f"{day},{first + slope * number + (number * 7 % 5) / 4:.2f}" for number, day in enumerate(sessions)]
        (folder / f"{ticker}.csv").write_text("\n".join(["date,close", *rows]) + "\n")
    return folder


@dataclass
class PaperMesh:
    """The services around a run."""

    clock: TestClock
    provider: FinnhubServer
    quotes: LiveQuotes
    trading: MeshServer
    news: MeshServer
    data_set: str
    snapshot: str

    async def trade(self, *trades: tuple[str, str]) -> None:
        """Tells trades of now: symbol and price; returns when they have arrived."""
        told = self.quotes.version
        at_ms = round(self.clock.unix_s * 1000)
        await self.provider.trades(*[(symbol, price, at_ms, "100") for symbol, price in trades])
        await until(lambda: self.quotes.version >= told + len(trades))

    def forget_quotes(self) -> None:
        """As if trading_service had begun anew: what it heard is gone."""
        for line in self.quotes._lines.values():
            line.tape = type(line.tape)()


@asynccontextmanager
async def paper_mesh(start_server: StartServer, folder: Path, now: str, last_bar: str = "2026-11-25") -> AsyncIterator[PaperMesh]:
    """Starts the services at an instant."""
    bars = make_bars(folder / "bars", date.fromisoformat(last_bar))
    imported = import_set(ImportOrder(bars, "mine", date.fromisoformat(last_bar), adjustment="SPLITS_AND_DIVIDENDS"), folder / "sets")
    clock = TestClock(unix_s(now))
    async with AsyncExitStack() as running:
        provider = await running.enter_async_context(FinnhubServer())
        timers = LinkTimers(idle_s=60.0, first_retry_s=0.01, longest_retry_s=0.05)
        quotes = LiveQuotes(Finnhub(provider.url, SecretStr(KEY), timers), clock=clock.nanoseconds)
        quotes.start()
        running.push_async_callback(quotes.close)
        store = MarketStore(folder / "sets")
        trading = await start_server(
            [
                registration(
                    market_data_service_pb2_grpc.add_MarketDataServiceServicer_to_server,
                    MarketDataServicer(store, QuoteStreams(quotes)),
                    market_data_service_pb2.DESCRIPTOR,
                    "MarketDataService",
                )
            ]
        )
        news = await start_server(
            [
                registration(
                    news_service_pb2_grpc.add_NewsServiceServicer_to_server,
                    NewsServicer(NewsStore()),
                    news_service_pb2.DESCRIPTOR,
                    "NewsService",
                )
            ]
        )
        yield PaperMesh(clock, provider, quotes, trading, news, imported.name, imported.snapshot)


def paper_config(mesh: PaperMesh, first: str, last: str, fill: contract.FillPolicy.ValueType) -> RunConfig:
    """A configuration as StartRun leaves it."""
    config = RunConfig(run_id="paper", mode=contract.RUN_MODE_PAPER, tickers=TICKERS)
    config.data.set, config.data.snapshot = mesh.data_set, mesh.snapshot
    config.sessions.start, config.sessions.end, config.sessions.calendar = first, last, "XNYS"
    config.execution.fill = fill
    config.costs.fee_bp = config.costs.borrow_bp = 0
    return normalised(config)


@dataclass
class Generation:
    """One life of a gateway: the parts of it that trade."""

    controller: Controller
    readiness: Readiness
    fold: Fold
    orders: OrderDesk
    opened: Opened
    writer: GroupWriter
    quoted: list[tuple[str, int, dict[str, int]]]
    task: asyncio.Task[None]


@dataclass
class PaperRun:
    """A run in a folder, with a gateway that comes and goes."""

    mesh: PaperMesh
    config: RunConfig
    folder: Path
    deadline_s: float = 300.0
    patience: Patience = field(default_factory=lambda: Patience(open_s=60.0, close_s=15.0, unheard_s=300.0, poll_s=0.01))
    generations: int = 0

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[Generation]:
        """The next generation, until the end of the block; it drains then."""
        self.generations += 1
        store = SqliteStore(self.folder / "journal.db")
        reader = store.reader() if (self.folder / "journal.db").exists() else None
        if reader is not None:
            reader.close()
        folds = list[Fold]()

        def published(group: Sequence[StoredEvent]) -> None:
            for event in group:
                folds[0].apply(event)

        writer = store.writer("paper", self.generations, published)
        reader = store.reader()
        opened = await open_run("paper", reader, lambda *_, **__: None)
        folds.append(opened.fold)
        rules = rules_of(self.config)
        stops = stops_after(reader, opened.fold, rules.limits.drawdown_stop_bp, self.config.capital.initial_cash_micros)
        writer.append(Draft("gateway_started", events.GatewayStarted(version="test"), item=str(self.generations)))

        def lifecycle(draft: Draft) -> None:
            writer.append(draft)
            hear(stops, draft)

        controller = Controller(
            "paper",
            lifecycle,
            state=opened.fold.pipeline_state,
            reason=opened.fold.pipeline_reason,
            pace=0.0,
            generation=self.generations,
            clock=CycleClock(self.deadline_s),
        )
        readiness = Readiness("market data")
        quoted = list[tuple[str, int, dict[str, int]]]()
        observed = observed_prices(reader)

        def floor(trading: ServiceClient, news: ServiceClient) -> Floor:
            parts = PaperParts(self.mesh.clock, self.patience, lost_after_s=0.05)
            return PaperFloor(
                self.config,
                trading,
                news,
                writer,
                controller,
                readiness,
                observed,
                lambda session, at, prices: quoted.append((session, at, dict(prices))),
                parts,
            )

        async def export() -> None:
            await writer.flush()

        ticket = LaunchTicket(
            "paper",
            str(self.folder),
            self.generations,
            "n",
            "r",
            "127.0.0.1:0",
            "",
            self.mesh.trading.target,
            self.mesh.news.target,
            "127.0.0.1:1",
        )
        loop = SessionLoop(
            ticket,
            self.config,
            writer,
            controller,
            readiness,
            opened.desk_start,
            opened.open_session,
            began=opened.began,
            export=export,
            waits=lambda _what: None,
            closes_known=lambda *_: None,
            stops=stops,
            open_floor=floor,
        )
        task = asyncio.create_task(loop.run(0.0))
        try:
            orders = OrderDesk("paper", frozenset(TICKERS), opened.desk_start.orders, controller, writer, opens_known=lambda: True)
            yield Generation(controller, readiness, opened.fold, orders, opened, writer, quoted, task)
        finally:
            await controller.stop()
            await asyncio.wait_for(task, 10)
            await writer.close()
            reader.close()

    def events(self) -> list[events.Event]:
        """Everything that is journaled, oldest first."""
        reader = SqliteStore(self.folder / "journal.db").reader()
        found = [stored.parse() for stored in all_events(reader, 0)]
        reader.close()
        return found

    def of_kind(self, kind: str) -> list[events.Event]:
        """Events of a kind, oldest first."""
        return [event for event in self.events() if event.WhichOneof("payload") == kind]

    def fold(self) -> Fold:
        """The state that the journal proves."""
        reader = SqliteStore(self.folder / "journal.db").reader()
        found = replay_journal("paper", reader, reader.head().sequence)
        reader.close()
        return found
