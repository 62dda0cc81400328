"""Folders of runs: durable when they are acknowledged, gone in one step, and snapshots beside them that stay as they were."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh.runtime.v1 import runtime_pb2
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_kernel.atomic_files import replace_file
from trademesh_kernel.errors import DiskLow, NotFound
from trademesh_runs.exports import server_state
from trademesh_runs.layout import RunLayout
from trademesh_runtime.run_folders import check_room, put_away, read_manifest, sweep, write_folder
from trademesh_runtime.run_snapshots import KEPT_SNAPSHOTS, keep_snapshot, kept_generations, read_desk, read_run, snapshots_of
from trademesh_runtime.workspace import built_in_desk


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    found = RunLayout(tmp_path, "demo")
    found.make_folders()
    return found


def test_everything_in_a_new_folder_is_synced_the_folders_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Power is not cut here: what is asked of the kernel is what counts.
    synced = set[int]()
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    layout = RunLayout(tmp_path, "demo")
    write_folder(layout, RunConfig(run_id="demo"), built_in_desk())
    unsynced = [path for path in layout.root.rglob("*") if path.stat().st_ino not in synced and (path.is_file() or any(path.iterdir()))]
    assert unsynced == []
    assert {layout.root.stat().st_ino, tmp_path.stat().st_ino} <= synced
    manifest = read_manifest(layout)
    assert (manifest.run_id, len(manifest.agents)) == ("demo", len(built_in_desk()))
    layout.manifest.write_text("{")
    with pytest.raises(NotFound):
        read_manifest(layout)


def test_a_run_that_was_put_away_is_out_of_sight_at_once_and_gone_after_the_next_sweep(layout: RunLayout) -> None:
    layout.journal.write_bytes(b"history")
    put_away(layout)
    assert not layout.root.exists()
    (trash,) = layout.runs_dir.iterdir()
    assert (trash / "journal.db").read_bytes() == b"history"
    # As a deletion that was cut off is carried on.
    put_away(layout)
    sweep(layout.runs_dir)
    assert list(layout.runs_dir.iterdir()) == []


def test_too_little_room_is_said_in_figures(tmp_path: Path) -> None:
    check_room(tmp_path, 0)
    with pytest.raises(DiskLow, match=f"needs {2**40}") as caught:
        check_room(tmp_path, 2**60)
    assert caught.value.metadata["needed_bytes"] == str(2**60)


def show(layout: RunLayout, generation: int) -> None:
    """What a run and its gateway write."""
    replace_file(layout.runtime_state, f'{{"run_id": "demo", "state": "RUN_STATE_BACKOFF", "generation": {generation}}}'.encode())
    replace_file(layout.server_state, server_state(ServerState(run_id="demo", as_of_sequence=generation * 10)))


def test_a_kept_snapshot_stays_as_it_was_while_the_present_goes_on(layout: RunLayout) -> None:
    show(layout, 1)
    keep_snapshot(layout, 1)
    show(layout, 2)
    for folder, generation in ((layout.state_history(1), 1), (layout.state, 2)):
        run, desk = read_run(folder), read_desk(folder)
        assert run is not None
        assert desk is not None
        assert (run.generation, desk.state.as_of_sequence) == (generation, generation * 10)
    # Kept again after a kill in between, it is the newer one.
    keep_snapshot(layout, 1)
    assert (read_run(layout.state_history(1)) or runtime_pb2.Run()).generation == 2
    layout.server_state.unlink()
    keep_snapshot(layout, 2)
    assert read_desk(layout.state_history(2)) is None
    layout.runtime_state.write_text("{")
    assert read_run(layout.state) is None


def test_the_newest_hundred_snapshots_are_kept_and_listed_in_pages(layout: RunLayout) -> None:
    for generation in range(1, KEPT_SNAPSHOTS + 4):
        show(layout, generation)
        keep_snapshot(layout, generation)
    present = KEPT_SNAPSHOTS + 3
    assert kept_generations(layout) == list(range(present, 3, -1))
    found, before = list[int](), None
    while True:
        page, before = snapshots_of(layout, present, before, 30)
        assert len(page) <= 30
        found += [info.generation for info in page]
        assert all(info.as_of_sequence == info.generation * 10 and info.state == runtime_pb2.RUN_STATE_BACKOFF for info in page)
        assert all(info.size_bytes and info.taken_at.seconds for info in page)
        if before is None:
            break
    assert found == list(range(present, 3, -1))
