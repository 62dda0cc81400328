"""A finished run read again: its desk's events in their order, whatever phase is run when, and a journal of them that says the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from conftest import StartServer
from random_journals import CASH_MICROS, SESSIONS, Session, drafts_of
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.runtime.v1 import runtime_pb2
from trademesh_gateway import recording as recording_module
from trademesh_gateway.pipeline.cycle import PHASES
from trademesh_gateway.recording import RecordedCycle, Recording, draft_of
from trademesh_kernel.errors import HistoryCompacted, RemoteError
from trademesh_runs.chain import desk_digest
from trademesh_runs.compaction import compact
from trademesh_runs.fold import replay_journal
from trademesh_runs.journal import Draft, Encoder, StoredEvent, all_events
from trademesh_runs.journal_memory import MemoryStore
from trademesh_runs.journal_sqlite import SqliteReader, SqliteStore
from trading_bench import Bench, trading_bench, write_journal

BUSY = [
    Session(fills=[(0, 10, 50), (1, -5, 20)], signals=3, paused=True, checkpoint=True),
    Session(fills=[(0, -10, 60)], pace=2),
    Session(),
]


@pytest_asyncio.fixture
async def bench(tmp_path: Path, start_server: StartServer) -> AsyncIterator[Bench]:
    """Servers on free ports."""
    async with trading_bench(tmp_path, start_server) as one:
        yield one


def with_people(drafts: list[Draft]) -> list[Draft]:
    """The same with what people did in between, which belongs to no session."""
    found = list[Draft]()
    for place, draft in enumerate(drafts):
        found.append(draft)
        if place % 4 == 1:
            found.append(Draft("message_sent", events.MessageSent(message_id=str(place), text="why?"), item=str(place)))
            submitted = events.OrderSubmitted(order=events.Order(order_id=f"o{place}", ticker="KO", quantity=1), from_session=1)
            found += [Draft("order_submitted", submitted, item=f"o{place}")]
            found += [Draft("order_canceled", events.OrderCanceled(order_id=f"o{place}", ticker="KO"), item=f"o{place}")]
    return found


class Copy:
    """A journal in memory that takes in what a replay tells, each event once: what is told `again` is left out, else it is a fault."""

    def __init__(self) -> None:
        self.again = False
        self.store = MemoryStore()
        self._encoder = Encoder("again", 1)
        self._known = set[str]()

    def append(self, draft: Draft) -> None:
        event_id = self._encoder.event_id(draft)
        assert self.again or event_id not in self._known
        if event_id not in self._known:
            self._known.add(event_id)
            self.store.events.append(self._encoder.encode(draft, len(self.store.events) + 1, event_id))

    def events(self) -> list[StoredEvent]:
        return list(self.store.events)


async def replayed(recording: Recording, copy: Copy) -> int:
    """Shows a run to its end; returns how many sessions it had."""
    sessions = 0
    while (session := await recording.session()) is not None:
        cycle = RecordedCycle(session, copy.append)
        for phase in PHASES:
            cycle.run(phase)
        sessions += 1
    for event in recording.rest:
        copy.append(draft_of(event))
    return sessions


async def ended(bench: Bench, drafts: list[Draft]) -> Path:
    path = await write_journal(bench.runs, "run", iter(drafts))
    bench.runtime.say("run", runtime_pb2.RUN_STATE_SUCCEEDED)
    return path


@pytest.mark.parametrize("page", [1, 7, 1000])
@pytest.mark.parametrize("settle_last", [True, False])
async def test_a_replay_says_what_the_desk_did_and_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, page: int, settle_last: bool
) -> None:
    monkeypatch.setattr(recording_module, "EVENTS_PER_PAGE", page)
    path = await ended(bench, with_people(drafts_of(BUSY, settle_last=settle_last)))
    copy = Copy()
    assert await replayed(Recording(bench.trading, "run"), copy) == (3 if settle_last else 2)
    reader = SqliteReader(path)
    assert desk_digest(copy.events()) == desk_digest(all_events(reader))
    before, after = replay_journal("run", reader).state(), replay_journal("run", copy.store.reader()).state()
    reader.close()
    assert (after.portfolio, after.nav_micros, after.fills, after.working_orders) == (
        before.portfolio,
        before.nav_micros,
        before.fills,
        before.working_orders,
    )
    assert after.portfolio.initial_cash_micros == CASH_MICROS


async def test_a_replay_that_is_begun_again_adds_nothing_twice(bench: Bench) -> None:
    await ended(bench, with_people(drafts_of(BUSY)))
    copy, other = Copy(), Copy()
    await replayed(Recording(bench.trading, "run"), copy)
    for again in (False, True):
        other.again = again
        await replayed(Recording(bench.trading, "run"), other)
    assert [(one.kind, one.data[: one.core_length]) for one in other.events()] == [
        (one.kind, one.data[: one.core_length]) for one in copy.events()
    ]


async def test_a_run_that_is_not_there_and_one_that_was_compacted_cannot_be_read(bench: Bench) -> None:
    with pytest.raises(RemoteError) as refused:
        await Recording(bench.trading, "nobody").session()
    assert refused.value.remote_reason == "RESOURCE_NOT_FOUND"
    drafts = drafts_of(BUSY)
    path = await ended(bench, drafts)
    compact("run", SqliteStore(path), len(drafts) - 1)
    with pytest.raises(HistoryCompacted):
        await Recording(bench.trading, "run").session()


@given(SESSIONS, st.data())
def test_whatever_a_session_held_its_phases_tell_it_whole_and_in_order(sessions: list[Session], data: st.DataObject) -> None:
    encoder = Encoder("run", 1)
    drafts = [
        draft
        for draft in with_people(drafts_of(sessions))
        if draft.kind not in ("gateway_started", "pipeline_state_changed", "pace_changed")
    ]
    stored = [encoder.encode(draft, place, encoder.event_id(draft)).parse() for place, draft in enumerate(drafts, 1)]
    end = data.draw(st.integers(1, len(stored)))
    told = list[Draft]()
    cycle = RecordedCycle(stored[:end], told.append)
    done = 0
    for phase in PHASES:
        cycle.run(phase)
        assert all(draft.phase <= phase or phase == max(PHASES) for draft in told[done:])
        done = len(told)
    assert [(one.kind, one.payload, one.session_date, one.phase, one.agent_id) for one in told] == [
        (one.kind, one.payload, one.session_date, one.phase, one.agent_id) for one in drafts[:end]
    ]
    assert len({one.item for one in told}) == len(told)
