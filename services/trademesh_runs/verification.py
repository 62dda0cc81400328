"""The proof of a run from its journal alone: chain, ledger, snapshot, exports."""

from __future__ import annotations

import json
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from trademesh.gateway.v1.event_pb2 import PIPELINE_STATE_FINISHED
from trademesh.runtime.v1.runtime_pb2 import RunSummary
from trademesh_runs.chain import rows_of_their_kind
from trademesh_runs.exports import export_files
from trademesh_runs.fold import LedgerMismatchError
from trademesh_runs.journal import JournalDamagedError, NewerJournalError
from trademesh_runs.journal_sqlite import SqliteStore
from trademesh_runs.layout import RunLayout
from trademesh_runs.proof import prove_journal

STATE_FILE = "state/server_state.json"


class VerificationError(Exception):
    """The run is not what was written; says what and where."""


@dataclass(frozen=True)
class Verified:
    """A run that was proved."""

    summary: RunSummary
    files: list[str]
    """Derived files that were made again and are equal."""
    behind: list[str]
    """Derived files that were not judged: they are of an earlier moment of a run that has not finished."""


def verify_run(layout: RunLayout) -> Verified:
    """Replays the journal and makes every derived file again.

    `state/server_state.json` says of which event it is, and is compared with the state at that one. The dashboard files do not: they are
    judged once the run has finished. A run may be live.

    Raises:
        VerificationError: the journal is damaged, an event differs from the ledger, or a file from its source.
        sqlite3.DatabaseError: the file is no database any more.
    """
    try:
        reader = SqliteStore(layout.journal).reader()
    except NewerJournalError as error:
        raise VerificationError(str(error)) from error
    try:
        # Asked first: a live run writes the file after the events that it tells of.
        epoch_told, told = moment_told(layout)
        with reader.standing_still():
            with rows_of_their_kind():
                head = reader.head()
            # A file of an earlier epoch, or of a moment whose events are gone, says nothing that can be judged.
            judged = epoch_told in (0, head.epoch) and told >= head.compacted_through
            proved = prove_journal(layout.run_id, reader, told if judged else None)
            if judged and told > head.sequence:
                raise VerificationError(f"{STATE_FILE} is of event {told}, and the journal ends with {head.sequence}")
    except (JournalDamagedError, LedgerMismatchError, DecodeError) as error:
        raise VerificationError(str(error)) from error
    finally:
        reader.close()
    state, curve, board = proved.told.state, proved.told.curve, proved.told.board
    finished = judged and proved.fold.pipeline_state == PIPELINE_STATE_FINISHED and told == head.sequence
    equal, behind = list[str](), list[str]()
    if not board.whole:
        # They are counted from events that are gone.
        behind += [
            f"team_dashboard/{path.name}"
            for path in (layout.dashboard / "stats.json", layout.dashboard / "leaderboard.json")
            if path.is_file()
        ]
    for name, content in export_files(layout, state, board, curve=curve).items():
        path = layout.root / name
        if not path.is_file():
            continue
        if not judged or (name != STATE_FILE and not finished):
            behind.append(name)
        elif path.read_bytes() == content:
            equal.append(name)
        elif name != STATE_FILE or moment_told(layout) == (epoch_told, told):
            raise VerificationError(f"{name} is not what the journal gives at event {told}")
        else:
            # A live run has replaced it since.
            behind.append(name)
    return Verified(proved.summary, equal, behind)


def moment_told(layout: RunLayout) -> tuple[int, int]:
    """Epoch and sequence of the event that `state/server_state.json` is of; zeros if it is not there.

    Raises:
        VerificationError: it cannot be read.
    """
    try:
        told = json.loads(layout.server_state.read_text(encoding="utf-8"))
        return int(told.get("epoch", 0)), int(told.get("as_of_sequence", 0))
    except FileNotFoundError:
        return 0, 0
    except (ValueError, TypeError, AttributeError) as error:
        raise VerificationError(f"{STATE_FILE} cannot be read: {error}") from error
