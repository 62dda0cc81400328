"""A gateway with a fault: `TRADEMESH_GATEWAY_COMMAND` names it in place of the real one, and it is the real one but for what the prompt of
its run asks for.

    fault: NAME            in the first gateway of the run
    fault: NAME always     in each

Faults that can be caused from outside (a signal, a stopped process) are not here.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from trademesh_gateway import __main__ as real
from trademesh_gateway import launch
from trademesh_gateway.pipeline.cycle import Cycle
from trademesh_gateway.pipeline_service import SupervisionServicer
from trademesh_kernel.health import Readiness

FLOOD_BYTES = 200 * 1024 * 1024
FLOOD_BYTES_PER_S = 100_000_000
LONG_S = 600.0
AFTER_BOUND_S = 1.0
"""Faults of a gateway that runs come so long after it has said where it serves."""


def ticket_in_hand() -> dict[str, Any]:
    """The launch ticket, left for the real gateway to read."""
    connection = socket.socket(fileno=os.dup(int(os.environ[launch.LAUNCH_VARIABLE])))
    line = b""
    while not line.endswith(b"\n"):
        line = connection.recv(65536, socket.MSG_PEEK)
    connection.close()
    return dict(json.loads(line))


def fault_of(ticket: dict[str, Any]) -> str:
    """What the run's prompt asks for; empty if nothing, or not of this gateway."""
    text = (Path(ticket["runs_dir"]) / ticket["run_id"] / "BOOTSTRAP.md").read_text()
    found = re.search(r"^fault: (\S+)( always)?$", text, re.MULTILINE)
    return found.group(1) if found and (found.group(2) or ticket["generation"] == 1) else ""


def once_bound(what: Callable[[], object]) -> None:
    """Has something done in the loop, a little after the gateway has said where it serves."""
    tell = launch.Launcher.tell

    def tell_and_break(launcher: launch.Launcher, kind: str, **content: Any) -> None:
        tell(launcher, kind, **content)
        if kind == "bound":
            asyncio.get_running_loop().call_later(AFTER_BOUND_S, what)

    launch.Launcher.tell = tell_and_break  # type: ignore[method-assign]  # the fault


def exits(code: int) -> None:
    """Ends at once."""
    print(f"the fault of this gateway is to end with {code}", file=sys.stderr, flush=True)
    # Not sys.exit: what an interpreter has to clean up would be counted as the time in which its end is noticed.
    os._exit(code)


def never_bound() -> None:
    """Lives, and never says where it serves."""
    time.sleep(LONG_S)


def never_serving() -> None:
    """Serves, and is never ready."""

    async def hold(_readiness: Readiness, _condition: str) -> None:
        return

    Readiness.hold = hold  # type: ignore[method-assign]  # the fault


def blocked_loop() -> None:
    """Its loop stands still."""
    once_bound(stand_still)


def stand_still() -> None:
    """Found in the stacks that are written."""
    time.sleep(LONG_S)


def stuck_pipeline() -> None:
    """Its loop goes round, and its cycle neither ends nor can be given up."""

    async def run(_cycle: Cycle, _phase: int) -> None:
        while True:
            try:
                await asyncio.sleep(LONG_S)
            except asyncio.CancelledError:
                continue

    Cycle.run = run  # type: ignore[method-assign]  # the fault


def deaf() -> None:
    """Does not drain, and ignores SIGTERM."""

    async def drain(*_arguments: object) -> None:
        await asyncio.sleep(LONG_S)

    def ignore() -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    SupervisionServicer.Drain = drain  # type: ignore[assignment,method-assign]  # the fault
    once_bound(ignore)


def leaves_a_child(*, escapes: bool) -> None:
    """Has a child that has the lock's descriptor, in its own session if it escapes, and that nothing but SIGKILL ends."""
    take = launch.take_lock

    def take_and_fork(layout: Any) -> int:
        descriptor = take(layout)
        if os.fork() == 0:
            if escapes:
                os.setsid()
            (layout.root / "child.pid").write_text(str(os.getpid()))
            for number in (signal.SIGTERM, signal.SIGABRT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            time.sleep(LONG_S)
            os._exit(0)
        return descriptor

    launch.take_lock = take_and_fork


def flaps() -> None:
    """Its readiness changes five times a second."""
    found = list[Readiness]()
    attach = Readiness.attach

    def attach_and_keep(readiness: Readiness, health: Any) -> None:
        found.append(readiness)
        attach(readiness, health)

    async def flap() -> None:
        while True:
            await found[0].fail("fault", "it flaps")
            await asyncio.sleep(0.1)
            await found[0].hold("fault")
            await asyncio.sleep(0.1)

    def begin() -> None:
        kept.append(asyncio.ensure_future(flap()))

    kept = list[Any]()
    Readiness.attach = attach_and_keep  # type: ignore[method-assign]  # the fault
    once_bound(begin)


def floods() -> None:
    """Writes to stderr for a while, 100 MB in a second."""

    def flood() -> None:
        block = b"".join(b"%063d\n" % number for number in range(1024))
        began = time.monotonic()
        for number in range(FLOOD_BYTES // len(block)):
            os.write(2, block)
            time.sleep(max(0.0, began + number * len(block) / FLOOD_BYTES_PER_S - time.monotonic()))

    once_bound(threading.Thread(target=flood, daemon=True).start)


def out_of_memory() -> None:
    """May not have as much memory as its cycles want."""
    kept = list[bytearray]()
    run = Cycle.run

    async def run_and_leak(cycle: Cycle, phase: int) -> None:
        if not kept:
            limit_memory()
        kept.append(bytearray(16 * 1024 * 1024))
        rest = run(cycle, phase)
        if rest is not None:
            await rest

    Cycle.run = run_and_leak  # type: ignore[method-assign]  # the fault


def clock_jumps() -> None:
    """What its own modules read from the clock of the machine jumps an hour ahead at SIGUSR1 and two back at SIGUSR2."""
    jump_s = [0]
    ours = types.SimpleNamespace(**vars(time))
    ours.time = lambda: time.time() + jump_s[0]
    ours.time_ns = lambda: time.time_ns() + jump_s[0] * 1_000_000_000
    for name, module in list(sys.modules.items()):
        if name.startswith("trademesh") and getattr(module, "time", None) is time:
            module.time = ours  # type: ignore[attr-defined]  # the fault
    for number, seconds in ((signal.SIGUSR1, 3600), (signal.SIGUSR2, -7200)):
        signal.signal(number, lambda *_, seconds=seconds: jump_s.__setitem__(0, jump_s[0] + seconds))  # type: ignore[misc]  # a default


def limit_memory() -> None:
    """A little more than is taken already."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 256 * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


FAULTS: dict[str, Callable[[], None]] = {
    "exit-1": partial(exits, 1),
    "exit-65": partial(exits, 65),
    "exit-78": partial(exits, 78),
    "never-bound": never_bound,
    "never-serving": never_serving,
    "blocked-loop": blocked_loop,
    "stuck-pipeline": stuck_pipeline,
    "deaf": deaf,
    "leaves-a-child": partial(leaves_a_child, escapes=False),
    "child-escapes": partial(leaves_a_child, escapes=True),
    "flaps": flaps,
    "floods": floods,
    "out-of-memory": out_of_memory,
    "clock-jumps": clock_jumps,
}


if __name__ == "__main__":
    fault = fault_of(ticket_in_hand())
    if fault:
        FAULTS[fault]()
    raise SystemExit(real.main())
