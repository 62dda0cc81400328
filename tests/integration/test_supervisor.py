"""The shell around the policy: stops that overtake starts, and a registry that cannot be written."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from trademesh.runtime.v1 import runtime_pb2
from trademesh_kernel.errors import DependencyUnavailable, NotFound
from trademesh_runs.layout import RunLayout
from trademesh_runtime import policy, run_record, supervisor
from trademesh_runtime.gateway_logs import earlier
from trademesh_runtime.launch_ticket import Targets
from trademesh_runtime.launcher import Launcher
from trademesh_runtime.policy import State
from trademesh_runtime.process import LAUNCH_VARIABLE, ProcessHandle, ProcessLauncher
from trademesh_runtime.registry import Registry, Revisions
from trademesh_runtime.runs import Runs
from trademesh_runtime.settings import RuntimeSettings
from trademesh_runtime.supervisor import Supervisor
from waiting import until


class Launches(ProcessLauncher):
    """Starts processes that do nothing in place of gateways, slowly, since what a stop overtakes is the time that a start takes."""

    def __init__(self) -> None:
        super().__init__([sys.executable, "-c", "import time; time.sleep(600)"])
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.pids = list[int]()

    async def launch(self, layout: RunLayout, generation: int, ticket: dict[str, Any]) -> ProcessHandle:
        handle = await super().launch(layout, generation, ticket)
        self.pids.append(handle.pid)
        self.begun.set()
        await self.go_on.wait()
        return handle

    def alive(self) -> list[int]:
        """Those that live."""
        return [pid for pid in self.pids if Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()]


@pytest_asyncio.fixture
async def launches() -> AsyncIterator[Launches]:
    found = Launches()
    yield found
    for pid in found.alive():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry.db")


CONNECTED = f"import os, socket, time; launch = socket.socket(fileno=int(os.environ['{LAUNCH_VARIABLE}']))\n"
TIMERS = policy.Timers(**{name: 0.05 for name in policy.Timers.__dataclass_fields__ if name.endswith("_s")})
SLOW_STARTS = replace(
    TIMERS, start_deadline_s=30.0, start_cap_s=30.0, adopt_s=30.0, first_delay_s=30.0, longest_delay_s=30.0, terminate_s=5.0
)


def supervise(tmp_path: Path, registry: Registry, launcher: Launcher, timers: policy.Timers = TIMERS, **run_fields: Any) -> Supervisor:
    layout = RunLayout(tmp_path, "demo")
    layout.make_folders()
    layout.gateway_log(1).touch()
    targets = Targets(trading="t", news="n", agent="a", bind="127.0.0.1:0", advertise="")
    run = runtime_pb2.Run(run_id="demo", **{"state": runtime_pb2.RUN_STATE_PENDING, **run_fields})
    return Supervisor(run, layout, registry, targets, timers, asyncio.Semaphore(2), Revisions(registry), lambda _run: None, launcher)


async def test_a_stop_that_overtakes_a_start_leaves_no_process(tmp_path: Path, registry: Registry, launches: Launches) -> None:
    found = supervise(tmp_path, registry, launches)
    found.feed(policy.Start())
    await launches.begun.wait()
    found.feed(policy.Stop("asked"))
    assert found.state is State.STOPPED
    launches.go_on.set()
    await until(lambda: not launches.alive())
    assert found.state is State.STOPPED
    found.release()


async def test_a_start_after_such_a_stop_is_the_only_one(tmp_path: Path, registry: Registry, launches: Launches) -> None:
    found = supervise(tmp_path, registry, launches)
    found.feed(policy.Start())
    await launches.begun.wait()
    found.feed(policy.Stop("asked"))
    found.feed(policy.Restart("asked"))
    launches.go_on.set()
    await until(lambda: found.state is State.STARTING)
    assert len(launches.alive()) == len(launches.pids) == 1
    found.feed(policy.Stop("asked"))
    await until(lambda: found.state is State.STOPPED)
    await until(lambda: not launches.alive())
    found.release()


async def test_a_registry_that_cannot_be_written_holds_nothing_up(
    tmp_path: Path, registry: Registry, launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_record, "REGISTRY_RETRY_S", 0.02)
    found = supervise(tmp_path, registry, launches)
    found.publish()
    launches.go_on.set()
    found.feed(policy.Start())
    await until(lambda: found.state is State.STARTING)
    saved = registry.save

    def full(_run: runtime_pb2.Run) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(registry, "save", full)
    monkeypatch.setattr(registry, "attempt_ends", lambda *_arguments: full(found.run))
    found.feed(policy.Stop("asked"))
    await until(lambda: found.state is State.STOPPED)
    await until(lambda: not launches.alive())
    stored = registry.get("demo")
    assert stored is not None
    assert stored.state != runtime_pb2.RUN_STATE_STOPPED
    monkeypatch.setattr(registry, "save", saved)

    def kept() -> bool:
        now = registry.get("demo")
        return now is not None and now.state == runtime_pb2.RUN_STATE_STOPPED

    await until(kept)
    found.release()


async def test_a_start_that_fails_while_the_disk_is_slow_is_followed_by_the_next(
    tmp_path: Path, registry: Registry, launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The delay before the next start is over before anybody is told that the first has failed.
    found = supervise(tmp_path, registry, launches, replace(TIMERS, start_deadline_s=30.0, first_delay_s=0.001, longest_delay_s=0.001))
    launches.go_on.set()
    found.feed(policy.Start())
    await until(lambda: found.state is State.STARTING)
    saved = registry.save

    def slow(run: runtime_pb2.Run) -> None:
        time.sleep(0.05)
        saved(run)

    monkeypatch.setattr(registry, "save", slow)
    for number in range(2, 5):
        os.kill(launches.pids[-1], signal.SIGKILL)
        await until(lambda number=number: len(launches.pids) == number and found.state is State.STARTING)
    found.feed(policy.Stop("asked"))
    await until(lambda: found.state is State.STOPPED)
    found.release()


async def test_a_start_that_waits_for_the_disk_says_so_and_goes_on(
    tmp_path: Path, registry: Registry, launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "REGISTRY_RETRY_S", 0.02)
    begins = registry.attempt_begins

    def full(_run_id: str, _generation: int) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(registry, "attempt_begins", full)
    launches.go_on.set()
    found = supervise(tmp_path, registry, launches)
    found.feed(policy.Start())
    await until(lambda: "disk is full" in found.run.reason)
    assert (found.state, launches.pids) == (State.PENDING, [])
    monkeypatch.setattr(registry, "attempt_begins", begins)
    await until(lambda: found.state is State.STARTING)
    assert found.run.reason == ""
    found.feed(policy.Stop("asked"))
    await until(lambda: found.state is State.STOPPED)
    found.release()


async def test_a_disk_that_is_full_is_not_asked_again_for_every_change(
    tmp_path: Path, registry: Registry, launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_record, "REGISTRY_RETRY_S", 0.05)
    asked = list[int]()

    def full(_run: runtime_pb2.Run) -> None:
        asked.append(1)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(registry, "save", full)
    found = supervise(tmp_path, registry, launches)
    found.publish()
    for _ in range(50):
        found.publish(durable=False)
    assert len(asked) == 1
    await until(lambda: len(asked) >= 3)
    assert len(asked) < 10
    found.release()


@pytest.mark.parametrize("step", ["make_room", "launch"])
async def test_a_start_that_fails_by_a_fault_of_ours_is_tried_again(
    tmp_path: Path, registry: Registry, launches: Launches, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    found = supervise(tmp_path, registry, launches)

    # A fault that cannot be caused otherwise, since it is none that we know of.
    async def broken(*_arguments: object) -> None:
        raise RuntimeError("nobody has thought of this")

    monkeypatch.setattr(launches, step, broken)
    launches.go_on.set()
    found.feed(policy.Start())
    await until(lambda: found.state is State.BACKOFF)
    assert "nobody has thought of this" in found.run.reason
    monkeypatch.undo()
    await until(lambda: found.state is State.STARTING)
    # Nothing that was never started is told as living.
    assert [attempt.HasField("ended_at") for attempt in registry.attempts("demo")][1:] == [True] * (found.run.generation - 1)
    found.feed(policy.Stop("asked"))
    await until(lambda: found.state is State.STOPPED)
    found.release()


def say_who(layout: RunLayout, pid: int, generation: int) -> None:
    """Writes what a gateway says of itself."""
    record = {
        "generation": generation,
        "nonce": "n" * 32,
        "pid": pid,
        "start_time_ticks": int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]),
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "target": "127.0.0.1:1",
    }
    layout.gateway_identity.write_text(json.dumps(record))


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_gateway_that_says_late_who_it_is_is_taken_over_or_ended(
    tmp_path: Path, registry: Registry, launches: Launches, stopped: bool
) -> None:
    registry.attempt_begins("demo", 1)
    launches.go_on.set()
    found = supervise(tmp_path, registry, launches, state=runtime_pb2.RUN_STATE_STARTING, generation=1)
    launched = await launches.launch(found.layout, 1, {})
    found.adopt_or_restart()
    if stopped:
        found.feed(policy.Stop("asked"))
        assert found.state is State.STOPPED
    say_who(found.layout, launches.pids[0], 1)
    if stopped:
        await until(lambda: not launches.alive())
        assert found.state is State.STOPPED
    else:
        await until(lambda: found.state is State.ADOPTING)
        assert len(launches.pids) == 1
    found.release()
    launched.send(policy.Signal.KILL, group=True)
    await launched.wait()
    launched.close()


@pytest.mark.parametrize("late", [False, True])
async def test_a_gateway_that_a_stop_had_overtaken_before_a_kill_is_ended_after_it(
    tmp_path: Path, registry: Registry, launches: Launches, late: bool
) -> None:
    registry.attempt_begins("demo", 1)
    launches.go_on.set()
    found = supervise(tmp_path, registry, launches, state=runtime_pb2.RUN_STATE_STOPPED, generation=1)
    launched = await launches.launch(found.layout, 1, {})
    if not late:
        say_who(found.layout, launches.pids[0], 1)
    found.adopt_or_restart()
    if late:
        say_who(found.layout, launches.pids[0], 1)
    await until(lambda: not launches.alive())
    assert (found.state, launches.pids) == (State.STOPPED, [launched.pid])
    found.release()
    launched.close()


async def test_a_restart_that_was_promised_is_carried_out_by_the_next_runtime_service(
    tmp_path: Path, registry: Registry, launches: Launches
) -> None:
    registry.attempt_begins("demo", 1)
    registry.attempt_ends("demo", 1, "exit 78: a bad setting")
    launches.go_on.set()
    found = supervise(tmp_path, registry, launches, generation=1)
    found.layout.gateway_exit.write_text(json.dumps({"generation": 1, "code": 78, "reason": "a bad setting", "progress": {}}))
    found.adopt_or_restart()
    await until(lambda: found.state is State.STARTING)
    assert found.run.generation == 2
    found.feed(policy.Stop("asked"))
    await until(lambda: found.state is State.STOPPED)
    found.release()


def test_revisions_go_on_while_the_disk_is_full_and_are_higher_after_a_restart(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    revisions = Revisions(registry)
    first = [revisions.next() for _ in range(12_000)]
    after = Revisions(registry)
    assert after.next() > first[-1]

    def full(_count: int) -> int:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(registry, "reserve_revisions", full)
    more = [after.next() for _ in range(12_000)]
    assert more == sorted(set(more))


async def test_before_its_runs_are_taken_up_a_runtime_service_does_not_say_that_there_are_none(tmp_path: Path, registry: Registry) -> None:
    runs = Runs(RuntimeSettings(runs_dir=tmp_path), registry, TIMERS)
    with pytest.raises(DependencyUnavailable):
        runs.get("demo")
    runs.recover()
    with pytest.raises(NotFound):
        runs.get("demo")


LAST_WORDS = [
    {"generation": 1, "code": 70, "reason": "no such file: 'caf\udce9'", "progress": {}},
    {"generation": 1, "code": "x", "reason": {"a": 1}, "progress": [1]},
    {"generation": 1, "code": 2**40, "reason": "x" * 100_000, "progress": {"head_sequence": "\udce9"}},
    ["nothing", "of", "the", "kind"],
]


@pytest.mark.parametrize("words", LAST_WORDS, ids=["no text", "other types", "too much", "another thing"])
@pytest.mark.parametrize("adopted", [False, True])
async def test_whatever_a_gateway_leaves_behind_its_end_is_noticed(
    tmp_path: Path, registry: Registry, launches: Launches, words: Any, adopted: bool
) -> None:
    launches.go_on.set()
    found = supervise(tmp_path, registry, launches, SLOW_STARTS, state=runtime_pb2.RUN_STATE_STARTING, generation=int(adopted))
    if adopted:
        registry.attempt_begins("demo", 1)
        launched = await launches.launch(found.layout, 1, {})
        say_who(found.layout, launched.pid, 1)
        found.adopt_or_restart()
        assert found.state is State.ADOPTING
    else:
        found.adopt_or_restart()
        await until(lambda: found.state is State.STARTING)
    found.layout.gateway_log(1).write_text("y" * 100_000 + "\n")
    found.layout.gateway_exit.write_text(json.dumps(words))
    os.kill(launches.pids[0], signal.SIGKILL)
    await until(lambda: found.state is State.BACKOFF and found.run.state == runtime_pb2.RUN_STATE_BACKOFF)
    assert found.run.ByteSize() < 10_000
    assert registry.attempts("demo")[0].HasField("ended_at")
    found.release()
    if adopted:
        launched.close()


async def test_words_that_are_no_text_do_not_keep_a_start_from_being_heard(tmp_path: Path, registry: Registry, launches: Launches) -> None:
    said = json.dumps({"kind": "progress", "what": "reads caf\udce9"})
    launches._command = [sys.executable, "-c", CONNECTED + f"launch.sendall({said!r}.encode() + b'\\n'); time.sleep(600)"]
    launches.go_on.set()
    found = supervise(tmp_path, registry, launches, SLOW_STARTS)
    found.feed(policy.Start())
    await until(lambda: found.run.reason == "reads caf?")
    assert found.state is State.STARTING
    found.feed(policy.Stop("asked"))
    await until(lambda: found.state is State.STOPPED)
    found.release()


async def test_of_gateways_without_end_as_many_logs_are_kept_as_attempts(tmp_path: Path, registry: Registry, launches: Launches) -> None:
    launches.go_on.set()
    found = supervise(tmp_path, registry, launches, SLOW_STARTS, generation=100)
    for generation in (1, 2):
        found.layout.gateway_log(generation).touch()
        earlier(found.layout.gateway_log(generation)).touch()
    found.feed(policy.Start())
    await until(lambda: found.state is State.STARTING)
    assert sorted(path.name for path in (found.layout.root / "logs").iterdir()) == ["gateway.101.log", "gateway.2.log", "gateway.2.log.1"]
    found.feed(policy.Stop("asked"))
    await until(lambda: found.state is State.STOPPED)
    found.release()
