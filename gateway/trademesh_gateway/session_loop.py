"""Carries a run from its market data through its sessions to its end. What a cycle does is `pipeline/cycle.py`'s, when its phases may run
the controller's; here is what lies between cycles: data that must be there, exports, and the events of a run's beginning and end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import grpc

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_gateway.approvals import ApprovalDesk
from trademesh_gateway.configuration import DeskStart, first_desk, rules_of
from trademesh_gateway.launch import LaunchTicket
from trademesh_gateway.market.bar_source import BarSource
from trademesh_gateway.pipeline.broker import SessionTimes
from trademesh_gateway.pipeline.controller import TERMINAL, Controller, Ended, Stopped
from trademesh_gateway.pipeline.cycle import Ask, ClosesKnown, Cycle, OpenSession
from trademesh_gateway.pipeline.desk_run import DeskRun
from trademesh_gateway.risk.stops import Stops
from trademesh_gateway.trading_floor import Floor
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import DeadlinePassed, DependencyUnavailable, RemoteError, TrademeshError
from trademesh_kernel.health import Readiness
from trademesh_kernel.logs import get_logger
from trademesh_runs.journal import Draft
from trademesh_runs.run_config import config_sha256

RETRY_S = 0.5
STALE_SESSIONS = 5
"""So long a ticker that is held may lack a close before a person is to look."""
LONGEST_RECONNECT_S = 0.5
"""A service that is back is to be found within two seconds."""

_PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)


OpenFloor = Callable[[ServiceClient, ServiceClient], Floor]
"""Makes a floor from clients of trading_service and news_service."""


class Writer(Protocol):
    """What is needed of the journal's writer."""

    def append(self, draft: Draft) -> bool:
        """Takes an event in."""

    async def room(self) -> None:
        """Waits while too much is pending."""

    async def flush(self) -> None:
        """Waits until everything is on disk."""


class SessionLoop:
    """The sessions of one run."""

    def __init__(
        self,
        ticket: LaunchTicket,
        config: RunConfig,
        writer: Writer,
        controller: Controller,
        readiness: Readiness,
        start: DeskStart,
        open_session: OpenSession,
        *,
        began: bool,
        export: Callable[[], Awaitable[None]],
        waits: Callable[[str], None],
        closes_known: ClosesKnown,
        stops: Stops,
        open_floor: OpenFloor,
    ) -> None:
        """
        Args:
            start: the desk's account after the last settlement in the journal.
            open_session: what the journal holds of the session after it.
            began: whether the journal tells the run's beginning.
            waits: is told what a start waits for.
            stops: what the desk's own result says of its orders, after everything in the journal.
            open_floor: makes the floor of the run's mode.
        """
        self._ticket = ticket
        self._config = config
        self._writer = writer
        self._controller = controller
        self._readiness = readiness
        self._start = start
        self._open_session = open_session
        self._began = began
        self._export = export
        self._waits = waits
        self._closes_known = closes_known
        self._stops = stops
        self._open_floor = open_floor
        self.opens_known: bool | None = None
        """Whether the run's data has opens; None before it was looked at."""
        self._said_missing = ""
        self._log = get_logger("sessions")

    async def run(self, pace: float) -> None:
        """Goes on until every session is settled, the pipeline was ended, or the gateway drains.

        Raises:
            RemoteError: a service answers that it has not what the run needs.
        """
        if self._controller.state in TERMINAL:
            # Nothing is needed any more of services that may be gone.
            await self._readiness.hold("market data")
            return
        try:
            await self._run(pace)
        except (Stopped, Ended):
            return

    async def _run(self, pace: float) -> None:
        ticket = self._ticket
        async with (
            ServiceClient(ticket.trading_target, "trading_service", longest_reconnect_s=LONGEST_RECONNECT_S) as trading,
            ServiceClient(ticket.news_target, "news_service", longest_reconnect_s=LONGEST_RECONNECT_S) as news,
            ServiceClient(ticket.agent_target, "agent_service", longest_reconnect_s=LONGEST_RECONNECT_S) as agent,
        ):
            floor = self._open_floor(trading, news)
            source, sessions, desk = await self._open_market(floor)
            if not self._began:
                await self._begin(sessions, source.news_sha256)
            if pace:
                await self._controller.set_pace(pace)
            await self._writer.flush()
            await self._readiness.hold("market data")
            controller = self._controller
            approvals = ApprovalDesk(ticket.run_id, ticket.run_nonce, agent, self._writer.flush, controller.give_way, controller.clock)
            try:
                await self._trade(desk, floor, source, sessions, floor.asking(approvals.ask))
            finally:
                await floor.close()
                await source.close()

    async def _begin(self, sessions: list[SessionTimes], news_sha256: str) -> None:
        config = self._config
        started = events.RunStarted(
            config_sha256=config_sha256(config),
            data_sha256=config.data.snapshot,
            initial_cash_micros=config.capital.initial_cash_micros,
            tickers=config.tickers,
            first_session=sessions[0].date,
            last_session=sessions[-1].date,
            sessions=len(sessions),
            agent_ids=sorted(rules_of(config).agents),
            decides_at_fill_price=config.execution.fill == contract.FILL_POLICY_SAME_CLOSE,
            news_sha256="" if config.mode == contract.RUN_MODE_PAPER else news_sha256,
        )
        self._writer.append(Draft("run_started", started))
        if config.pipeline.autostart and self._controller.state == events.PIPELINE_STATE_READY:
            await self._controller.start("autostart")

    async def _open_market(self, floor: Floor) -> tuple[BarSource, list[SessionTimes], DeskRun]:
        """Waits for the services that hold the data: until then we are not ready, and say which is missing."""
        while True:
            source = floor.source()
            try:
                return await self._controller.unless_ended(self._opened(source))
            except TrademeshError as error:
                await source.close()
                await self._missing(error)

    async def _opened(self, source: BarSource) -> tuple[BarSource, list[SessionTimes], DeskRun]:
        sessions = await source.open(list(self._config.tickers))
        self.opens_known = source.has_opens
        desk = await first_desk(self._config, rules_of(self._config), source, sessions, self._start)
        desk.stops = self._stops
        return source, sessions, desk

    async def _trade(self, desk: DeskRun, floor: Floor, source: BarSource, sessions: list[SessionTimes], ask: Ask) -> None:
        broker = floor.broker(source)
        for number in range(desk.sessions_settled + 1, len(sessions) + 1):
            session = sessions[number - 1]
            await floor.until_decision(session)
            if not source.has(session):
                await self._until_data(source, session)
            cycle = Cycle(
                desk,
                source.history,
                broker,
                session,
                number,
                self._writer.append,
                ask,
                earlier=self._open_session,
                closes_known=self._closes_known,
            )
            await self._controller.run_cycle(cycle, last=number == len(sessions))
            if stale := desk.stale(exactly=STALE_SESSIONS):
                await self._pause_for(stale)
            source.history.forget_before(session.date)
            await self._writer.room()
            await self._export()
        if self._controller.state == events.PIPELINE_STATE_STOPPED:
            return
        finished = events.RunFinished(sessions=desk.sessions_settled, nav_micros=desk.stops.nav_micros, fills=desk.fills)
        self._writer.append(Draft("run_finished", finished))
        await self._controller.finish("every session is settled")

    async def _pause_for(self, stale: list[str]) -> None:
        """Positions that have had no price for long are nobody's to value but a person's."""
        if self._controller.state == events.PIPELINE_STATE_RUNNING:
            await self._controller.pause(f"no close for {STALE_SESSIONS} sessions of what is held: {', '.join(stale)}")

    async def _until_data(self, source: BarSource, session: SessionTimes) -> None:
        while True:
            try:
                await self._controller.unless_ended(source.have(session))
            except TrademeshError as error:
                await self._missing(error)
                await source.reopen()
            else:
                await self._readiness.hold("market data")
                self._said_missing = ""
                return

    async def _missing(self, error: TrademeshError) -> None:
        """Says what is missing, and waits before the next try; raises the error again if no try can mend it."""
        if not _passes(error):
            raise error
        if error.message != self._said_missing:
            self._said_missing = error.message
            self._log.warning("a service is missing", reason=error.message)
        await self._readiness.fail("market data", error.message)
        self._waits(error.message)
        await self._controller.wait(RETRY_S)


def _passes(error: TrademeshError) -> bool:
    """True for failures that another try may find over: a service that is down or overloaded, a connection that was cut."""
    if isinstance(error, DependencyUnavailable | DeadlinePassed):
        return True
    if not isinstance(error, RemoteError):
        return False
    cut = error.remote_code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN) and error.remote_reason == error.remote_code.name
    return cut or error.remote_code in _PASSING
