"""The feed of a gateway: like that of its journal, with the newest state at hand."""

from __future__ import annotations

from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh_runs.fold import Fold
from trademesh_runs.journal import JournalReader
from trademesh_runs.journal_feed import JournalFeed
from trademesh_runs.quote_board import QuoteBoard


class LiveFeed(JournalFeed):
    """The feed of a run that this process writes."""

    def __init__(self, run_id: str, reader: JournalReader, fold_reader: JournalReader, fold: Fold) -> None:
        self.board = QuoteBoard()
        super().__init__(run_id, reader, fold_reader, finished=False, quotes=self.board)
        self._fold = fold

    async def snapshot(self, at: int | None) -> ServerState:
        """The state at a sequence; the newest needs no fold."""
        if at is None or at == self._fold.sequence:
            return self._fold.state()
        return await super().snapshot(at)
