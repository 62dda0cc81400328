"""All runs of one runtime_service: accepting, finding, ending, deleting them, and going on with what an earlier runtime_service left."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any

from trademesh.runtime.v1 import runtime_pb2 as wire
from trademesh.runtime.v1 import runtime_service_pb2 as messages
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_kernel.context import current_call
from trademesh_kernel.errors import AlreadyExists, DependencyUnavailable, LimitReached, NotFound, StateConflict
from trademesh_kernel.logs import get_logger
from trademesh_runs.layout import RunLayout
from trademesh_runtime import policy
from trademesh_runtime.held_tasks import HeldTasks
from trademesh_runtime.launch_ticket import Targets
from trademesh_runtime.launcher import Launcher
from trademesh_runtime.places import Places
from trademesh_runtime.policy import State
from trademesh_runtime.process import ProcessLauncher
from trademesh_runtime.registry import Deletion, Registry, Revisions, Wish, WishKind
from trademesh_runtime.run_changes import News, RunChanges
from trademesh_runtime.run_folders import check_room, put_away, sweep, write_folder
from trademesh_runtime.run_progress import ProgressKeeper
from trademesh_runtime.run_summaries import Summaries
from trademesh_runtime.settings import RuntimeSettings
from trademesh_runtime.supervisor import Supervisor
from trademesh_runtime.wishes import Wishes
from trademesh_runtime.workspace import AgentFiles

STARTS = frozenset({State.PENDING, State.STARTING})
GOES_ON = frozenset({State.RUNNING, State.DEGRADED, State.BACKOFF})
SETTLED = policy.TERMINAL | STARTS | GOES_ON
"""In every other state something is under way that a restart has to wait for."""
ANSWER_MARGIN_S = 0.2


class Runs:
    """The runs and their supervisors. Of the calls that change a run each is taken in at once and whole, so that two never mix; what
    takes time, they wait for."""

    def __init__(self, settings: RuntimeSettings, registry: Registry, timers: policy.Timers, launcher: Launcher | None = None) -> None:
        """Without a launcher gateways are processes of this machine."""
        self._settings = settings
        self._launcher = launcher or ProcessLauncher(settings.gateway_arguments())
        self._registry = registry
        self._timers = timers
        self._places = Places(settings.live_gateway_limit(), settings.runtime_max_queued)
        self._targets = Targets(
            trading=settings.trading_target,
            news=settings.news_target,
            agent=settings.agent_target,
            bind=settings.gateway_bind,
            advertise=settings.gateway_advertise,
        )
        self._supervisors: dict[str, Supervisor] = {}
        self._accepting = set[str]()
        """Names of runs whose folders are being written."""
        self._leaving = set[str]()
        """Names of runs whose folders are being put away."""
        self._wishes = Wishes(registry)
        self._revisions = Revisions(registry)
        self._changes = RunChanges()
        self._progress = ProgressKeeper(registry)
        self._tasks = HeldTasks(get_logger("runs"))
        self._recovered = False
        self.draining = False
        self._summaries = Summaries()
        self._log = get_logger("runs")

    def recover(self) -> None:
        """Takes up the runs of an earlier runtime_service, and what was asked of them. Before that no run is known, and every call is put
        off."""
        self._wishes.load()
        for run_id in self._wishes.runs_asked_to(WishKind.DELETE):
            self._finish_deletion(run_id)
        runs = [run for _position, run in reversed(self._registry.newest_first())]
        self._changes.begin(runs, self._registry.deletions(), self._registry.forgotten(), self._revisions.next())
        found = [self._supervise(run) for run in runs]
        live = [supervisor for supervisor in found if supervisor.state not in policy.TERMINAL]
        for supervisor in live:
            if supervisor.state is not State.PENDING or self._registry.is_open(supervisor.run.run_id, supervisor.run.generation):
                self._places.keep(supervisor.run.run_id)
        for supervisor in sorted(live, key=lambda supervisor: supervisor.run.revision):
            self._places.ask(supervisor.run.run_id)
        for supervisor in found:
            supervisor.adopt_or_restart()
            self._go_on(supervisor)
        self._tasks.start(asyncio.to_thread(sweep, self._settings.runs_dir))
        self._recovered = True

    def _finish_deletion(self, run_id: str) -> None:
        """Deletes a run whose deletion was accepted and cut off. One whose folder cannot be put away stays, as it was."""
        try:
            put_away(RunLayout(self._settings.runs_dir, run_id))
            self._registry.delete(run_id, self._revisions.next())
        except (OSError, sqlite3.Error) as error:
            self._log.error("a run cannot be deleted", run_id=run_id, reason=str(error))
        else:
            self._wishes.forget(run_id)

    def _go_on(self, supervisor: Supervisor) -> None:
        """Carries on what was asked of a run and perhaps not done."""
        wish = self._wishes.about(supervisor.run.run_id)
        if wish is None:
            return
        if wish.kind is WishKind.STOP and supervisor.state not in policy.TERMINAL:
            supervisor.feed(policy.Stop(wish.reason or "StopRun"))
        elif self._wishes.is_asked(WishKind.RESTART, supervisor.run):
            self._tasks.start(self._restart_later(supervisor, wish))

    async def _restart_later(self, supervisor: Supervisor, wish: Wish) -> None:
        await supervisor.until(*GOES_ON, *policy.TERMINAL)
        if self._wishes.about(wish.run_id) is wish and self._wishes.is_asked(WishKind.RESTART, supervisor.run):
            supervisor.feed(policy.Restart(wish.reason or "RestartRun"))

    def check_recovered(self) -> None:
        """Raises DependencyUnavailable while runs of an earlier runtime_service are not known yet."""
        if not self._recovered:
            raise DependencyUnavailable("runtime_service", "runtime_service is starting: try again in a moment", 0.2, moved=True)

    async def start(self, config: RunConfig, agents: list[AgentFiles], request: messages.StartRunRequest) -> messages.StartRunResponse:
        """Accepts a normalised and checked configuration, and keeps the answer for a repeated `request`. The run is started at once, or
        waits for its turn.

        Raises:
            AlreadyExists: there is a run of that name, or the journal of one.
            StateConflict: a run of that name is being ended or deleted.
            LimitReached: as many runs wait for others to end as may.
            DiskLow: there is too little room.
        """
        self.check_recovered()
        run_id = config.run_id or f"run-{secrets.token_hex(4)}"
        self._check_name(run_id)
        self._check_places()
        check_room(self._settings.runs_dir, self._settings.runtime_least_free_bytes)
        config.run_id = run_id
        run = wire.Run(run_id=run_id, state=wire.RUN_STATE_PENDING, config=config, feed_target=self._targets.trading)
        run.created_at.GetCurrentTime()
        run.updated_at.CopyFrom(run.created_at)
        self._accepting.add(run_id)
        try:
            await _to_its_end(asyncio.to_thread(write_folder, RunLayout(self._settings.runs_dir, run_id), config, agents))
            run.revision = self._revisions.next()
            answer = messages.StartRunResponse(run=run)
            self._registry.accept(run, request, answer)
        finally:
            self._accepting.discard(run_id)
        # From here on there is a run, which can be stopped: not before, or a stop would be overtaken by the start.
        supervisor = self._supervise(run)
        supervisor.publish(durable=False)
        supervisor.feed(policy.Start())
        return answer

    def _check_name(self, run_id: str) -> None:
        known = self._supervisors.get(run_id)
        if run_id in self._leaving or (known is not None and known.state not in SETTLED):
            state = "being deleted" if known is None else known.state.name
            text = f"there is a run {run_id} still, {state}"
            raise StateConflict(text, resource_type="run", name=run_id, state=state, retry_after_s=1.0)
        if known is not None:
            raise AlreadyExists("run", run_id, known.state.name)
        if run_id in self._accepting:
            raise AlreadyExists("run", run_id, State.PENDING.name)
        if RunLayout(self._settings.runs_dir, run_id).journal.exists():
            # Somebody's history, which this registry does not know: its configuration is not to be overwritten.
            raise AlreadyExists("journal of run", run_id)

    def _check_places(self) -> None:
        if not self._places.room_for(len(self._accepting) + 1):
            text = f"{self._places.held} runs are live and {self._places.waiting} wait already: stop one, or come back"
            raise LimitReached(text, limit="live_gateways", value=self._places.limit, retry_after_s=5.0)

    def _supervise(self, run: wire.Run) -> Supervisor:
        layout = RunLayout(self._settings.runs_dir, run.run_id)
        supervisor = Supervisor(
            run,
            layout,
            self._registry,
            self._targets,
            self._timers,
            self._places.start_of(run.run_id),
            self._revisions,
            self._tell,
            self._launcher,
            self._settings.runtime_most_log_bytes,
        )
        self._supervisors[run.run_id] = supervisor
        return supervisor

    def get(self, run_id: str) -> Supervisor:
        """A run's supervisor; raises NotFound."""
        self.check_recovered()
        supervisor = self._supervisors.get(run_id)
        if supervisor is None:
            raise NotFound("run", run_id)
        return supervisor

    def known(self, run_id: str) -> wire.Run | None:
        """A run as it is now, if there is one of that name."""
        self.check_recovered()
        supervisor = self._supervisors.get(run_id)
        return None if supervisor is None else supervisor.run

    async def stop(self, request: messages.StopRunRequest, *, again: bool) -> wire.Run:
        """Ends a run and waits until its gateway is gone, or until the call's deadline; one that has ended is left as it is.

        Args:
            request: which run, and why.
            again: True if it was accepted before; it is then only waited for, unless something else was asked since.
        """
        supervisor = self.get(request.run_id)
        if not again and supervisor.state not in policy.TERMINAL:
            self._wishes.keep_if_possible(supervisor.run, WishKind.STOP, request.reason, request)
            supervisor.feed(policy.Stop(request.reason or "StopRun"))
        # Somebody may start it again the moment that it has ended: the stop is over then too, and its caller is told how it is now.
        with suppress(TimeoutError):
            async with asyncio.timeout(_remaining_s()), supervisor.moved:
                await supervisor.moved.wait_for(
                    lambda: supervisor.state in policy.TERMINAL or not self._wishes.is_asked(WishKind.STOP, supervisor.run)
                )
        return supervisor.run

    async def restart(self, request: messages.RestartRunRequest, *, again: bool) -> wire.Run:
        """Starts the next generation; a run that is starting or restarting already is joined, and the end of one that is being ended is
        waited for.

        Raises:
            StateConflict: what is under way did not end before the call's deadline.
            LimitReached: as many runs wait for others to end as may.
        """
        run_id = request.run_id
        supervisor = self.get(run_id)
        while not again and supervisor.state not in SETTLED:
            if self._wishes.is_asked(WishKind.RESTART, supervisor.run):
                break
            if not await supervisor.until(*SETTLED, within_s=_remaining_s()):
                text = f"run {run_id} is {supervisor.state.name}: restart it when that is over"
                raise StateConflict(text, resource_type="run", name=run_id, state=supervisor.state.name, retry_after_s=1.0)
            # It may have been deleted meanwhile.
            supervisor = self.get(run_id)
        if again or supervisor.state not in policy.TERMINAL | GOES_ON:
            return supervisor.run
        if supervisor.state in policy.TERMINAL:
            self._check_places()
        self._wishes.keep_if_possible(supervisor.run, WishKind.RESTART, request.reason, request)
        supervisor.feed(policy.Restart(request.reason or "RestartRun"))
        return supervisor.run

    async def delete(self, request: messages.DeleteRunRequest, *, again: bool) -> None:
        """Deletes a run that has ended, with its folder.

        Raises:
            StateConflict: it has not ended, or its folder cannot be put away.
        """
        run_id = request.run_id
        wish = self._wishes.about(run_id)
        if again and (run_id not in self._supervisors or wish is None or wish.kind is not WishKind.DELETE):
            # It is gone, and what has its name now is another run.
            return
        supervisor = self.get(run_id)
        if supervisor.state in policy.TERMINAL:
            # A start that a stop has overtaken may still be ending what it began.
            await supervisor.idle()
            supervisor = self.get(run_id)
        if supervisor.state not in policy.TERMINAL:
            text = f"run {run_id} is {supervisor.state.name}: stop it first"
            raise StateConflict(text, resource_type="run", name=run_id, state=supervisor.state.name)
        self._wishes.keep(supervisor.run, WishKind.DELETE, request=request)
        del self._supervisors[run_id]
        self._leaving.add(run_id)
        # Once it is accepted it is done, whether the caller waits or not.
        await asyncio.shield(self._tasks.start(self._delete(supervisor, request)))

    async def _delete(self, supervisor: Supervisor, request: messages.DeleteRunRequest) -> None:
        run_id = supervisor.run.run_id
        supervisor.release()
        try:
            await asyncio.to_thread(put_away, supervisor.layout)
            deletion = Deletion(run_id, self._revisions.next())
            self._registry.delete(run_id, deletion.revision)
        except OSError as error:
            self._supervisors[run_id] = supervisor
            self._wishes.withdraw(run_id, request)
            text = f"the folder of run {run_id} cannot be put away: {error.strerror or error}"
            raise StateConflict(text, resource_type="run", name=run_id, state=supervisor.state.name) from None
        except BaseException:
            self._supervisors[run_id] = supervisor
            raise
        finally:
            self._leaving.discard(run_id)
        self._wishes.forget(run_id)
        self._changes.tell(deletion)
        self._tasks.start(asyncio.to_thread(sweep, self._settings.runs_dir))

    def page(self, before: int | None, limit: int, states: frozenset[int]) -> tuple[list[wire.Run], int | None]:
        """Runs, newest first, and the position to go on from."""
        found = list[wire.Run]()
        last = 0
        for position, stored in self._registry.newest_first():
            if before is not None and position >= before:
                continue
            run = self._supervisors[stored.run_id].run if stored.run_id in self._supervisors else stored
            if states and run.state not in states:
                continue
            if len(found) == limit:
                return found, last
            found.append(run)
            last = position
        return found, None

    async def summary(self, run_id: str) -> wire.RunSummary | None:
        """What a run amounts to, once every session is settled."""
        supervisor = self.get(run_id)
        return await self._summaries.of(supervisor.run, supervisor.layout) if supervisor.finished else None

    def drain(self) -> None:
        """Ends every watch."""
        self.draining = True
        self._changes.end()

    def check_watchable(self, run_id: str, after: int | None) -> None:
        """Raises NotFound if there is no such run, and nobody who comes back is to be told that it is gone."""
        if run_id and not (after is not None and self._changes.was_deleted_after(run_id, after)):
            self.get(run_id)

    def watch(self, run_id: str, after: int | None) -> AsyncIterator[News]:
        """See `RunChanges.watch`."""
        return self._changes.watch(run_id, after)

    def _tell(self, run: wire.Run) -> None:
        if State(int(run.state)) in policy.TERMINAL:
            self._places.leave(run.run_id)
        else:
            self._places.ask(run.run_id)
            if self._places.is_waiting(run.run_id):
                waits = f"waits for a place: {self._places.held} runs are live, and so many may be"
                run.reason = f"{run.reason}; {waits}" if run.reason else waits
        self._changes.tell(run)
        self._progress.note(run)

    async def close(self) -> None:
        """Ends all gateways, or leaves them to be adopted if so configured."""
        self._tasks.cancel()
        if not self._settings.runtime_keep_gateways:
            live = [supervisor for supervisor in self._supervisors.values() if supervisor.state not in policy.TERMINAL]
            for supervisor in live:
                self._wishes.keep_if_possible(supervisor.run, WishKind.STOP, "runtime_service ends")
                supervisor.feed(policy.Stop("runtime_service ends"))
            await asyncio.gather(*(supervisor.until(*policy.TERMINAL, within_s=self._timers.drain_s + 10) for supervisor in live))
        for supervisor in self._supervisors.values():
            supervisor.release()
        await self._progress.close()


def _remaining_s() -> float | None:
    """How long the call in hand may still wait, so that its answer comes before its deadline; None: it has none."""
    scope = current_call.get()
    remaining_s = scope.remaining_s() if scope is not None else None
    return None if remaining_s is None else max(0.0, remaining_s - ANSWER_MARGIN_S)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Waits for work also once the call in hand was given up: a thread cannot be, and nobody else may do the same meanwhile."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
