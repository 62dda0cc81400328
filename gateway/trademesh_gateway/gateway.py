"""One gateway, from its launch ticket to its exit status: server, journal, market data, pipeline, exports, and their end in order."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence

from pydantic_settings import BaseSettings

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1 import (
    feed_service_pb2,
    feed_service_pb2_grpc,
    pipeline_service_pb2,
    pipeline_service_pb2_grpc,
    supervision_service_pb2,
    supervision_service_pb2_grpc,
)
from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh.runtime.v1.runtime_pb2 import RunProgress
from trademesh_gateway.approvals import ApprovalDesk
from trademesh_gateway.configuration import first_desk, rules_of
from trademesh_gateway.launch import EXIT_OK, EXIT_TEMPORARY, Launcher, LaunchTicket, write_identity
from trademesh_gateway.market.bar_source import BarSource
from trademesh_gateway.pipeline.controller import Controller, Stopped
from trademesh_gateway.pipeline.cycle import Cycle, SessionTimes
from trademesh_gateway.pipeline.desk_run import DeskRun
from trademesh_gateway.pipeline_service import Control, PipelineServicer, SupervisionServicer
from trademesh_kernel.atomic_files import replace_file
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import DeadlinePassed, DependencyUnavailable
from trademesh_kernel.health import Readiness
from trademesh_kernel.logs import get_logger
from trademesh_kernel.server import MeshServer, registration
from trademesh_kernel.settings import ServerSettings, load_settings
from trademesh_runs.bootstrap import read_bootstrap_file
from trademesh_runs.exports import export_files
from trademesh_runs.feed_service import FeedServicer, JournalFeed, only_source
from trademesh_runs.fold import Fold
from trademesh_runs.journal import Draft, StoredEvent, all_events
from trademesh_runs.journal_sqlite import SqliteReader, SqliteWriter
from trademesh_runs.layout import RunLayout
from trademesh_runs.run_config import config_sha256

VERSION = "0.1.0"
LEASE_S = 60.0
ORPHAN_S = 900.0
EXPORT_INTERVAL_S = 1.0
RETRY_S = 0.5
PIPELINE_END_S = 3.0


class ExportSettings(BaseSettings):
    """What the environment says about derived files."""

    enable_dashboard_compat_exports: bool = True
    """ENABLE_DASHBOARD_COMPAT_EXPORTS: whether `team_dashboard/*.json` are written."""


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
        self._exported_at = 0.0
        self._dashboard = load_settings(ExportSettings).enable_dashboard_compat_exports
        self._pipeline: asyncio.Task[None] | None = None

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
        self._open_journal()
        server = self._server = self._make_server()
        await server.start()
        target = server.target if not self._ticket.advertise else f"{self._ticket.advertise}:{server.port}"
        write_identity(self._ticket, target)
        self._launcher.tell("bound", target=target, generation=self._ticket.generation, nonce=self._ticket.nonce, pid=os.getpid())
        await self._readiness.hold("journal")
        self._pipeline = asyncio.create_task(self._run_pipeline(config), name="pipeline")
        lease = asyncio.create_task(self._watch_lease(), name="lease")
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        # A journal that cannot be written ends the gateway also while it is paused or lingers, when nobody would notice otherwise.
        broken = asyncio.create_task(self._writer.broken(), name="journal broken")
        try:
            await asyncio.wait({self._pipeline, stop, broken}, return_when=asyncio.FIRST_COMPLETED)
            if broken.done():
                broken.result()
            if self._pipeline.done():
                self._pipeline.result()
                await self._linger(config, stop, broken)
        finally:
            await self._end(server, self._pipeline)
            for task in (lease, stop, broken):
                task.cancel()
        if self._orphaned:
            return EXIT_TEMPORARY, "no runtime_service renewed the lease"
        if self._fold.pipeline_state == events.PIPELINE_STATE_FINISHED:
            return EXIT_OK, "RUN_ENDED"
        return EXIT_OK, "stopped"

    def _open_journal(self) -> None:
        """Takes the journal over, and folds what is in it: once up to now for readers, once up to the last settlement for the desk."""
        path = self._layout.journal
        self._writer = SqliteWriter(path, self._ticket.run_id, self._ticket.generation, self._publish)
        reader = SqliteReader(path)
        self._fold = Fold(self._ticket.run_id, reader.head().epoch)
        self._feed = LiveFeed(self._ticket.run_id, reader, SqliteReader(path), self._fold)
        self._fold.apply_all(all_events(reader))
        settled = reader.read_kind("settled", newest=1)
        self._desk_fold = Fold(self._ticket.run_id)
        if settled:
            self._desk_fold.apply_all(all_events(reader, 0, settled[0].sequence))
        self._began = bool(reader.read_kind("run_started", newest=1))
        self._emit("gateway_started", events.GatewayStarted(version=VERSION, resumed_after=reader.head().sequence))

    def _publish(self, group: Sequence[StoredEvent]) -> None:
        for event in group:
            self._fold.apply(event)
        self._feed.publish(group)

    def _emit(self, kind: str, payload: events.GatewayStarted | events.RunStarted | events.RunFinished) -> None:
        item = str(self._ticket.generation) if kind == "gateway_started" else ""
        self._writer.append(Draft(kind, payload, item=item))

    def _make_server(self) -> MeshServer:
        self._control = Control(self._ticket.run_id, self._fold, self._writer.flush)
        self._supervision = SupervisionServicer(self._control, self._ticket.generation, self._ticket.nonce, self._drain)
        find = only_source(self._ticket.run_id, self._feed)
        return MeshServer(
            ServerSettings(drain_delay_s=0.0, drain_grace_s=2.0),
            [
                registration(
                    pipeline_service_pb2_grpc.add_PipelineServiceServicer_to_server,
                    PipelineServicer(self._control),
                    pipeline_service_pb2.DESCRIPTOR,
                    "PipelineService",
                ),
                registration(
                    feed_service_pb2_grpc.add_FeedServiceServicer_to_server, FeedServicer(find), feed_service_pb2.DESCRIPTOR, "FeedService"
                ),
                registration(
                    supervision_service_pb2_grpc.add_SupervisionServiceServicer_to_server,
                    self._supervision,
                    supervision_service_pb2.DESCRIPTOR,
                    "SupervisionService",
                    bounded=False,
                ),
            ],
            listen=self._ticket.bind,
            readiness=self._readiness,
        )

    async def _run_pipeline(self, config: RunConfig) -> None:
        fresh = not self._began
        state = self._fold.pipeline_state
        pace = config.pipeline.pace_sessions_per_s if fresh else self._fold.pace
        controller = Controller(
            self._ticket.run_id,
            self._writer.append,
            state=state,
            reason=self._fold.pipeline_reason,
            pace=0.0,
            generation=self._ticket.generation,
        )
        self._control.controller = controller
        async with (
            ServiceClient(self._ticket.trading_target, "trading_service") as trading,
            ServiceClient(self._ticket.news_target, "news_service") as news,
            ServiceClient(self._ticket.agent_target, "agent_service") as agent,
        ):
            try:
                source, sessions = await self._open_market(config, trading, news, controller)
            except Stopped:
                return
            rules = rules_of(config)
            tickers = list(config.tickers)
            desk = await first_desk(config, rules, source, sessions, self._desk_fold)
            if fresh:
                self._emit(
                    "run_started",
                    events.RunStarted(
                        config_sha256=config_sha256(config),
                        data_sha256=config.data.snapshot,
                        initial_cash_micros=config.capital.initial_cash_micros,
                        tickers=tickers,
                        first_session=sessions[0].date,
                        last_session=sessions[-1].date,
                        sessions=len(sessions),
                        agent_ids=sorted(rules.agents),
                    ),
                )
                if config.pipeline.autostart:
                    await controller.start("autostart")
            if pace:
                await controller.set_pace(pace)
            await self._writer.flush()
            await self._readiness.hold("market data")
            approvals = ApprovalDesk(self._ticket.run_id, self._ticket.run_nonce, agent, self._writer.flush, controller.give_way)
            await self._trade(desk, source, sessions, controller, approvals)
            await source.close()

    async def _open_market(
        self, config: RunConfig, trading: ServiceClient, news: ServiceClient, controller: Controller
    ) -> tuple[BarSource, list[SessionTimes]]:
        """Waits for the services that hold the data: until then we are not ready, and say which is missing."""
        while True:
            source = BarSource(trading, news, config.data.set, config.sessions.start, config.sessions.end)
            try:
                return source, await source.open(list(config.tickers))
            except (DependencyUnavailable, DeadlinePassed) as error:
                await self._readiness.fail("market data", str(error))
                self._launcher.tell("progress", what=str(error))
                await controller.wait(RETRY_S)

    async def _trade(
        self, desk: DeskRun, source: BarSource, sessions: list[SessionTimes], controller: Controller, approvals: ApprovalDesk
    ) -> None:
        if self._fold.pipeline_state == events.PIPELINE_STATE_FINISHED:
            await self._export(force=True)
            return
        try:
            for number in range(desk.sessions_settled + 1, len(sessions) + 1):
                session = sessions[number - 1]
                await self._until_data(source, session, controller)
                cycle = Cycle(desk, source.history, session, number, self._writer.append, approvals.ask)
                await controller.run_cycle(cycle)
                await self._writer.room()
                await self._export()
        except Stopped:
            return
        self._emit(
            "run_finished",
            events.RunFinished(sessions=desk.sessions_settled, nav_micros=desk.portfolio.net_asset_value(desk.marks), fills=desk.fills),
        )
        await controller.finish("every session is settled")
        await self._writer.flush()
        await self._export(force=True)

    async def _until_data(self, source: BarSource, session: SessionTimes, controller: Controller) -> None:
        while True:
            try:
                await source.have(session)
            except (DependencyUnavailable, DeadlinePassed) as error:
                await self._readiness.fail("market data", str(error))
                await controller.wait(RETRY_S)
                await source.reopen()
            else:
                await self._readiness.hold("market data")
                return

    async def _export(self, *, force: bool = False) -> None:
        """Writes the derived files, at most once a second and at the end."""
        now = time.monotonic()
        if force or now - self._exported_at >= EXPORT_INTERVAL_S:
            state = self._fold.state()
            await asyncio.to_thread(write_exports, self._layout, state, dashboard=self._dashboard, durable=force)
            self._exported_at = time.monotonic()

    async def _linger(self, config: RunConfig, stop: asyncio.Task[bool], broken: asyncio.Task[None]) -> None:
        """A finished gateway goes on serving for a while, or until it is stopped."""
        finished = self._fold.pipeline_state == events.PIPELINE_STATE_FINISHED
        linger_s = config.supervision.linger_s if finished and config.supervision.HasField("linger_s") else None
        await asyncio.wait({stop, broken}, timeout=linger_s, return_when=asyncio.FIRST_COMPLETED)
        if broken.done():
            broken.result()

    async def _watch_lease(self) -> None:
        """Without a supervisor nobody could stop us: no new cycle begins, and after a while we end."""
        while True:
            await asyncio.sleep(LEASE_S / 10)
            silent_s = time.monotonic() - self._supervision.last_heartbeat
            if self._control.controller is not None:
                await self._control.controller.hold_lease(silent_s < LEASE_S)
            if silent_s > ORPHAN_S:
                self._orphaned = True
                self._stop.set()

    async def _drain(self, within_s: float) -> int:
        """Takes no new work, finishes the phase in hand, commits the journal, and ends streams with their cursor."""
        await self._server.health.drain()
        if self._control.controller is not None:
            await self._control.controller.stop()
        if self._pipeline is not None:
            await asyncio.wait({self._pipeline}, timeout=within_s)
        await self._writer.flush()
        self._end_streams()
        return self._writer.committed

    def _end_streams(self) -> None:
        if self._fold.pipeline_state == events.PIPELINE_STATE_FINISHED:
            self._feed.end()
        else:
            self._feed.drain()

    async def _end(self, server: MeshServer, pipeline: asyncio.Task[None]) -> None:
        if self._control.controller is not None:
            await self._control.controller.stop()
        else:
            pipeline.cancel()
        # Shorter than a supervisor's patience after SIGTERM: the journal is to be closed before it kills us.
        done, waiting = await asyncio.wait({pipeline}, timeout=PIPELINE_END_S)
        for task in waiting:
            task.cancel()
        for task in done:
            if not task.cancelled() and task.exception() is not None:
                self._log.error("the pipeline failed", reason=repr(task.exception()), exc_info=task.exception())
        try:
            await self._export(force=True)
        except OSError as error:
            # They are derived and can be made again; the journal must still be closed in order.
            self._log.error("exports could not be written", reason=str(error))
        self._end_streams()
        await server.stop()
        self._feed.close()
        await self._writer.close()


class LiveFeed(JournalFeed):
    """The feed of a gateway: like that of its journal, with the newest state at hand."""

    def __init__(self, run_id: str, reader: SqliteReader, fold_reader: SqliteReader, fold: Fold) -> None:
        super().__init__(run_id, reader, fold_reader, finished=False)
        self._fold = fold

    async def snapshot(self, at: int | None) -> ServerState:
        """The state at a sequence; the newest needs no fold."""
        if at is None or at == self._fold.sequence:
            return self._fold.state()
        return await super().snapshot(at)


def write_exports(layout: RunLayout, state: ServerState, *, dashboard: bool, durable: bool) -> None:
    """Makes and replaces the derived files. It takes a tenth of a second for a run of decades, and is called in a thread."""
    for name, content in export_files(layout, state, dashboard=dashboard).items():
        replace_file(layout.root / name, content, durable=durable)
    if not dashboard:
        # Those of an earlier generation would tell an old state for ever.
        for stale in layout.dashboard.glob("*.json"):
            stale.unlink()
