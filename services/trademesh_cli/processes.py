"""The processes of `trademesh up`: the four services and the edge, each in a session of its own.

Starting, waiting for readiness, stopping in order, and restarting on a change of source are here. What is not here: gateways, which only
runtime_service starts, and what is printed, which is `up.py`'s.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

STOP_GRACE_S = 40.0
"""How long a process may take to end after SIGTERM: runtime_service drains its gateways in that time."""
KILL_GRACE_S = 2.0
REVIVED_WITHIN_S = 20.0
KEEP_GATEWAYS_VARIABLE = "TRADEMESH_RUNTIME_KEEP_GATEWAYS"


class StackError(Exception):
    """The mesh cannot be started or has lost a process; the message is one line for a person."""


@dataclass(frozen=True)
class ServiceProgram:
    """One process of the mesh: its name, the module that runs it, and where it listens."""

    name: str
    module: str
    listen: str
    listen_variable: str

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it binds."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


@dataclass
class RunningProgram:
    """A program and the process that runs it now."""

    program: ServiceProgram
    process: asyncio.subprocess.Process
    replaced: bool = field(default=False)


def refuse_taken_ports(programs: Sequence[ServiceProgram]) -> None:
    """Binds every address once, and lets it go.

    Raises:
        StackError: one address is taken or cannot be bound; names it, its service and the variable that moves it.
    """
    by_address = dict[tuple[str, int], str]()
    for program in programs:
        other = by_address.setdefault(program.address, program.name)
        if other != program.name and program.address[1]:
            raise StackError(f"{other} and {program.name} are both to listen on {program.listen}: set {program.listen_variable}")
        host, port = program.address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise StackError(
                    f"port {port} of {program.name} cannot be bound on {host} ({error.strerror}): "
                    f"stop what listens there, or set {program.listen_variable}"
                ) from None


class Stack:
    """The mesh as a set of child processes. Start with `start`, always end with `stop`."""

    def __init__(
        self,
        programs: Sequence[ServiceProgram],
        environment: Mapping[str, str],
        is_ready: Callable[[ServiceProgram], Awaitable[bool]],
    ) -> None:
        self._programs = list(programs)
        self._environment = dict(environment)
        self._is_ready = is_ready
        self._running: dict[str, RunningProgram] = {}

    async def start(self, ready_within_s: float) -> None:
        """Starts every program and returns when all are ready.

        Raises:
            StackError: a port is taken, a process ended, or one is not ready in time. The caller stops the stack.
        """
        refuse_taken_ports(self._programs)
        for program in self._programs:
            await self._spawn(program)
        await asyncio.gather(*(self._wait_ready(program, ready_within_s) for program in self._programs))

    async def _spawn(self, program: ServiceProgram) -> None:
        # A session of its own: Ctrl-C in the terminal reaches only us, and we stop them in order.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            program.module,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sys.stderr,
            env=self._environment,
            start_new_session=True,
        )
        self._running[program.name] = RunningProgram(program, process)

    async def _wait_ready(self, program: ServiceProgram, within_s: float) -> None:
        deadline = asyncio.get_running_loop().time() + within_s
        while not await self._is_ready(program):
            process = self._running[program.name].process
            if process.returncode is not None:
                raise StackError(f"{program.name} ended with status {process.returncode} while starting; its log is above")
            if asyncio.get_running_loop().time() > deadline:
                raise StackError(f"{program.name} was not ready within {within_s:g} s; its log is above")
            await asyncio.sleep(0.05)

    async def wait_for_loss(self) -> str:
        """Waits until a process ends that nobody stopped, and returns one line about it."""
        while True:
            watched = list(self._running.values())
            waiters = [asyncio.create_task(running.process.wait()) for running in watched]
            try:
                await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for waiter in waiters:
                    waiter.cancel()
            for running in watched:
                if running.process.returncode is not None and not running.replaced:
                    return f"{running.program.name} ended with status {running.process.returncode}"
            # A program that is being replaced has ended on purpose: look again when its successor may be there.
            await asyncio.sleep(0.05)

    async def restart(self, name: str, ready_within_s: float = 30.0) -> None:
        """Ends one program and starts it again from its new source.

        Raises:
            StackError: the new process ended or is not ready in time.
        """
        running = self._running[name]
        running.replaced = True
        await _end(running.process)
        await self._spawn(running.program)
        # Until it is ready its end is no loss: its new source may be at fault.
        self._running[name].replaced = True
        await self._wait_ready(running.program, ready_within_s)
        self._running[name].replaced = False

    async def stop(self, *, revive: str = "") -> None:
        """Ends every process, last started first, so that runtime_service can still reach what it drains. Never raises.

        Args:
            revive: a program that must end in order: if it was lost, it is started once more. runtime_service alone can find its
                gateways and end them.
        """
        lost = self._running.get(revive)
        if lost is not None and lost.process.returncode is not None:
            with suppress(StackError, OSError):
                self._environment.pop(KEEP_GATEWAYS_VARIABLE, None)
                await self._spawn(lost.program)
                await self._wait_ready(lost.program, REVIVED_WITHIN_S)
        for running in reversed(list(self._running.values())):
            await _end(running.process)
        self._running.clear()


async def _end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, then SIGKILL to the whole group of one process."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_GRACE_S)
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), KILL_GRACE_S)
