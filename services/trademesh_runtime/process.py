"""Gateways as local processes: starting one, knowing it again, waiting for its end, signalling it and nobody else.

A process is known by its number, its start time and the boot; it is held by a pidfd from the moment that it is known, so that a signal
can never reach a later process with the same number.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trademesh_runs.layout import RunLayout

LAUNCH_VARIABLE = "TRADEMESH_GATEWAY_LAUNCH_FD"


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
    """The gateway that last wrote its identity; None if there is none that can be read."""
    try:
        record = json.loads(layout.gateway_identity.read_text())
        return Identity(*(record[name] for name in ("generation", "nonce", "pid", "start_time_ticks", "boot_id", "target")))
    except (OSError, ValueError, KeyError):
        return None


class ProcessHandle:
    """A process that is ours, started or adopted."""

    def __init__(self, pid: int, pidfd: int, child: asyncio.subprocess.Process | None) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._child = child
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(pidfd, self._on_end)

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._ended.set()

    async def wait(self) -> tuple[int | None, int | None]:
        """Exit code and signal, once the process has ended; both None if it was adopted, since its parent is not us."""
        await self._ended.wait()
        if self._child is None:
            return None, None
        status = await self._child.wait()
        return (status, None) if status >= 0 else (None, -status)

    @property
    def ended(self) -> bool:
        """True if the process has ended."""
        return self._ended.is_set()

    def send(self, number: signal.Signals, *, group: bool) -> None:
        """Signals the process, and its group if it leads one. A stopped process is woken, or it would not notice."""
        if self.ended:
            return
        with suppress(ProcessLookupError):
            if group and os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, number)
            else:
                signal.pidfd_send_signal(self._pidfd, number)
            signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)

    def close(self) -> None:
        """Lets the process go without ending it."""
        with suppress(OSError):
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)


@dataclass(frozen=True)
class Bound:
    """Where a gateway serves."""

    target: str


class LaunchedGateway:
    """A gateway process and the socket on which it reports while it starts."""

    def __init__(self, handle: ProcessHandle, connection: socket.socket) -> None:
        self.handle = handle
        self._connection = connection

    async def end(self) -> None:
        """Kills it, and returns when it is gone: somebody stopped the run while it was being started."""
        self._connection.close()
        self.handle.send(signal.SIGKILL, group=True)
        await self.handle.wait()
        self.handle.close()

    async def bound(self) -> Bound | None:
        """Where it serves, as soon as it says so; None if it ends first."""
        loop = asyncio.get_running_loop()
        pending = b""
        try:
            while True:
                part = await loop.sock_recv(self._connection, 65536)
                if not part:
                    return None
                pending += part
                *lines, pending = pending.split(b"\n")
                for line in lines:
                    message: dict[str, Any] = json.loads(line)
                    if message.get("kind") == "bound":
                        return Bound(message["target"])
        except (OSError, ValueError):
            return None
        finally:
            self._connection.close()


async def launch_gateway(layout: RunLayout, generation: int, ticket: dict[str, Any]) -> LaunchedGateway:
    """Starts a gateway process in a session of its own, with its output in a log file.

    Raises:
        OSError: it cannot be started.
    """
    ours, theirs = socket.socketpair()
    log = os.open(layout.gateway_log(generation), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "trademesh_gateway",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, LAUNCH_VARIABLE: str(theirs.fileno())},
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
        pidfd = os.pidfd_open(child.pid)
        ours.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(ours, json.dumps(ticket).encode() + b"\n")
    except BaseException:
        ours.close()
        raise
    finally:
        os.close(log)
        theirs.close()
    return LaunchedGateway(ProcessHandle(child.pid, pidfd, child), ours)


def adopt(identity: Identity) -> ProcessHandle | None:
    """The living process of an identity; None if it is gone or its number belongs to another process now."""
    try:
        if Path("/proc/sys/kernel/random/boot_id").read_text().strip() != identity.boot_id:
            return None
        # First the handle, then the check: what is checked is what the handle holds.
        pidfd = os.pidfd_open(identity.pid)
    except OSError:
        return None
    try:
        fields = Path(f"/proc/{identity.pid}/stat").read_text().rpartition(") ")[2].split()
        if int(fields[19]) == identity.start_time_ticks and fields[0] != "Z":
            return ProcessHandle(identity.pid, pidfd, None)
    except OSError:
        pass
    os.close(pidfd)
    return None
