"""The shell around the policy for one run: it carries events to it and its actions out, and keeps what the run shows of itself."""

from __future__ import annotations

import asyncio
import random
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from trademesh.gateway.v1.event_pb2 import PIPELINE_STATE_FINISHED
from trademesh.gateway.v1.supervision_service_pb2 import HeartbeatResponse
from trademesh.runtime.v1 import runtime_pb2 as wire
from trademesh_kernel.context import detached
from trademesh_kernel.logs import get_logger
from trademesh_runs.layout import RunLayout
from trademesh_runtime import policy
from trademesh_runtime.gateway_exit import ending_of, printable, unread_ending
from trademesh_runtime.gateway_link import GatewayLink
from trademesh_runtime.gateway_logs import keep_within
from trademesh_runtime.gateway_probe import GatewayProbe
from trademesh_runtime.held_tasks import HeldTasks
from trademesh_runtime.launch_ticket import Targets, ticket_of
from trademesh_runtime.launcher import Bound, Exit, Handle, Launcher, LaunchError, LockHeldError
from trademesh_runtime.policy import Restarts, Signal, State, Supervision
from trademesh_runtime.policy_transitions import step
from trademesh_runtime.registry import Registry, Revisions
from trademesh_runtime.run_record import REGISTRY_RETRY_S, RunRecord
from trademesh_runtime.throttle import Throttle

IDENTITY_WITHIN_S = 5.0
"""So soon after its start a gateway has said on disk who it is."""
HEALTHY_OR_NOT = frozenset({State.RUNNING, State.DEGRADED})

Changed = Callable[[wire.Run], None]


def chance() -> float:
    """From 0 to 1: spreads restarts of many runs, and has nothing to do with secrets."""
    return random.random()  # noqa: S311  # see above


class Supervisor:
    """One run and its gateway."""

    def __init__(
        self,
        run: wire.Run,
        layout: RunLayout,
        registry: Registry,
        targets: Targets,
        timers: policy.Timers,
        slots: AbstractAsyncContextManager[None],
        revisions: Revisions,
        changed: Changed,
        launcher: Launcher,
        most_log_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self.run = run
        self.layout = layout
        self._targets = targets
        self._timers = timers
        self._slots = slots
        self._record = RunRecord(run, layout, registry, revisions, targets.trading, changed)
        self._log = get_logger("supervisor").bind(run_id=run.run_id)
        self._launcher = launcher
        restart_policy = Restarts(run.config.supervision.restart or Restarts.ON_FAILURE)
        self._policy = Supervision(State(run.state or 1), run.reason, restart_policy=restart_policy, restarts=run.restart_count)
        self._tasks = HeldTasks(self._log)
        self._handle: Handle | None = None
        self._nonce = ""
        self._launching = asyncio.Lock()
        self._most_log_bytes = most_log_bytes
        self._timer: asyncio.TimerHandle | None = None
        self._health_report = Throttle(timers.report_s, self._publish_health)
        """Shows a changed health so often at most that nobody drowns in it. Until then what else is published does not show it, either."""
        self._settled_at_start = 0
        self._probe: GatewayProbe | None = None
        self._health = wire.GATEWAY_HEALTH_UNSPECIFIED
        self._shown = self._policy
        self.moved = asyncio.Condition()
        self.finished = run.progress.sessions_settled > 0 and run.progress.sessions_settled == run.progress.sessions_total
        """True once the gateway has said that its pipeline is FINISHED."""

    @property
    def state(self) -> State:
        """Where the run stands."""
        return self._policy.state

    def feed(self, event: policy.Event) -> None:
        """Takes in an event and carries out what the policy says."""
        before = self._policy
        self._policy, actions = step(time.monotonic(), before, event, self._timers)
        if self._policy.timer_at != before.timer_at:
            self._set_timer()
        for action in actions:
            self._carry_out(action)
        if self._policy.state != before.state or self._policy.reason != before.reason:
            if before.state in HEALTHY_OR_NOT and self._policy.state in HEALTHY_OR_NOT:
                self._health_report.ask()
            else:
                self._log.info("run", state=self._policy.state.name, reason=self._policy.reason)
                self._health_report.cancel()
                self.publish()

    def _publish_health(self) -> None:
        if int(self.run.state) != int(self.state):
            self._log.info("run", state=self.state.name, reason=self._policy.reason)
        self.publish()

    def adopt_or_restart(self) -> None:
        """After a restart of runtime_service: takes a living gateway over, or lets the policy judge a dead one."""
        if self.state in policy.TERMINAL:
            self._end_unwanted()
            return
        if self._adopt():
            return
        if not self._record.is_attempt_open() or self.state is State.BACKOFF:
            # It was to be started, for the first time or again, and was not yet.
            self._policy = replace(self._policy, state=State.PENDING)
            self.feed(policy.Start())
        elif self._record.attempt_began_within(IDENTITY_WITHIN_S):
            # It may have been started a moment ago, and not have said yet who it is.
            self._policy = replace(self._policy, state=State.PENDING)
            self._tasks.start(self._adopt_late())
        else:
            self._lost()

    def _adopt(self) -> bool:
        """Takes over the living gateway that the run's files tell of; False if there is none."""
        found = self._launcher.find(self.layout, self.run.generation)
        if found is None:
            return False
        if self.state in policy.TERMINAL:
            # Somebody has stopped the run while we were looking for its gateway.
            found.handle.send(Signal.KILL, group=True)
            found.handle.close()
            return True
        self._policy = replace(self._policy, state=State.PENDING)
        self._nonce = found.nonce
        self._watch(found.handle)
        self._tasks.start(self._look_after(found.handle, found.target))
        self.feed(policy.Found())
        return True

    async def _adopt_late(self) -> None:
        """Looks for a gateway that has not said yet who it is; meanwhile the run is PENDING, and a stop makes it STOPPED."""
        async with self._launching:
            deadline = time.monotonic() + IDENTITY_WITHIN_S
            while time.monotonic() < deadline:
                if self._adopt():
                    return
                await asyncio.sleep(0.05)
            if self.state is State.PENDING:
                self._lost()

    def _end_unwanted(self) -> None:
        """Ends a gateway whose start a stop had overtaken, and whose end the earlier runtime_service did not live to see to."""
        if not self._record.is_attempt_open():
            return
        if self._adopt():
            self._record.end_attempt(self.run.generation, "stopped while it was started")
        elif self._record.attempt_began_within(IDENTITY_WITHIN_S):
            self._tasks.start(self._adopt_late())
        else:
            self._record.end_attempt(self.run.generation, "ended unseen")

    def _lost(self) -> None:
        """The gateway ended while nobody looked."""
        self._policy = replace(self._policy, state=State.RUNNING)
        self._ended(Exit(None, None))

    async def until(self, *states: State, within_s: float | None = None) -> bool:
        """Waits until the run is in one of the states; False if it is not in time."""
        try:
            async with asyncio.timeout(within_s), self.moved:
                await self.moved.wait_for(lambda: self.state in states)
        except TimeoutError:
            return False
        return True

    async def idle(self) -> None:
        """Returns when no start is under way, nor the end of one that was overtaken by a stop."""
        async with self._launching:
            pass

    def release(self) -> None:
        """Lets the gateway live on without us."""
        self._tasks.cancel()
        self._record.close()
        self._health_report.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._handle is not None:
            self._handle.close()

    def _carry_out(self, action: policy.Action) -> None:
        match action:
            case policy.Launch():
                self._tasks.start(self._start())
            case policy.Drain():
                self._tasks.start(self._drain())
            case policy.Send(signal=which, group=group):
                if self._handle is not None:
                    self._handle.send(which, group=group)
            case policy.Alert(text=text):
                self._log.error("somebody has to look after this", reason=text)

    async def _start(self) -> None:
        try:
            await self._launch()
        except Exception as error:
            # Whatever it is: a run that waits for a start that nobody makes is worse.
            self._log.exception("a start failed by a fault of ours")
            reason = f"the start failed by a fault of ours: {error!r}"
            self.feed(policy.LaunchFailed(reason, passing=True, jitter=chance()))
            if self._handle is None and self._record.is_attempt_open():
                self._record.end_attempt(self.run.generation, reason)

    async def _launch(self) -> None:
        # One at a time for this run: what a stop has overtaken is gone before the next begins.
        async with self._launching, self._slots:
            if not await self._has_room():
                return
            generation = await self._next_generation()
            if generation is None:
                return
            ticket = ticket_of(self.run, self.layout, self._nonce, self._targets, self._timers)
            try:
                handle = await self._launcher.launch(self.layout, generation, ticket)
            except LaunchError as error:
                self._record.end_attempt(generation, str(error))
                self.feed(policy.LaunchFailed(str(error), error.passing, chance()))
                return
            if self.state is not State.PENDING:
                # Somebody stopped the run while it was being started.
                await self._end_overtaken(handle)
                self._record.end_attempt(generation, "stopped while it was started")
                return
            self._watch(handle)
            self.feed(policy.Launched())
            # A start keeps its slot until it serves or has failed: starts are costly, and two at once are enough. By then the run may
            # already wait for its next start, which must not be taken for this one.
            async with self.moved:
                await self.moved.wait_for(lambda: self._handle is not handle or self.state is not State.STARTING)

    async def _end_overtaken(self, handle: Handle) -> None:
        handle.send(Signal.KILL, group=True)
        try:
            await handle.wait()
            await handle.end_rest()
        finally:
            handle.close()

    async def _has_room(self) -> bool:
        """Whether the run may be started: it is still to be, and nothing is left of an earlier gateway."""
        if self.state is not State.PENDING:
            return False
        try:
            await self._launcher.make_room(self.layout)
        except LockHeldError as error:
            self.feed(policy.LockBusy(str(error), chance()))
        return self.state is State.PENDING

    async def _next_generation(self) -> int | None:
        """A generation that the registry knows of before its process is; None if the run is not to be started any more."""
        while self.state is State.PENDING:
            generation = self.run.generation + 1
            try:
                self._record.begin_attempt(generation)
                self._nonce = secrets.token_hex(16)
            except sqlite3.Error as error:
                reason = f"the start waits: the registry cannot be written ({error})"
                if self._policy.reason != reason:
                    self._log.error("the registry cannot be written; the start waits", reason=str(error))
                    self._policy = replace(self._policy, reason=reason)
                    self.publish(durable=False)
                await asyncio.sleep(REGISTRY_RETRY_S)
            else:
                return generation
        return None

    def _watch(self, handle: Handle) -> None:
        self._handle = handle
        self.run.pid = handle.pid
        self._settled_at_start = self.run.progress.sessions_settled
        log = self.layout.gateway_log(self.run.generation)
        around = [
            self._tasks.start(self._hear(handle)),
            self._tasks.start(keep_within(log, self._most_log_bytes, self._timers.probe_interval_s)),
        ]
        self._tasks.start(self._wait_end(handle, around))

    async def _hear(self, handle: Handle) -> None:
        """Takes in what a gateway says while it starts, and looks after it once it is known where it serves."""
        async for report in handle.reports():
            if isinstance(report, Bound):
                self._tasks.start(self._look_after(handle, report.target))
            else:
                what = printable(report.what)
                if self._probe is not None:
                    self._probe.hear(what)
                self.feed(policy.Progress(what))

    async def _wait_end(self, handle: Handle, around: Sequence[asyncio.Task[None]]) -> None:
        try:
            how = await handle.wait()
            self._ended(how)
            # What a gateway has started ends with it: nobody else would look after it, and it may hold the run's lock.
            await handle.end_rest()
        finally:
            for task in around:
                task.cancel()
            handle.close()

    def _ended(self, how: Exit) -> None:
        """The gateway has gone: what it said last, and then the policy."""
        try:
            ending = ending_of(self.layout, self.run.generation, how)
        except Exception:
            # Whatever it left behind: that it has ended must be known.
            self._log.exception("what a gateway left behind cannot be read by a fault of ours")
            ending = unread_ending(self.run.generation, how)
        self.finished = self.finished or ending.run_ended
        if ending.progress is not None:
            # Last words leave the epoch out; it does not change while a gateway lives.
            ending.progress.epoch = ending.progress.epoch or self.run.progress.epoch
            self.run.progress.CopyFrom(ending.progress)
        self._handle = self._probe = None
        self.run.pid, self.run.target = 0, ""
        self._health = wire.GATEWAY_HEALTH_UNSPECIFIED
        self.run.last_exit.CopyFrom(ending.exit)
        self._record.end_attempt(self.run.generation, ending.cause)
        self.feed(policy.Exited(ending.code, ending.signal, ending.words, chance(), self.finished))
        self.publish()

    async def _look_after(self, handle: Handle, target: str) -> None:
        """Probes a gateway until it ends."""
        self.run.target = target
        async with GatewayLink(target, self.run.generation, self._nonce, self._timers) as link:
            self._probe = GatewayProbe(handle, link, self._timers, self)
            await self._probe.run()

    def found_health(self, health: wire.GatewayHealth.ValueType) -> None:
        """Shows the newest health of the gateway."""
        if health != self._health:
            self._health = health
            self._health_report.ask()

    def found_progress(self, answer: HeartbeatResponse) -> None:
        """Shows how far the gateway is."""
        pipeline = answer.pipeline
        progress = wire.RunProgress(
            sessions_settled=pipeline.sessions_settled,
            sessions_total=pipeline.sessions_total,
            session_date=pipeline.session_date,
            nav_micros=answer.nav_micros,
            head_sequence=pipeline.head_sequence,
            epoch=answer.epoch,
        )
        if pipeline.sessions_settled > self._settled_at_start:
            self.feed(policy.SessionSettled())
        was_finished, self.finished = self.finished, pipeline.state == PIPELINE_STATE_FINISHED
        if progress != self.run.progress:
            self.run.progress.CopyFrom(progress)
            # Not to the registry each second: a gateway tells its progress again, and leaves it behind when it ends. That it has finished
            # must be known also if it and we end at once.
            self.publish(durable=self.finished and not was_finished)

    async def _drain(self) -> None:
        if self.run.target:
            async with GatewayLink(self.run.target, self.run.generation, self._nonce, self._timers) as link:
                await link.drain()
        self.feed(policy.Drained())

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._policy.timer_at is not None:
            delay = max(0.0, self._policy.timer_at - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay + 0.001, self.feed, policy.Tick(), context=detached())

    def publish(self, *, durable: bool = True) -> None:
        """Shows the run as it is now."""
        if not self._health_report.is_waiting:
            self._shown, self.run.health = self._policy, self._health
        self._record.publish(self._shown, durable=durable)
        self._tasks.start(self._notify())

    async def _notify(self) -> None:
        async with self.moved:
            self.moved.notify_all()
