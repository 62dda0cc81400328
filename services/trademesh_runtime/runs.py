"""All runs of one runtime_service: accepting, finding, ending them, and telling watchers of every change."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator

from trademesh.runtime.v1 import runtime_pb2 as wire
from trademesh.runtime.v1 import runtime_service_pb2 as messages
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_kernel.atomic_files import replace_file
from trademesh_kernel.errors import AlreadyExists, DependencyUnavailable, LimitReached, NotFound, StateConflict
from trademesh_runs.bootstrap import write_bootstrap
from trademesh_runs.journal_sqlite import SqliteReader
from trademesh_runs.layout import RunLayout
from trademesh_runs.run_config import config_sha256
from trademesh_runs.summary import summary_of
from trademesh_runtime import policy
from trademesh_runtime.launcher import Launcher
from trademesh_runtime.policy import State
from trademesh_runtime.process import ProcessLauncher
from trademesh_runtime.registry import Registry, Revisions
from trademesh_runtime.settings import RuntimeSettings
from trademesh_runtime.supervisor import Supervisor, Targets
from trademesh_runtime.workspace import AgentFiles

LAUNCHES_AT_ONCE = 2
CHECKPOINT_S = 5.0
CODE_VERSION = "0.1.0"


class Runs:
    """The runs and their supervisors."""

    def __init__(self, settings: RuntimeSettings, registry: Registry, timers: policy.Timers, launcher: Launcher | None = None) -> None:
        """Without a launcher gateways are processes of this machine."""
        self._settings = settings
        self._launcher = launcher or ProcessLauncher(settings.gateway_arguments())
        self._registry = registry
        self._timers = timers
        self._slots = asyncio.Semaphore(LAUNCHES_AT_ONCE)
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
        self._revisions = Revisions(registry)
        self._watchers: set[Watcher] = set()
        self._recovered = False
        self.draining = False
        self._summaries: dict[tuple[str, int], wire.RunSummary] = {}

    def recover(self) -> None:
        """Takes up the runs of an earlier runtime_service. Before that no run is known, and every call is put off."""
        for _position, run in reversed(self._registry.newest_first()):
            self._supervise(run).adopt_or_restart()
        self._recovered = True

    def check_recovered(self) -> None:
        """Raises DependencyUnavailable while runs of an earlier runtime_service are not known yet."""
        if not self._recovered:
            raise DependencyUnavailable("runtime_service", "runtime_service is starting: try again in a moment", 0.2, moved=True)

    async def start(self, config: RunConfig, agents: list[AgentFiles], request: messages.StartRunRequest) -> messages.StartRunResponse:
        """Accepts a normalised and checked configuration, and keeps the answer for a repeated `request`.

        Raises:
            AlreadyExists: there is a run of that name, or the journal of one.
            LimitReached: as many gateways live as may.
        """
        self.check_recovered()
        run_id = config.run_id or f"run-{secrets.token_hex(4)}"
        known = self._supervisors.get(run_id)
        if known is not None:
            raise AlreadyExists("run", run_id, known.state.name)
        if run_id in self._accepting:
            raise AlreadyExists("run", run_id, State.PENDING.name)
        if RunLayout(self._settings.runs_dir, run_id).journal.exists():
            # Somebody's history, which this registry does not know: its configuration is not to be overwritten.
            raise AlreadyExists("journal of run", run_id)
        live = len(self._accepting) + sum(supervisor.state not in policy.TERMINAL for supervisor in self._supervisors.values())
        if live >= self._settings.live_gateway_limit():
            raise LimitReached(f"{live} runs are live already", limit="live_gateways", value=live, retry_after_s=5.0)
        config.run_id = run_id
        run = wire.Run(run_id=run_id, state=wire.RUN_STATE_PENDING, config=config, feed_target=self._targets.trading)
        run.created_at.GetCurrentTime()
        run.updated_at.CopyFrom(run.created_at)
        self._accepting.add(run_id)
        try:
            await asyncio.to_thread(self._write_folder, RunLayout(self._settings.runs_dir, run_id), config, agents)
            run.revision = self._revisions.next()
            answer = messages.StartRunResponse(run=run)
            self._registry.accept(run, request.request_id, request, answer)
        finally:
            self._accepting.discard(run_id)
        # From here on there is a run, which can be stopped: not before, or a stop would be overtaken by the start.
        supervisor = self._supervise(run)
        supervisor.publish(durable=False)
        supervisor.feed(policy.Start())
        return answer

    def _write_folder(self, layout: RunLayout, config: RunConfig, agents: list[AgentFiles]) -> None:
        layout.make_folders()
        for agent in agents:
            for name, content in agent.files.items():
                path = layout.agent(agent.agent_id) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, content.encode())
        text = write_bootstrap(config)
        manifest = {
            "run_id": config.run_id,
            "code_version": CODE_VERSION,
            "config_sha256": config_sha256(config),
            "bootstrap_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "data": {"set": config.data.set, "snapshot": config.data.snapshot},
            "agents": {agent.agent_id: agent.sha256() for agent in agents},
        }
        replace_file(layout.manifest, (json.dumps(manifest, indent=2) + "\n").encode())
        replace_file(layout.bootstrap, text.encode())

    def _supervise(self, run: wire.Run) -> Supervisor:
        layout = RunLayout(self._settings.runs_dir, run.run_id)
        supervisor = Supervisor(
            run,
            layout,
            self._registry,
            self._targets,
            self._timers,
            self._slots,
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

    async def stop(self, run_id: str, reason: str) -> wire.Run:
        """Ends a run and waits until its gateway is gone; one that has ended is left as it is."""
        supervisor = self.get(run_id)
        supervisor.feed(policy.Stop(reason or "StopRun"))
        await supervisor.until(*policy.TERMINAL)
        return supervisor.run

    async def restart(self, run_id: str, reason: str) -> wire.Run:
        """Starts the next generation; one that is starting already is joined."""
        supervisor = self.get(run_id)
        if supervisor.state in (State.DRAINING, State.TERMINATING, State.HUNG):
            text = f"run {run_id} is being ended: restart it when that is done"
            raise StateConflict(text, resource_type="run", name=run_id, state=supervisor.state.name, retry_after_s=1.0)
        supervisor.feed(policy.Restart(reason or "RestartRun"))
        return supervisor.run

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
        progress = supervisor.run.progress
        if not supervisor.finished:
            return None
        key = (run_id, progress.head_sequence)
        if key not in self._summaries:
            self._summaries[key] = await asyncio.to_thread(read_summary, supervisor.layout)
        return self._summaries[key]

    def drain(self) -> None:
        """Ends every watch."""
        self.draining = True
        for watcher in self._watchers:
            watcher.wake()

    async def watch(self, run_id: str) -> AsyncIterator[wire.Run | int]:
        """Every run as it is, then each change; a revision where nothing happened for a while, and as the last word when we drain."""
        watcher = Watcher(run_id)
        self._watchers.add(watcher)
        try:
            revision = 0
            for supervisor in list(self._supervisors.values()):
                if not run_id or supervisor.run.run_id == run_id:
                    revision = max(revision, supervisor.run.revision)
                    yield copy_of(supervisor.run)
            yield revision
            while not self.draining:
                changed = await watcher.take(CHECKPOINT_S)
                for run in changed:
                    revision = max(revision, run.revision)
                    yield run
                if not changed:
                    yield revision
        finally:
            self._watchers.discard(watcher)

    def _tell(self, run: wire.Run) -> None:
        for watcher in self._watchers:
            watcher.deliver(run)

    async def close(self) -> None:
        """Ends all gateways, or leaves them to be adopted if so configured."""
        if not self._settings.runtime_keep_gateways:
            live = [supervisor for supervisor in self._supervisors.values() if supervisor.state not in policy.TERMINAL]
            for supervisor in live:
                supervisor.feed(policy.Stop("runtime_service ends"))
            await asyncio.gather(*(supervisor.until(*policy.TERMINAL, within_s=self._timers.drain_s + 10) for supervisor in live))
        for supervisor in self._supervisors.values():
            supervisor.release()


class Watcher:
    """Runs that have changed since they were last taken: the newest state of each, so that memory is bounded by the number of runs."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._changed: dict[str, wire.Run] = {}
        self._wake = asyncio.Event()

    def deliver(self, run: wire.Run) -> None:
        """Keeps a run as it is now."""
        if not self._run_id or run.run_id == self._run_id:
            self._changed[run.run_id] = copy_of(run)
            self._wake.set()

    def wake(self) -> None:
        """Ends the wait of `take`."""
        self._wake.set()

    async def take(self, within_s: float) -> list[wire.Run]:
        """What has changed, oldest change first; empty if nothing did in time."""
        try:
            async with asyncio.timeout(within_s):
                await self._wake.wait()
        except TimeoutError:
            return []
        self._wake.clear()
        changed, self._changed = sorted(self._changed.values(), key=lambda run: run.revision), {}
        return changed


def copy_of(run: wire.Run) -> wire.Run:
    """A run that later changes do not reach."""
    same = wire.Run()
    same.CopyFrom(run)
    return same


def read_summary(layout: RunLayout) -> wire.RunSummary:
    """The summary of a finished run, from its journal."""
    reader = SqliteReader(layout.journal)
    try:
        return summary_of(layout.run_id, reader)
    finally:
        reader.close()
