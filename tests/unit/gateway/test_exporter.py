"""Exports of a live run: what is written is of one state, whoever counted what is in it, and later ones are not written over by earlier ones."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from random_journals import Session, drafts_of, write
from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway import exporter
from trademesh_gateway.exporter import Exporter
from trademesh_runs.books import Books
from trademesh_runs.compaction import compact
from trademesh_runs.exports import export_files
from trademesh_runs.fold import Fold, replay_journal
from trademesh_runs.journal import Draft, JournalReader, StoredEvent
from trademesh_runs.journal_memory import MemoryStore
from trademesh_runs.layout import RunLayout
from trademesh_runs.scoreboard import Scoreboard

SESSIONS = [Session([(number % 3, 5 + number, 10)]) for number in range(8)]
WITHIN_S = 10.0


class Run:
    """A run whose events are published one group after the other."""

    def __init__(self, runs_dir: Path, published: Sequence[StoredEvent], store: MemoryStore) -> None:
        self.layout = RunLayout(runs_dir, "demo")
        self.layout.make_folders()
        self.rest = list(published)
        self.store = store
        self.reads = 0
        self.begin()

    def begin(self, *, after: int = 0, dashboard: bool = True) -> None:
        """A gateway begins, after what others published."""
        reader = self.store.reader()
        self.rest = [event for event in reader.read(0, 10_000) if event.sequence > after]
        self.books = Books(replay_journal("demo", reader, after) if after else Fold("demo"))
        self.exporter = Exporter(self.layout, self.books, self.flush, self.reader, dashboard=dashboard)

    def reader(self) -> JournalReader:
        """The journal is opened."""
        self.reads += 1
        return self.store.reader()

    async def flush(self) -> None:
        """Everything is flushed here."""

    def go_on(self, events: int) -> None:
        """Publishes more events, two at a time."""
        while events:
            group, self.rest = self.rest[: min(2, events)], self.rest[min(2, events) :]
            self.books.take(group)
            events -= len(group)

    def files(self) -> dict[str, bytes]:
        """What is there."""
        folders = ("state", "team_dashboard")
        return {f"{name}/{path.name}": path.read_bytes() for name in folders for path in (self.layout.root / name).glob("*.json")}

    def wanted(self) -> dict[str, bytes]:
        """What is to be there, made of the state alone."""
        state = self.books.fold.state()
        return export_files(self.layout, state, Scoreboard().catch_up(self.store.reader(), state.as_of_sequence))


def predicting(sessions: Sequence[Session]) -> list[Draft]:
    """A run whose agents predict, and whose settlements tell closes."""
    found = list[Draft]()
    for place, draft in enumerate(drafts_of(sessions)):
        if isinstance(draft.payload, events.Settled):
            rows = [events.Prediction(ticker=ticker, direction=events.DIRECTION_UP, confidence=0.75) for ticker in ("AAPL", "KO")]
            found.append(Draft("predictions", events.Predictions(predictions=rows), draft.session_date, 4, "analyst"))
            draft.payload.close_micros.extend([10 + place, 10 + place % 3, 10])
        found.append(draft)
    return found


@pytest.fixture
async def run(tmp_path: Path) -> Run:
    """A run of which nothing is published yet."""
    store = MemoryStore()
    return Run(tmp_path, await write(store, predicting(SESSIONS)), store)


async def test_each_export_is_of_the_state_at_that_moment_and_the_journal_is_not_read(run: Run) -> None:
    for count in (0, 1, 7, 0, 12, 9):
        run.go_on(count)
        await run.exporter.export(force=True)
        assert run.files() == run.wanted()
    assert run.reads == 0
    assert b'"is_correct":true' in run.files()["team_dashboard/leaderboard.json"]


@pytest.mark.parametrize("at_once_events", [0, 1024])
async def test_what_an_earlier_gateway_published_is_counted_once_from_the_journal(
    run: Run, monkeypatch: pytest.MonkeyPatch, at_once_events: int
) -> None:
    monkeypatch.setattr(exporter, "AT_ONCE_EVENTS", at_once_events)
    run.begin(after=15)
    for count in (4, 7, 3):
        run.go_on(count)
        await run.exporter.export(force=True)
        assert run.files() == run.wanted()
    assert run.reads == 1


@pytest.mark.parametrize("at_once_events", [0, 3, 1024])
async def test_what_is_published_while_earlier_events_are_counted_is_neither_lost_nor_counted_twice(
    run: Run, monkeypatch: pytest.MonkeyPatch, at_once_events: int
) -> None:
    monkeypatch.setattr(exporter, "AT_ONCE_EVENTS", at_once_events)
    run.begin(after=11)
    loop, opened, here = asyncio.get_running_loop(), run.reader, threading.get_ident()

    def opened_while_more_is_published() -> JournalReader:
        published = threading.Event()

        def publish() -> None:
            run.go_on(5)
            published.set()

        if run.reads < 2 and threading.get_ident() != here:
            loop.call_soon_threadsafe(publish)
            assert published.wait(WITHIN_S)
        return opened()

    monkeypatch.setattr(run.exporter, "_reader", opened_while_more_is_published)
    run.go_on(2)
    for count in (3, 4):
        await run.exporter.export(force=True)
        assert run.files() == run.wanted()
        run.go_on(count)
    assert run.books.fold.sequence == 11 + 2 + 7 + {0: 10, 3: 10, 1024: 0}[at_once_events]
    await run.exporter.export(force=True)
    assert run.files() == run.wanted()


async def test_an_export_that_is_cancelled_while_earlier_events_are_counted_spoils_no_later_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "AT_ONCE_EVENTS", 0)
    run.begin(after=15)
    began, go_on, opened = threading.Event(), threading.Event(), run.reader

    def opened_late() -> JournalReader:
        began.set()
        assert go_on.wait(WITHIN_S)
        return opened()

    monkeypatch.setattr(run.exporter, "_reader", opened_late)
    first = asyncio.create_task(run.exporter.export(force=True))
    assert await asyncio.to_thread(began.wait, WITHIN_S)
    first.cancel()
    run.go_on(6)
    last = asyncio.create_task(run.exporter.export(force=True))
    go_on.set()
    await last
    assert run.files() == run.wanted()
    run.go_on(4)
    await run.exporter.export(force=True)
    assert run.files() == run.wanted()


async def test_of_a_journal_that_was_compacted_no_scores_are_written(run: Run) -> None:
    compact("demo", run.store, 15)
    run.begin(after=run.store.reader().head().compacted_through)
    for count in (0, 5):
        run.go_on(count)
        await run.exporter.export(force=True)
        assert run.files() == run.wanted()
        assert "team_dashboard/leaderboard.json" not in run.files()


async def test_what_is_published_while_an_export_is_written_is_not_in_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.go_on(15)
    wanted, loop = run.wanted(), asyncio.get_running_loop()

    def published_meanwhile(*arguments: object, **options: object) -> dict[str, bytes]:
        published = threading.Event()
        loop.call_soon_threadsafe(lambda: (run.go_on(6), published.set()))
        assert published.wait(WITHIN_S)
        return export_files(*arguments, **options)  # type: ignore[arg-type]  # passed on as they are

    monkeypatch.setattr(exporter, "export_files", published_meanwhile)
    await run.exporter.export(force=True)
    assert run.files() == wanted
    assert run.books.fold.sequence == 21


async def test_without_a_dashboard_the_state_alone_is_written_older_files_go_and_nothing_is_counted(run: Run) -> None:
    for after in (0, 9):
        run.begin(after=after, dashboard=False)
        (run.layout.dashboard / "summary.json").write_text("{}")
        run.go_on(12)
        await run.exporter.export()
        assert run.files() == {"state/server_state.json": run.wanted()["state/server_state.json"]}
        assert (run.books.board, run.reads) == (None, 0)


async def test_an_export_whose_thread_comes_late_does_not_bring_an_earlier_state_back(run: Run) -> None:
    run.go_on(8)
    assert run.books.board is not None
    early = (run.books.fold.state(curve=False), len(run.books.fold.equity), run.books.board.copy())
    run.go_on(len(run.rest))
    await run.exporter.export(force=True)
    await asyncio.to_thread(run.exporter._write, *early, False)
    assert json.loads(run.layout.server_state.read_bytes())["as_of_sequence"] == str(run.books.fold.sequence)
    assert run.files() == run.wanted()
