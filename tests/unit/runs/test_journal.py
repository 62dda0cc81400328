"""The journal file: order, hashes, fencing, repeats."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_runs.journal import Draft, JournalDamagedError, StoredEvent, all_events, desk_digest
from trademesh_runs.journal_sqlite import FencedError, NewerJournalError, SqliteReader, SqliteWriter


def draft(number: int) -> Draft:
    """An event of the desk."""
    return Draft("session_opened", events.SessionOpened(session_number=number), f"2020-01-{number:02d}", 1)


async def write(path: Path, numbers: Sequence[int], generation: int = 1, flush_every: int = 10_000) -> list[StoredEvent]:
    """Writes events, flushing now and then; returns what was published."""
    published = list[StoredEvent]()
    writer = SqliteWriter(path, "demo", generation, published.extend)
    for place, number in enumerate(numbers):
        writer.append(draft(number))
        if place % flush_every == 0:
            await writer.flush()
    await writer.close()
    return published


def assert_found_damaged(path: Path) -> None:
    """The check of the whole journal refuses it."""
    reader = SqliteReader(path)
    with pytest.raises(JournalDamagedError):
        reader.check()
    reader.close()


async def test_sequences_are_gapless_and_published_in_order(tmp_path: Path) -> None:
    published = await write(tmp_path / "j.db", range(1, 29), flush_every=3)
    assert [event.sequence for event in published] == list(range(1, 29))
    assert [event.parse().sequence for event in published] == list(range(1, 29))
    reader = SqliteReader(tmp_path / "j.db")
    assert [event.data for event in all_events(reader, block=5)] == [event.data for event in published]
    assert reader.check().sequence == 28
    reader.close()


async def test_batches_and_generations_do_not_enter_the_digest_of_the_desk(tmp_path: Path) -> None:
    one = await write(tmp_path / "one.db", range(1, 20))
    other = await write(tmp_path / "other.db", range(1, 8), flush_every=2)
    other += await write(tmp_path / "other.db", range(8, 20), generation=2)
    assert desk_digest(one) == desk_digest(other)


async def test_what_is_done_again_after_a_crash_is_not_written_twice(tmp_path: Path) -> None:
    await write(tmp_path / "j.db", [1, 2, 3])
    assert [event.sequence for event in await write(tmp_path / "j.db", [1, 2, 3, 4], generation=2)] == [4]


@pytest.mark.parametrize("offset", [0, 7, -1])
async def test_one_changed_byte_is_found(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "j.db"
    await write(path, range(1, 20), flush_every=4)
    connection = sqlite3.connect(path)
    (data,) = connection.execute("SELECT data FROM events WHERE sequence = 9").fetchone()
    changed = bytearray(data)
    changed[offset] ^= 1
    connection.execute("UPDATE events SET data = ? WHERE sequence = 9", (bytes(changed),))
    connection.commit()
    connection.close()
    assert_found_damaged(path)


async def test_a_missing_tail_is_found(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    await write(path, range(1, 20), flush_every=4)
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM events WHERE sequence > 15")
    connection.commit()
    connection.close()
    assert_found_damaged(path)


async def test_a_writer_that_was_replaced_can_write_no_more(tmp_path: Path) -> None:
    old = SqliteWriter(tmp_path / "j.db", "demo", 1, lambda _group: None)
    old.append(draft(1))
    await old.flush()
    new = SqliteWriter(tmp_path / "j.db", "demo", 2, lambda _group: None)
    old.append(draft(2))
    with pytest.raises(FencedError):
        await old.flush()
    new.append(draft(3))
    await new.flush()
    assert new.committed == 2
    await new.close()
    with pytest.raises(FencedError):
        SqliteWriter(tmp_path / "j.db", "demo", 2, lambda _group: None)


async def test_a_group_that_cannot_be_taken_in_breaks_the_journal_and_is_said(tmp_path: Path) -> None:
    def contradict(_group: Sequence[StoredEvent]) -> None:
        raise ValueError("the ledger says otherwise")

    writer = SqliteWriter(tmp_path / "j.db", "demo", 1, contradict)
    broken = asyncio.create_task(writer.broken())
    writer.append(draft(1))
    for waiting in (writer.flush(), broken, writer.room()):
        with pytest.raises(ValueError, match="otherwise"):
            await asyncio.wait_for(waiting, 5)
    await writer.close()


async def test_a_disk_that_is_full_is_told_as_such(tmp_path: Path) -> None:
    writer = SqliteWriter(tmp_path / "j.db", "demo", 1, lambda _group: None)
    # A journal may not grow beyond its pages: what SQLite does then is what it does on a full disk.
    writer._connection.execute("PRAGMA max_page_count=8")
    for number in range(1, 29):
        writer.append(Draft("pipeline_state_changed", events.PipelineStateChanged(reason="x" * 4000), item=str(number)))
    with pytest.raises(sqlite3.OperationalError, match="full"):
        await asyncio.wait_for(writer.flush(), 5)
    await writer.close()


async def test_a_reader_that_stands_still_sees_one_moment(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    writer = SqliteWriter(path, "demo", 1, lambda _group: None)
    writer.append(draft(1))
    await writer.flush()
    reader = SqliteReader(path)
    with reader.standing_still():
        assert reader.check().sequence == 1
        writer.append(draft(2))
        await writer.flush()
        assert (reader.check().sequence, len(reader.read(0, 10))) == (1, 1)
    assert reader.check().sequence == 2
    reader.close()
    await writer.close()


@pytest.mark.parametrize(
    ("column", "value"), [("kind", "x"), ("core_length", None), ("core_length", -1), ("agent_id", 7), ("data", "text")]
)
async def test_a_row_of_the_wrong_kind_is_damage_and_no_crash(tmp_path: Path, column: str, value: object) -> None:
    path = tmp_path / "j.db"
    await write(path, range(1, 6))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA ignore_check_constraints=ON")
    connection.execute("CREATE TABLE loose AS SELECT * FROM events")
    connection.execute(f"UPDATE loose SET {column} = ? WHERE sequence = 3", (value,))
    connection.execute("DROP TABLE events")
    connection.execute("ALTER TABLE loose RENAME TO events")
    connection.commit()
    connection.close()
    assert_found_damaged(path)


async def test_a_journal_of_a_later_version_is_refused(tmp_path: Path) -> None:
    await write(tmp_path / "j.db", [1])
    connection = sqlite3.connect(tmp_path / "j.db")
    connection.execute("PRAGMA user_version=99")
    connection.commit()
    connection.close()
    with pytest.raises(NewerJournalError, match="99"):
        SqliteReader(tmp_path / "j.db")
