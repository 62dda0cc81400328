"""What a gateway finds in a journal when it begins, and how it ends."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import grpc
import pytest

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway import launch
from trademesh_gateway.exit_codes import exit_of
from trademesh_gateway.opening import open_session
from trademesh_kernel.errors import RemoteError
from trademesh_kernel.server import BindError
from trademesh_runs.bootstrap import BootstrapError
from trademesh_runs.fold import LedgerMismatchError
from trademesh_runs.journal import Draft, Encoder, StoredEvent
from trademesh_runs.journal_sqlite import FencedError, NewerJournalError


def stored(*drafts: Draft) -> list[StoredEvent]:
    encoder = Encoder("demo", 1)
    return [encoder.encode(draft, place + 1, encoder.event_id(draft)) for place, draft in enumerate(drafts)]


DAY = "2008-01-02"
OPENED = Draft("session_opened", events.SessionOpened(), DAY, events.PHASE_PREPARE)
FAILED = Draft("cycle_failed", events.CycleFailed(phase=events.PHASE_GATE), DAY, events.PHASE_GATE)
DENIED = Draft("order_rejected", events.OrderRejected(), DAY, events.PHASE_APPROVAL)
FILLED = Draft("order_filled", events.OrderFilled(order_id="a"), DAY, events.PHASE_EXECUTION)


def test_an_open_session_is_known_by_what_it_has_come_to() -> None:
    nothing = open_session([])
    assert (nothing.date, nothing.given_up_in, nothing.executed_orders) == ("", None, frozenset())
    failed = open_session(stored(OPENED, FAILED))
    assert (failed.date, failed.given_up_in, failed.executed_orders) == (DAY, events.PHASE_GATE, frozenset())
    assert not open_session(stored(OPENED, DENIED)).executed_orders
    assert open_session(stored(OPENED, DENIED, FILLED)).executed_orders == {"a"}


def operational(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BootstrapError([]), 65),
        (LedgerMismatchError(1, "cash", 1, 2), 65),
        (NewerJournalError("x"), 65),
        (sqlite3.DatabaseError("malformed"), 65),
        (FileNotFoundError(errno.ENOENT, "no file", str(Path("runs/demo/BOOTSTRAP.md"))), 65),
        (RemoteError("x", remote_code=grpc.StatusCode.NOT_FOUND, remote_reason="DATA_ABSENT"), 69),
        (KeyError("x"), 70),
        (OSError(errno.EIO, "x"), 74),
        (OSError(errno.ENOSPC, "x"), 74),
        (operational(sqlite3.SQLITE_FULL), 74),
        (operational(sqlite3.SQLITE_IOERR), 74),
        (operational(sqlite3.SQLITE_BUSY), 75),
        (BlockingIOError(), 75),
        (operational(sqlite3.SQLITE_READONLY), 77),
        (PermissionError(errno.EACCES, "x"), 77),
        (OSError(errno.EROFS, "x"), 77),
        (BindError("x"), 78),
        (FencedError("x"), 80),
    ],
    ids=repr,
)
def test_every_end_has_the_exit_status_that_tells_whether_another_try_can_help(error: Exception, code: int) -> None:
    assert exit_of(error)[0] == code


def test_a_ticket_of_an_earlier_runtime_has_the_leases_of_the_design() -> None:
    ticket = launch.LaunchTicket("demo", "runs", 1, "n", "r", "127.0.0.1:0", "", "t", "n", "a")
    assert (ticket.lease_s, ticket.orphan_s, ticket.watermark_sequence, ticket.watermark_epoch) == (60.0, 900.0, 0, 0)
