"""The proof of a run from its journal alone: chain, ledger, snapshot, exports."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from trademesh.runtime.v1.runtime_pb2 import RunSummary
from trademesh_runs.exports import export_files
from trademesh_runs.fold import LedgerMismatchError, fold_journal
from trademesh_runs.journal import JournalDamagedError
from trademesh_runs.journal_sqlite import NewerJournalError, SqliteReader
from trademesh_runs.layout import RunLayout
from trademesh_runs.summary import summary_of


class VerificationError(Exception):
    """The run is not what was written; says what and where."""


@dataclass(frozen=True)
class Verified:
    """A run that was proved."""

    summary: RunSummary
    files: list[str]
    """Derived files that were made again and are equal."""


def verify_run(layout: RunLayout) -> Verified:
    """Replays the journal and makes every derived file again.

    Derived files lag behind a live run and are compared only if their state is of the journal's head.

    Raises:
        VerificationError: the journal is damaged, an event differs from the ledger, or a file from its source.
        sqlite3.DatabaseError: the file is no database any more.
    """
    try:
        reader = SqliteReader(layout.journal)
    except NewerJournalError as error:
        raise VerificationError(str(error)) from error
    try:
        head = reader.check()
        fold = fold_journal(layout.run_id, reader)
        summary = summary_of(layout.run_id, reader)
    except (JournalDamagedError, LedgerMismatchError, DecodeError) as error:
        raise VerificationError(str(error)) from error
    finally:
        reader.close()
    state = fold.state()
    equal = list[str]()
    for name, content in export_files(layout, state).items():
        path = layout.root / name
        if not path.is_file():
            continue
        if path.read_bytes() != content:
            raise VerificationError(f"{name} is not what the journal gives at event {head.sequence}")
        equal.append(name)
    return Verified(summary, equal)
