"""What compaction must not change: folds, digests, proofs and reads, for journals and cuts at random."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from random_journals import SESSIONS, Session, drafts_of, write
from trademesh_kernel.errors import HistoryCompacted
from trademesh_runs.compaction import compact, settled_before
from trademesh_runs.fold import fold_journal, replay_journal, settled_fold
from trademesh_runs.journal import SETTLED, JournalStore, StoredEvent
from trademesh_runs.journal_memory import MemoryStore
from trademesh_runs.journal_sqlite import SqliteStore
from trademesh_runs.summary import summary_of

FORMS = st.sampled_from(["sqlite", "memory"])


def new_store(form: str, folder: str) -> JournalStore:
    """An empty journal."""
    return MemoryStore() if form == "memory" else SqliteStore(Path(folder) / "j.db")


def states(store: JournalStore, after: int, through: int) -> list[bytes]:
    """The state at every sequence, proved, and equal to the one that is had sooner."""
    reader = store.reader()
    found = list[bytes]()
    for sequence in range(after, through + 1):
        proved = replay_journal("demo", reader, sequence).state().SerializeToString(deterministic=True)
        assert fold_journal("demo", reader, sequence).state().SerializeToString(deterministic=True) == proved
        found.append(proved)
    assert settled_fold("demo", reader).state().as_of_sequence <= through
    reader.close()
    return found


@settings(max_examples=25, deadline=None)
@given(
    form=FORMS, sessions=SESSIONS, settle_last=st.booleans(), flush_every=st.integers(1, 40), cuts=st.lists(st.integers(0, 120), max_size=3)
)
def test_compaction_changes_nothing_that_is_kept(
    form: str, sessions: list[Session], settle_last: bool, flush_every: int, cuts: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = new_store(form, folder)
        published = asyncio.run(write(store, drafts_of(sessions, settle_last=settle_last), flush_every=flush_every))
        before = states(store, 0, len(published))
        reader = store.reader()
        summary, cut_at = summary_of("demo", reader), 0
        for cut in cuts:
            cut_at = max([cut_at, *(event.sequence for event in published if event.kind == SETTLED and event.sequence <= cut)])
            compacted = compact("demo", store, cut, most_rows=10)
            assert compacted.compacted_through == cut_at
            assert reader.check().compacted_through == cut_at
            assert reader.head().sequence == len(published)
            assert reader.read(0, 1000) == published[cut_at:]
            assert states(store, cut_at, len(published)) == before[cut_at:]
            assert summary_of("demo", reader) == summary
        if cut_at:
            with pytest.raises(HistoryCompacted):
                fold_journal("demo", reader, cut_at - 1)
        reader.close()


async def test_a_compacted_journal_is_gone_on_with_and_compacted_again(store: JournalStore) -> None:
    whole = MemoryStore()
    sessions = [Session([(0, 5, 10), (1, -3, 20)], checkpoint=True)] * 8
    desk = drafts_of(sessions)
    published = await write(whole, desk)
    middle = next(event.sequence for event in published if event.kind == SETTLED and event.sequence > 20)
    await write(store, desk[: middle + 3])
    assert compact("demo", store, middle).compacted_through == middle
    await write(store, desk[middle + 3 :], generation=2)
    assert compact("demo", store, len(published)).compacted_through == len(published) - 1
    one, other = whole.reader(), store.reader()
    assert other.check().sequence == one.check().sequence
    assert fold_journal("demo", other).state() == replay_journal("demo", one).state()
    assert summary_of("demo", other) == summary_of("demo", one)
    other.close()


async def test_a_journal_that_ends_with_its_cut_can_be_gone_on_with(store: JournalStore) -> None:
    desk = drafts_of([Session([(0, 5, 10)])] * 3)
    count = len(await write(store, desk))
    assert compact("demo", store, count).events_removed == count
    await write(store, drafts_of([Session([(0, 5, 10)])] * 4)[count:], generation=2)
    reader = store.reader()
    assert reader.check().sequence == count + 5 - 1
    assert replay_journal("demo", reader).sessions_settled == 4
    reader.close()


async def test_rows_go_in_small_transactions_each_with_its_snapshot(store: JournalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    published = await write(store, drafts_of([Session(signals=20)] * 10))
    removed, compactor = list[int](), store.compactor()
    kind = type(compactor)
    cut = kind.cut
    compactor.close()

    def watched(self: Any, snapshot: Any) -> int:
        removed.append(cut(self, snapshot))
        reader = store.reader()
        assert replay_journal("demo", reader).sessions_settled == 10
        reader.close()
        return removed[-1]

    monkeypatch.setattr(kind, "cut", watched)
    compact("demo", store, len(published), most_rows=50)
    assert len(removed) == 5
    assert max(removed) <= 50
    assert sum(removed) == len(published)


async def test_only_what_is_old_enough_is_compacted(store: JournalStore) -> None:
    published: Sequence[StoredEvent] = await write(store, drafts_of([Session()] * 3))
    settled = [event for event in published if event.kind == SETTLED]
    reader = store.reader()
    instant = settled[1].parse().recorded_at.ToNanoseconds() / 1e9
    assert settled_before(reader, instant - 1) == 0
    assert settled_before(reader, instant + 1) == settled[-1].sequence
    reader.close()
