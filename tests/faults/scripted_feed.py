"""A feed that says what a test tells it, over real gRPC: for journals that are compacted or begun anew, and for servers that go away, at will.

It serves FeedService by the contract, from a list, and the one call of runtime_service that the edge needs.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
from mesh_processes import free_ports

from trademesh.gateway.v1 import event_pb2, feed_service_pb2, feed_service_pb2_grpc, state_pb2
from trademesh.runtime.v1 import runtime_pb2, runtime_service_pb2
from trademesh_edge.server import EdgeServer
from trademesh_edge.settings import EdgeSettings
from trademesh_kernel.errors import EpochChanged, RemoteError, SequenceAhead
from trademesh_kernel.server import MeshServer, Registration
from trademesh_kernel.settings import ServerSettings
from trademesh_runs.feed_filter import tickers_of
from waiting import until

RUN = "told"
RUNTIME = "trademesh.runtime.v1.RuntimeService"
FEED = "trademesh.gateway.v1.FeedService"
TICKERS = ("AAPL", "MSFT", "NVDA")


def event(sequence: int, per_session: int = 4) -> event_pb2.Event:
    """A small event; every fourth settles a session, the others fill orders of one ticker after the other."""
    found = event_pb2.Event(sequence=sequence, agent_id="desk" if sequence % 2 else "risk")
    if sequence % per_session == 0:
        found.settled.session_number = sequence // per_session
    else:
        found.order_filled.ticker = TICKERS[sequence % 3]
        found.order_filled.quantity = sequence
        found.order_filled.cash_micros = 2**60 + sequence
    return found


class ScriptedFeed(feed_service_pb2_grpc.FeedServiceServicer):
    """Events of one run. `tell` adds some; `finish` ends the run; `begin_epoch` and `compact` lose what was."""

    def __init__(self) -> None:
        self.events: list[event_pb2.Event] = []
        self.epoch = 1
        self.compacted_through = 0
        self.ended = False
        self.generation = 1
        self.silent = False
        self.streams = 0
        self.quote_streams = 0
        self.checkpoint_s = 0.2
        self.quotes = list[feed_service_pb2.Quote]()
        self._changed = asyncio.Event()
        self._server: MeshServer | None = None
        self.port = 0
        self.advertised_port = 0
        """Where the feed is said to be, if not on its own port."""

    async def start(self) -> None:
        """Serves, on the port that it had before if it had one."""

        def add_runtime(_servicer: Any, server: grpc.aio.Server) -> None:
            handler = grpc.unary_unary_rpc_method_handler(
                self._get_run, runtime_service_pb2.GetRunRequest.FromString, runtime_service_pb2.GetRunResponse.SerializeToString
            )
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(RUNTIME, {"GetRun": handler}),))

        registrations = [
            Registration(feed_service_pb2_grpc.add_FeedServiceServicer_to_server, self, FEED),
            Registration(add_runtime, None, RUNTIME),
        ]
        self._server = MeshServer(ServerSettings(), registrations, listen=f"127.0.0.1:{self.port}")
        await self._server.start()
        self.port = self._server.port

    async def stop(self) -> None:
        """Breaks every connection, as a process that dies."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(drain_delay_s=0, grace_s=0)

    def tell(self, count: int) -> None:
        """Adds events."""
        first = self.head + 1
        self.events += [event(sequence) for sequence in range(first, first + count)]
        self._notify()

    def quote(self, ticker: str, price_micros: int) -> None:
        """A price has moved."""
        self.quotes.append(feed_service_pb2.Quote(ticker=ticker, price_micros=price_micros))
        self._notify()

    def finish(self) -> None:
        """No event will follow."""
        self.ended = True
        self._notify()

    def restart(self) -> None:
        """A run that had ended goes on."""
        self.ended = False
        self.generation += 1

    def begin_epoch(self, keep: int) -> None:
        """The journal loses its end, and goes on in a new epoch."""
        self.epoch += 1
        self.events = [one for one in self.events if one.sequence <= keep]
        self._notify()

    def compact(self, through: int) -> None:
        """The journal forgets its beginning."""
        self.compacted_through = through
        self.events = [one for one in self.events if one.sequence > through]

    @property
    def head(self) -> int:
        """The newest sequence."""
        return self.events[-1].sequence if self.events else self.compacted_through

    def _notify(self) -> None:
        waiter, self._changed = self._changed, asyncio.Event()
        waiter.set()

    async def _get_run(self, request: Any, _context: Any) -> runtime_service_pb2.GetRunResponse:
        target = f"127.0.0.1:{self.advertised_port or self.port}"
        run = runtime_pb2.Run(run_id=request.run_id, feed_target=target, generation=self.generation)
        return runtime_service_pb2.GetRunResponse(run=run)

    def _state(self) -> state_pb2.ServerState:
        return state_pb2.ServerState(run_id=RUN, epoch=self.epoch, as_of_sequence=self.head)

    def _after(self, cursor: int, limit: int) -> list[event_pb2.Event]:
        return self.events[cursor - self.compacted_through :][:limit]

    async def Subscribe(self, request: Any, context: Any) -> AsyncIterator[feed_service_pb2.SubscribeResponse]:
        self.streams += 1
        self.quote_streams += request.HasField("quotes")
        try:
            async for message in self._subscribe(request):
                yield message
        finally:
            self.streams -= 1
            self.quote_streams -= request.HasField("quotes")

    async def _subscribe(self, request: Any) -> AsyncIterator[feed_service_pb2.SubscribeResponse]:
        response = feed_service_pb2.SubscribeResponse
        cursor = request.after_sequence if request.HasField("after_sequence") else self.head
        epoch = self.epoch
        if request.HasField("epoch") and request.epoch != epoch:
            raise EpochChanged(epoch, request.epoch)
        if cursor < self.compacted_through:
            if not request.snapshot:
                raise RemoteError("gone", remote_code=grpc.StatusCode.OUT_OF_RANGE, remote_reason="HISTORY_COMPACTED")
            gap = feed_service_pb2.Gap(reason=feed_service_pb2.GAP_REASON_COMPACTED, compacted_through=self.compacted_through, epoch=epoch)
            yield response(gap=gap)
            yield response(snapshot=self._state())
            cursor = self.head
        if cursor > self.head:
            raise SequenceAhead(cursor, self.head)
        quoted = 0
        while self.epoch == epoch:
            waiter = self._changed
            part = self._after(cursor, 256)
            if request.HasField("quotes") and quoted < len(self.quotes):
                yield response(quotes=feed_service_pb2.QuoteBatch(quotes=self.quotes[quoted:]))
                quoted = len(self.quotes)
            if part:
                chosen = [one for one in part if self._passes(one, request.filter)]
                yield response(
                    events=feed_service_pb2.EventBatch(
                        epoch=epoch, first_sequence=part[0].sequence, last_sequence=part[-1].sequence, events=chosen
                    )
                )
                cursor = part[-1].sequence
            elif self.ended:
                yield response(
                    end=feed_service_pb2.StreamEnd(reason=feed_service_pb2.STREAM_END_REASON_RUN_ENDED, resume_after_sequence=cursor)
                )
                return
            else:
                try:
                    await asyncio.wait_for(waiter.wait(), self.checkpoint_s)
                except TimeoutError:
                    if not self.silent:
                        yield response(checkpoint=feed_service_pb2.Checkpoint(through_sequence=cursor, head_sequence=self.head))

    def _passes(self, one: event_pb2.Event, wanted: feed_service_pb2.EventFilter) -> bool:
        return (
            (not wanted.kinds or one.WhichOneof("payload") in wanted.kinds)
            and (not wanted.agent_ids or one.agent_id in wanted.agent_ids)
            and (not wanted.tickers or any(ticker in wanted.tickers for ticker in tickers_of(one)))
        )

    async def ListEvents(self, request: Any, context: Any) -> feed_service_pb2.ListEventsResponse:
        if self.silent:
            await asyncio.Event().wait()
        size = request.page_size or 100
        found = self.events[::-1][:size] if request.newest_first else self._after(max(request.after_sequence, self.compacted_through), size)
        return feed_service_pb2.ListEventsResponse(events=found, head_sequence=self.head, compacted_through=self.compacted_through)

    async def GetSnapshot(self, request: Any, context: Any) -> feed_service_pb2.GetSnapshotResponse:
        return feed_service_pb2.GetSnapshotResponse(state=self._state())


@asynccontextmanager
async def told_edge(events: int = 0, feed: ScriptedFeed | None = None, **settings: Any) -> AsyncIterator[tuple[ScriptedFeed, EdgeServer]]:
    """A feed with so many events, or one that serves already, and an edge in this process before it."""
    if feed is None:
        feed = ScriptedFeed()
        await feed.start()
        feed.tell(events)
    target = f"127.0.0.1:{feed.port}"
    options: dict[str, Any] = {"edge_listen": "127.0.0.1:0", "edge_max_messages_per_s": 1_000, "edge_route_ttl_s": 0, **settings}
    edge = EdgeServer(EdgeSettings(runtime_target=target, trading_target=target, news_target=target, agent_target=target, **options))
    await edge.start()
    try:
        yield feed, edge
    finally:
        await edge.stop()
        await feed.stop()


class EdgeProcess:
    """The edge as a process before a scripted feed, on a port that it keeps."""

    def __init__(self, feed: ScriptedFeed, folder: Path, **settings: object) -> None:
        """`settings` are those of EdgeSettings, by name."""
        self.port = free_ports(1)[0]
        self._log = folder / "edge.log"
        target = f"127.0.0.1:{feed.port}"
        plain = {name: value for name, value in os.environ.items() if not name.startswith("TRADEMESH_")}
        targets = {f"TRADEMESH_{name}_TARGET": target for name in ("RUNTIME", "TRADING", "NEWS", "AGENT")}
        ours = {f"TRADEMESH_{name.upper()}": str(value) for name, value in settings.items()}
        self._environment = {**plain, **targets, **ours, "TRADEMESH_EDGE_LISTEN": f"127.0.0.1:{self.port}"}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def memory_bytes(self) -> int:
        """What it holds now."""
        assert self.process is not None
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def connections(self) -> int:
        """Connections that the kernel has for it on its port."""
        assert self.process is not None
        return sum(
            one.laddr.port == self.port and one.status == "ESTABLISHED" for one in psutil.Process(self.process.pid).net_connections()
        )

    async def start(self) -> None:
        """Starts it and waits until it serves."""
        self.process = self._spawn()
        await until(self._listens, 30)

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "trademesh_edge"], env=self._environment, stdout=log, stderr=log)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    async def wait(self) -> int:
        """Waits for its end."""
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, 20)

    async def stop(self) -> None:
        """Ends it."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            await self.wait()


@asynccontextmanager
async def edge_process(folder: Path, events: int = 0, **settings: object) -> AsyncIterator[tuple[ScriptedFeed, EdgeProcess]]:
    """A feed with so many events, and an edge as a process before it."""
    feed = ScriptedFeed()
    await feed.start()
    feed.tell(events)
    edge = EdgeProcess(feed, folder, **settings)
    await edge.start()
    try:
        yield feed, edge
    finally:
        await edge.stop()
        await feed.stop()
