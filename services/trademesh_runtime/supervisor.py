"""The shell around the policy for one run: it carries events to it and its actions out, and keeps what the run shows of itself."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import signal
import sqlite3
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from typing import Any

from google.protobuf import json_format

from trademesh.gateway.v1 import supervision_service_pb2 as supervision
from trademesh.gateway.v1.event_pb2 import PIPELINE_STATE_FINISHED
from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1 import runtime_pb2 as wire
from trademesh_kernel.context import detached
from trademesh_kernel.logs import get_logger
from trademesh_runs.layout import RunLayout
from trademesh_runtime import policy
from trademesh_runtime.gateway_link import GatewayLink
from trademesh_runtime.gateway_logs import cut_log, last_lines
from trademesh_runtime.policy import State, Supervision
from trademesh_runtime.process import Identity, LaunchedGateway, ProcessHandle, adopt, launch_gateway, read_identity
from trademesh_runtime.registry import Registry, Revisions
from trademesh_runtime.run_record import REGISTRY_RETRY_S, RunRecord

KEPT_LOG_LINES = 20
IDENTITY_WITHIN_S = 5.0
"""So soon after its start a gateway has said on disk who it is."""

Changed = Callable[[wire.Run], None]


class Targets:
    """Where gateways find the other services, and where they bind."""

    def __init__(self, *, trading: str, news: str, agent: str, bind: str, advertise: str) -> None:
        self.trading = trading
        self.content = {"trading_target": trading, "news_target": news, "agent_target": agent, "bind": bind, "advertise": advertise}


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
        most_log_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self.run = run
        self.layout = layout
        self._targets = targets
        self._timers = timers
        self._slots = slots
        self._record = RunRecord(run, layout, registry, revisions, targets.trading, changed)
        self._log = get_logger("supervisor").bind(run_id=run.run_id)
        restarts = run.config.supervision.restart != contract.RESTART_POLICY_NEVER
        self._policy = Supervision(State(run.state or 1), run.reason, restart_on_failure=restarts, restarts=run.restart_count)
        self._tasks: set[asyncio.Task[None]] = set()
        self._handle: ProcessHandle | None = None
        self._nonce = ""
        self._launching = asyncio.Lock()
        self._most_log_bytes = most_log_bytes
        self._timer: asyncio.TimerHandle | None = None
        self._settled_at_start = 0
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
        self._policy, actions = policy.step(time.monotonic(), before, event, self._timers)
        if self._policy.timer_at != before.timer_at:
            self._set_timer()
        for action in actions:
            self._carry_out(action)
        if self._policy.state != before.state or self._policy.reason != before.reason:
            self._log.info("run", state=self._policy.state.name, reason=self._policy.reason)
            self.publish()

    def adopt_or_restart(self) -> None:
        """After a restart of runtime_service: takes a living gateway over, or lets the policy judge a dead one."""
        if self.state in policy.TERMINAL:
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
            self._task(self._adopt_late())
        else:
            self._lost()

    def _adopt(self) -> bool:
        """Takes over the living gateway that the run's files tell of; False if there is none."""
        identity = read_identity(self.layout)
        handle = adopt(identity) if identity is not None and identity.generation == self.run.generation else None
        if handle is None or identity is None:
            return False
        if self.state in policy.TERMINAL:
            # Somebody has stopped the run while we were looking for its gateway.
            handle.send(signal.SIGKILL, group=True)
            handle.close()
            return True
        self._policy = replace(self._policy, state=State.PENDING)
        self._watch(handle, identity)
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

    def _lost(self) -> None:
        """The gateway ended while nobody looked."""
        self._policy = replace(self._policy, state=State.RUNNING)
        self._ended(None, None)

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
        for task in self._tasks:
            task.cancel()
        self._record.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._handle is not None:
            self._handle.close()

    def _carry_out(self, action: policy.Action) -> None:
        match action:
            case policy.Launch():
                self._task(self._launch())
            case policy.Drain():
                self._task(self._drain())
            case policy.Send(signal=which, group=group):
                if self._handle is not None:
                    self._handle.send(signal.Signals[which.value], group=group)

    async def _launch(self) -> None:
        # One at a time for this run: what a stop has overtaken is gone before the next begins.
        async with self._launching, self._slots:
            generation = await self._next_generation()
            if generation is None:
                return
            ticket = {
                "run_id": self.run.run_id,
                "runs_dir": str(self.layout.runs_dir.absolute()),
                "generation": generation,
                "nonce": self._nonce,
                "run_nonce": f"{self.run.created_at.seconds}.{self.run.created_at.nanos:09}",
                **self._targets.content,
            }
            try:
                launched = await launch_gateway(self.layout, generation, ticket)
            except OSError as error:
                self.feed(policy.LaunchFailed(f"the gateway could not be started: {error}"))
                return
            if self.state is not State.PENDING:
                await launched.end()
                self._record.end_attempt(generation, "stopped while it was started")
                return
            self._handle = launched.handle
            self.run.pid = launched.handle.pid
            self._settled_at_start = self.run.progress.sessions_settled
            self._task(self._wait_end(launched.handle))
            self._task(self._wait_bound(launched, generation))
            self.feed(policy.Launched())
            # A start keeps its slot until it serves or has failed: starts are costly, and two at once are enough. By then the run may
            # already wait for its next start, which must not be taken for this one.
            async with self.moved:
                await self.moved.wait_for(lambda: self._handle is not launched.handle or self.state is not State.STARTING)

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

    async def _wait_bound(self, launched: LaunchedGateway, generation: int) -> None:
        bound = await launched.bound()
        if bound is not None and generation == self.run.generation:
            await self._probe(launched.handle, bound.target)

    def _watch(self, handle: ProcessHandle, identity: Identity) -> None:
        self._handle, self._nonce = handle, identity.nonce
        self.run.pid = handle.pid
        self._settled_at_start = self.run.progress.sessions_settled
        self._task(self._wait_end(handle))
        self._task(self._probe(handle, identity.target))

    async def _wait_end(self, handle: ProcessHandle) -> None:
        code, number = await handle.wait()
        handle.close()
        self._ended(code, number)

    def _ended(self, code: int | None, number: int | None) -> None:
        """The gateway has gone: what it said last, and then the policy."""
        words, finished, progress = "", self.finished, wire.RunProgress()
        with suppress(OSError, ValueError, KeyError, json_format.ParseError):
            record = json.loads(self.layout.gateway_exit.read_text())
            if record["generation"] == self.run.generation:
                words = record["reason"]
                code = record["code"] if code is None and number is None else code
                finished = finished or words == "RUN_ENDED"
                json_format.ParseDict(record["progress"], progress)
                self.run.progress.CopyFrom(progress)
        self.finished = finished
        self._handle = None
        self.run.pid, self.run.target = 0, ""
        self.run.health = wire.GATEWAY_HEALTH_UNSPECIFIED
        ended = wire.GatewayExit(generation=self.run.generation, code=code, signal=number, reason=words)
        ended.exited_at.GetCurrentTime()
        ended.log_lines.extend(last_lines(self.layout.gateway_log(self.run.generation), KEPT_LOG_LINES))
        self.run.last_exit.CopyFrom(ended)
        cause = f"signal {number}" if number is not None else f"exit {code}"
        self._record.end_attempt(self.run.generation, f"{cause}: {words}")
        # Chance spreads restarts of many runs; it has nothing to do with secrets.
        jitter = random.random()  # noqa: S311  # see above
        self.feed(policy.Exited(code, number, words, jitter, finished))
        self.publish()

    async def _probe(self, handle: ProcessHandle, target: str) -> None:
        """Checks health and sends heartbeats until the process ends."""
        self.run.target = target
        async with GatewayLink(target, self.run.generation, self._nonce, self._timers) as link:
            hint = asyncio.Event()
            watch = self._task(link.hint_at_changes(hint))
            try:
                while not handle.ended:
                    hint.clear()
                    try:
                        await self._probe_once(handle, link)
                        await self._bound_log()
                    except Exception:
                        # Whatever it is: a gateway that nobody looks at any more is worse.
                        self._log.exception("a probe failed by a fault of ours")
                    interval_s = self._timers.probe_interval_s if self.state not in (State.STARTING, State.ADOPTING) else 0.05
                    with suppress(TimeoutError):
                        await asyncio.wait_for(hint.wait(), interval_s)
            finally:
                watch.cancel()

    async def _bound_log(self) -> None:
        log = self.layout.gateway_log(self.run.generation)
        left_out = await asyncio.to_thread(cut_log, log, self._most_log_bytes, self._most_log_bytes // 4)
        if left_out:
            self._log.warning("log_truncated", generation=self.run.generation, left_out_bytes=left_out)

    async def _probe_once(self, handle: ProcessHandle, link: GatewayLink) -> None:
        began = time.monotonic()
        alive, detail = await link.is_alive()
        ready, why = await link.is_ready() if alive else (False, detail)
        if handle.ended:
            return
        # A check that failed while our own loop stood still says nothing about the gateway.
        own_lag_s = time.monotonic() - began - 2 * self._timers.probe_timeout_s
        if alive or own_lag_s < 0.25:
            before = (self.run.health, self.state)
            self.run.health = (
                wire.GATEWAY_HEALTH_SERVING if ready else wire.GATEWAY_HEALTH_NOT_SERVING if alive else wire.GATEWAY_HEALTH_UNREACHABLE
            )
            self.feed(policy.Probed(alive, ready, why))
            if before[0] != self.run.health and before[1] is self.state:
                self.publish()
        answer = await link.heartbeat() if alive else None
        if answer is not None:
            self._progressed(answer)

    def _progressed(self, answer: supervision.HeartbeatResponse) -> None:
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
        self._record.publish(self._policy, durable=durable)
        self._task(self._notify())

    async def _notify(self) -> None:
        async with self.moved:
            self.moved.notify_all()

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # A task that nobody holds may be collected while it waits. It outlives the call that caused it, and that call's deadline.
        task = asyncio.create_task(work, context=detached())
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("a task of the supervisor failed", exc_info=task.exception())
