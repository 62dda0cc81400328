"""What only a journal file has: bytes that change, versions, a size, and copies."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from random_journals import Session, drafts_of, write
from trademesh.gateway.v1 import event_pb2 as events
from trademesh_runs.chain import chain
from trademesh_runs.compaction import compact
from trademesh_runs.fold import replay_journal
from trademesh_runs.journal import Draft, Head, JournalDamagedError, Link, NewerJournalError, StoredEvent
from trademesh_runs.journal_sqlite import SqliteFile, SqliteReader, SqliteStore, SqliteWriter
from waiting import until

DESK = drafts_of([Session([(0, 5, 10)]), Session([(0, -2, 12)]), Session()])


def change(path: Path, *statements: str) -> None:
    """Writes to a journal behind its back."""
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def assert_found_damaged(path: Path) -> None:
    """The check of the whole journal refuses it."""
    reader = SqliteReader(path)
    with pytest.raises(JournalDamagedError):
        reader.check()
    reader.close()


@pytest.mark.parametrize("offset", [0, 7, -1])
async def test_one_changed_byte_is_found(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "j.db"
    await write(SqliteStore(path), DESK, flush_every=4)
    connection = sqlite3.connect(path)
    (data,) = connection.execute("SELECT data FROM events WHERE sequence = 9").fetchone()
    changed = bytearray(data)
    changed[offset] ^= 1
    connection.execute("UPDATE events SET data = ? WHERE sequence = 9", (bytes(changed),))
    connection.commit()
    connection.close()
    assert_found_damaged(path)


@pytest.mark.parametrize("lost", ["sequence > 11", "sequence = 4", "sequence = 1"])
async def test_a_missing_event_is_found(tmp_path: Path, lost: str) -> None:
    path = tmp_path / "j.db"
    assert len(await write(SqliteStore(path), DESK, flush_every=4)) == 13
    change(path, f"DELETE FROM events WHERE {lost}")
    assert_found_damaged(path)


@pytest.mark.parametrize("place", [0, 1, -1])
async def test_a_missing_link_is_found(tmp_path: Path, place: int) -> None:
    store = SqliteStore(tmp_path / "j.db")
    await write(store, DESK, flush_every=4)
    link = store.reader().links(0, 100)[place]
    change(tmp_path / "j.db", f"UPDATE events SET hash = NULL WHERE sequence = {link.sequence}")
    assert_found_damaged(tmp_path / "j.db")


async def test_a_changed_snapshot_is_found(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    await write(SqliteStore(path), DESK)
    assert compact("demo", SqliteStore(path), 10).compacted_through == 10
    change(path, "UPDATE snapshots SET state = CAST(state || x'00' AS BLOB)")
    assert_found_damaged(path)


@pytest.mark.parametrize(
    ("column", "value"), [("kind", "x"), ("core_length", None), ("core_length", -1), ("agent_id", 7), ("data", "text")]
)
async def test_a_row_of_the_wrong_kind_is_damage_and_no_crash(tmp_path: Path, column: str, value: object) -> None:
    path = tmp_path / "j.db"
    await write(SqliteStore(path), DESK)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE loose AS SELECT * FROM events")
    connection.execute(f"UPDATE loose SET {column} = ? WHERE sequence = 3", (value,))
    connection.execute("DROP TABLE events")
    connection.execute("ALTER TABLE loose RENAME TO events")
    connection.commit()
    connection.close()
    assert_found_damaged(path)


async def test_a_journal_of_a_later_version_is_refused_by_readers_and_writers(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    await write(SqliteStore(path), DESK)
    change(path, "PRAGMA user_version=99")
    with pytest.raises(NewerJournalError, match="99"):
        SqliteReader(path)
    with pytest.raises(NewerJournalError, match="99"):
        SqliteStore(path).compactor()
    with pytest.raises(NewerJournalError, match="99"):
        await write(SqliteStore(path), DESK, generation=2)


async def old_journal(path: Path, version: int = 1) -> list[StoredEvent]:
    """A file of an earlier version. Version 2 has its links in a table; version 1 has links at commits alone, and no compaction."""
    published = await write(SqliteStore(path), DESK)
    change(
        path,
        "CREATE TABLE batches (last_sequence INTEGER PRIMARY KEY, hash BLOB NOT NULL)",
        "INSERT INTO batches SELECT sequence, hash FROM events WHERE hash IS NOT NULL",
        "ALTER TABLE events DROP COLUMN hash",
        "PRAGMA user_version=2",
    )
    if version == 1:
        change(
            path,
            "DROP TABLE snapshots",
            "ALTER TABLE meta DROP COLUMN compacted_through",
            "DELETE FROM batches",
            f"INSERT INTO batches VALUES (13, x'{chain(b'', published).hex()}')",
            "PRAGMA user_version=1",
        )
    return published


@pytest.mark.parametrize("version", [1, 2])
async def test_a_journal_of_an_earlier_version_is_read_as_it_is(tmp_path: Path, version: int) -> None:
    published = await old_journal(tmp_path / "j.db", version)
    reader = SqliteReader(tmp_path / "j.db", immutable=True)
    assert (reader.check(), reader.snapshot(), reader.read(0, 100)) == (Head(1, 13), None, published)
    reader.close()


async def test_a_journal_of_an_earlier_version_keeps_its_links_when_it_is_written(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "j.db")
    await old_journal(tmp_path / "j.db", 2)
    before = store.reader().links(0, 100)
    more = drafts_of([Session([(0, 5, 10)]), Session([(0, -2, 12)]), Session(), Session([(1, 1, 1)])])[len(DESK) :]
    await write(store, more, generation=2)
    assert before
    assert store.reader().links(0, 100)[: len(before)] == before
    assert store.reader().check().sequence == 13 + len(more)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 100, 1023, 1024, 1025, 2500])
def test_a_group_of_any_size_is_written_whole(tmp_path: Path, rows: int) -> None:
    file = SqliteFile(tmp_path / "j.db")
    file.take_over(1)
    group = [StoredEvent(number, 41, "", 3, b"abc") for number in range(1, rows + 1)]
    file.commit(group, [Link(rows, b"h")])
    file.close()
    reader = SqliteReader(tmp_path / "j.db")
    assert reader.read(0, rows + 1) == group
    assert reader.links(0, 2) == [Link(rows, b"h")]
    reader.close()


async def test_a_journal_of_an_earlier_version_is_gone_on_with_and_compacted_where_its_chain_can_be_cut(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "j.db")
    await old_journal(tmp_path / "j.db")
    more = drafts_of([Session([(0, 5, 10)]), Session([(0, -2, 12)]), Session(), Session([(1, 1, 1)])])[len(DESK) :]
    await write(store, more, generation=2)
    reader = store.reader()
    before = replay_journal("demo", reader).state()
    # The old part has one link, after its newest settled event.
    assert compact("demo", store, 12).events_removed == 0
    assert compact("demo", store, 14).compacted_through == 13
    assert reader.check().compacted_through == 13
    assert replay_journal("demo", reader).state() == before
    reader.close()


async def test_a_copy_of_a_journal_that_is_being_written_is_whole(tmp_path: Path) -> None:
    path, copied = tmp_path / "j.db", tmp_path / "copy.db"
    writer = SqliteWriter(path, "demo", 1, lambda _group: None)
    for draft in DESK[:9]:
        writer.append(draft)
    await writer.flush()
    reader = SqliteReader(path)
    reader.backup(copied)
    for draft in DESK[9:]:
        writer.append(draft)
    await writer.flush()
    copy = SqliteReader(copied, immutable=True)
    assert copy.check() == Head(1, 9)
    assert copy.read(0, 100) == reader.read(0, 9)
    assert [name for name in os.listdir(tmp_path) if name.startswith("copy")] == ["copy.db"]
    copy.close()
    reader.close()
    await writer.close()


async def test_the_ballast_goes_when_the_disk_is_full_and_comes_back_when_there_is_room(tmp_path: Path) -> None:
    ballast, said = tmp_path / "ballast", list[str | None]()
    writer = SqliteWriter(tmp_path / "j.db", "demo", 1, lambda _group: None, ballast=ballast, stalled=said.append)
    assert ballast.stat().st_size == 1024 * 1024
    # A journal may not grow beyond its pages: what SQLite does then is what it does on a full disk.
    connection = writer._storage._connection  # type: ignore[attr-defined]  # of SQLite, not of every storage
    connection.execute("PRAGMA max_page_count=8")
    for number in range(1, 29):
        writer.append(Draft("pipeline_state_changed", events.PipelineStateChanged(reason="x" * 4000), item=str(number)))
    await until(lambda: said and not ballast.exists())
    assert "full" in writer.stalled
    await writer._in_thread(lambda: connection.execute("PRAGMA max_page_count=1000000").fetchall())
    await asyncio.wait_for(writer.flush(), 5)
    await until(lambda: not writer.stalled)
    assert said[1:] == [None]
    assert ballast.exists()
    await writer.close()
    reader = SqliteReader(tmp_path / "j.db")
    assert reader.check().sequence == 28
    reader.close()


async def test_a_file_that_was_put_back_beside_the_log_of_another_is_refused(tmp_path: Path) -> None:
    path, log, copied = tmp_path / "j.db", tmp_path / "j.db-wal", tmp_path / "copy.db"
    writer = SqliteWriter(path, "demo", 1, lambda _group: None)
    reader = SqliteReader(path)
    for place, draft in enumerate(DESK):
        if place == 8:
            await writer.flush()
            reader.backup(copied)
        writer.append(draft)
    await writer.flush()
    # What a gateway that is killed now leaves.
    left = log.read_bytes()
    reader.close()
    await writer.close()
    copied.replace(path)
    log.write_bytes(left)
    for opens in (SqliteStore(path).reader, SqliteStore(path).compactor, lambda: SqliteWriter(path, "demo", 2, lambda _group: None)):
        with pytest.raises(JournalDamagedError, match="move the log away"):
            opens()
    assert log.read_bytes() == left
    log.unlink()
    kept = SqliteReader(path)
    assert kept.check().sequence == 8
    kept.close()
