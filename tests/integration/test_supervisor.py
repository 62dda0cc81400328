"""The shell around the policy: stops that overtake starts, and a registry that cannot be written."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from trademesh.runtime.v1 import runtime_pb2
from trademesh_runs.layout import RunLayout
from trademesh_runtime import policy, supervisor
from trademesh_runtime.policy import State
from trademesh_runtime.process import LaunchedGateway, ProcessHandle
from trademesh_runtime.registry import Registry, Revisions
from trademesh_runtime.supervisor import Supervisor, Targets
from waiting import until


class Launches:
    """Starts processes that do nothing in place of gateways, slowly, since what a stop overtakes is the time that a start takes."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.pids = list[int]()

    async def launch(self, _layout: RunLayout, _generation: int, _ticket: dict[str, Any]) -> LaunchedGateway:
        ours, theirs = socket.socketpair()
        theirs.close()
        ours.setblocking(False)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "import time; time.sleep(600)", start_new_session=True, stdin=asyncio.subprocess.DEVNULL
        )
        self.pids.append(child.pid)
        self.begun.set()
        await self.go_on.wait()
        return LaunchedGateway(ProcessHandle(child.pid, os.pidfd_open(child.pid), child), ours)

    def alive(self) -> list[int]:
        """Those that live."""
        return [pid for pid in self.pids if Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()]


@pytest_asyncio.fixture
async def launches(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Launches]:
    found = Launches()
    monkeypatch.setattr(supervisor, "launch_gateway", found.launch)
    yield found
    for pid in found.alive():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry.db")


def supervise(tmp_path: Path, registry: Registry) -> Supervisor:
    layout = RunLayout(tmp_path, "demo")
    layout.make_folders()
    targets = Targets(trading="t", news="n", agent="a", bind="127.0.0.1:0", advertise="")
    run = runtime_pb2.Run(run_id="demo", state=runtime_pb2.RUN_STATE_PENDING)
    timers = policy.Timers(**{name: 0.05 for name in policy.Timers.__dataclass_fields__ if name.endswith("_s")})
    return Supervisor(run, layout, registry, targets, timers, asyncio.Semaphore(2), Revisions(registry), lambda _run: None)


async def test_a_stop_that_overtakes_a_start_leaves_no_process(tmp_path: Path, registry: Registry, launches: Launches) -> None:
    found = supervise(tmp_path, registry)
    found.feed(policy.Start())
    await launches.begun.wait()
    found.feed(policy.Stop("asked"))
    assert found.state is State.STOPPED
    launches.go_on.set()
    await until(lambda: not launches.alive())
    assert found.state is State.STOPPED
    found.release()


async def test_a_start_after_such_a_stop_is_the_only_one(tmp_path: Path, registry: Registry, launches: Launches) -> None:
    found = supervise(tmp_path, registry)
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
    monkeypatch.setattr(supervisor, "REGISTRY_RETRY_S", 0.02)
    found = supervise(tmp_path, registry)
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
