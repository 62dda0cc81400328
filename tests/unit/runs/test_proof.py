"""The proof of a journal in one pass: the same as in one pass for each thing, and damage is told first."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from random_journals import SESSIONS, Session, drafts_of, write
from trademesh.gateway.v1 import event_pb2 as events
from trademesh_runs import chain
from trademesh_runs.chain import DeskDigest, desk_digest, proven_links
from trademesh_runs.compaction import compact
from trademesh_runs.exports import export_files
from trademesh_runs.fold import LedgerMismatchError, replay_journal
from trademesh_runs.journal import Draft, JournalDamagedError, JournalStore, StoredEvent
from trademesh_runs.journal_memory import MemoryReader, MemoryStore
from trademesh_runs.journal_sqlite import SqliteStore
from trademesh_runs.layout import RunLayout
from trademesh_runs.proof import prove_journal
from trademesh_runs.scoreboard import Scoreboard
from trademesh_runs.summary import summary_of
from trademesh_runs.verification import STATE_FILE, VerificationError, verify_run

LAYOUT = RunLayout(Path("/nowhere"), "demo")
TWELVE = [Session([(0, 5, 10), (1, -2, 30)])] * 12


class Watched(MemoryReader):
    """Notes how often each event is read; from one on nothing can be read."""

    def __init__(self, store: MemoryStore, unreadable_from: int = 2**62) -> None:
        super().__init__(store)
        self.times = dict[int, int]()
        self._unreadable_from = unreadable_from

    def read(self, after: int, limit: int, through: int | None = None, kinds: Collection[int] | None = None) -> list[StoredEvent]:
        found = super().read(after, limit, through, kinds)
        for event in found:
            if event.sequence >= self._unreadable_from:
                raise sqlite3.DatabaseError("database disk image is malformed")
            self.times[event.sequence] = self.times.get(event.sequence, 0) + 1
        return found


def with_predictions(sessions: list[Session]) -> list[Draft]:
    """A run at random whose agents predict: before each settlement, which tells closes."""
    found = list[Draft]()
    for place, draft in enumerate(drafts_of(sessions)):
        if isinstance(draft.payload, events.Settled):
            rows = [events.Prediction(ticker="KO", direction=events.DIRECTION_UP, confidence=0.5 + place % 5 / 10)]
            found.append(Draft("predictions", events.Predictions(predictions=rows), draft.session_date, 4, f"analyst-{place % 2}"))
            draft.payload.close_micros.extend([10, 10 + place % 3, 10])
        found.append(draft)
    return found


def store_of(form: str, folder: str) -> JournalStore:
    return MemoryStore() if form == "memory" else SqliteStore(Path(folder) / "j.db")


@settings(max_examples=40, deadline=None)
@given(
    form=st.sampled_from(["sqlite", "memory"]),
    sessions=SESSIONS,
    flush_every=st.integers(1, 40),
    cut=st.integers(0, 60),
    moment=st.none() | st.integers(0, 140),
    ahead=st.sampled_from([1, 3, 2048]),
)
def test_one_pass_gives_what_a_pass_for_each_gives(
    form: str, sessions: list[Session], flush_every: int, cut: int, moment: int | None, ahead: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain, "_AHEAD", ahead)
        store = store_of(form, folder)
        asyncio.run(write(store, with_predictions(sessions), flush_every=flush_every))
        compact("demo", store, cut)
        reader = store.reader()
        head = reader.head()
        if moment is not None:
            moment = max(head.compacted_through, min(moment, head.sequence))
        proved = prove_journal("demo", reader, moment)
        state = replay_journal("demo", reader, moment).state()
        board = Scoreboard().catch_up(reader, state.as_of_sequence)
        assert proved.summary == summary_of("demo", reader)
        assert proved.fold.state() == replay_journal("demo", reader).state()
        told = proved.told
        assert (told.board.whole, told.board.sessions, told.board.sequence) == (board.whole, board.sessions, board.sequence)
        assert export_files(LAYOUT, told.state, told.board, curve=told.curve) == export_files(LAYOUT, state, board)
        reader.close()


async def test_each_event_is_read_once() -> None:
    store = MemoryStore()
    published = await write(store, drafts_of(TWELVE), flush_every=7)
    reader = Watched(store)
    prove_journal("demo", reader)
    assert reader.times == {event.sequence: 1 for event in published}


def wrong_in_the_second_session() -> list[Draft]:
    """A run whose second settlement tells another value than the ledger has."""
    drafts = drafts_of(TWELVE)
    settled = [draft.payload for draft in drafts if isinstance(draft.payload, events.Settled)][1]
    settled.nav_micros += 1
    return drafts


async def test_damage_is_told_before_what_the_ledger_finds_wherever_it_is() -> None:
    store = MemoryStore()
    published = await write(store, wrong_in_the_second_session())
    with pytest.raises(LedgerMismatchError, match="net asset value"):
        prove_journal("demo", store.reader())
    place = len(published) - 3
    store.events[place] = store.events[place]._replace(data=b"")
    with pytest.raises(JournalDamagedError, match="are not what was written") as found:
        prove_journal("demo", store.reader())
    assert found.value.sequence <= place + 1


async def test_a_page_that_cannot_be_read_hides_no_damage_before_it_and_no_link() -> None:
    store = MemoryStore()
    published = await write(store, drafts_of(TWELVE))
    last = len(published)
    given = list[int]()
    proven = proven_links(Watched(store, unreadable_from=last - 2))
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        given.extend(link.sequence for link, _events in proven)
    assert given == [link.sequence for link in store.links if link.sequence < last - 2]
    store.events[9] = store.events[9]._replace(data=b"")
    with pytest.raises(JournalDamagedError, match="are not what was written"):
        prove_journal("demo", Watched(store, unreadable_from=last - 2))


@settings(max_examples=25, deadline=None)
@given(sessions=SESSIONS, cuts=st.lists(st.integers(0, 140), max_size=4))
def test_the_digest_is_the_same_in_whatever_pieces_events_come(sessions: list[Session], cuts: list[int]) -> None:
    published = asyncio.run(write(MemoryStore(), drafts_of(sessions)))
    pieces, single = DeskDigest(), DeskDigest()
    for event in published:
        single.add_all((event,))
    bounds = [0, *sorted(cuts), len(published)]
    for begin, end in pairwise(bounds):
        pieces.add_all(published[begin:end])
    assert pieces.hexdigest() == single.hexdigest() == desk_digest(published)
    assert pieces.settled == single.settled


@pytest.fixture
async def layout(tmp_path: Path) -> RunLayout:
    """A run with a journal."""
    found = RunLayout(tmp_path, "demo")
    found.make_folders()
    await write(SqliteStore(found.journal), drafts_of(TWELVE))
    return found


async def test_the_files_of_an_earlier_moment_are_held_against_the_state_at_that_one(layout: RunLayout) -> None:
    reader = SqliteStore(layout.journal).reader()
    state = replay_journal("demo", reader, 20).state()
    files = export_files(layout, state, Scoreboard().catch_up(reader, 20))
    reader.close()
    for name, content in files.items():
        (layout.root / name).write_bytes(content)
    verified = verify_run(layout)
    assert verified.files == [STATE_FILE]
    assert set(verified.behind) == set(files) - {STATE_FILE}
    assert verified.summary.sessions == len(TWELVE)
    layout.server_state.write_bytes(files[STATE_FILE].replace(b'"fills": ', b'"fills": 1'))
    with pytest.raises(VerificationError, match="is not what the journal gives at event 20"):
        verify_run(layout)
