"""`python -m trademesh_gateway`: runs the gateway that a launch ticket tells of. Refuses to run without one."""

from __future__ import annotations

import asyncio
import faulthandler
import sqlite3
import sys

from google.protobuf.message import DecodeError

from trademesh_gateway import launch
from trademesh_gateway.gateway import Gateway
from trademesh_kernel.logs import configure_logs, get_logger
from trademesh_kernel.server import BindError
from trademesh_runs.bootstrap import BootstrapError
from trademesh_runs.fold import LedgerMismatchError
from trademesh_runs.journal import FencedError, JournalDamagedError, NewerJournalError


def main() -> int:
    """Runs the gateway; returns the exit status."""
    try:
        ticket, launcher = launch.accept_launch()
    except launch.NotLaunchedError:
        print("trademesh gateway: only runtime_service starts a gateway; use `trademesh run start`", file=sys.stderr)
        return launch.EXIT_USAGE
    # A supervisor that takes us for hung sends SIGABRT: the stacks then tell where we were.
    faulthandler.enable()
    configure_logs("gateway", log_format="json")
    log = get_logger("gateway")
    gateway = Gateway(ticket, launcher)
    code, reason = launch.EXIT_BUG, "ended by a fault of ours; the log has it"
    try:
        # The lock's descriptor lives as long as the process.
        launch.take_lock(ticket.layout)
        code, reason = asyncio.run(gateway.run())
    except BlockingIOError:
        code, reason = launch.EXIT_TEMPORARY, "another gateway holds the run's lock"
    except BootstrapError as error:
        code, reason = launch.EXIT_DATA, f"BOOTSTRAP.md: {error}"
    except FencedError as error:
        code, reason = launch.EXIT_FENCED, str(error)
    except sqlite3.OperationalError as error:
        # Full, locked, not to be written: another try may find it mended.
        code, reason = launch.EXIT_DISK, f"journal: {error}"
    except (NewerJournalError, JournalDamagedError, LedgerMismatchError, DecodeError, sqlite3.DatabaseError) as error:
        code, reason = launch.EXIT_DATA, f"journal: {error}"
    except BindError as error:
        code, reason = launch.EXIT_CONFIG, str(error)
    except PermissionError as error:
        code, reason = 77, str(error)
    except OSError as error:
        code, reason = launch.EXIT_DISK, str(error)
    except Exception:
        log.exception("the gateway failed")
    log.info("gateway ends", code=code, reason=reason)
    try:
        launch.write_last_words(ticket, code, reason, gateway.progress())
    except OSError as error:
        log.error("last words could not be written", reason=str(error))
    return code


if __name__ == "__main__":
    raise SystemExit(main())
