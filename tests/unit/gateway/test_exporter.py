"""Exports of a live run: what is written is of one state, and later ones are not written over by earlier ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from random_journals import Session, drafts_of, write
from trademesh_gateway import exporter
from trademesh_gateway.exporter import Exporter
from trademesh_runs.exports import export_files
from trademesh_runs.fold import Fold
from trademesh_runs.journal import StoredEvent
from trademesh_runs.journal_memory import MemoryStore
from trademesh_runs.layout import RunLayout
from trademesh_runs.scoreboard import Scoreboard

SESSIONS = [Session([(number % 3, 5 + number, 10)]) for number in range(6)]


class Run:
    """A run whose events are taken in one after the other."""

    def __init__(self, runs_dir: Path, published: Sequence[StoredEvent], store: MemoryStore, *, dashboard: bool = True) -> None:
        self.layout = RunLayout(runs_dir, "demo")
        self.layout.make_folders()
        self.fold = Fold("demo")
        self.exporter = Exporter(self.layout, self.fold, self.flush, store.reader, dashboard=dashboard)
        self.rest = list(published)
        self.reader = store.reader()
        self.store = store

    async def flush(self) -> None:
        """Everything is flushed here."""

    def go_on(self, events: int, *, heard: bool = True) -> None:
        """Takes more events in, two at a time; the exporter has not heard of those that an earlier gateway published."""
        while events:
            group, self.rest = self.rest[: min(2, events)], self.rest[min(2, events) :]
            for event in group:
                self.fold.apply(event)
            if heard:
                self.exporter.published(group)
            events -= len(group)

    def files(self) -> dict[str, bytes]:
        """What is there."""
        folders = ("state", "team_dashboard")
        return {f"{name}/{path.name}": path.read_bytes() for name in folders for path in (self.layout.root / name).glob("*.json")}

    def wanted(self) -> dict[str, bytes]:
        """What is to be there, made of the state alone."""
        state = self.fold.state()
        return export_files(self.layout, state, Scoreboard().catch_up(self.reader, state.as_of_sequence))


async def new_run(runs_dir: Path, *, dashboard: bool = True) -> Run:
    store = MemoryStore()
    published = await write(store, drafts_of(SESSIONS))
    return Run(runs_dir, published, store, dashboard=dashboard)


@pytest.mark.parametrize("most_fresh_bytes", [0, 300, 2**20])
async def test_each_export_is_of_the_state_at_that_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_fresh_bytes: int) -> None:
    monkeypatch.setattr(exporter, "MOST_FRESH_BYTES", most_fresh_bytes)
    run = await new_run(tmp_path)
    for events in (0, 1, 7, 0, 12):
        run.go_on(events)
        await run.exporter.export(force=True)
        assert run.files() == run.wanted()


async def test_what_an_earlier_gateway_published_is_read_from_the_journal(tmp_path: Path) -> None:
    run = await new_run(tmp_path)
    run.go_on(9, heard=False)
    run.exporter = Exporter(run.layout, run.fold, run.flush, run.store.reader, dashboard=True)
    for events in (4, 3):
        run.go_on(events)
        await run.exporter.export(force=True)
        assert run.files() == run.wanted()


async def test_scores_of_events_that_were_heard_are_not_read_from_the_journal(tmp_path: Path) -> None:
    run = await new_run(tmp_path)
    run.exporter = Exporter(run.layout, run.fold, run.flush, lambda: pytest.fail("the journal was read"), dashboard=True)
    for events in (5, 9):
        run.go_on(events)
        await run.exporter.export(force=True)
        assert run.files() == run.wanted()


async def test_what_an_export_that_came_late_had_heard_is_found_again(tmp_path: Path) -> None:
    run = await new_run(tmp_path)
    run.go_on(8)
    run.exporter._fresh = exporter._Fresh(run.fold.sequence)
    run.go_on(7)
    await run.exporter.export(force=True)
    assert run.files() == run.wanted()


async def test_without_a_dashboard_the_state_alone_is_written_and_older_files_go(tmp_path: Path) -> None:
    run = await new_run(tmp_path, dashboard=False)
    (run.layout.dashboard / "summary.json").write_text("{}")
    run.go_on(len(run.rest))
    await run.exporter.export()
    assert run.files() == {"state/server_state.json": run.wanted()["state/server_state.json"]}


async def test_an_export_whose_thread_comes_late_does_not_bring_an_earlier_state_back(tmp_path: Path) -> None:
    run = await new_run(tmp_path)
    run.go_on(8)
    early, points = run.fold.state(curve=False), len(run.fold.equity)
    run.go_on(len(run.rest))
    await run.exporter.export(force=True)
    await asyncio.to_thread(run.exporter._write, early, points, exporter._Fresh(0), False)
    assert json.loads(run.layout.server_state.read_bytes())["as_of_sequence"] == str(run.fold.sequence)
    assert run.files() == run.wanted()
