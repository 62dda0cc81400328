"""Drives cycles: start, pause, resume, step, pace. Pauses take effect between phases; the wanted state is journaled and survives restarts."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from contextlib import suppress

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway.pipeline.cycle import PHASES, Cycle
from trademesh_kernel.errors import Draining, StateConflict
from trademesh_runs.journal import Draft


class Step(enum.IntEnum):
    """How far a step goes; values are those of gateway.v1.StepSize."""

    PHASE = 1
    CYCLE = 2


class Stopped(Exception):
    """The controller was told to stop between two phases."""


class Interrupted(Exception):
    """A phase that waits for a person is to give way to a pause or a stop; it is done again from where it stood when it may go on."""


class Controller:
    """Says when the next phase may begin."""

    def __init__(self, run_id: str, emit: Callable[[Draft], object], *, state: int, reason: str, pace: float, generation: int = 0) -> None:
        """Begins in the state that the journal tells: READY, RUNNING, PAUSED or FINISHED."""
        self._run_id = run_id
        self._emit = emit
        self.state = state
        self.reason = reason
        self.pace = pace
        self._generation = generation
        self._allowed_phases = 0
        self._stepping = False
        self._lease_held = True
        self._stopping = False
        self._changed = asyncio.Condition()
        self._standing = False
        self._next_cycle_at = 0.0
        self._changes = 0

    async def run_cycle(self, cycle: Cycle) -> None:
        """Runs all phases of a session, waiting before each until it may begin.

        Raises:
            Stopped: the gateway drains.
        """
        await self._keep_pace()
        for phase in PHASES:
            done = False
            while not done:
                await self._wait_for_leave(first=phase == 1, last=phase == max(PHASES))
                try:
                    await cycle.run(phase)
                    done = True
                except Interrupted:
                    continue

    async def wait(self, seconds: float) -> None:
        """Waits before another try at something; raises Stopped when the gateway drains."""
        async with self._changed:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait_for(lambda: self._stopping)
            if self._stopping:
                raise Stopped

    async def give_way(self, within_s: float) -> None:
        """For phases that wait for something outside: waits a while, and raises Interrupted when the pipeline is to stand."""
        async with self._changed:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._changed.wait_for(self._must_stand)
            if self._must_stand():
                raise Interrupted

    def _must_stand(self) -> bool:
        # A phase that a step has let in goes on to its end in PAUSED, too.
        return self._stopping or (self.state != events.PIPELINE_STATE_RUNNING and not self._stepping)

    async def _wait_for_leave(self, *, first: bool, last: bool) -> None:
        async with self._changed:
            while True:
                if self._stopping:
                    raise Stopped
                if self.state == events.PIPELINE_STATE_RUNNING and (self._lease_held or not first):
                    self._stepping = False
                    return
                if self.state == events.PIPELINE_STATE_PAUSED and self._allowed_phases:
                    # A step of one cycle is a grant that ends with the last phase.
                    self._allowed_phases = 0 if last else self._allowed_phases - 1
                    self._stepping = True
                    return
                self._standing = True
                self._changed.notify_all()
                await self._changed.wait()
                self._standing = False

    async def _keep_pace(self) -> None:
        """Waits so that cycles begin as far apart as the pace says; yields to others in any case."""
        loop = asyncio.get_running_loop()
        while self.pace > 0 and not self._stopping and self.state == events.PIPELINE_STATE_RUNNING:
            left = self._next_cycle_at - loop.time()
            if left <= 0:
                break
            await asyncio.sleep(min(left, 0.1))
        self._next_cycle_at = max(loop.time(), self._next_cycle_at) + (1 / self.pace if self.pace > 0 else 0.0)
        await asyncio.sleep(0)

    async def start(self, who: str) -> None:
        """READY becomes RUNNING; a pipeline that runs is left so."""
        if self.state == events.PIPELINE_STATE_PAUSED:
            raise self._conflict("is paused: ResumePipeline goes on")
        await self._become(events.PIPELINE_STATE_RUNNING, who, of=(events.PIPELINE_STATE_READY,))

    async def pause(self, reason: str) -> None:
        """RUNNING becomes PAUSED; returns once the pipeline stands between two phases."""
        await self._become(events.PIPELINE_STATE_PAUSED, reason, of=(events.PIPELINE_STATE_RUNNING, events.PIPELINE_STATE_READY))
        await self._until_standing()

    async def resume(self, who: str) -> None:
        """PAUSED becomes RUNNING."""
        if self.state == events.PIPELINE_STATE_READY:
            raise self._conflict("has not been started: StartPipeline begins")
        await self._become(events.PIPELINE_STATE_RUNNING, who, of=(events.PIPELINE_STATE_PAUSED,))

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
        if self.state != events.PIPELINE_STATE_PAUSED:
            raise self._conflict("is not paused: PausePipeline comes first")

    async def set_pace(self, sessions_per_s: float) -> None:
        """How fast a backtest goes; 0 = as fast as it can."""
        if sessions_per_s != self.pace:
            self.pace = sessions_per_s
            self._next_cycle_at = 0.0
            self._lifecycle("pace_changed", events.PaceChanged(sessions_per_s=sessions_per_s))

    async def finish(self, reason: str = "") -> None:
        """Every session is settled. This is a fact also for a gateway that drains."""
        await self._enter(events.PIPELINE_STATE_FINISHED, reason)

    async def hold_lease(self, held: bool) -> None:
        """Without a lease no new cycle begins: nobody could stop it."""
        async with self._changed:
            self._lease_held = held
            self._changed.notify_all()

    async def stop(self) -> None:
        """Ends the run of cycles between two phases."""
        async with self._changed:
            self._stopping = True
            self._changed.notify_all()

    async def _become(self, state: int, reason: str, *, of: tuple[int, ...]) -> None:
        if self._stopping:
            raise Draining("trademesh.gateway.v1.PipelineService")
        if self.state in of:
            await self._enter(state, reason)

    async def _enter(self, state: int, reason: str) -> None:
        async with self._changed:
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
                lambda: self._stopping or self.state != events.PIPELINE_STATE_PAUSED or (self._standing and not self._allowed_phases)
            )

    def _conflict(self, what: str) -> StateConflict:
        name = events.PipelineState.Name(events.PipelineState.ValueType(self.state)).removeprefix("PIPELINE_STATE_")
        return StateConflict(f"the pipeline of {self._run_id} {what}", resource_type="pipeline", name=self._run_id, state=name)
