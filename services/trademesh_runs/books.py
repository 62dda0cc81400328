"""The books of a run, kept from its events as they come: its state (`fold.py`) and its agents' scores (`scoreboard.py`).

Many events count for both; each is parsed once.
"""

from __future__ import annotations

from collections.abc import Sequence

from trademesh_runs.fold import FOLDED_KINDS, Fold
from trademesh_runs.journal import StoredEvent
from trademesh_runs.scoreboard import KINDS, Scoreboard


class Books:
    """A state that is kept, and scores from when on they are."""

    def __init__(self, fold: Fold, board: Scoreboard | None = None) -> None:
        self.fold = fold
        self.board = board
        """None while no scores are kept. Else it is of the state's sequence, or is not whole and stays as it is."""

    def take(self, events: Sequence[StoredEvent]) -> None:
        """Takes in the events that follow, at least one; raises LedgerMismatchError."""
        fold, board = self.fold, self.board
        if board is not None and not board.whole:
            board = None
        scored = frozenset[int]() if board is None else KINDS
        for stored in events:
            kind = stored.kind
            in_fold, in_board = kind in FOLDED_KINDS, kind in scored
            if in_fold or in_board:
                event = stored.parse()
                if in_fold:
                    fold.apply(stored, event)
                if in_board and board is not None:
                    board.add(event, kind)
        fold.sequence = events[-1].sequence
        if board is not None:
            board.sequence = fold.sequence
