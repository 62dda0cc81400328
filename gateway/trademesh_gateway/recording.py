"""A run that has ended, read again from trading_service: what its desk did, session by session. Nothing is judged here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh.gateway.v1 import feed_service_pb2_grpc
from trademesh_gateway.pipeline.cycle import PHASES
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import HistoryCompacted
from trademesh_runs.chain import FIRST_DESK_FIELD
from trademesh_runs.journal import KIND_NUMBERS, Draft

EVENTS_PER_PAGE = 1_000
CALL_TIMEOUT_S = 30.0
DESK_KINDS = tuple(name for name, number in KIND_NUMBERS.items() if number >= FIRST_DESK_FIELD)
"""What the desk did, and what people said to it: all that `journal_sha256` covers."""

_LAST_PHASE = max(PHASES)


class Recording:
    """The desk's events of a run, in their order."""

    def __init__(self, trading: ServiceClient, run_id: str) -> None:
        self._trading = trading
        self._stub = trading.stub(feed_service_pb2_grpc.FeedServiceStub)
        self._request = feed.ListEventsRequest(run_id=run_id, page_size=EVENTS_PER_PAGE, filter=feed.EventFilter(kinds=DESK_KINDS))
        self._read_all = False
        self._looked_through = 0
        self.rest: list[events.Event] = []
        """Events that are read and were not given yet; after the last session those that follow it."""

    async def session(self) -> list[events.Event] | None:
        """The events up to the next settlement, it included; None if there is none any more. May be called again after an error.

        Raises:
            DependencyUnavailable, DeadlinePassed, RemoteError: trading_service does not answer, or has not the run.
            HistoryCompacted: events of the run are gone.
        """
        while True:
            for place in range(self._looked_through, len(self.rest)):
                if self.rest[place].HasField("settled"):
                    found, self.rest, self._looked_through = self.rest[: place + 1], self.rest[place + 1 :], 0
                    return found
            self._looked_through = len(self.rest)
            if self._read_all:
                return None
            await self._read_on()

    async def _read_on(self) -> None:
        answer = await self._trading.call(self._stub.ListEvents, self._request, timeout_s=CALL_TIMEOUT_S)
        if answer.compacted_through:
            raise HistoryCompacted(0, answer.compacted_through)
        self.rest += answer.events
        self._request.page_token = answer.next_page_token
        self._read_all = not answer.next_page_token


def draft_of(event: events.Event) -> Draft:
    """An event for another journal: the same for what the desk did, and named so that it is taken in once."""
    kind = event.WhichOneof("payload") or ""
    return Draft(kind, getattr(event, kind), event.session_date, event.phase, event.agent_id, item=f"replayed {event.sequence}")


class RecordedCycle:
    """A session that is shown again, phase by phase. What belongs to no phase comes with the one that it came in."""

    def __init__(self, recorded: Sequence[events.Event], emit: Callable[[Draft], object]) -> None:
        """`recorded` ends with the session's settlement."""
        self._recorded = recorded
        self._emit = emit
        self._told = 0

    def is_void(self, phase: int) -> bool:
        """Never: a phase in which nothing happened is a step, too."""
        return False

    def may_be_given_up(self, phase: int) -> bool:
        """Never: what is recorded has happened."""
        return False

    def give_up(self, phase: int, reason: str) -> None:
        """Is not asked for."""
        raise RuntimeError("a session that is shown again cannot be given up")

    def run(self, phase: int) -> None:
        """Tells the events of a phase."""
        while self._told < len(self._recorded) and (phase == _LAST_PHASE or self._recorded[self._told].phase <= phase):
            self._emit(draft_of(self._recorded[self._told]))
            self._told += 1
