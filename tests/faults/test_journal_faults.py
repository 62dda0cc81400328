"""Faults of journals, caused for real: writers that are killed, bytes that change, disks that are full, events that go under a reader."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import grpc
import pytest
from mesh_processes import Mesh, wait_until

from random_journals import Session, drafts_of
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh.gateway.v1 import feed_service_pb2_grpc
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import RemoteError
from trademesh_runs.fold import fold_journal, replay_journal
from trademesh_runs.journal import Draft, Head, StoredEvent, all_events
from trademesh_runs.journal_sqlite import BALLAST_BYTES, SqliteReader, SqliteStore, SqliteWriter
from trademesh_runs.layout import RunLayout
from waiting import until

ROUNDS = 40


class Nursery:
    """Forks writers and kills them."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("journal_nursery.py"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in: IO[str] = self._process.stdin
        self._out: IO[str] = self._process.stdout

    def write_and_kill(self, path: Path, generation: int, commits: int) -> int:
        """A writer takes a journal over and is killed in the commit after so many; returns the newest sequence that it acknowledged."""
        self._in.write(f"{path} {generation}\n")
        self._in.flush()
        pid, acknowledged = 0, list[int]()
        for line in self._out:
            if line.startswith("pid"):
                pid = int(line.split()[1])
            elif line.startswith("gone"):
                return acknowledged[-1]
            else:
                acknowledged.append(int(line))
            if pid and len(acknowledged) >= commits:
                os.kill(pid, signal.SIGKILL)
                commits = 10**9
        raise AssertionError("the nursery ended")

    def close(self) -> None:
        """Ends it."""
        self._in.close()
        self._process.wait(10)
        self._out.close()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """One for all tests: what takes time is the import."""
    found = Nursery()
    yield found
    found.close()


def test_j1_a_writer_killed_in_a_commit_leaves_whole_commits_and_loses_nothing_acknowledged(tmp_path: Path, nursery: Nursery) -> None:
    path, head, slowest_s = tmp_path / "j.db", 0, 0.0
    for generation in range(1, ROUNDS + 1):
        acknowledged = nursery.write_and_kill(path, generation, 1 + generation % 7)
        began = time.monotonic()
        reader = SqliteReader(path)
        # The events of these writers have links of the chain at commits alone: a chain that is whole is whole commits.
        found = reader.check().sequence
        slowest_s = max(slowest_s, time.monotonic() - began)
        assert found >= acknowledged > head
        assert {event.parse().generation for event in reader.read(head, 100_000)} == {generation}
        reader.close()
        head = found
    assert slowest_s < 2, f"the slowest opening and proof of {ROUNDS} took {slowest_s:.2f} s"


@pytest.mark.parametrize("damage", ["cut to two thirds", "a byte in the middle"])
async def test_j2_a_journal_whose_log_lost_its_end_goes_on_in_a_new_epoch(tmp_path: Path, nursery: Nursery, damage: str) -> None:
    path, log = tmp_path / "j.db", tmp_path / "j.db-wal"
    acknowledged = await asyncio.to_thread(nursery.write_and_kill, path, 1, 8)
    size = log.stat().st_size
    with log.open("r+b") as file:
        if damage == "cut to two thirds":
            file.truncate(size * 2 // 3)
        else:
            file.seek(size // 2)
            byte = file.read(1)
            file.seek(size // 2)
            file.write(bytes([byte[0] ^ 1]))
    # SQLite says nothing of it: the journal is shorter, gapless and of one piece.
    reader = SqliteReader(path)
    kept = reader.check().sequence
    assert kept < acknowledged
    reader.close()
    writer = SqliteWriter(path, "demo", 2, lambda _group: None, watermark=Head(1, acknowledged))
    assert (writer.epoch, writer.committed) == (2, kept + 1)
    writer.append(Draft("gateway_started", events.GatewayStarted(), item="2"))
    await writer.close()
    reader = SqliteReader(path)
    assert reader.check() == Head(2, kept + 2)
    lost = reader.read(kept, 1)[0].parse().journal_truncated
    assert (lost.kept_through, lost.known_through, lost.earlier_epoch) == (kept, acknowledged, 1)
    reader.close()


def test_j2_a_journal_that_was_put_back_goes_on_in_a_new_epoch_and_tells_the_same_story(fault_mesh: Mesh, two_years: Path) -> None:
    mesh = fault_mesh
    assert mesh.cli("run", "start", str(two_years), "--run-id", "j2", "--pace", "150").returncode == 0
    wait_until(lambda: int(shown(mesh, "j2").get("progress", {}).get("sessions_settled", 0)) > 20, 30, "some sessions")
    copied = mesh.folder / "j2-backup.db"
    kept = int(mesh.json("run", "backup", "j2", str(copied))["head_sequence"])
    undisturbed = mesh.summary("j2")
    mesh.json("run", "stop", "j2")
    assert kept < int(undisturbed["events"])
    path = RunLayout(mesh.runs, "j2").journal
    for end in ("-wal", "-shm"):
        # Of a gateway that was killed in its end: the log of another file is no part of this one.
        path.with_name(path.name + end).unlink(missing_ok=True)
    copied.replace(path)
    restart(mesh, "j2")
    wait_until(lambda: int(shown(mesh, "j2")["generation"]) == 2 and shown(mesh, "j2")["state"] == "RUN_STATE_RUNNING", 15, "RUNNING")
    wait_until(lambda: mesh.json("run", "verify", "j2")["journal_sha256"] == undisturbed["journal_sha256"], 60, "the same story")
    reader = SqliteReader(path)
    assert reader.head().epoch == 2
    lost = reader.read(kept, 1)[0].parse().journal_truncated
    assert (lost.kept_through, lost.earlier_epoch) == (kept, 1)
    assert kept < lost.known_through <= int(undisturbed["events"])
    reader.close()


def test_j3_a_damaged_file_ends_the_gateway_for_good_until_it_is_salvaged(fault_mesh: Mesh, two_years: Path) -> None:
    mesh = fault_mesh
    assert mesh.cli("run", "start", str(two_years), "--run-id", "j3", "--pace", "0").returncode == 0
    undisturbed = mesh.summary("j3")
    mesh.json("run", "stop", "j3")
    path = RunLayout(mesh.runs, "j3").journal
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * 16384)
    assert mesh.cli("run", "verify", "j3").returncode == 1
    assert mesh.cli("run", "rebuild", "j3").returncode == 1

    restart(mesh, "j3")
    failed = wait_until(lambda: (now := shown(mesh, "j3"))["state"] == "RUN_STATE_FAILED" and now, 15, "FAILED")
    assert "65" in failed["reason"] or "malformed" in failed["reason"]
    saved = mesh.json("run", "salvage", "j3")
    assert 0 < int(saved["kept_through"]) < int(undisturbed["events"])
    assert saved["epoch"] == 2
    assert (path.parent / saved["damaged_file"]).stat().st_size == size
    assert mesh.cli("run", "rebuild", "j3").returncode == 0
    assert mesh.json("run", "verify", "j3")["events"] == int(saved["kept_through"]) + 1
    restart(mesh, "j3")
    wait_until(lambda: shown(mesh, "j3")["state"] in ("RUN_STATE_RUNNING", "RUN_STATE_SUCCEEDED"), 15, "RUNNING")
    wait_until(lambda: int(shown(mesh, "j3").get("progress", {}).get("sessions_settled", 0)) == 504, 60, "its end")
    # What the desk did again in the new epoch is what it did before.
    wait_until(lambda: mesh.json("run", "verify", "j3")["journal_sha256"] == undisturbed["journal_sha256"], 10, "the same story")


def shown(mesh: Mesh, run_id: str) -> Any:
    """A run as runtime_service has it."""
    return mesh.json("run", "show", run_id)["run"]


def restart(mesh: Mesh, run_id: str) -> None:
    """Asks for another gateway of a run."""
    mesh.grpcurl("runtime", "trademesh.runtime.v1.RuntimeService/RestartRun", {"run_id": run_id})


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 16 megabytes."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def note(number: int) -> Draft:
    """An event of some size."""
    return Draft("pipeline_state_changed", events.PipelineStateChanged(reason="x" * 2000), item=str(number))


async def test_j4_a_full_disk_is_said_waited_for_and_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        ballast, filler, said, published = disk / "ballast", disk / "filler", list[str | None](), list[StoredEvent]()
        writer = SqliteWriter(disk / "j.db", "demo", 1, published.extend, stalled=said.append, ballast=ballast)
        reader = SqliteReader(disk / "j.db")
        writer.append(note(0))
        await writer.flush()
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        began = time.monotonic()
        for number in range(1, 40):
            writer.append(note(number))
        await until(lambda: writer.stalled and writer.committed == 40)
        told_s = time.monotonic() - began
        # The ballast made room for these, so that a pause can be journaled; the disk is still full, and that is still said.
        assert not ballast.exists()
        assert [text is None for text in said] == [False]
        assert told_s < 2, f"a full disk was said and written around after {told_s:.2f} s"
        for number in range(40, 1000):
            writer.append(note(number))
        await until(lambda: disk_is_full(disk))
        assert writer.committed < writer.assigned
        # Readers go on, and nothing that is not on disk was published.
        assert reader.check().sequence == writer.committed == len(published)
        filler.unlink()
        began = time.monotonic()
        await asyncio.wait_for(writer.flush(), 10)
        await until(lambda: not writer.stalled)
        again_s = time.monotonic() - began
        assert again_s < 5, f"writing went on {again_s:.2f} s after there was room"
        assert said[1:] == [None]
        assert ballast.stat().st_size == BALLAST_BYTES
        await writer.close()
        assert reader.check().sequence == 1000
        assert [event.sequence for event in published] == list(range(1, 1001))
        reader.close()


def disk_is_full(disk: Path) -> bool:
    """True if not even a page has room."""
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize < 256 * 1024


async def test_j4_a_file_that_may_not_grow_is_said_waited_for_and_loses_nothing(tmp_path: Path) -> None:
    path, said, published = tmp_path / "j.db", list[str | None](), list[StoredEvent]()
    writer = SqliteWriter(path, "demo", 1, published.extend, stalled=said.append)
    reader = SqliteReader(path)
    writer.append(note(0))
    await writer.flush()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "j.db-wal").stat().st_size + 8192, hard))
    try:
        for number in range(1, 40):
            writer.append(note(number))
        await until(lambda: writer.stalled)
        assert (reader.check().sequence, writer.committed) == (1, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await asyncio.wait_for(writer.flush(), 10)
    await until(lambda: not writer.stalled)
    assert [text is None for text in said] == [False, True]
    await writer.close()
    assert reader.check().sequence == len(published) == 40
    reader.close()


async def test_j7_a_reader_whose_events_are_compacted_is_told_and_misses_nothing_after_the_snapshot(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path, "j7")
    layout.make_folders()
    store = SqliteStore(layout.journal)
    desk = drafts_of([Session([(0, 5, 10), (1, -2, 20)], signals=12)] * 400)
    # While somebody reads, the file keeps its write-ahead log, as it does after a kill: then nobody waits for a reader.
    published = list[StoredEvent]()
    writer = store.writer("j7", 1, published.extend)
    reader = store.reader()
    assert reader.head().sequence == 0
    for draft in desk:
        writer.append(draft)
    await writer.close()
    last = replay_journal("j7", reader).state()
    cursor = reader.read(0, 100)[-1].sequence
    command = [sys.executable, "-m", "trademesh_cli.main", "run", "compact", "j7", "--keep-days", "0"]
    environment = os.environ | {"TRADEMESH_RUNS_DIR": str(tmp_path)}
    with reader.standing_still():
        head = reader.head()
        compaction = await asyncio.create_subprocess_exec(*command, env=environment, stdout=subprocess.DEVNULL)
        # A reader of one moment sees that moment to its end.
        other = store.reader()
        await until(lambda: other.head().compacted_through > 0, within_s=30)
        assert reader.check() == head
        assert len(list(all_events(reader))) == len(published)
    assert await asyncio.wait_for(compaction.wait(), 30) == 0
    began = time.monotonic()
    now = reader.head()
    assert now.compacted_through > cursor
    assert reader.read(cursor, 1) == published[now.compacted_through : now.compacted_through + 1]
    snapshot = fold_journal("j7", reader, now.compacted_through)
    rest = list(all_events(reader, snapshot.sequence))
    assert [event.sequence for event in rest] == list(range(now.compacted_through + 1, len(published) + 1))
    assert snapshot.apply_all(rest).state().portfolio == last.portfolio
    took_s = time.monotonic() - began
    assert took_s < 1, f"gap, snapshot and the rest took {took_s:.2f} s"
    assert reader.check() == now
    reader.close()
    other.close()


async def test_j7_a_finished_run_that_is_compacted_or_put_back_under_readers_of_trading_service_is_told_whole(
    fault_mesh: Mesh, two_years: Path
) -> None:
    mesh = fault_mesh
    started = await asyncio.to_thread(mesh.cli, "run", "start", str(two_years), "--run-id", "j7-finished", "--pace", "0")
    assert started.returncode == 0, started.stderr
    head = int((await asyncio.to_thread(mesh.summary, "j7-finished"))["events"])
    await asyncio.to_thread(mesh.json, "run", "stop", "j7-finished")
    copied = mesh.folder / "j7-backup.db"
    await asyncio.to_thread(mesh.json, "run", "backup", "j7-finished", str(copied))
    async with ServiceClient(f"127.0.0.1:{mesh.ports['trading']}", "trading_service") as client:
        stub = client.stub(feed_service_pb2_grpc.FeedServiceStub)

        def stream(**fields: Any) -> AsyncIterator[feed.SubscribeResponse]:
            request = feed.SubscribeRequest(run_id="j7-finished", after_sequence=0, **fields)
            return client.stream(stub.Subscribe, request, idle_timeout_s=20)

        with_snapshot, without, filtered = stream(snapshot=True), stream(), stream(snapshot=True, filter={"kinds": ["settled"]})
        cursors = [(await anext(one)).events.last_sequence for one in (with_snapshot, without, filtered)]
        assert max(cursors) < head
        compacted = await asyncio.to_thread(mesh.json, "run", "compact", "j7-finished", "--keep-days", "0")
        through = int(compacted["compacted_through"])
        began = time.monotonic()
        for one, cursor in ((with_snapshot, cursors[0]), (filtered, cursors[2])):
            told = await told_to_the_end(one, cursor)
            # Batches that were on their way come first.
            assert [kind for kind in told if kind not in ("events", "checkpoint")] == ["gap", "snapshot", "end"], told
        # Who wants no snapshot is refused: it cannot be told what it asked for.
        with pytest.raises(RemoteError) as refused:
            await told_to_the_end(without, cursors[1])
        assert refused.value.remote_reason == "HISTORY_COMPACTED"
        took_s = time.monotonic() - began
        assert took_s < 5, f"gaps, snapshots and the rest of three readers took {took_s:.2f} s"
        for at, reason in ((through - 1, "HISTORY_COMPACTED"), (head + 1, "SEQUENCE_AHEAD")):
            with pytest.raises(RemoteError) as refused:
                await client.call(stub.GetSnapshot, feed.GetSnapshotRequest(run_id="j7-finished", at_sequence=at))
            assert (refused.value.remote_code, refused.value.remote_reason) == (grpc.StatusCode.OUT_OF_RANGE, reason)

        tail = await asyncio.to_thread(mesh.cli, "feed", "tail", "j7-finished", "--after", "0")
        assert f"gap: events up to {through:,} were compacted" in tail.stderr
        assert [int(line.split()[0]) for line in tail.stdout.splitlines()] == list(range(through + 1, head + 1))

        # The whole journal put back under a reader of what was left: it has all of it, and every number tells what it told.
        again = stream(snapshot=True)
        assert (await anext(again)).gap.compacted_through == through
        copied.replace(RunLayout(mesh.runs, "j7-finished").journal)
        assert (await told_to_the_end(again, through))[-1] == "end"
        assert set(await told_to_the_end(stream(), 0)) <= {"events", "checkpoint", "end"}


async def told_to_the_end(stream: AsyncIterator[feed.SubscribeResponse], cursor: int) -> list[str]:
    """Kinds of messages, to the end of the stream. Asserts that each goes on where the one before ended."""
    told = list[str]()
    async for message in stream:
        kind = message.WhichOneof("kind") or ""
        match kind:
            case "events":
                assert message.events.first_sequence == cursor + 1
                cursor = message.events.last_sequence
            case "gap":
                assert message.gap.compacted_through > cursor
            case "snapshot":
                cursor = message.snapshot.as_of_sequence
            case "end":
                assert message.end.reason == feed.STREAM_END_REASON_RUN_ENDED
                assert message.end.resume_after_sequence == cursor
        told.append(kind)
    return told
