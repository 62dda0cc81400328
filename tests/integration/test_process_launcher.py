"""Gateways as processes: what is started, found again, signalled and ended, and what is left alone."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from trademesh_runs.layout import RunLayout
from trademesh_runtime.launcher import Bound, Doing, Exit, LaunchError, LockHeldError
from trademesh_runtime.lock_holders import facts_of, holders_of, is_free
from trademesh_runtime.policy import Signal
from trademesh_runtime.process import LAUNCH_VARIABLE, ProcessLauncher
from trademesh_runtime.settings import RuntimeSettings
from waiting import until


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    found = RunLayout(tmp_path, "demo")
    found.make_folders()
    return found


@pytest.fixture
def stranger(layout: RunLayout) -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody else's that holds the run's lock."""
    with layout.gateway_lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(["sleep", "600"], pass_fds=(lock.fileno(),), start_new_session=True)
    yield process
    process.kill()
    process.wait()


def python(code: str) -> ProcessLauncher:
    """A launcher whose gateways run some lines of Python, with their connection to runtime_service as `launch`."""
    head = f"import os, signal, socket, sys, time; launch = socket.socket(fileno=int(os.environ['{LAUNCH_VARIABLE}']))\n"
    return ProcessLauncher([sys.executable, "-c", head + textwrap.dedent(code)])


def say_who(layout: RunLayout, process: int, **other: Any) -> None:
    """Writes what a gateway says of itself."""
    facts = facts_of(process)
    assert facts is not None
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    record = {"generation": 1, "nonce": "n", "pid": process, "start_time_ticks": facts.start_time_ticks, "boot_id": boot_id, "target": "t"}
    layout.gateway_identity.write_text(json.dumps(record | other))


def is_alive(pid: int) -> bool:
    """True if a process lives, and is not only waited for."""
    facts = facts_of(pid)
    return facts is not None and facts.state not in "ZX"


async def test_a_gateway_gets_its_ticket_and_is_heard_until_it_ends(layout: RunLayout) -> None:
    launcher = python("""
        ticket = launch.recv(1000)
        launch.sendall(b'{"kind": "progress", "what": "reads"}\\n{"kind": "bou')
        launch.sendall(b'nd", "target": "127.0.0.1:7"}\\n{"kind": "else"}\\n')
        print(ticket.decode(), flush=True)
        sys.exit(3)
    """)
    handle = await launcher.launch(layout, 1, {"run_id": "demo"})
    assert [report async for report in handle.reports()] == [Doing("reads"), Bound("127.0.0.1:7")]
    assert await handle.wait() == Exit(3, None)
    assert handle.ended
    handle.close()
    assert layout.gateway_log(1).read_text().strip() == '{"run_id": "demo"}'


async def test_signals_wake_a_stopped_process_and_its_condition_can_be_told(layout: RunLayout) -> None:
    handle = await python('launch.sendall(b\'{"kind": "bound", "target": "t"}\\n\'); time.sleep(600)').launch(layout, 1, {})
    async for _bound in handle.reports():
        break
    os.kill(handle.pid, signal.SIGSTOP)
    await until(lambda: handle.condition() == "stopped (T)")
    handle.send(Signal.TERMINATE, group=False)
    assert await handle.wait() == Exit(None, signal.SIGTERM)
    # Whoever has the number now, it is not ours.
    handle.send(Signal.KILL, group=True)
    assert handle.condition() == ""
    handle.close()


TRACER = """
import ctypes, sys, time
libc = ctypes.CDLL(None, use_errno=True)
seized = libc.ptrace(0x4206, int(sys.argv[1]), None, None) == 0  # PTRACE_SEIZE
print("traces" if seized else "may not", flush=True)
time.sleep(600)
"""


@contextmanager
def traced(pid: int) -> Iterator[bool]:
    """A debugger that holds a process and never looks after it; False if that is not allowed here."""
    with subprocess.Popen([sys.executable, "-c", TRACER, str(pid)], stdout=subprocess.PIPE, text=True) as tracer:
        assert tracer.stdout is not None
        yield tracer.stdout.readline() == "traces\n"
        tracer.kill()


async def test_an_end_whose_status_a_debugger_keeps_is_not_taken_for_a_good_one(layout: RunLayout) -> None:
    handle = await python("time.sleep(600)").launch(layout, 1, {})
    with traced(handle.pid) as is_traced:
        os.kill(handle.pid, signal.SIGKILL)
        how = await handle.wait()
    handle.close()
    if not is_traced:
        pytest.skip("one process may not trace another here")
    assert how == Exit(None, None)


@pytest.mark.parametrize(("command", "passing"), [(["/nowhere/gateway"], False), (["/"], False)])
async def test_what_cannot_be_started_is_said(layout: RunLayout, command: list[str], passing: bool) -> None:
    with pytest.raises(LaunchError, match="could not be started") as raised:
        await ProcessLauncher(command).launch(layout, 1, {})
    assert raised.value.passing is passing


async def test_what_a_gateway_leaves_in_its_session_ends_with_it_and_nothing_else(
    layout: RunLayout, stranger: subprocess.Popen[bytes]
) -> None:
    launcher = python("""
        left = os.fork()
        if left == 0:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            os.setpgid(0, 0)
            time.sleep(600)
        print(left, flush=True)
        time.sleep(600)
    """)
    handle = await launcher.launch(layout, 1, {})
    await until(lambda: layout.gateway_log(1).read_text().endswith("\n"))
    left = int(layout.gateway_log(1).read_text())
    os.kill(handle.pid, signal.SIGKILL)
    await handle.wait()
    assert is_alive(left)
    await handle.end_rest()
    await until(lambda: not is_alive(left))
    handle.close()
    assert stranger.poll() is None


async def test_a_lock_that_somebody_else_holds_is_named_and_left(layout: RunLayout, stranger: subprocess.Popen[bytes]) -> None:
    with layout.gateway_lock.open() as only_opened:
        assert [facts.pid for facts in holders_of(layout.gateway_lock)] == [stranger.pid]
        assert only_opened
    say_who(layout, os.getpid())
    with pytest.raises(LockHeldError, match=rf"process {stranger.pid} \(sleep\)"):
        await ProcessLauncher().make_room(layout)
    assert stranger.poll() is None


async def test_a_lock_that_is_left_of_an_earlier_gateway_is_freed(layout: RunLayout, stranger: subprocess.Popen[bytes]) -> None:
    # It leads the session that the gateway of this run led, and has its lock: both together prove it.
    say_who(layout, stranger.pid)
    await ProcessLauncher().make_room(layout)
    assert is_free(layout.gateway_lock)
    assert stranger.wait(10) == -signal.SIGKILL


async def test_a_lock_that_may_only_be_read_is_judged_as_well(layout: RunLayout, stranger: subprocess.Popen[bytes]) -> None:
    layout.gateway_lock.chmod(0o400)
    assert not is_free(layout.gateway_lock)
    stranger.kill()
    stranger.wait()
    assert is_free(layout.gateway_lock)
    layout.gateway_lock.unlink()
    await ProcessLauncher().make_room(layout)


async def test_a_lock_from_before_the_last_boot_is_nobodys_proof(layout: RunLayout, stranger: subprocess.Popen[bytes]) -> None:
    say_who(layout, stranger.pid, boot_id="another")
    with pytest.raises(LockHeldError):
        await ProcessLauncher().make_room(layout)
    assert stranger.poll() is None


@pytest.mark.parametrize("other", [{"start_time_ticks": 1}, {"boot_id": "another"}, {"generation": 2}, {"pid": 2**22 + 1}, {"pid": "x"}])
async def test_only_the_process_that_wrote_its_identity_is_found(layout: RunLayout, other: dict[str, Any]) -> None:
    handle = await python("time.sleep(600)").launch(layout, 1, {})
    say_who(layout, handle.pid)
    found = ProcessLauncher().find(layout, 1)
    assert found is not None
    assert (found.handle.pid, found.target) == (handle.pid, "t")
    found.handle.close()
    say_who(layout, handle.pid, **other)
    assert ProcessLauncher().find(layout, 1) is None
    handle.send(Signal.KILL, group=True)
    assert await handle.wait() == Exit(None, signal.SIGKILL)
    handle.close()
    assert ProcessLauncher().find(layout, 1) is None


async def test_a_gateway_that_was_found_is_missed_at_its_end_though_nobody_can_know_how_it_ended(layout: RunLayout) -> None:
    process = psutil.Popen(["sleep", "600"], start_new_session=True)
    say_who(layout, process.pid)
    found = ProcessLauncher().find(layout, 1)
    assert found is not None
    assert [report async for report in found.handle.reports()] == []
    found.handle.send(Signal.KILL, group=True)
    assert await found.handle.wait() == Exit(None, None)
    found.handle.close()
    process.wait()


def test_the_command_of_a_gateway_is_a_setting() -> None:
    settings = RuntimeSettings(gateway_command="/usr/bin/perf record -o 'a file' -- python -m trademesh_gateway")
    assert settings.gateway_arguments()[:4] == ["/usr/bin/perf", "record", "-o", "a file"]
    assert RuntimeSettings().gateway_arguments() == []
