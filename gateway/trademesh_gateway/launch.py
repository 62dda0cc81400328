"""How a gateway comes to be: the launch ticket from runtime_service, its identity on disk, its last words.

The ticket comes through a socket that runtime_service left open for us. There is no other way to start.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from trademesh.runtime.v1.runtime_pb2 import RunProgress
from trademesh_kernel.atomic_files import replace_file
from trademesh_runs.layout import RunLayout

LAUNCH_VARIABLE = "TRADEMESH_GATEWAY_LAUNCH_FD"
_TICKET_TIMEOUT_S = 10.0
_LARGEST_TICKET_BYTES = 65536

EXIT_OK = 0
EXIT_USAGE = 64
EXIT_DATA = 65
EXIT_DEPENDENCY = 69
EXIT_BUG = 70
EXIT_DISK = 74
EXIT_TEMPORARY = 75
EXIT_PERMISSION = 77
EXIT_CONFIG = 78
EXIT_FENCED = 80


class NotLaunchedError(Exception):
    """This process was not started by runtime_service."""


@dataclass(frozen=True)
class LaunchTicket:
    """What runtime_service tells a new gateway."""

    run_id: str
    runs_dir: str
    generation: int
    nonce: str
    run_nonce: str
    """Tells this run from another of the same name, earlier or later."""
    bind: str
    advertise: str
    trading_target: str
    news_target: str
    agent_target: str
    lease_s: float = 60.0
    """Without a heartbeat for so long no new cycle begins."""
    orphan_s: float = 900.0
    """Without one for so long the gateway ends."""
    watermark_sequence: int = 0
    """Newest sequence that runtime_service has heard of; 0 if none."""
    watermark_epoch: int = 0
    """The epoch that it is of."""

    @property
    def layout(self) -> RunLayout:
        """Where the run is."""
        return RunLayout(Path(self.runs_dir), self.run_id)


class Launcher:
    """The socket to the runtime_service that started us. Once it has gone, telling it anything does nothing."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def tell(self, kind: str, **content: Any) -> None:
        """One line: `progress` or `bound`."""
        try:
            self._connection.sendall(json.dumps({"kind": kind, **content}).encode() + b"\n")
        except OSError:
            return


def accept_launch() -> tuple[LaunchTicket, Launcher]:
    """Reads the ticket.

    Raises:
        NotLaunchedError: there is none.
    """
    try:
        connection = socket.socket(fileno=int(os.environ.pop(LAUNCH_VARIABLE)))
        connection.settimeout(_TICKET_TIMEOUT_S)
        line = b""
        while not line.endswith(b"\n"):
            part = connection.recv(_LARGEST_TICKET_BYTES)
            if not part or len(line) > _LARGEST_TICKET_BYTES:
                raise NotLaunchedError
            line += part
        return LaunchTicket(**json.loads(line)), Launcher(connection)
    except (KeyError, ValueError, TypeError, OSError):
        raise NotLaunchedError from None


def take_lock(layout: RunLayout) -> int:
    """Takes the run's lock for the life of this process; raises BlockingIOError if another gateway has it."""
    descriptor = os.open(layout.gateway_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def write_identity(ticket: LaunchTicket, target: str) -> None:
    """Says in `state/gateway.json` who we are, so that a later runtime_service can find us and not take another for us."""
    # Field 22 of /proc/self/stat: with the boot id it tells this process from a later one with the same number.
    start_time = Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[19]
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    identity = {
        "run_id": ticket.run_id,
        "generation": ticket.generation,
        "nonce": ticket.nonce,
        "pid": os.getpid(),
        "start_time_ticks": int(start_time),
        "boot_id": boot_id,
        "target": target,
    }
    replace_file(ticket.layout.gateway_identity, (json.dumps(identity, indent=2) + "\n").encode(), mode=0o600)


def write_last_words(ticket: LaunchTicket, code: int, reason: str, progress: RunProgress) -> None:
    """Says in `state/exit.json` how we end and how far we came: after an adoption nobody can learn our exit status otherwise, and
    between the last heartbeat and the end there may be many sessions. Those of a later generation are left as they are."""
    try:
        if json.loads(ticket.layout.gateway_exit.read_text())["generation"] > ticket.generation:
            return
    except (OSError, ValueError, KeyError, TypeError):
        pass
    words = {
        "generation": ticket.generation,
        "code": code,
        "reason": reason,
        "progress": json_format.MessageToDict(progress, preserving_proto_field_name=True),
        "at_unix_s": round(time.time(), 3),
    }
    replace_file(ticket.layout.gateway_exit, (json.dumps(words, indent=2) + "\n").encode())
