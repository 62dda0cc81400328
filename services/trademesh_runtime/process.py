"""The launcher whose gateways are processes of this machine: starting one, knowing it again, waiting for its end, signalling it and nobody
else. Only here is it known that a gateway has a pid.

A process is known by its number, its start time and the boot; it is held by a pidfd from the moment that it is known, so that a signal
can never reach a later process with the same number.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trademesh_runs.layout import RunLayout
from trademesh_runtime.launcher import Bound, Doing, Exit, Found, LaunchError, LockHeldError
from trademesh_runtime.lock_holders import ProcessFacts, all_processes, facts_of, holders_of, is_free
from trademesh_runtime.policy import Signal

LAUNCH_VARIABLE = "TRADEMESH_GATEWAY_LAUNCH_FD"
GATEWAY_COMMAND = (sys.executable, "-m", "trademesh_gateway")
THRIFT = {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Of a gateway's environment, unless ours says otherwise: glibc would keep room of its own for each thread, 5 MB at the peak, for threads that
mostly wait; numpy's OpenBLAS would start a thread for each core, 0.06 CPU s, for products of matrices that a gateway never takes."""

_LOCK_FREE_WITHIN_S = 1.0
_LOCK_POLL_S = 0.02
_LONGEST_REPORT_BYTES = 65536
_PASSING = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EINTR, errno.ETXTBSY})
"""Why a process could not be started that may have been now and need not be so a moment later."""
_CONDITIONS = {"T": "stopped (T)", "t": "stopped by a debugger (t)", "D": "waits for a disk (D)"}


@dataclass(frozen=True)
class Identity:
    """What `state/gateway.json` says of a gateway."""

    generation: int
    nonce: str
    pid: int
    start_time_ticks: int
    boot_id: str
    target: str


def read_identity(layout: RunLayout) -> Identity | None:
    """The gateway that last wrote its identity in this boot; None if there is none that can be read."""
    try:
        record = json.loads(layout.gateway_identity.read_text())
        identity = Identity(
            generation=int(record["generation"]),
            nonce=str(record["nonce"]),
            pid=int(record["pid"]),
            start_time_ticks=int(record["start_time_ticks"]),
            boot_id=str(record["boot_id"]),
            target=str(record["target"]),
        )
        return identity if identity.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


class ProcessHandle:
    """A process that is ours: a child, or adopted."""

    def __init__(self, pid: int, pidfd: int, child: subprocess.Popen[bytes] | None = None, connection: socket.socket | None = None) -> None:
        """`connection` is the socket on which it reports while it starts."""
        self.pid = pid
        self._pidfd = pidfd
        self._child = child
        self._connection = connection
        self._exit = Exit(None, None)
        self._ended_at_ticks = 0
        self._ended = asyncio.Event()
        facts = facts_of(pid)
        self._leads = facts is not None and facts.group == facts.session == pid
        """Whether it leads a session of its own, all of whose processes are its doing."""
        self._closed = False
        asyncio.get_running_loop().add_reader(pidfd, self._on_end)

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        # Before its status is taken: up to then no other process can have its number.
        self._ended_at_ticks = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
        # A debugger that holds it keeps its status from us.
        if self._child is not None and (status := self._child.poll()) is not None:
            self._exit = Exit(status, None) if status >= 0 else Exit(None, -status)
        self._ended.set()

    async def wait(self) -> Exit:
        """How it ended; unknown if it was adopted, since its parent is not us."""
        await self._ended.wait()
        return self._exit

    @property
    def ended(self) -> bool:
        """True if the process has ended, and we have seen it."""
        return self._ended.is_set()

    def send(self, signal: Signal, *, group: bool) -> None:
        """Signals the process, or its group if it leads one. A stopped process is woken, or it would not notice."""
        if self._closed or _is_over(self._pidfd):
            return
        with suppress(ProcessLookupError):
            if group and self._leads:
                # It lives, or is a child of ours that nobody has waited for: its number, and so its group's, is nobody else's.
                os.killpg(self.pid, _number(signal))
            else:
                _send(self._pidfd, _number(signal))
            _send(self._pidfd, CONTINUE)

    async def reports(self) -> AsyncIterator[Bound | Doing]:
        """What it says of its start."""
        if self._connection is None:
            return
        loop = asyncio.get_running_loop()
        pending = b""
        try:
            while part := await loop.sock_recv(self._connection, 65536):
                *lines, pending = (pending + part).split(b"\n")
                for line in lines:
                    message: dict[str, Any] = json.loads(line)
                    if message.get("kind") == "bound":
                        yield Bound(str(message["target"]))
                    elif message.get("kind") == "progress":
                        yield Doing(str(message.get("what", ""))[:1000])
                if len(pending) > _LONGEST_REPORT_BYTES:
                    return
        except (OSError, ValueError, KeyError):
            return

    def condition(self) -> str:
        """A word on why it does not run; empty if it does."""
        facts = facts_of(self.pid)
        return "" if facts is None or self._closed or _is_over(self._pidfd) else _CONDITIONS.get(facts.state, "")

    async def end_rest(self) -> None:
        """Kills what the process has left behind in its session."""
        if self._leads and self.ended:
            # What is in a session of its number and began before it ended is its own.
            await asyncio.to_thread(_kill_session, self.pid, self._ended_at_ticks)

    def close(self) -> None:
        """Lets the process go without ending it."""
        if self._closed:
            return
        self._closed = True
        if self._connection is not None:
            asyncio.get_running_loop().remove_reader(self._connection)
            self._connection.close()
        if self._child is not None and self._child.poll() is None:
            # It outlives us, which Popen would take for a mistake.
            self._child.returncode = 0
        with suppress(OSError):
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)


class ProcessLauncher:
    """Starts gateways as processes, each in a session of its own, with its output in a log file."""

    def __init__(self, command: Sequence[str] = ()) -> None:
        """`command` starts a gateway; empty: this Python's `trademesh_gateway`."""
        self._command = list(command or GATEWAY_COMMAND)

    async def make_room(self, layout: RunLayout) -> None:
        """Frees the run's lock, if what holds it is left of an earlier gateway of the run."""
        if await asyncio.to_thread(is_free, layout.gateway_lock):
            return
        strangers = await asyncio.to_thread(_end_holders, layout)
        deadline = asyncio.get_running_loop().time() + _LOCK_FREE_WITHIN_S
        while not strangers and asyncio.get_running_loop().time() < deadline:
            if is_free(layout.gateway_lock):
                return
            await asyncio.sleep(_LOCK_POLL_S)
        if is_free(layout.gateway_lock):
            return
        holders = strangers or await asyncio.to_thread(holders_of, layout.gateway_lock)
        names = [f"process {facts.pid} ({facts.name})" for facts in holders[:5]]
        raise LockHeldError(", ".join(names) or "a process that cannot be seen from here")

    async def launch(self, layout: RunLayout, generation: int, ticket: dict[str, Any]) -> ProcessHandle:
        """Starts a gateway process, and gives it its ticket."""
        ours, theirs = socket.socketpair()
        try:
            child = self._spawn(layout, generation, theirs)
        except OSError as error:
            ours.close()
            raise LaunchError(f"the gateway could not be started: {error}", passing=error.errno in _PASSING) from None
        finally:
            theirs.close()
        try:
            handle = ProcessHandle(child.pid, os.pidfd_open(child.pid), child, ours)
        except OSError as error:
            ours.close()
            child.kill()
            child.wait()
            raise LaunchError(f"the gateway could not be held: {error}", passing=error.errno in _PASSING) from None
        ours.setblocking(False)
        # A gateway that ends before it has read its ticket is noticed by its end.
        try:
            with suppress(OSError):
                await asyncio.get_running_loop().sock_sendall(ours, json.dumps(ticket).encode() + b"\n")
        except BaseException:
            handle.send(Signal.KILL, group=True)
            handle.close()
            raise
        return handle

    def _spawn(self, layout: RunLayout, generation: int, theirs: socket.socket) -> subprocess.Popen[bytes]:
        log = os.open(layout.gateway_log(generation), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**THRIFT, **os.environ, LAUNCH_VARIABLE: str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        finally:
            os.close(log)

    def find(self, layout: RunLayout, generation: int) -> Found | None:
        """The living process that has written its identity for this generation."""
        identity = read_identity(layout)
        if identity is None or identity.generation != generation:
            return None
        try:
            # First the handle, then the check: what is checked is what the handle holds.
            pidfd = os.pidfd_open(identity.pid)
        except OSError:
            return None
        facts = facts_of(identity.pid)
        if facts is not None and facts.start_time_ticks == identity.start_time_ticks and facts.state not in "ZX":
            return Found(ProcessHandle(identity.pid, pidfd), identity.nonce, identity.target)
        os.close(pidfd)
        return None


CONTINUE = signal.SIGCONT


def _number(which: Signal) -> signal.Signals:
    return signal.Signals[which.value]


def _send(pidfd: int, number: signal.Signals) -> None:
    signal.pidfd_send_signal(pidfd, number)


def _is_over(pidfd: int) -> bool:
    """True if the process of a pidfd has ended, also if the loop has not noticed yet."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _end_holders(layout: RunLayout) -> list[ProcessFacts]:
    """Kills the holders of a run's lock that are of a gateway's session, and returns the others, which are nobody's to kill."""
    identity = read_identity(layout)
    holders = holders_of(layout.gateway_lock)
    # Two proofs at once: it is in the session that a gateway of this run led, and it holds what only a gateway can have handed it.
    ours = [facts for facts in holders if identity is not None and facts.session == identity.pid]
    if ours and identity is not None:
        _kill_session(identity.pid, max(facts.start_time_ticks for facts in ours))
    return [facts for facts in holders if facts not in ours]


def _kill_session(number: int, until_ticks: int) -> None:
    """Kills the processes of a session that is known to have been a gateway's until then, and what they start meanwhile."""
    proven = [facts for facts in all_processes() if facts.session == number and facts.start_time_ticks <= until_ticks]
    while proven:
        for facts in proven:
            with suppress(OSError):
                pidfd = os.pidfd_open(facts.pid)
                try:
                    if _same(facts):
                        _send(pidfd, signal.SIGKILL)
                finally:
                    os.close(pidfd)
        # As long as one of them was there, the session's number was nobody else's.
        until_ticks = max(until_ticks, *(facts.start_time_ticks for facts in proven))
        known = {(facts.pid, facts.start_time_ticks) for facts in proven}
        proven = [
            facts
            for facts in all_processes()
            if facts.session == number and facts.start_time_ticks <= until_ticks and (facts.pid, facts.start_time_ticks) not in known
        ]


def _same(facts: ProcessFacts) -> bool:
    """True if a number still means the process that it meant."""
    now = facts_of(facts.pid)
    return now is not None and (now.session, now.start_time_ticks) == (facts.session, facts.start_time_ticks)
