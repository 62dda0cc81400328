"""A journal proved in one pass: the chain over its bytes, the account by the ledger, the digest of what the desk did, and agents' scores.

Each event is read once and parsed once, and its bytes are proved before it is believed. Damage is told before anything that the ledger
finds, wherever in the journal the two are: what a damaged journal tells is not judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh.runtime.v1.runtime_pb2 import RunSummary
from trademesh_runs.books import Books
from trademesh_runs.chain import DeskDigest, proven_events
from trademesh_runs.curve_texts import CurveTexts
from trademesh_runs.fold import Fold, beginning_of
from trademesh_runs.journal import JournalReader, StoredEvent
from trademesh_runs.scoreboard import Scoreboard
from trademesh_runs.summary import summary_of_fold


@dataclass(frozen=True)
class Told:
    """A run at a moment: what its derived files are made of."""

    state: ServerState
    """Without the curve."""
    curve: CurveTexts
    board: Scoreboard


@dataclass(frozen=True)
class Proved:
    """A journal that was proved."""

    fold: Fold
    """After the last event."""
    summary: RunSummary
    told: Told
    """At the moment that was asked for."""


def prove_journal(run_id: str, reader: JournalReader, moment: int | None = None) -> Proved:
    """Proves a journal that stands still. `moment` is a sequence that is not before those that were compacted; None: the last.

    Raises:
        JournalDamagedError: it is not what was written.
        LedgerMismatchError: an event says other than the ledger.
    """
    replay, wrong = _Replay(run_id, reader, moment), None
    for events in proven_events(reader):
        if wrong is None:
            try:
                replay.take(events)
            except Exception as error:
                wrong = error
    if wrong is not None:
        raise wrong
    return replay.proved()


class _Replay:
    """The pass."""

    def __init__(self, run_id: str, reader: JournalReader, moment: int | None) -> None:
        snapshot = reader.snapshot()
        self._moment = moment
        self._fold = beginning_of(run_id, reader)
        self._desk = DeskDigest(b"" if snapshot is None else snapshot.desk)
        self._board = Scoreboard()
        # Of events that are gone nothing can be counted any more.
        self._board.whole = snapshot is None
        self._books = Books(self._fold, self._board)
        self._told: Told | None = None

    def take(self, events: Sequence[StoredEvent]) -> None:
        """Takes in the events of the next link."""
        self._desk.add_all(events)
        if self._moment is not None and self._told is None and self._moment < events[-1].sequence:
            place = self._moment + 1 - events[0].sequence
            if place:
                self._books.take(events[:place])
            self._told = self._tell()
            # The board is of that moment: it goes on no further.
            self._books.board = None
            events = events[place:]
        self._books.take(events)

    def _tell(self) -> Told:
        return Told(self._fold.state(curve=False), CurveTexts().follow(self._fold.equity), self._board)

    def proved(self) -> Proved:
        """What came out, after the last link."""
        return Proved(self._fold, summary_of_fold(self._fold, self._desk.hexdigest()), self._told or self._tell())
