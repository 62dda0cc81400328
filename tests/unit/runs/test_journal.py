"""What every form of a journal promises: order, hashes, fencing, repeats, epochs, and patience with a disk that is full."""

from __future__ import annotations

import asyncio
import hashlib
import struct
import time
import uuid
from collections.abc import Sequence

import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given
from hypothesis import strategies as st

from random_journals import Session, drafts_of, write
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_runs.chain import chain, desk_digest
from trademesh_runs.journal import Draft, Encoder, FencedError, Head, JournalStore, StoredEvent, all_events
from trademesh_runs.journal_memory import MemoryStore
from trademesh_runs.journal_writer import BATCH_BYTES, BATCH_EVENTS, NoRoomError
from waiting import until


def draft(number: int) -> Draft:
    """An event of the desk."""
    return Draft("session_opened", events.SessionOpened(session_number=number), f"2020-01-{number:02d}", 1)


def drafts(numbers: Sequence[int]) -> list[Draft]:
    """Events of the desk."""
    return [draft(number) for number in numbers]


def nobody(_group: Sequence[StoredEvent]) -> None:
    """Nobody is told."""


async def test_sequences_are_gapless_and_published_in_order(store: JournalStore) -> None:
    published = await write(store, drafts(range(1, 29)), flush_every=3)
    assert [event.sequence for event in published] == list(range(1, 29))
    assert [event.parse().sequence for event in published] == list(range(1, 29))
    reader = store.reader()
    assert [event.data for event in all_events(reader, block=5)] == [event.data for event in published]
    assert reader.check() == Head(1, 28)
    reader.close()


async def test_reads_find_the_same_events_by_place_and_by_kind(store: JournalStore) -> None:
    published = await write(store, drafts_of([Session([(0, 5, 10)]), Session([(1, 2, 20), (0, -5, 11)])]), flush_every=4)
    reader = store.reader()
    assert reader.read(3, 4) == published[3:7]
    assert reader.read(3, 100, 6) == published[3:6]
    assert [number for number, _ in reader.read_encoded(3, 100, 1_000_000, 6)] == [4, 5, 6]
    assert reader.read_encoded(3, 1, 1_000_000) == [(4, published[3].data)]
    assert 0 < len(reader.read_encoded(0, 100, 1)) <= 32
    assert reader.read_before(6, 3) == published[4:1:-1]
    fills = [event for event in published if event.parse().HasField("order_filled")]
    assert reader.read_kind("order_filled") == reader.read(0, 100, None, {fills[0].kind}) == fills
    assert reader.read_kind("order_filled", newest=1) == fills[-1:]
    assert reader.read_kind("order_filled", fills[-1].sequence - 1) == fills[:-1]
    assert (reader.count("order_filled", 1000), reader.count("order_filled", fills[0].sequence)) == (3, 1)
    reader.close()


async def test_the_chain_has_a_link_after_every_settled_event(store: JournalStore) -> None:
    published = await write(store, drafts_of([Session()] * 5), flush_every=7)
    settled = {event.sequence for event in published if event.parse().HasField("settled")}
    reader = store.reader()
    assert settled <= {link.sequence for link in reader.links(0, 1000)}
    assert [link.sequence for link in reader.links(1, 1)] == [min(settled | {8})]
    reader.close()


async def test_batches_and_generations_do_not_enter_the_digest_of_the_desk(store: JournalStore) -> None:
    other = MemoryStore()
    desk = drafts_of([Session([(0, 5, 10)])] * 3)
    one = await write(store, desk)
    two = await write(other, desk[:8], flush_every=2)
    two += await write(other, desk[8:], generation=2)
    assert desk_digest(one) == desk_digest(two)


async def test_what_is_done_again_after_a_crash_is_not_written_twice(store: JournalStore) -> None:
    await write(store, drafts([1, 2, 3]))
    assert [event.sequence for event in await write(store, drafts([1, 2, 3, 4]), generation=2)] == [4]


async def test_a_writer_that_was_replaced_can_write_no_more(store: JournalStore) -> None:
    old = store.writer("demo", 1, nobody)
    old.append(draft(1))
    await old.flush()
    new = store.writer("demo", 2, nobody)
    old.append(draft(2))
    with pytest.raises(FencedError):
        await old.flush()
    new.append(draft(3))
    await new.flush()
    assert new.committed == 2
    await old.close()
    await new.close()
    with pytest.raises(FencedError):
        store.writer("demo", 2, nobody)


async def test_a_group_has_a_bound_and_what_is_left_over_follows_unasked(store: JournalStore) -> None:
    groups = list[int]()
    writer = store.writer("demo", 1, lambda group: groups.append(len(group)))
    count = 2 * BATCH_EVENTS + 5
    for number in range(count):
        writer.append(Draft("pace_changed", events.PaceChanged(), item=str(number)))
    await until(lambda: writer.committed == count)
    assert groups == [BATCH_EVENTS, BATCH_EVENTS, 5]
    await writer.close()


async def test_a_group_that_cannot_be_taken_in_breaks_the_journal_and_is_said(store: JournalStore) -> None:
    def contradict(_group: Sequence[StoredEvent]) -> None:
        raise ValueError("the ledger says otherwise")

    writer = store.writer("demo", 1, contradict)
    broken = asyncio.create_task(writer.broken())
    writer.append(draft(1))
    for waiting in (writer.flush(), broken, writer.room()):
        with pytest.raises(ValueError, match="otherwise"):
            await asyncio.wait_for(waiting, 5)
    await writer.close()


async def test_who_waits_for_a_failure_is_told_that_the_journal_was_closed(store: JournalStore) -> None:
    writer = store.writer("demo", 1, nobody)
    broken = asyncio.create_task(writer.broken())
    writer.append(draft(1))
    await writer.close()
    await asyncio.wait_for(broken, 5)


async def test_a_reader_that_stands_still_sees_one_moment(store: JournalStore) -> None:
    writer = store.writer("demo", 1, nobody)
    writer.append(draft(1))
    await writer.flush()
    reader = store.reader()
    with reader.standing_still():
        assert reader.check().sequence == 1
        writer.append(draft(2))
        await writer.flush()
        assert (reader.check().sequence, len(reader.read(0, 10))) == (1, 1)
    assert reader.check().sequence == 2
    reader.close()
    await writer.close()


@pytest.mark.parametrize("watermark", [Head(0, 0), Head(1, 2), Head(1, 3)])
async def test_a_journal_that_has_all_that_was_heard_of_goes_on_in_its_epoch(store: JournalStore, watermark: Head) -> None:
    await write(store, drafts([1, 2, 3]))
    writer = store.writer("demo", 2, nobody, watermark=watermark)
    assert (writer.epoch, writer.assigned) == (1, 3)
    await writer.close()


@pytest.mark.parametrize(("watermark", "epoch"), [(Head(1, 9), 2), (Head(4, 1), 5)])
async def test_a_journal_that_lost_its_end_goes_on_in_a_new_epoch_and_says_so(store: JournalStore, watermark: Head, epoch: int) -> None:
    await write(store, drafts([1, 2, 3]))
    writer = store.writer("demo", 2, nobody, watermark=watermark)
    assert (writer.epoch, writer.assigned, writer.committed) == (epoch, 4, 4)
    writer.append(draft(4))
    await writer.close()
    reader = store.reader()
    assert reader.check() == Head(epoch, 5)
    lost = reader.read(3, 1)[0].parse().journal_truncated
    assert (lost.kept_through, lost.known_through, lost.earlier_epoch) == (3, watermark.sequence, watermark.epoch)
    reader.close()
    again = store.writer("demo", 3, nobody, watermark=Head(epoch, 5))
    assert again.epoch == epoch
    await again.close()


async def test_a_full_disk_is_waited_for_and_nothing_is_lost() -> None:
    """The memory form says that it is full; real disks are filled in tests/faults/test_journal_faults.py."""
    store, said, published = MemoryStore(), list[str | None](), list[StoredEvent]()
    writer = store.writer("demo", 1, published.extend, stalled=said.append)
    reader = store.reader()
    writer.append(draft(1))
    await writer.flush()
    store.full = True
    for number in range(2, 6):
        writer.append(draft(number))
    await until(lambda: writer.stalled)
    assert said == [writer.stalled]
    assert (reader.head().sequence, writer.committed, writer.assigned) == (1, 1, 5)
    store.full = False
    await asyncio.wait_for(writer.flush(), 5)
    await until(lambda: not writer.stalled)
    assert said[1:] == [None]
    assert [event.sequence for event in published] == [1, 2, 3, 4, 5]
    await writer.close()
    assert reader.check().sequence == 5


async def test_a_writer_that_is_closed_on_a_full_disk_ends_and_says_what_it_could_not_write() -> None:
    store = MemoryStore()
    writer = store.writer("demo", 1, nobody)
    store.full = True
    writer.append(draft(1))
    await until(lambda: writer.stalled)
    await asyncio.wait_for(writer.close(), 5)
    with pytest.raises(NoRoomError):
        await writer.flush()
    assert store.reader().check() == Head(1, 0)


@given(
    session_date=st.sampled_from(["", "2020-01-02"]),
    phase=st.integers(0, 9),
    agent_id=st.sampled_from(["", "analyst", "größe"]),
    reason=st.text(max_size=400),
    sequence=st.integers(1, 2**40),
)
def test_an_event_is_encoded_as_protobuf_would(session_date: str, phase: int, agent_id: str, reason: str, sequence: int) -> None:
    encoder = Encoder("demo", 7)
    draft = Draft("pipeline_state_changed", events.PipelineStateChanged(reason=reason), session_date, phase, agent_id, "item")
    event_id = encoder.event_id(draft)
    name = f"{session_date}\0{phase}\0{agent_id}\0pipeline_state_changed\0item"
    assert event_id == str(uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_URL, "trademesh:demo"), name))
    stored = encoder.encode(draft, sequence, event_id)
    whole = stored.parse()
    assert (whole.sequence, whole.event_id, whole.generation) == (sequence, event_id, 7)
    assert whole.recorded_at.seconds > 1_700_000_000
    header = events.Event(sequence=sequence, event_id=event_id, generation=7, recorded_at=whole.recorded_at)
    assert stored.data[stored.core_length :] == header.SerializeToString(deterministic=True)
    for field in ("sequence", "event_id", "generation", "recorded_at"):
        whole.ClearField(field)  # type: ignore[arg-type]  # names of fields
    assert stored.data[: stored.core_length] == whole.SerializeToString(deterministic=True)
    assert whole.pipeline_state_changed.reason == reason


def has_map(message: Descriptor, seen: frozenset[str] = frozenset()) -> bool:
    """True if a message has a map somewhere."""
    if message.full_name in seen:
        return False
    parts = [field.message_type for field in message.fields if field.message_type is not None]
    return bool(message.GetOptions().map_entry) or any(has_map(part, seen | {message.full_name}) for part in parts)


def test_no_payload_has_a_map_so_that_one_event_is_always_the_same_bytes() -> None:
    assert has_map(RunConfig.DESCRIPTOR)
    assert not has_map(events.Event.DESCRIPTOR)


async def test_who_waits_for_the_disk_does_not_wait_for_a_group_to_fill(store: JournalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trademesh_runs.journal_writer.BATCH_DELAY_S", 60.0)
    writer = store.writer("demo", 1, nobody)
    for number in (1, 2):
        writer.append(draft(number))
        async with asyncio.timeout(10):
            await writer.flush()
        assert writer.committed == number
    await writer.close()


async def test_a_group_ends_where_it_is_large(store: JournalStore) -> None:
    groups = list[int]()
    writer = store.writer("demo", 1, lambda group: groups.append(len(group)))
    for number in range(9):
        large = events.PipelineStateChanged(state=events.PIPELINE_STATE_PAUSED, reason="x" * (BATCH_BYTES // 4))
        writer.append(Draft("pipeline_state_changed", large, item=str(number)))
    await writer.close()
    assert groups == [4, 4, 1]


async def test_what_is_large_is_waited_for(store: JournalStore) -> None:
    writer = store.writer("demo", 1, nobody)
    for number in range(2):
        large = events.PipelineStateChanged(state=events.PIPELINE_STATE_PAUSED, reason="x" * BATCH_BYTES)
        writer.append(Draft("pipeline_state_changed", large, item=str(number)))
    await writer.room()
    assert writer.committed >= 1
    await writer.close()


def test_an_event_is_recorded_within_two_milliseconds_of_when_the_journal_took_it_in() -> None:
    encoder = Encoder("demo", 7)
    draft = Draft("pipeline_state_changed", events.PipelineStateChanged(reason="r"))
    event_id = encoder.event_id(draft)
    ends_ns, earlier_ns, moments = time.time_ns() + 20_000_000, 0, set[int]()
    while (before_ns := time.time_ns()) < ends_ns:
        at_ns = encoder.encode(draft, 1, event_id).parse().recorded_at.ToNanoseconds()
        assert before_ns - 2_000_000 <= at_ns <= time.time_ns(), "no later than now, and hardly earlier"
        assert at_ns >= earlier_ns, "later events are not recorded earlier"
        earlier_ns = at_ns
        moments.add(at_ns)
    assert len(moments) > 1, "time goes on"


@pytest.mark.parametrize("size_bytes", [0, 1900, 2047, 2048, 4094, 5000, 64 * 1024 - 60, 64 * 1024, 200_000])
def test_a_link_is_the_hash_of_its_bytes_however_many_they_are(size_bytes: int) -> None:
    event = StoredEvent(7, 40, "ann", 3, b"x" * size_bytes)
    row = struct.pack("<QHII", 7, 40, 3, len("ann")) + b"ann" + struct.pack("<I", size_bytes) + event.data
    assert chain(b"before", [event]) == hashlib.sha256(b"before" + row).digest()
