"""Progress of runs on its way into the registry: often enough, not too often, and not lost when the disk fails for a while."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pytest

from trademesh.runtime.v1 import runtime_pb2
from trademesh_runtime import run_progress
from trademesh_runtime.registry import Registry
from trademesh_runtime.run_progress import ProgressKeeper
from waiting import until


def run(revision: int, head: int) -> runtime_pb2.Run:
    return runtime_pb2.Run(run_id="demo", revision=revision, progress=runtime_pb2.RunProgress(head_sequence=head, epoch=1))


async def test_many_words_within_a_second_are_one_write_and_the_last_one_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_progress, "SAVED_EACH_S", 0.05)
    registry = Registry(tmp_path / "registry.db")
    registry.save(run(1, 1))
    writes = list[int]()
    save = registry.save_progress

    def counted(runs: Iterable[runtime_pb2.Run]) -> None:
        writes.append(1)
        save(runs)

    monkeypatch.setattr(registry, "save_progress", counted)
    keeper = ProgressKeeper(registry)
    for number in range(2, 50):
        keeper.note(run(number, number))
    await until(lambda: (registry.get("demo") or run(0, 0)).progress.head_sequence == 49)
    assert len(writes) == 1
    keeper.note(run(50, 50))
    await keeper.close()
    assert (registry.get("demo") or run(0, 0)).progress.head_sequence == 50
    registry.close()


async def test_what_a_disk_refuses_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_progress, "SAVED_EACH_S", 0.02)
    registry = Registry(tmp_path / "registry.db")
    registry.save(run(1, 1))
    save, tries = registry.save_progress, list[int]()

    def full(runs: Iterable[runtime_pb2.Run]) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise sqlite3.OperationalError("database or disk is full")
        save(runs)

    monkeypatch.setattr(registry, "save_progress", full)
    keeper = ProgressKeeper(registry)
    keeper.note(run(2, 20))
    await until(lambda: (registry.get("demo") or run(0, 0)).progress.head_sequence == 20)
    assert len(tries) == 3
    await keeper.close()
    registry.close()
