"""Compaction: events that are old make room for a snapshot of what they came to. What later events give does not change by it.

A journal is cut only right after a settled event, where the chain has a link and an account is whole. Nothing compacts by itself: there
is no scheduler yet, and a run must not be live.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trademesh_runs.books import Books
from trademesh_runs.chain import DeskDigest, proven_links
from trademesh_runs.fold import beginning_of
from trademesh_runs.journal import SETTLED, JournalReader, JournalStore, Snapshot, all_events

MOST_ROWS = 5_000
"""Events that go in one transaction, unless a single session has more."""


@dataclass(frozen=True)
class Compacted:
    """What a compaction did."""

    compacted_through: int
    events_removed: int


def settled_before(reader: JournalReader, unix_s: float) -> int:
    """The newest settled event of those that were written before an instant; what was compacted already if there is none."""
    found = reader.head().compacted_through
    for stored in all_events(reader, kinds=(SETTLED,)):
        if stored.parse().recorded_at.ToNanoseconds() >= unix_s * 1e9:
            break
        found = stored.sequence
    return found


def compact(run_id: str, store: JournalStore, through: int, most_rows: int = MOST_ROWS) -> Compacted:
    """Removes events up to the newest settled one that is not after `through`. The journal is proved on the way: a damaged one is left as
    it is from there on.

    Raises:
        JournalDamagedError: it is not what was written.
        LedgerMismatchError: an event says other than the ledger.
    """
    reader = store.reader()
    compactor = store.compactor()
    try:
        removed = 0
        for snapshot in _snapshots(run_id, reader, through, most_rows):
            removed += compactor.cut(snapshot)
        return Compacted(reader.head().compacted_through, removed)
    finally:
        reader.close()
        compactor.close()


def _cuts(reader: JournalReader, through: int, most_rows: int) -> list[int]:
    """Where the journal is cut, one transaction after the other."""
    found, newest, begin = list[int](), 0, reader.head().compacted_through
    for stored in all_events(reader, 0, through, kinds=(SETTLED,)):
        link = reader.links(stored.sequence - 1, 1)
        if not link or link[0].sequence != stored.sequence:
            # Written by a trademesh whose chain had links at commits alone: what lies between two of them is proved only as a whole.
            continue
        if newest and stored.sequence - begin > most_rows:
            found.append(newest)
            begin = newest
        newest = stored.sequence
    return [*found, newest] if newest else found


def _snapshots(run_id: str, reader: JournalReader, through: int, most_rows: int) -> Iterator[Snapshot]:
    cuts = _cuts(reader, through, most_rows)
    if not cuts:
        return
    earlier = reader.snapshot()
    fold, desk = beginning_of(run_id, reader), DeskDigest(b"" if earlier is None else earlier.desk)
    left = iter(cuts)
    cut = next(left)
    books = Books(fold)
    for link, events in proven_links(reader):
        books.take(events)
        desk.add_all(events)
        if link.sequence == cut:
            yield Snapshot(cut, link.hash, desk.settled, fold.state().SerializeToString(deterministic=True))
            cut = next(left, 0)
            if not cut:
                return
