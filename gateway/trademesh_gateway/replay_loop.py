"""Carries a run that shows another one again from its first session to its end: events of the other's journal instead of market data and a
desk. When phases may run is the controller's, as for any run. There are no quotes, of which no journal tells, and no limits: nothing is judged.
"""

from __future__ import annotations

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway.recording import RecordedCycle, Recording, draft_of
from trademesh_gateway.session_loop import LONGEST_RECONNECT_S, SessionLoop
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import TrademeshError

Session = list[events.Event]


class ReplayLoop(SessionLoop):
    """The sessions of a run that another one has had."""

    async def _run(self, pace: float) -> None:
        async with ServiceClient(self._ticket.trading_target, "trading_service", longest_reconnect_s=LONGEST_RECONNECT_S) as trading:
            recording = Recording(trading, self._config.replay_of)
            for _ in range(self._start.sessions_settled):
                await self._next(recording)
            session = await self._next(recording)
            self._begin_replay(session or recording.rest)
            if self._config.pipeline.autostart and self._controller.state == events.PIPELINE_STATE_READY:
                await self._controller.start("autostart")
            if pace:
                await self._controller.set_pace(pace)
            await self._writer.flush()
            while session is not None:
                following = await self._next(recording)
                await self._controller.run_cycle(RecordedCycle(session, self._writer.append), last=following is None)
                await self._writer.room()
                await self._export()
                session = following
            if self._controller.state == events.PIPELINE_STATE_STOPPED:
                return
            for event in recording.rest:
                self._writer.append(draft_of(event))
            await self._controller.finish(f"run {self._config.replay_of} was shown to its end")

    def _begin_replay(self, recorded: Session) -> None:
        """Tells what the run is before anybody starts it, and takes it out of what is recorded."""
        if recorded and recorded[0].HasField("run_started"):
            started = recorded.pop(0)
            if not self._began:
                self._writer.append(draft_of(started))

    async def _next(self, recording: Recording) -> Session | None:
        """The next session, once it can be read."""
        while True:
            try:
                found = await self._controller.unless_ended(recording.session())
            except TrademeshError as error:
                await self._missing(error)
            else:
                await self._readiness.hold("market data")
                self._said_missing = ""
                return found
