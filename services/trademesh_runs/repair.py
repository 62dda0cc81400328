"""What is done to a run that is not live: a journal from a damaged one, derived files again. Who calls holds the run's lock.

The new journal has what the hash chain of the old one still proves, and a new epoch. The damaged files stay beside it.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from trademesh.gateway.v1.event_pb2 import JournalTruncated
from trademesh_kernel.atomic_files import replace_file
from trademesh_runs.chain import links, proven_links
from trademesh_runs.exports import export_files
from trademesh_runs.journal import Draft, Encoder, Head, JournalDamagedError, Link, StoredEvent
from trademesh_runs.journal_sqlite import SqliteFile, SqliteReader, SqliteStore
from trademesh_runs.layout import RunLayout
from trademesh_runs.proof import prove_journal
from trademesh_runs.verification import VerificationError, moment_told

_COMMIT_EVENTS = 1024
_UNKNOWN = 2**62
_DAMAGE = (JournalDamagedError, sqlite3.DatabaseError, DecodeError, struct.error, TypeError, ValueError, AttributeError)


class NothingToSalvageError(Exception):
    """The journal is whole."""


@dataclass(frozen=True)
class Salvaged:
    """What was saved."""

    kept_through: int
    known_through: int
    """The newest event that was known to be written; 0 if nobody knows."""
    epoch: int
    damaged_file: str
    reason: str


def rebuild_run(layout: RunLayout) -> list[str]:
    """Makes every derived file of a run again, from its journal; returns their names.

    Raises:
        JournalDamagedError: the journal is not what was written.
        LedgerMismatchError: an event says other than the ledger.
    """
    reader = SqliteStore(layout.journal).reader()
    try:
        with reader.standing_still():
            told = prove_journal(layout.run_id, reader).told
    finally:
        reader.close()
    layout.make_folders()
    files = export_files(layout, told.state, told.board, curve=told.curve)
    for name, content in files.items():
        replace_file(layout.root / name, content)
    return list(files)


def salvage_run(layout: RunLayout) -> Salvaged:
    """Puts a new journal in the place of a damaged one. Derived files are left as they are: see `rebuild_run`.

    Raises:
        NothingToSalvageError: the journal is whole.
        JournalDamagedError: nothing of it can be proved.
        NewerJournalError: it is of a later version.
    """
    path, new = layout.journal, layout.journal.with_name("journal.db.salvaged")
    _remove(new)
    reader = SqliteReader(path)
    try:
        head = _head_as_far_as_known(reader, layout)
        reason, kept_through, epoch = _copy(layout.run_id, reader, head, SqliteFile(new))
    except BaseException:
        _remove(new)
        raise
    finally:
        reader.close()
    known = 0 if head.sequence == _UNKNOWN else head.sequence
    return Salvaged(kept_through, max(known, _told(layout)[1]), epoch, _exchange(path, new), reason)


def _head_as_far_as_known(reader: SqliteReader, layout: RunLayout) -> Head:
    try:
        return reader.head()
    except _DAMAGE:
        return Head(max(1, _told(layout)[0]), _UNKNOWN, _compacted_through(reader))


def _compacted_through(reader: SqliteReader) -> int:
    snapshot = reader.snapshot()
    return 0 if snapshot is None else snapshot.sequence


def _told(layout: RunLayout) -> tuple[int, int]:
    try:
        return moment_told(layout)
    except VerificationError:
        return 0, 0


def _copy(run_id: str, reader: SqliteReader, head: Head, new: SqliteFile) -> tuple[str, int, int]:
    """Copies what is proved, and says what is not; returns why, up to where, and the new epoch."""
    new.take_over(1)
    snapshot = reader.snapshot()
    done, last_hash, generation = 0, b"", 1
    if snapshot is not None:
        new.cut(snapshot)
        done, last_hash = snapshot.sequence, snapshot.chain
    reason, group, added = "", list[StoredEvent](), list[Link]()
    try:
        # One link at a time: whatever else is on a damaged page is not to take more with it than it must.
        for link, events in proven_links(reader, head, block=1):
            generation = max(generation, events[-1].parse().generation)
            group += events
            added.append(link)
            done, last_hash = link.sequence, link.hash
            if len(group) >= _COMMIT_EVENTS:
                new.commit(group, added)
                group, added = [], []
        raise NothingToSalvageError
    except _DAMAGE as error:
        reason = str(error)
    except NothingToSalvageError:
        new.abandon()
        raise
    if not done:
        new.abandon()
        raise JournalDamagedError(f"nothing of the journal can be proved: {reason}", 1)
    if group:
        new.commit(group, added)
    lost = JournalTruncated(
        kept_through=done, known_through=0 if head.sequence == _UNKNOWN else head.sequence, earlier_epoch=head.epoch, reason=reason
    )
    draft = Draft("journal_truncated", lost, item=f"salvage of {done}")
    encoder = Encoder(run_id, generation)
    event = encoder.encode(draft, done + 1, encoder.event_id(draft))
    new.commit([event], links(last_hash, [event]), head.epoch + 1)
    new.close()
    return reason, done, head.epoch + 1


def _exchange(path: Path, new: Path) -> str:
    """Puts the new file in the place of the damaged one, which gets another name together with its write-ahead log."""
    number = 1
    while (kept := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    os.link(path, kept)
    log = path.with_name(f"{path.name}-wal")
    if log.exists():
        log.rename(kept.with_name(f"{kept.name}-wal"))
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    os.replace(new, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return kept.name


def _remove(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
