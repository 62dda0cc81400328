"""From what ended a gateway to its exit status, which tells the supervisor whether another try can help: those of sysexits.h, and 80."""

from __future__ import annotations

import errno
import sqlite3

from google.protobuf.message import DecodeError

from trademesh_gateway import launch
from trademesh_kernel.errors import DeadlinePassed, DependencyUnavailable, HistoryCompacted, RemoteError
from trademesh_kernel.server import BindError
from trademesh_ledger.money import AmountTooLarge
from trademesh_runs.bootstrap import BootstrapError
from trademesh_runs.fold import LedgerMismatchError
from trademesh_runs.journal import FencedError, JournalDamagedError, NewerJournalError

_PROTOBUF_REFUSES = "Value out of range"
"""What a message says to a number that is too large for its field, which has no class of its own (test_amounts_too_large.py)."""
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def exit_of(error: Exception) -> tuple[int, str]:
    """Exit status and last words."""
    match error:
        case BlockingIOError():
            return launch.EXIT_TEMPORARY, "another gateway holds the run's lock"
        case BootstrapError():
            return launch.EXIT_DATA, f"BOOTSTRAP.md: {error}"
        case FileNotFoundError(filename=str() as name) if name.endswith("BOOTSTRAP.md"):
            return launch.EXIT_DATA, "BOOTSTRAP.md: is not there"
        case FencedError():
            return launch.EXIT_FENCED, str(error)
        case sqlite3.OperationalError():
            return _exit_of_sqlite(error), f"journal: {error}"
        case NewerJournalError() | JournalDamagedError() | LedgerMismatchError() | DecodeError() | sqlite3.DatabaseError():
            return launch.EXIT_DATA, f"journal: {error}"
        case BindError():
            return launch.EXIT_CONFIG, str(error)
        case RemoteError() | DependencyUnavailable() | DeadlinePassed():
            # What a service that we need has answered; one that does not answer is waited for.
            return launch.EXIT_DEPENDENCY, error.message
        case HistoryCompacted():
            return launch.EXIT_DATA, f"the run that is to be shown again: {error.message}"
        case AmountTooLarge():
            return launch.EXIT_DATA, str(error)
        case ValueError() if str(error).startswith(_PROTOBUF_REFUSES):
            return launch.EXIT_DATA, f"a figure of the run is more than 64 bits hold, and cannot be told: {error}"
        case OSError():
            return launch.EXIT_PERMISSION if error.errno in _FORBIDDEN else launch.EXIT_DISK, str(error)
    return launch.EXIT_BUG, "ended by a fault of ours; the log has it"


def _exit_of_sqlite(error: sqlite3.OperationalError) -> int:
    """Full, locked, not to be written: most of it another try may find mended."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return launch.EXIT_PERMISSION
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return launch.EXIT_TEMPORARY
    return launch.EXIT_DISK
