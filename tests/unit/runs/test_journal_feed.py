"""Who reads history for the feed of a live journal: the event loop while that is quick, a thread when the disk is slow."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from trademesh.gateway.v1 import event_pb2
from trademesh_runs.journal import Draft
from trademesh_runs.journal_feed import QUICK_READ_S, READS_AFTER_A_SLOW_ONE, JournalFeed
from trademesh_runs.journal_sqlite import SqliteReader, SqliteWriter


class SlowReader(SqliteReader):
    """A disk that is slow for as long as it is told to be: no real one is at our command."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.slow = True
        self.in_loop = list[bool]()

    def read_encoded(self, after: int, limit: int, most_bytes: int, through: int | None = None) -> list[tuple[int, bytes]]:
        self.in_loop.append(threading.current_thread() is threading.main_thread())
        if self.slow:
            time.sleep(2 * QUICK_READ_S)
        return super().read_encoded(after, limit, most_bytes, through)


@pytest.fixture
async def reader(tmp_path: Path) -> SlowReader:
    writer = SqliteWriter(tmp_path / "journal.db", "demo", 1, lambda _: None)
    for number in range(20):
        writer.append(Draft("settled", event_pb2.Settled(), item=str(number)))
    await writer.close()
    return SlowReader(tmp_path / "journal.db")


async def test_a_slow_disk_holds_up_the_loop_for_one_read_of_many(reader: SlowReader) -> None:
    feed = JournalFeed("demo", reader, reader, finished=False)
    for _ in range(1 + 2 * (1 + READS_AFTER_A_SLOW_ONE)):
        found = await feed.batches(0, None)
        assert [(batch.first, batch.last) for batch in found] == [(1, 20)]
    feed.close()
    assert reader.in_loop == [False] + 2 * ([True] + READS_AFTER_A_SLOW_ONE * [False])


async def test_the_loop_does_not_read_while_the_thread_does(reader: SlowReader) -> None:
    feed = JournalFeed("demo", reader, reader, finished=False)
    await feed.batches(0, None)
    with feed._reading:
        assert not feed._may_read_at_once()
    assert feed._may_read_at_once()
    feed._reading.release()
    feed.close()
