"""What PortfolioService needs of a run, from its gateway or from its finished journal; both give the same answers."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import grpc

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh.gateway.v1 import feed_service_pb2_grpc
from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh.runtime.v1 import runtime_pb2
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import DependencyUnavailable, HistoryCompacted, RemoteError, SequenceAhead
from trademesh_runs.journal import KIND_NUMBERS, JournalReader, all_events
from trademesh_trading.run_feeds import ENDED, RunFeeds
from trademesh_trading.run_journals import FinishedFeed

EVENTS_PER_PAGE = 1_000
MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_GATEWAYS = 32
CALL_TIMEOUT_S = 30.0
_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""What a gateway answers that ends in the middle of a call."""

Answer = TypeVar("Answer")
Wanted = Callable[[events.Event], bool]
Take = Callable[[events.Event], None]


class Found(NamedTuple):
    """Events that were asked for. Those up to `compacted_through` are no longer kept."""

    events: list[events.Event]
    compacted_through: int


class RunReader(Protocol):
    """Reads one run. `at` is a sequence, None the newest; raises SequenceAhead beyond the head."""

    async def state(self, at: int | None) -> ServerState:
        """The state."""

    async def events(self, kind: str, after: int, size: int, wanted: Wanted) -> Found:
        """The first events of one kind after a sequence that are wanted, at most so many."""

    async def take(self, kinds: Sequence[str], at: int | None, take: Take) -> int:
        """Gives every event of some kinds up to a sequence to a function, oldest first, in a thread; returns that sequence.

        Raises HistoryCompacted where events are gone: what is counted from all of them cannot be told any more.
        """


class FinishedRun:
    """A run that is read from its journal, in threads."""

    def __init__(self, source: FinishedFeed) -> None:
        self._source = source

    def _through(self, at: int | None) -> int:
        head = self._source.head.sequence
        if at is not None and at > head:
            raise SequenceAhead(at, head)
        return head if at is None else at

    async def state(self, at: int | None) -> ServerState:
        """The state at a sequence, or the last."""
        return await self._source.snapshot(self._through(at))

    async def events(self, kind: str, after: int, size: int, wanted: Wanted) -> Found:
        """The first events of one kind after a sequence that are wanted."""
        number = KIND_NUMBERS[kind]

        def scan(reader: JournalReader) -> Found:
            found = Found([], reader.head().compacted_through)
            for stored in all_events(reader, after, kinds=(number,)):
                event = stored.parse()
                if wanted(event):
                    found.events.append(event)
                    if len(found.events) == size:
                        break
            return found

        return await self._source.work(scan)

    async def take(self, kinds: Sequence[str], at: int | None, take: Take) -> int:
        """Gives every event of some kinds up to a sequence to a function."""
        through = self._through(at)
        numbers = {KIND_NUMBERS[kind] for kind in kinds}

        def scan(reader: JournalReader) -> int:
            compacted_through = reader.head().compacted_through
            if compacted_through:
                raise HistoryCompacted(0, compacted_through)
            for stored in all_events(reader, 0, through, kinds=numbers):
                take(stored.parse())
            return through

        return await self._source.work(scan)


class LiveRun:
    """A run that is read from its gateway, by RPC."""

    def __init__(self, run_id: str, gateway: Callable[[], ServiceClient]) -> None:
        """`gateway` gives the channel for one call."""
        self._run_id = run_id
        self._gateway = gateway

    async def state(self, at: int | None) -> ServerState:
        """The state at a sequence, or the newest."""
        client = self._gateway()
        request = feed.GetSnapshotRequest(run_id=self._run_id, at_sequence=at)
        answer = await client.call(client.stub(feed_service_pb2_grpc.FeedServiceStub).GetSnapshot, request, timeout_s=CALL_TIMEOUT_S)
        state: ServerState = answer.state
        return state

    async def events(self, kind: str, after: int, size: int, wanted: Wanted) -> Found:
        """The first events of one kind after a sequence that are wanted."""
        found = list[events.Event]()
        while True:
            page = await self._page([kind], after, EVENTS_PER_PAGE)
            for event in page.events:
                if wanted(event):
                    found.append(event)
                    if len(found) == size:
                        break
            if not page.next_page_token or len(found) == size:
                return Found(found, page.compacted_through)
            after = page.events[-1].sequence

    async def take(self, kinds: Sequence[str], at: int | None, take: Take) -> int:
        """Gives every event of some kinds to a function, up to a sequence or the head that the first page tells."""
        page = await self._page(kinds, 0, EVENTS_PER_PAGE)
        if page.compacted_through:
            raise HistoryCompacted(0, page.compacted_through)
        through = page.head_sequence if at is None else at
        if through > page.head_sequence:
            raise SequenceAhead(through, page.head_sequence)

        def take_all(batch: Sequence[events.Event]) -> None:
            for event in batch:
                if event.sequence <= through:
                    take(event)

        while True:
            await asyncio.to_thread(take_all, page.events)
            if not page.next_page_token or page.events[-1].sequence >= through:
                return through
            page = await self._page(kinds, page.events[-1].sequence, EVENTS_PER_PAGE)

    async def _page(self, kinds: Sequence[str], after: int, size: int) -> feed.ListEventsResponse:
        client = self._gateway()
        request = feed.ListEventsRequest(run_id=self._run_id, page_size=size, after_sequence=after, filter=feed.EventFilter(kinds=kinds))
        stub = client.stub(feed_service_pb2_grpc.FeedServiceStub)
        answer: feed.ListEventsResponse = await client.call(stub.ListEvents, request, timeout_s=CALL_TIMEOUT_S)
        return answer


class RunReaders:
    """Readers of runs, with channels to the gateways that were asked last. End with `close`."""

    def __init__(self, feeds: RunFeeds) -> None:
        self._feeds = feeds
        self._gateways: OrderedDict[str, ServiceClient] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    async def config(self, run_id: str) -> RunConfig:
        """The configuration of a run; raises as `RunFeeds.run`."""
        return (await self._feeds.run(run_id)).config

    async def ask(self, run_id: str, question: Callable[[RunReader], Awaitable[Answer]]) -> Answer:
        """What a run answers. A gateway that has gone since we last heard of it is looked for once more: by then the run may have ended.

        Raises as `RunFeeds.run`, and DependencyUnavailable while no gateway is up.
        """
        run = await self._feeds.run(run_id)
        try:
            return await question(await self._reader(run))
        except (DependencyUnavailable, RemoteError) as error:
            if isinstance(error, RemoteError) and error.remote_code not in _GONE:
                raise
            self._feeds.forget(run_id)
            now = await self._feeds.run(run_id)
            if (now.state, now.target, now.generation) == (run.state, run.target, run.generation):
                raise
            return await question(await self._reader(now))

    async def _reader(self, run: runtime_pb2.Run) -> RunReader:
        run_id, target = run.run_id, run.target
        if run.state in ENDED:
            return FinishedRun(await self._feeds.finished(run_id))
        if not target:
            raise DependencyUnavailable(f"gateway of {run_id}", f"the gateway of run {run_id} is not up yet", retry_after_s=0.5)
        return LiveRun(run_id, lambda: self._client(target, run_id))

    def _client(self, target: str, run_id: str) -> ServiceClient:
        client = self._gateways.get(target)
        if client is None:
            client = ServiceClient(target, f"gateway of {run_id}", max_message_bytes=MAX_ANSWER_BYTES)
            self._gateways[target] = client
        self._gateways.move_to_end(target)
        while len(self._gateways) > MAX_GATEWAYS:
            # Calls in flight on it may end.
            closing = asyncio.create_task(self._gateways.popitem(last=False)[1].channel.close(CALL_TIMEOUT_S))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        return client

    async def close(self) -> None:
        """Closes every channel."""
        for closing in self._closing:
            closing.cancel()
        for client in self._gateways.values():
            await client.close()
        self._gateways.clear()
