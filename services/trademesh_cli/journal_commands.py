"""`trademesh run backup|compact|rebuild|salvage RUN`: work on a run's files. No service is needed; all but `backup` refuse a live run."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from trademesh_cli.rpc import EXIT_FAILED, EXIT_USAGE, fail, print_json
from trademesh_cli.run_arguments import AsJson, RunId, layout_of
from trademesh_runs.compaction import compact, settled_before
from trademesh_runs.fold import LedgerMismatchError
from trademesh_runs.journal import JournalDamagedError, NewerJournalError
from trademesh_runs.journal_sqlite import SqliteReader, SqliteStore
from trademesh_runs.repair import NothingToSalvageError, rebuild_run, salvage_run
from trademesh_runs.run_lock import RunLiveError, held_lock

DAY_S = 86_400

journal_app = typer.Typer()


@journal_app.command("backup")
def backup(
    run_id: RunId,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="where the copy is put; must not exist")],
    as_json: AsJson = False,
) -> None:
    """Copy a run's journal as it is at one moment, also while it is written, and prove the copy."""
    layout = layout_of(run_id)
    if file.exists():
        fail(f"{file} exists already", None, EXIT_USAGE)
    with _faults(run_id):
        reader = SqliteReader(layout.journal)
        try:
            reader.backup(file)
        finally:
            reader.close()
        copy = SqliteReader(file, immutable=True)
        try:
            head = copy.check()
        finally:
            copy.close()
    if as_json:
        print_json({"run_id": run_id, "file": str(file), "epoch": head.epoch, "head_sequence": head.sequence})
    else:
        print(f"{file}: {head.sequence} events of {run_id}, chain whole")


@journal_app.command("compact")
def compact_run(
    run_id: RunId,
    keep_days: Annotated[float, typer.Option(min=0, help="events younger than this stay")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Put a snapshot in the place of old events. Later states, digests and proofs stay the same; the old events are gone."""
    layout = layout_of(run_id)
    store = SqliteStore(layout.journal)
    with _faults(run_id), held_lock(layout):
        reader = store.reader()
        try:
            through = settled_before(reader, time.time() - keep_days * DAY_S)
        finally:
            reader.close()
        done = compact(run_id, store, through)
    if as_json:
        print_json({"run_id": run_id, "compacted_through": done.compacted_through, "events_removed": done.events_removed})
    else:
        print(f"{run_id}: {done.events_removed} events removed, compacted through {done.compacted_through}")


@journal_app.command("rebuild")
def rebuild(run_id: RunId, as_json: AsJson = False) -> None:
    """Make a run's derived files again, from its journal."""
    layout = layout_of(run_id)
    with _faults(run_id), held_lock(layout):
        files = rebuild_run(layout)
    print_json({"run_id": run_id, "files": files}) if as_json else print("\n".join(files))


@journal_app.command("salvage")
def salvage(run_id: RunId, as_json: AsJson = False) -> None:
    """Make a new journal, in a new epoch, from what is still proved of a damaged one, which stays beside it."""
    layout = layout_of(run_id)
    with _faults(run_id), held_lock(layout):
        try:
            saved = salvage_run(layout)
        except NothingToSalvageError:
            fail(f"the journal of {run_id} is whole: there is nothing to salvage", None, EXIT_FAILED)
    if as_json:
        print_json(
            {
                "run_id": run_id,
                "kept_through": saved.kept_through,
                "known_through": saved.known_through,
                "epoch": saved.epoch,
                "damaged_file": saved.damaged_file,
                "reason": saved.reason,
            }
        )
        return
    print(f"{run_id}: kept events up to {saved.kept_through}, now epoch {saved.epoch}; the old file is {saved.damaged_file}")
    print(f"what was found: {saved.reason}")
    print(f"`trademesh run rebuild {run_id}` makes its derived files again")


@contextmanager
def _faults(run_id: str) -> Iterator[None]:
    try:
        yield
    except (RunLiveError, NewerJournalError) as error:
        fail(str(error), None, EXIT_FAILED)
    except sqlite3.OperationalError as error:
        # Locked by a reader, full, not to be written: another try may find it mended.
        fail(f"the journal of {run_id}: {error}", None, EXIT_FAILED)
    except (JournalDamagedError, LedgerMismatchError, sqlite3.DatabaseError) as error:
        fail(f"the journal of {run_id} is damaged: {error} (`trademesh run salvage {run_id}` keeps what can be proved)", None, EXIT_FAILED)
