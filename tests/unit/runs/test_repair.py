"""Work on the files of a run that is not live: derived files again, a journal from a damaged one, copies; and what it refuses."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from random_journals import Session, drafts_of, write
from trademesh_cli.main import app
from trademesh_runs.fold import replay_journal
from trademesh_runs.journal import Head, JournalDamagedError
from trademesh_runs.journal_sqlite import SqliteReader, SqliteStore
from trademesh_runs.layout import RunLayout
from trademesh_runs.repair import NothingToSalvageError, rebuild_run, salvage_run
from trademesh_runs.run_lock import held_lock
from trademesh_runs.verification import VerificationError, verify_run

DESK = drafts_of([Session([(0, 5, 10), (1, -2, 30)])] * 20)


@pytest.fixture
async def layout(tmp_path: Path) -> RunLayout:
    """A run with a journal."""
    found = RunLayout(tmp_path, "demo")
    found.make_folders()
    await write(SqliteStore(found.journal), DESK, flush_every=9)
    return found


def change(layout: RunLayout, statement: str) -> None:
    """Writes to the journal behind its back."""
    connection = sqlite3.connect(layout.journal)
    connection.execute(statement)
    connection.commit()
    connection.close()


async def test_derived_files_are_made_again_as_they_were(layout: RunLayout) -> None:
    names = rebuild_run(layout)
    first = {name: (layout.root / name).read_bytes() for name in names}
    assert len(first) == 6
    layout.server_state.write_text("{}")
    (layout.root / "team_dashboard" / "trades.json").unlink()
    assert rebuild_run(layout) == names
    assert {name: (layout.root / name).read_bytes() for name in names} == first
    assert verify_run(layout).files == ["state/server_state.json"]


async def test_files_of_an_earlier_epoch_or_of_compacted_events_are_not_judged_and_those_beyond_the_journal_are_false(
    layout: RunLayout,
) -> None:
    rebuild_run(layout)
    state = json.loads(layout.server_state.read_text())
    change(layout, "UPDATE meta SET epoch = 2")
    assert verify_run(layout).files == []
    change(layout, "UPDATE meta SET epoch = 1")
    layout.server_state.write_text(json.dumps(state | {"as_of_sequence": "9999"}))
    with pytest.raises(VerificationError, match="9999"):
        verify_run(layout)


async def test_what_the_chain_proves_of_a_damaged_journal_is_saved_in_a_new_epoch(layout: RunLayout) -> None:
    change(layout, "UPDATE events SET data = zeroblob(length(data)) WHERE sequence = 50")
    damaged = layout.journal.read_bytes()
    saved = salvage_run(layout)
    assert 40 < saved.kept_through < 50
    assert (saved.known_through, saved.epoch) == (len(DESK), 2)
    assert (layout.root / saved.damaged_file).read_bytes() == damaged
    reader = SqliteReader(layout.journal)
    assert reader.check() == Head(2, saved.kept_through + 1)
    lost = reader.read(saved.kept_through, 1)[0].parse().journal_truncated
    assert (lost.kept_through, lost.known_through, lost.earlier_epoch) == (saved.kept_through, len(DESK), 1)
    assert replay_journal("demo", reader).state().epoch == 2
    reader.close()
    # It is gone on with, and what was lost is done again.
    await write(SqliteStore(layout.journal), DESK[saved.kept_through :], generation=2)
    reader = SqliteReader(layout.journal)
    assert reader.check() == Head(2, len(DESK) + 1)
    assert replay_journal("demo", reader).sessions_settled == 20
    reader.close()
    with pytest.raises(NothingToSalvageError):
        salvage_run(layout)


async def test_the_log_of_a_damaged_journal_goes_with_it(layout: RunLayout) -> None:
    reader = SqliteReader(layout.journal)
    writer = SqliteStore(layout.journal).writer("demo", 2, lambda _group: None)
    assert reader.head().sequence == len(DESK)
    await writer.close()
    reader.close()
    change(layout, "PRAGMA journal_mode=WAL")
    connection = sqlite3.connect(layout.journal)
    connection.execute("DELETE FROM events WHERE sequence = 30")
    connection.commit()
    # What a kill leaves behind: the file, and beside it the log.
    files = {name: (layout.root / name).read_bytes() for name in ("journal.db", "journal.db-wal")}
    connection.close()
    for name, content in files.items():
        (layout.root / name).write_bytes(content)
    saved = salvage_run(layout)
    assert 20 < saved.kept_through < 30
    assert sorted(name for name in os.listdir(layout.root) if name.startswith("journal.db")) == [
        "journal.db",
        "journal.db.damaged-1",
        "journal.db.damaged-1-wal",
    ]


async def test_a_journal_of_which_nothing_is_proved_is_left_as_it_is(layout: RunLayout) -> None:
    change(layout, "UPDATE events SET kind = kind + 1 WHERE sequence = 1")
    before = layout.journal.read_bytes()
    with pytest.raises(JournalDamagedError):
        salvage_run(layout)
    assert layout.journal.read_bytes() == before
    assert [name for name in os.listdir(layout.root) if name.startswith("journal.db")] == ["journal.db"]


@pytest.mark.parametrize("command", ["rebuild", "salvage", "compact"])
async def test_a_live_run_is_left_alone(layout: RunLayout, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("TRADEMESH_RUNS_DIR", str(layout.runs_dir))
    with held_lock(layout):
        outcome = CliRunner().invoke(app, ["run", command, "demo"])
    assert outcome.exit_code == 1
    assert "is live" in outcome.output
    assert not layout.server_state.exists()


async def test_the_command_line_copies_compacts_and_rebuilds(layout: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEMESH_RUNS_DIR", str(layout.runs_dir))

    def done(*arguments: str) -> dict[str, object]:
        outcome = CliRunner().invoke(app, ["run", *arguments, "--json"])
        assert outcome.exit_code == 0, outcome.output
        found: dict[str, object] = json.loads(outcome.stdout)
        return found

    copied = layout.root / "copy.db"
    assert done("backup", "demo", str(copied))["head_sequence"] == len(DESK)
    assert CliRunner().invoke(app, ["run", "backup", "demo", str(copied)]).exit_code == 2
    digest = done("verify", "demo")["journal_sha256"]
    # Nothing is 30 days old.
    assert done("compact", "demo")["events_removed"] == 0
    assert done("compact", "demo", "--keep-days", "0")["events_removed"] == len(DESK)
    assert done("rebuild", "demo")["files"]
    assert done("verify", "demo")["journal_sha256"] == digest
    assert CliRunner().invoke(app, ["run", "salvage", "demo"]).exit_code == 1
