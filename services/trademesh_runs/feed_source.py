"""What the feed needs of a run, whoever has its journal: the gateway that writes it, or trading_service once it is finished."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh_kernel.errors import NotFound
from trademesh_runs.feed_batch import Batch
from trademesh_runs.feed_filter import FeedFilter
from trademesh_runs.journal import Head, StoredEvent
from trademesh_runs.quote_board import QuoteBoard
from trademesh_runs.wake import Wake


class FeedSource(Protocol):
    """The events of one run, as the feed needs them."""

    @property
    def head(self) -> Head:
        """Where the journal ends for readers: what is committed."""

    @property
    def finished(self) -> bool:
        """True if no event will follow."""

    @property
    def draining(self) -> bool:
        """True if streams are to end."""

    @property
    def fenced(self) -> bool:
        """True if another gateway writes the journal now."""

    @property
    def changed(self) -> Wake:
        """Woken when any of these changes."""

    @property
    def quotes(self) -> QuoteBoard | None:
        """The newest prices; None if the run has none any more."""

    async def batches(self, after: int, wanted: FeedFilter | None) -> list[Batch]:
        """What is to be sent next to a reader that is at a sequence; `wanted` None: all events. Empty if nothing is there."""

    async def read(self, after: int, limit: int, through: int | None = None) -> Sequence[StoredEvent]:
        """Events after a sequence, oldest first."""

    async def read_before(self, before: int, limit: int) -> Sequence[StoredEvent]:
        """Events before a sequence, newest first."""

    async def snapshot(self, at: int | None) -> ServerState:
        """The state at a sequence, or the newest."""


FindSource = Callable[[str], Awaitable[FeedSource]]
"""From a run id to its source; raises NotFound."""


def only_source(run_id: str, source: FeedSource) -> FindSource:
    """A finder that knows one run."""

    async def find(asked: str) -> FeedSource:
        if asked != run_id:
            raise NotFound("run", asked)
        return source

    return find
