"""Who holds a run's lock. A lock lives as long as any descriptor of the file as the locker opened it, so that a child that a dead gateway
has left behind may hold it; `/proc/locks` would name the dead. Only reads; who may be ended is `process.py`'s."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class ProcessFacts:
    """What /proc/<pid>/stat says."""

    pid: int
    name: str
    state: str
    group: int
    session: int
    start_time_ticks: int


def facts_of(pid: int) -> ProcessFacts | None:
    """A process; None if there is none."""
    try:
        head, _, tail = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(") ")
        fields = tail.split()
        name = head.partition(" (")[2]
        return ProcessFacts(pid, name, fields[0], int(fields[2]), int(fields[3]), int(fields[19]))
    except (OSError, ValueError, IndexError):
        return None


def all_processes() -> Iterator[ProcessFacts]:
    """Every process that lives."""
    for name in os.listdir(_PROC):
        if name.isdigit():
            facts = facts_of(int(name))
            if facts is not None and facts.state not in "ZX":
                yield facts


def is_free(lock: Path) -> bool:
    """True if nobody holds a lock. One that cannot be opened counts as free: why it cannot, the gateway will say."""
    try:
        # Reading is enough for a lock, and goes where nothing can be written.
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Said, since a process that is being started just now may share the descriptor for a moment.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def holders_of(lock: Path) -> list[ProcessFacts]:
    """The processes by which a lock is held: as far as their descriptors may be read, or else who took it."""
    try:
        inode = lock.stat()
    except OSError:
        return []
    found = [facts for facts in all_processes() if _holds(facts.pid, inode)]
    return found or [facts for pid in _lockers(inode.st_ino) if (facts := facts_of(pid)) is not None]


def _holds(pid: int, inode: os.stat_result) -> bool:
    with suppress(OSError):
        for descriptor in os.listdir(_PROC / str(pid) / "fd"):
            with suppress(OSError):
                opened = os.stat(_PROC / str(pid) / "fd" / descriptor)
                same = (opened.st_ino, opened.st_dev) == (inode.st_ino, inode.st_dev)
                # Who has only opened the file has no line `lock:` here; who has inherited the locker's descriptor has.
                if same and "lock:" in (_PROC / str(pid) / "fdinfo" / descriptor).read_text():
                    return True
    return False


def _lockers(inode: int) -> list[int]:
    """The processes that took locks on a file, by /proc/locks: `1: FLOCK  ADVISORY  WRITE 123 08:01:456 0 EOF`."""
    with suppress(OSError, ValueError, IndexError):
        lines = [line.split() for line in (_PROC / "locks").read_text().splitlines()]
        return [int(line[4]) for line in lines if line[1] == "FLOCK" and line[5].rpartition(":")[2] == str(inode)]
    return []
