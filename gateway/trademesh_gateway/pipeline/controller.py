"""Drives cycles: start, pause, resume, step, stop, pace. Pauses take effect between phases; the wanted state is journaled and survives
restarts. A cycle that works longer than its clock allows is given up before its orders are executed, and its session is settled as it
stands: an agent_service that cannot be reached uses that time up, a person who thinks does not.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway.pipeline.cycle import PHASES
from trademesh_gateway.pipeline.cycle_clock import CycleClock, CycleOverdue
from trademesh_kernel.errors import Draining, StateConflict
from trademesh_runs.journal import Draft

Answer = TypeVar("Answer")

GIVE_WAY_S = 0.002
"""How long cycles may follow each other before others get their turn of the event loop."""
RUNNING = events.PIPELINE_STATE_RUNNING
TERMINAL = (events.PIPELINE_STATE_FINISHED, events.PIPELINE_STATE_STOPPED)
LAST_PHASE = max(PHASES)
DISK = "disk: "
"""How the reason of a pause begins that the disk has caused. Only such a pause ends by itself."""


class Step(enum.IntEnum):
    """How far a step goes; values are those of gateway.v1.StepSize."""

    PHASE = 1
    CYCLE = 2


class Stopped(Exception):
    """The controller was told to stop between two phases."""


class Ended(Exception):
    """StopPipeline has ended the pipeline: there is no next phase."""


class Interrupted(Exception):
    """A phase that waits for a person is to give way to a pause or a stop; it is done again from where it stood when it may go on."""


class PhasedCycle(Protocol):
    """A session, phase by phase: one that is traded (`cycle.Cycle`), or one that is shown again."""

    def is_void(self, phase: int) -> bool:
        """True for a phase that is left out."""

    def may_be_given_up(self, phase: int) -> bool:
        """True as long as nothing final has happened."""

    def give_up(self, phase: int, reason: str) -> None:
        """Settles what may be given up as it stands."""

    def run(self, phase: int) -> Awaitable[None] | None:
        """Runs a phase; what is returned is to be awaited."""


class Controller:
    """Says when the next phase may begin."""

    def __init__(
        self,
        run_id: str,
        emit: Callable[[Draft], object],
        *,
        state: int,
        reason: str,
        pace: float,
        generation: int = 0,
        clock: CycleClock | None = None,
        lease_held: Callable[[], bool] = lambda: True,
    ) -> None:
        """Begins in the state that the journal tells.

        Args:
            lease_held: without a lease no new cycle begins: nobody could stop it. `wake` says that it may have come back.
        """
        self._run_id = run_id
        self._emit = emit
        self.state = state
        self.reason = reason
        self.pace = pace
        self._generation = generation
        self._allowed_phases = 0
        self._stepping = False
        self.lease_held = lease_held
        self.clock = clock or CycleClock()
        self._in_cycle = False
        self._may_give_up = False
        self._ending: str | None = None
        self._disk = ""
        self._stopping = False
        self._changed = asyncio.Condition()
        self._standing = False
        self._gave_way_at = 0.0
        self._next_cycle_at = 0.0
        self._changes = 0

    async def run_cycle(self, cycle: PhasedCycle, *, last: bool = False) -> None:
        """Runs all phases of a session, waiting before each until it may begin. After the last session a stop for good comes too late.

        Raises:
            Stopped: the gateway drains.
            Ended: the pipeline was ended; a session that had begun is settled, unless the pipeline was paused in the middle of it.
        """
        await self._keep_pace()
        try:
            for phase in PHASES:
                done = cycle.is_void(phase)
                while not done:
                    first = phase == 1
                    if self._runs_freely() and (not first or self.lease_held()):
                        self._stepping = False
                    else:
                        self.clock.halt()
                        await self._wait_for_leave(first=first, last=phase == LAST_PHASE)
                    if first:
                        self._in_cycle = True
                        self.clock.begin()
                    done = await self._run_phase(cycle, phase)
        finally:
            self._in_cycle = self._may_give_up = False
            self.clock.end()
        # Who waits for the end of a cycle has paused the pipeline or is about to end it.
        if not self._runs_freely():
            await self._end_cycle(last=last)

    async def _end_cycle(self, *, last: bool) -> None:
        async with self._changed:
            if self._ending is not None and not last:
                self._enter(events.PIPELINE_STATE_STOPPED, self._ending)
                raise Ended
            self._pause_for_disk()
            self._changed.notify_all()

    async def _run_phase(self, cycle: PhasedCycle, phase: int) -> bool:
        """Runs a phase that has leave; False if it gave way and is to be done again."""
        self._may_give_up = cycle.may_be_given_up(phase)
        try:
            # Most phases of rule brains are done at once, and need nothing that could cut them short.
            self.clock.begin_work(phase)
            rest = cycle.run(phase)
            if rest is not None:
                async with self.clock.working(phase, limited=self._may_give_up):
                    await rest
            elif self._may_give_up and self.clock.left_s <= 0:
                raise CycleOverdue
        except Interrupted:
            if self._ending is None or self.state != RUNNING or not self._may_give_up:
                return False
            # A stop for good does not wait for a person either: what nobody has answered is void.
            cycle.give_up(phase, "the pipeline was stopped while orders waited for a person")
        except CycleOverdue:
            cycle.give_up(phase, f"the cycle took longer than {self.clock.deadline_s:g} s")
        return True

    async def wait(self, seconds: float) -> None:
        """Waits before another try at something.

        Raises:
            Stopped: the gateway drains.
            Ended: the pipeline was ended.
        """
        async with self._changed:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait_for(lambda: self._stopping or self.state == events.PIPELINE_STATE_STOPPED)
            self._check_going_on()

    async def unless_ended(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Something that may take long, given up as soon as it is for nothing.

        Raises:
            Stopped: the gateway drains.
            Ended: the pipeline was ended.
        """
        task, ended = asyncio.ensure_future(work), asyncio.ensure_future(self._until_ended())
        try:
            await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            self._check_going_on()
            raise Stopped
        finally:
            for one in (task, ended):
                one.cancel()
            await asyncio.wait({task, ended})

    async def _until_ended(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._stopping or self.state == events.PIPELINE_STATE_STOPPED)

    async def give_way(self, within_s: float) -> None:
        """For phases that wait for something outside: waits a while, and raises Interrupted when the pipeline is to stand."""
        async with self._changed:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._changed.wait_for(self._must_stand)
            if self._must_stand():
                raise Interrupted

    def _must_stand(self) -> bool:
        if self._stopping or (self._ending is not None and self._may_give_up):
            return True
        # A phase that a step has let in goes on to its end in PAUSED, too.
        return self.state != RUNNING and (not self._stepping or self._ending is not None)

    def _check_going_on(self) -> None:
        if self._stopping:
            raise Stopped
        if self.state == events.PIPELINE_STATE_STOPPED:
            raise Ended

    def _runs_freely(self) -> bool:
        """True if nobody wants the pipeline to stand, now or soon."""
        return self.state == RUNNING and not self._stopping and self._ending is None and not self._disk

    async def _wait_for_leave(self, *, first: bool, last: bool) -> None:
        async with self._changed:
            while True:
                self._check_going_on()
                if self._ending is not None and (first or self.state != RUNNING):
                    self._enter(events.PIPELINE_STATE_STOPPED, self._ending)
                    raise Ended
                self._pause_for_disk()
                if self.state == RUNNING and (self.lease_held() or not first):
                    self._stepping = False
                    break
                if self.state == events.PIPELINE_STATE_PAUSED and self._allowed_phases:
                    # A step of one cycle is a grant that ends with the last phase.
                    self._allowed_phases = 0 if last else self._allowed_phases - 1
                    self._stepping = True
                    break
                self._standing = True
                self._changed.notify_all()
                await self._changed.wait()
                self._standing = False

    async def _keep_pace(self) -> None:
        """Waits so that cycles begin as far apart as the pace says, and gives way to others in any case, if not after every short cycle."""
        now = time.monotonic()
        while self.pace > 0 and now < self._next_cycle_at and not self._stopping and self._ending is None and self.state == RUNNING:
            await asyncio.sleep(min(self._next_cycle_at - now, 0.1))
            now = time.monotonic()
        self._next_cycle_at = max(now, self._next_cycle_at) + (1 / self.pace if self.pace > 0 else 0.0)
        if now - self._gave_way_at >= GIVE_WAY_S:
            await asyncio.sleep(0)
            self._gave_way_at = now

    async def start(self, who: str) -> None:
        """READY becomes RUNNING; a pipeline that runs is left so."""
        if self.state == events.PIPELINE_STATE_PAUSED:
            raise self._conflict("is paused: ResumePipeline goes on")
        self._check_not_ended()
        await self._become(RUNNING, who, of=(events.PIPELINE_STATE_READY,))

    async def pause(self, reason: str) -> None:
        """RUNNING becomes PAUSED; returns once the pipeline stands between two phases. A pause of the disk becomes this one."""
        self._check_not_ended()
        own = reason if not reason.startswith(DISK) else f"PausePipeline: {reason}"
        of = (RUNNING, events.PIPELINE_STATE_READY)
        await self._become(events.PIPELINE_STATE_PAUSED, own, of=(*of, events.PIPELINE_STATE_PAUSED) if self.paused_by_disk else of)
        await self._until_standing()

    async def resume(self, who: str) -> None:
        """PAUSED becomes RUNNING."""
        if self.state == events.PIPELINE_STATE_READY:
            raise self._conflict("has not been started: StartPipeline begins")
        self._check_not_ended()
        await self._become(RUNNING, who, of=(events.PIPELINE_STATE_PAUSED,))

    async def step(self, size: Step) -> None:
        """Lets a paused pipeline run one phase, or on to the end of its cycle; returns when that is done."""
        self._check_paused()
        await self._until_standing()
        async with self._changed:
            self._check_paused()
            self._allowed_phases = 1 if size is Step.PHASE else len(PHASES)
            self._standing = False
            self._changed.notify_all()
        await self._until_standing()

    def _check_paused(self) -> None:
        self._check_not_ended()
        if self.state != events.PIPELINE_STATE_PAUSED:
            raise self._conflict("is not paused: PausePipeline comes first")

    def _check_not_ended(self) -> None:
        if self.state == events.PIPELINE_STATE_STOPPED:
            raise self._conflict("was stopped for good: RestartRun does not begin it again, a new run does")

    async def end(self, reason: str) -> None:
        """Becomes STOPPED for good, and returns once it is: a session in hand is settled first, unless the pipeline is paused in it. A
        pipeline that has ended is left as it is.

        Raises:
            Draining: the gateway ends before the pipeline stood; nothing is journaled.
        """
        async with self._changed:
            if self.state not in TERMINAL and not self._stopping:
                self._ending = reason if self._ending is None else self._ending
                self._allowed_phases = 0
                if not self._in_cycle:
                    self._enter(events.PIPELINE_STATE_STOPPED, self._ending)
                self._changed.notify_all()
                await self._changed.wait_for(lambda: self.state in TERMINAL or self._stopping)
            if self.state not in TERMINAL:
                raise Draining("trademesh.gateway.v1.PipelineService")

    async def set_pace(self, sessions_per_s: float) -> None:
        """How fast a backtest goes; 0 = as fast as it can."""
        if sessions_per_s != self.pace:
            self.pace = sessions_per_s
            self._next_cycle_at = 0.0
            self._lifecycle("pace_changed", events.PaceChanged(sessions_per_s=sessions_per_s))

    async def finish(self, reason: str = "") -> None:
        """Every session is settled. This is a fact also for a gateway that drains."""
        async with self._changed:
            self._enter(events.PIPELINE_STATE_FINISHED, reason)

    async def wake(self) -> None:
        """The lease was lost or has come back."""
        async with self._changed:
            self._changed.notify_all()

    @property
    def paused_by_disk(self) -> bool:
        """True if the disk has paused it, and nobody else since."""
        return self.state == events.PIPELINE_STATE_PAUSED and self.reason.startswith(DISK)

    def _pause_for_disk(self) -> None:
        if self._disk and not self._in_cycle and self.state == RUNNING:
            self._enter(events.PIPELINE_STATE_PAUSED, self._disk)

    async def hold_for_disk(self, why: str) -> None:
        """Pauses at the end of the cycle as long as there is a reason. Without one, a pause of the disk is over; a person's stays."""
        async with self._changed:
            self._disk = f"{DISK}{why}" if why else ""
            if not why and self.paused_by_disk and not self._stopping:
                self._enter(RUNNING, f"{DISK}there is room again")
            if not self._stopping:
                self._pause_for_disk()
            self._changed.notify_all()

    @property
    def stopping(self) -> bool:
        """True once the gateway drains."""
        return self._stopping

    async def stop(self) -> None:
        """Ends the run of cycles between two phases."""
        async with self._changed:
            self._stopping = True
            self._changed.notify_all()

    async def _become(self, state: int, reason: str, *, of: tuple[int, ...]) -> None:
        if self._stopping:
            raise Draining("trademesh.gateway.v1.PipelineService")
        async with self._changed:
            if self.state in of:
                self._enter(state, reason)

    def _enter(self, state: int, reason: str) -> None:
        """Journals a new state. The caller holds `_changed`."""
        self.state, self.reason = state, reason
        self._standing = False
        self._stepping = False
        self._allowed_phases = 0
        payload = events.PipelineStateChanged(state=events.PipelineState.ValueType(state), reason=reason)
        self._lifecycle("pipeline_state_changed", payload)
        self._changed.notify_all()

    def _lifecycle(self, kind: str, payload: events.PipelineStateChanged | events.PaceChanged) -> None:
        # Each change has a name of its own, also when the state is the same again.
        self._changes += 1
        self._emit(Draft(kind, payload, item=f"{self._generation}-{self._changes}"))

    async def _until_standing(self) -> None:
        """Returns when the pipeline stands, or when it is not to stand any more: somebody else has resumed it, or it has ended."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._stopping or self.state != events.PIPELINE_STATE_PAUSED or (self._stands() and not self._allowed_phases)
            )

    def _stands(self) -> bool:
        # Between cycles it stands as well, whatever it waits for there.
        return self._standing or not self._in_cycle

    def _conflict(self, what: str) -> StateConflict:
        name = events.PipelineState.Name(events.PipelineState.ValueType(self.state)).removeprefix("PIPELINE_STATE_")
        return StateConflict(f"the pipeline of {self._run_id} {what}", resource_type="pipeline", name=self._run_id, state=name)
