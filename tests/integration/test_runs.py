"""Runs under everything that people, crashes and gateways do to them at once, by chance.

Gateways are made up here, since no process is quick enough for so many; what is proved is that of one run there are never two, that a stop
is never followed by a start, and that the next runtime_service goes on where the last one was cut off.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from trademesh.runtime.v1 import runtime_pb2
from trademesh.runtime.v1 import runtime_service_pb2 as messages
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_kernel.errors import AlreadyExists, LimitReached, NotFound, StateConflict
from trademesh_runs.layout import RunLayout
from trademesh_runtime import policy
from trademesh_runtime import runs as runs_module
from trademesh_runtime.launcher import Bound, Doing, Exit, Found
from trademesh_runtime.policy import Signal
from trademesh_runtime.registry import Deletion, Registry, WishKind
from trademesh_runtime.run_changes import Forgotten, Seen
from trademesh_runtime.run_folders import write_folder
from trademesh_runtime.runs import Runs
from trademesh_runtime.settings import RuntimeSettings
from trademesh_runtime.workspace import AgentFiles
from waiting import until

TIMERS = policy.Timers(**{name: 0.03 for name in policy.Timers.__dataclass_fields__ if name.endswith("_s")})
SETTINGS = {"runtime_max_gateways": 2, "runtime_max_queued": 2, "runtime_least_free_bytes": 0}
NAMES = ("a", "b", "c", "d", "e")


@pytest_asyncio.fixture
async def one_runs(tmp_path: Path) -> AsyncIterator[tuple[Runs, Registry]]:
    """A runtime_service without runs."""
    registry = Registry(tmp_path / "registry.db")
    runs = Runs(RuntimeSettings(runs_dir=tmp_path, **SETTINGS), registry, TIMERS, MadeUpLauncher(random.Random(1)))
    runs.recover()
    yield runs, registry
    await runs.close()
    registry.close()


class MadeUpGateway:
    """Lives until it is signalled, and never serves."""

    def __init__(self, run_id: str, generation: int) -> None:
        self.run_id, self.generation, self.pid = run_id, generation, 0
        self._end = asyncio.Event()
        self._exit = Exit(None, None)

    @property
    def ended(self) -> bool:
        return self._end.is_set()

    def finish(self, code: int | None, signal: int | None) -> None:
        if not self.ended:
            self._exit = Exit(code, signal)
            self._end.set()

    async def wait(self) -> Exit:
        await self._end.wait()
        return self._exit

    def send(self, signal: Signal, *, group: bool) -> None:
        self.finish(*{Signal.TERMINATE: (0, None), Signal.ABORT: (None, 6), Signal.KILL: (None, 9)}[signal])

    async def reports(self) -> AsyncIterator[Bound | Doing]:
        await self._end.wait()
        for report in list[Doing]():
            yield report

    def condition(self) -> str:
        return ""

    async def end_rest(self) -> None:
        return

    def close(self) -> None:
        return


class MadeUpLauncher:
    """Keeps what it launched, and notes if there were ever two of one run."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._newest = dict[str, MadeUpGateway]()
        self.launches = list[tuple[str, int]]()
        self.faults = list[str]()

    def alive(self) -> list[MadeUpGateway]:
        return [gateway for gateway in self._newest.values() if not gateway.ended]

    async def make_room(self, layout: RunLayout) -> None:
        await asyncio.sleep(0)

    async def launch(self, layout: RunLayout, generation: int, ticket: dict[str, Any]) -> MadeUpGateway:
        before = self._newest.get(layout.run_id)
        if before is not None and not before.ended:
            self.faults.append(f"{layout.run_id}: {generation} beside {before.generation}")
        layout.gateway_log(generation).touch()
        gateway = self._newest[layout.run_id] = MadeUpGateway(layout.run_id, generation)
        self.launches.append((layout.run_id, generation))
        # A process takes a while, and much may happen meanwhile.
        await asyncio.sleep(self._chance.random() * 0.01)
        return gateway

    def find(self, layout: RunLayout, generation: int) -> Found | None:
        gateway = self._newest.get(layout.run_id)
        if gateway is None or gateway.ended or gateway.generation != generation:
            return None
        return Found(gateway, "n" * 32, "127.0.0.1:1")


class World:
    """A runtime_service that is killed now and then, with people who call it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.launcher = MadeUpLauncher(self.chance)
        self.folder = folder
        self.registry = Registry(folder / "registry.db")
        self.runs = self._begin()
        self.calls = set[asyncio.Task[None]]()
        self.stopped = dict[str, int]()
        """Runs of which a stop was asked last, and accepted; how often they had been launched by then."""
        self.revision: int | None = None
        self.known = dict[str, int]()

    def _begin(self) -> Runs:
        runs = Runs(RuntimeSettings(runs_dir=self.folder, **SETTINGS), self.registry, TIMERS, self.launcher)
        runs.recover()
        return runs

    async def crash(self) -> None:
        """What kill -9 leaves: the registry and the gateways."""
        for call in self.calls:
            call.cancel()
        await asyncio.gather(*self.calls, return_exceptions=True)
        for supervisor in self.runs._supervisors.values():
            supervisor.release()
        self.runs._tasks.cancel()
        if self.runs._progress._timer is not None:
            self.runs._progress._timer.cancel()
        for wish in self.registry.wishes().values():
            if wish.kind is WishKind.STOP:
                self.stopped[wish.run_id] = self.launches_of(wish.run_id)
        self.runs = self._begin()

    async def all_answered(self) -> None:
        _done, waiting = await asyncio.wait(self.calls, timeout=20) if self.calls else (set(), set())
        states = {run_id: supervisor.state.name for run_id, supervisor in self.runs._supervisors.items()}
        assert not waiting, (sorted(call.get_name() for call in waiting), states)

    def launches_of(self, run_id: str) -> int:
        return sum(launched == run_id for launched, _generation in self.launcher.launches)

    def call(self, what: str, run_id: str) -> None:
        """One call, which others overlap."""
        task = asyncio.create_task(self._call(what, run_id), name=f"{what} {run_id}")
        self.calls.add(task)
        task.add_done_callback(self.calls.discard)

    async def _call(self, what: str, run_id: str) -> None:
        if what != "stop":
            self.stopped.pop(run_id, None)
        with suppress(AlreadyExists, LimitReached, NotFound, StateConflict):
            match what:
                case "start":
                    await self.runs.start(RunConfig(run_id=run_id), [], messages.StartRunRequest())
                case "restart":
                    await self.runs.restart(messages.RestartRunRequest(run_id=run_id), again=False)
                case "delete":
                    await self.runs.delete(messages.DeleteRunRequest(run_id=run_id), again=False)
                case "stop":
                    await self.runs.stop(messages.StopRunRequest(run_id=run_id), again=False)
                    others = [call for call in self.calls if call is not asyncio.current_task()]
                    if not others:
                        self.stopped[run_id] = self.launches_of(run_id)

    async def look(self) -> None:
        """Takes in what a watch tells that goes on where the last one was."""
        async for news in self.runs.watch("", self.revision):
            match news:
                case runtime_pb2.Run():
                    self.known[news.run_id] = news.revision
                case Deletion():
                    self.known.pop(news.run_id, None)
                case Forgotten():
                    raise AssertionError("nothing was forgotten")
                case Seen():
                    self.revision = news.revision
                    return

    def check(self) -> None:
        assert self.launcher.faults == []
        for run_id, launches in self.stopped.items():
            assert self.launches_of(run_id) == launches, f"{run_id} was started after it was stopped"


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_at_once_there_is_one_gateway_of_a_run_and_none_after_a_stop(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, seed)
    whats = ["start"] * 4 + ["stop"] * 3 + ["restart"] * 3 + ["delete"] * 3 + ["die"] * 2 + ["crash", "look"]
    for _ in range(120):
        what, run_id = world.chance.choice(whats), world.chance.choice(NAMES)
        match what:
            case "crash":
                await world.crash()
            case "look":
                await world.look()
            case "die":
                if alive := world.launcher.alive():
                    world.chance.choice(alive).finish(1, None)
            case _:
                world.call(what, run_id)
        # Chance decides how much happens in between; nothing is waited for.
        await asyncio.sleep(world.chance.choice([0, 0, 0.002, 0.02]))
        world.check()
    await world.all_answered()
    await world.crash()
    for run_id in NAMES:
        world.call("stop", run_id)
    await world.all_answered()
    await until(lambda: not world.launcher.alive())
    await world.look()
    runs, _following = world.runs.page(None, 500, frozenset())
    assert world.known == {run.run_id: run.revision for run in runs}
    assert {policy.State(run.state) for run in runs} <= policy.TERMINAL
    world.check()
    await world.runs.close()
    world.registry.close()


async def test_a_run_whose_folder_cannot_be_put_away_stays_and_is_not_deleted_some_day(
    one_runs: tuple[Runs, Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, registry = one_runs
    await runs.start(RunConfig(run_id="a"), [], messages.StartRunRequest())
    await runs.stop(messages.StopRunRequest(run_id="a"), again=False)
    request = messages.DeleteRunRequest(run_id="a", request_id="00000000-0000-4000-8000-000000000001")

    # Whoever runs the tests may rename anything.
    def refuse(layout: RunLayout) -> None:
        raise PermissionError(13, "Permission denied", str(layout.root))

    monkeypatch.setattr(runs_module, "put_away", refuse)
    with pytest.raises(StateConflict, match="cannot be put away: Permission denied"):
        await runs.delete(request, again=False)
    assert runs.get("a").state is policy.State.STOPPED
    assert (registry.wishes(), registry.recall(request)) == ({}, None)
    monkeypatch.undo()
    await runs.restart(messages.RestartRunRequest(run_id="a"), again=False)
    await runs.stop(messages.StopRunRequest(run_id="a"), again=False)
    stored = registry.get("a")
    assert stored is not None
    assert (stored.state, stored.generation) == (runtime_pb2.RUN_STATE_STOPPED, runs.get("a").run.generation)
    await runs.delete(request, again=False)
    with pytest.raises(NotFound):
        runs.get("a")


async def test_a_start_that_its_caller_gives_up_is_not_written_over_by_the_next_one(
    one_runs: tuple[Runs, Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, _registry = one_runs
    begun, go_on = threading.Event(), threading.Event()

    def slowly(layout: RunLayout, config: RunConfig, agents: list[AgentFiles]) -> None:
        begun.set()
        go_on.wait(10)
        write_folder(layout, config, agents)

    monkeypatch.setattr(runs_module, "write_folder", slowly)
    first = asyncio.create_task(runs.start(RunConfig(run_id="a", prompt="first"), [], messages.StartRunRequest()))
    await until(begun.is_set)
    first.cancel()
    await asyncio.sleep(0)
    with pytest.raises(AlreadyExists):
        await runs.start(RunConfig(run_id="a", prompt="second"), [], messages.StartRunRequest())
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    await runs.start(RunConfig(run_id="a", prompt="second"), [], messages.StartRunRequest())
    assert "second" in runs.get("a").layout.bootstrap.read_text()
