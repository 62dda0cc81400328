"""One gateway, from its launch ticket to its exit status: it puts the parts together, serves, and ends them in order. Each part's own rules
are in its module: sessions (`session_loop.py`), lease, disk, liveness, exports, watches.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1 import (
    feed_service_pb2,
    feed_service_pb2_grpc,
    pipeline_service_pb2,
    pipeline_service_pb2_grpc,
    supervision_service_pb2,
    supervision_service_pb2_grpc,
)
from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh.runtime.v1.runtime_pb2 import RunProgress
from trademesh_gateway.configuration import rules_of
from trademesh_gateway.conversation import Conversation
from trademesh_gateway.disk_watch import DiskWatch
from trademesh_gateway.exporter import Exporter
from trademesh_gateway.launch import EXIT_OK, EXIT_TEMPORARY, Launcher, LaunchTicket, write_identity
from trademesh_gateway.lease import Lease
from trademesh_gateway.live_feed import LiveFeed
from trademesh_gateway.liveness import watch_progress
from trademesh_gateway.observed_prices import observed_prices
from trademesh_gateway.opening import Opened, open_run
from trademesh_gateway.order_desk import OrderDesk
from trademesh_gateway.paper_floor import COMMIT_DELAY_S, PaperFloor, PaperParts
from trademesh_gateway.pipeline.controller import TERMINAL, Controller
from trademesh_gateway.pipeline.cycle_clock import CycleClock
from trademesh_gateway.pipeline.desk_run import DeskRules
from trademesh_gateway.pipeline_service import Control, PipelineServicer, SupervisionServicer
from trademesh_gateway.replay_loop import ReplayLoop
from trademesh_gateway.session_loop import SessionLoop
from trademesh_gateway.settings import ExportSettings, GatewaySettings
from trademesh_gateway.stop_history import hear, stops_after
from trademesh_gateway.trading_floor import Floor, RecordedFloor
from trademesh_gateway.wire import limits_in_force
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.health import Readiness
from trademesh_kernel.logs import get_logger
from trademesh_kernel.server import MeshServer, registration
from trademesh_kernel.settings import ServerSettings, load_settings
from trademesh_runs.books import Books
from trademesh_runs.bootstrap import read_bootstrap_file
from trademesh_runs.feed_service import FeedServicer
from trademesh_runs.feed_source import only_source
from trademesh_runs.fold import Fold
from trademesh_runs.journal import Draft, FencedError, Head, JournalStore, StoredEvent
from trademesh_runs.journal_sqlite import SQLITE_VERSION, SqliteStore
from trademesh_runs.run_config import DEFAULT_CYCLE_DEADLINE_S

VERSION = "0.1.0"
PIPELINE_END_S = 3.0
STREAMS_END_S = 2.0


class Gateway:
    """The data plane of one run."""

    def __init__(self, ticket: LaunchTicket, launcher: Launcher) -> None:
        self._ticket = ticket
        self._layout = ticket.layout
        self._launcher = launcher
        self._log = get_logger("gateway")
        self._readiness = Readiness("journal", "market data")
        self._stop = asyncio.Event()
        self._orphaned = False
        self._lease = Lease(ticket.lease_s, ticket.orphan_s)
        self._disk = DiskWatch(self._layout.root, load_settings(GatewaySettings).gateway_least_free_bytes)
        self._pipeline: asyncio.Task[None] | None = None
        self._sessions: SessionLoop | None = None

    def progress(self) -> RunProgress:
        """How far the run is, as far as the journal holds it; empty before the journal is open."""
        fold: Fold | None = getattr(self, "_fold", None)
        if fold is None:
            return RunProgress()
        return RunProgress(
            sessions_settled=fold.sessions_settled,
            sessions_total=fold.sessions_total,
            session_date=fold.session_date,
            nav_micros=fold.nav_micros,
            head_sequence=fold.sequence,
            epoch=fold.epoch,
        )

    async def run(self) -> tuple[int, str]:
        """Serves and trades until the run has ended or someone ends us; returns exit status and reason."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        config = read_bootstrap_file(self._layout.bootstrap)
        rules = rules_of(config)
        opened = await self._open_journal(config, rules)
        controller = self._controller = self._make_controller(config)
        limits = partial(limits_in_force, tuple(config.tickers), rules.limits, self._stops)
        self._control = Control(self._ticket.run_id, self._fold, self._writer.flush, controller, self._disk, limits)
        self._conversation = self._make_conversation(config, rules)
        self._server = self._make_server(self._make_order_desk(config, opened), config.replay_of)
        await self._server.start()
        target = self._server.target if not self._ticket.advertise else f"{self._ticket.advertise}:{self._server.port}"
        write_identity(self._ticket, target)
        self._launcher.tell("bound", target=target, generation=self._ticket.generation, nonce=self._ticket.nonce, pid=os.getpid())
        await self._readiness.hold("journal")
        self._pipeline = asyncio.create_task(self._run_pipeline(config, opened), name="pipeline")
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        # A journal that cannot be written ends the gateway also while it is paused or lingers, when nobody would notice otherwise.
        broken = asyncio.create_task(self._writer.broken(), name="journal broken")
        watches = [
            self._watch("lease", self._watch_lease()),
            self._watch("disk", self._disk.watch(self._hold_for_disk)),
            self._watch("liveness", watch_progress(controller, self._server.health)),
        ]
        try:
            await asyncio.wait({self._pipeline, stop, broken, *watches}, return_when=asyncio.FIRST_COMPLETED)
            _raise_from(broken, *watches)
            if self._pipeline.done():
                self._pipeline.result()
                await self._linger(config, stop, broken, *watches)
        finally:
            await self._end(self._pipeline)
            for task in (stop, broken, *watches):
                task.cancel()
        return self._outcome()

    def _outcome(self) -> tuple[int, str]:
        match self._fold.pipeline_state:
            case events.PIPELINE_STATE_FINISHED:
                return EXIT_OK, "RUN_ENDED"
            case events.PIPELINE_STATE_STOPPED:
                return EXIT_OK, f"PIPELINE_STOPPED: {self._fold.pipeline_reason}"
        if self._orphaned:
            return EXIT_TEMPORARY, "no runtime_service renewed the lease"
        return EXIT_OK, "stopped"

    async def _open_journal(self, config: RunConfig, rules: DeskRules) -> Opened:
        """Takes the journal over, and folds what is in it."""
        store: JournalStore = SqliteStore(self._layout.journal, ballast=self._layout.ballast)
        self._store = store
        watermark = Head(self._ticket.watermark_epoch, self._ticket.watermark_sequence)
        self._writer = store.writer(
            self._ticket.run_id, self._ticket.generation, self._publish, watermark=watermark, stalled=self._disk.stalled
        )
        reader = store.reader()
        self._log.info("journal taken over", sqlite=SQLITE_VERSION, head_sequence=self._writer.committed, epoch=self._writer.epoch)
        opened = await open_run(self._ticket.run_id, reader, self._launcher.tell)
        self._fold, self._books = opened.fold, Books(opened.fold)
        self._stops = stops_after(reader, self._fold, rules.limits.drawdown_stop_bp, config.capital.initial_cash_micros)
        self._feed = LiveFeed(self._ticket.run_id, reader, store.reader(), self._fold)
        started = events.GatewayStarted(version=VERSION, resumed_after=reader.head().sequence)
        self._writer.append(Draft("gateway_started", started, item=str(self._ticket.generation)))
        dashboard = load_settings(ExportSettings).enable_dashboard_compat_exports
        self._exporter = Exporter(self._layout, self._books, self._writer.flush, store.reader, dashboard=dashboard)
        return opened

    def _publish(self, group: Sequence[StoredEvent]) -> None:
        self._books.take(group)
        self._feed.publish(group)
        self._control.watch.touch()

    def _closes_known(self, session: str, close_unix_s: int, closes: Mapping[str, int]) -> None:
        """A session has closed: the one place from which quotes go to readers."""
        self._feed.board.update(session, close_unix_s, closes)

    def _lifecycle(self, draft: Draft) -> None:
        self._writer.append(draft)
        hear(self._stops, draft)

    def _make_controller(self, config: RunConfig) -> Controller:
        return Controller(
            self._ticket.run_id,
            self._lifecycle,
            state=self._fold.pipeline_state,
            reason=self._fold.pipeline_reason,
            pace=0.0,
            generation=self._ticket.generation,
            clock=CycleClock(config.pipeline.cycle_deadline_s or DEFAULT_CYCLE_DEADLINE_S),
            lease_held=self._lease.held,
        )

    def _make_conversation(self, config: RunConfig, rules: DeskRules) -> Conversation:
        return Conversation(
            self._writer,
            self._store.reader(),
            rules.agents,
            config.tickers,
            may_speak=lambda: not self._controller.stopping,
            has_begun=lambda: self._fold.pipeline_state != events.PIPELINE_STATE_READY,
        )

    def _make_order_desk(self, config: RunConfig, opened: Opened) -> OrderDesk:
        book, tickers = opened.desk_start.orders, frozenset(config.tickers)
        desk = OrderDesk(self._ticket.run_id, tickers, book, self._controller, self._writer, opens_known=self._opens_known)
        reader = self._store.reader()
        desk.remember(reader)
        reader.close()
        return desk

    def _opens_known(self) -> bool | None:
        return None if self._sessions is None else self._sessions.opens_known

    def _make_server(self, orders: OrderDesk, replay_of: str) -> MeshServer:
        ticket = self._ticket
        supervision = SupervisionServicer(self._control, ticket.generation, ticket.nonce, self._drain, self._lease.renew)
        find = only_source(ticket.run_id, self._feed)
        return MeshServer(
            ServerSettings(drain_delay_s=0.0, drain_grace_s=0.1),
            [
                registration(
                    pipeline_service_pb2_grpc.add_PipelineServiceServicer_to_server,
                    PipelineServicer(self._control, orders, self._conversation, replay_of=replay_of),
                    pipeline_service_pb2.DESCRIPTOR,
                    "PipelineService",
                ),
                registration(
                    feed_service_pb2_grpc.add_FeedServiceServicer_to_server, FeedServicer(find), feed_service_pb2.DESCRIPTOR, "FeedService"
                ),
                registration(
                    supervision_service_pb2_grpc.add_SupervisionServiceServicer_to_server,
                    supervision,
                    supervision_service_pb2.DESCRIPTOR,
                    "SupervisionService",
                    bounded=False,
                ),
            ],
            listen=ticket.bind,
            readiness=self._readiness,
        )

    async def _run_pipeline(self, config: RunConfig, opened: Opened) -> None:
        kind = ReplayLoop if config.mode == contract.RUN_MODE_REPLAY else SessionLoop
        loop = self._sessions = kind(
            self._ticket,
            config,
            self._writer,
            self._controller,
            self._readiness,
            opened.desk_start,
            opened.open_session,
            began=opened.began,
            export=self._exporter.export,
            waits=lambda what: self._launcher.tell("progress", what=what),
            closes_known=self._closes_known,
            stops=self._stops,
            open_floor=partial(self._open_floor, config),
        )
        await loop.run(self._fold.pace if opened.began else config.pipeline.pace_sessions_per_s)
        if self._controller.state in TERMINAL:
            await self._exporter.export(force=True)

    def _open_floor(self, config: RunConfig, trading: ServiceClient, news: ServiceClient) -> Floor:
        """What the run's mode trades on."""
        if config.mode != contract.RUN_MODE_PAPER:
            return RecordedFloor(config, trading, news)
        self._writer.delay_s = COMMIT_DELAY_S
        reader = self._store.reader()
        observed = observed_prices(reader)
        reader.close()
        return PaperFloor(
            config, trading, news, self._writer, self._controller, self._readiness, observed, self._feed.board.update, PaperParts()
        )

    async def _linger(self, config: RunConfig, *ends: asyncio.Task[Any]) -> None:
        """A pipeline that has ended is served for a while, or until the gateway is stopped."""
        ended = self._fold.pipeline_state in TERMINAL
        linger_s = config.supervision.linger_s if ended and config.supervision.HasField("linger_s") else None
        await asyncio.wait(ends, timeout=linger_s, return_when=asyncio.FIRST_COMPLETED)
        _raise_from(*ends)

    def _watch(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(work, name=name)

    async def _watch_lease(self) -> None:
        """Returns when nobody has renewed the lease for so long that we are to end."""

        async def changed() -> None:
            await self._controller.wake()
            self._control.watch.touch()

        await self._lease.watch(changed)
        self._orphaned = True
        self._stop.set()

    async def _hold_for_disk(self, why: str) -> None:
        await self._controller.hold_for_disk(why)
        self._control.watch.touch()

    async def _drain(self, within_s: float) -> int:
        """Takes no new work, finishes the phase in hand, commits the journal, and ends streams with their cursor."""
        await self._server.health.drain()
        await self._controller.stop()
        if self._pipeline is not None:
            await asyncio.wait({self._pipeline}, timeout=within_s)
        await self._writer.flush()
        self._end_streams()
        return self._writer.committed

    def _end_streams(self, *, fenced: bool = False) -> None:
        if fenced:
            self._feed.fence()
            self._control.watch.end(feed_service_pb2.STREAM_END_REASON_FENCED)
        elif self._fold.pipeline_state in TERMINAL:
            self._feed.end()
            self._control.watch.end(feed_service_pb2.STREAM_END_REASON_RUN_ENDED)
        else:
            self._feed.drain()
            self._control.watch.end(feed_service_pb2.STREAM_END_REASON_DRAINING)

    async def _end(self, pipeline: asyncio.Task[None]) -> None:
        await self._controller.stop()
        # Shorter than a supervisor's patience after SIGTERM: the journal is to be closed before it kills us.
        done, waiting = await asyncio.wait({pipeline}, timeout=PIPELINE_END_S)
        for task in waiting:
            task.cancel()
        fenced = False
        for task in done:
            if not task.cancelled() and task.exception() is not None:
                self._log.error("the pipeline failed", reason=repr(task.exception()), exc_info=task.exception())
        try:
            async with asyncio.timeout(PIPELINE_END_S):
                await self._exporter.export(force=True)
        except FencedError:
            fenced = True
        except Exception as error:
            # They are derived and can be made again; the journal must still be closed in order.
            self._log.error("exports could not be written", reason=repr(error))
        await self._server.health.drain()
        self._end_streams(fenced=fenced)
        # Health is told up to the last moment: a gateway that ends by itself is not to be taken for one that hangs.
        await self._server.calls_done(STREAMS_END_S)
        await self._server.stop()
        self._feed.close()
        self._conversation.close()
        await self._writer.close()


def _raise_from(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        if task.done():
            task.result()
