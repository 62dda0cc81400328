"""One upstream subscription per run, shared by all browsers that follow it.

The hub reads the run's events once, unfiltered, into a ring, and flushes what is new to its lanes. When its source is lost it says so to
everyone, and looks for it until it is there again.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from trademesh.gateway.v1 import feed_service_pb2
from trademesh_edge.formats import Format
from trademesh_edge.lanes import BROWSERS_PER_BREATH, Lane
from trademesh_edge.methods import SUBSCRIBE
from trademesh_edge.quote_source import QuoteSource
from trademesh_edge.ring import EVERYTHING, EventRing, Filter
from trademesh_edge.settings import EdgeSettings
from trademesh_edge.upstream import FEED_RETRIES_S, Upstream, is_lost, reason_of, stream, unary
from trademesh_edge.wire import (
    FeedBatch,
    FeedEnd,
    FeedPage,
    checkpoint_payload,
    head_request,
    read_feed,
    read_page,
    span_payload,
    subscribe_request,
)
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import DependencyUnavailable, EpochChanged, TrademeshError
from trademesh_kernel.logs import get_logger

LIST_EVENTS = "/trademesh.gateway.v1.FeedService/ListEvents"
HEAD_TIMEOUT_S = 5.0
MAX_BACKOFF_S = 2.0
WARM_PART = 4
"""The newest part of the ring that is read at once: browsers that come back together, as after a restart of ours, find their place in it."""


class Follower(Protocol):
    """Somebody who is told when the source is lost or there again."""

    def source_changed(self) -> None:
        """`Hub.lost_because` has changed."""


class Channels:
    """Numbers of channels, unique within this edge."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        """A number that was never given before."""
        self._last = self._last % 0xFFFF_FFFF + 1
        return self._last


class Hub:
    """The feed of one run, for all browsers. `open` first; `close` at the end."""

    def __init__(self, run_id: str, upstream: Upstream, settings: EdgeSettings, channels: Channels) -> None:
        self.run_id = run_id
        self.upstream = upstream
        self.settings = settings
        self.channels = channels
        self.epoch = 0
        """0: no event was seen yet."""
        self.ring = self._empty_ring(0)
        self.compacted_through = 0
        self.ended = False
        """True when the run's last event is in the ring."""
        self._generation = 0
        """Of the gateway whose events are read, or were last."""
        self.failure: TrademeshError | None = None
        """Why nobody can follow this run here any more."""
        self.lost_because = ""
        """What is missing while the source is lost."""
        self.users = 0
        self.replays = 0
        self.history_slots = asyncio.Semaphore(settings.edge_history_streams)
        self.quotes = QuoteSource(run_id, upstream, settings)
        self.followers = set[Follower]()
        self._lanes: dict[tuple[Format, Filter], Lane] = {}
        self._changed = asyncio.Event()
        self._flushed = 0
        """How far the lanes are,"""
        self._flushed_at = 0.0
        """and since when."""
        self._flush_due = asyncio.Event()
        self._flush_timer: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._log = get_logger("hub").bind(run_id=run_id)

    def _empty_ring(self, after_sequence: int) -> EventRing:
        return EventRing(after_sequence, max_events=self.settings.edge_ring_events, max_bytes=self.settings.edge_ring_bytes)

    async def open(self) -> None:
        """Finds the journal's head and begins to read from a little before it; raises as `Upstream.run` and the feed's calls."""
        page = await self._find()
        self.compacted_through = page.compacted_through
        self.ring = self._empty_ring(max(page.compacted_through, page.head_sequence - self.settings.edge_ring_events // WARM_PART, 0))
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._flush_forever())]
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                while self.ring.last < page.head_sequence and self.failure is None:
                    await self.changed(self.ring.last, HEAD_TIMEOUT_S)
        except TimeoutError:
            await self.close()
            raise DependencyUnavailable("feed", f"the feed of {self.run_id} does not come: try again soon") from None
        except asyncio.CancelledError:
            await self.close()
            raise

    async def _find(self) -> FeedPage:
        """The journal's head, from whoever has the feed; or soon will have it, if the run's gateway ends just now."""
        for wait_s in (*FEED_RETRIES_S, None):
            try:
                run = await self.upstream.run(self.run_id, fresh=True)
                async with self.upstream.client(run.feed_target) as client:
                    return await self._head(client)
            except TrademeshError as error:
                if wait_s is None or not is_lost(error):
                    raise
            await asyncio.sleep(wait_s)
        raise AssertionError("the last round returns or raises")

    async def is_restarted(self) -> bool:
        """True if a run that had ended goes on, with a gateway that this hub does not know. Who cannot be asked says nothing else."""
        try:
            return (await self.upstream.run(self.run_id, fresh=True)).generation != self._generation
        except TrademeshError:
            return False

    async def _head(self, client: ServiceClient) -> FeedPage:
        return read_page(await unary(client, LIST_EVENTS, head_request(self.run_id), HEAD_TIMEOUT_S))

    async def close(self) -> None:
        """Ends the upstream and sends every browser away."""
        self.failure = self.failure or TrademeshError("the edge closes")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._stop_flush_timer()
        await self.quotes.close()
        self._expel_all()

    def lane(self, form: Format, chosen: Filter) -> Lane:
        """The lane of those who want these events; an empty one stands at the head."""
        lane = self._lanes.get((form, chosen))
        if lane is None or not lane.members:
            lane = Lane(self.channels.next(), form, chosen, self.ring.last, self.ring.last)
            if not self.ended:
                # Nobody stays in a lane of an ended run, and no flush would let go of it.
                self._lanes[form, chosen] = lane
        return lane

    async def changed(self, beyond: int, within_s: float) -> None:
        """Returns when the ring is beyond a sequence, when the hub ends or fails, at any other change, or after a while."""
        waiter = self._changed
        if self.ring.last > beyond or self.ended or self.failure is not None:
            # Never without a breath: who asks in a loop must not keep the loop from what it waits for.
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(within_s):
                await waiter.wait()
        except TimeoutError:
            return

    def _notify(self) -> None:
        waiter, self._changed = self._changed, asyncio.Event()
        waiter.set()
        if self.ring.last - self._flushed >= self.settings.edge_flush_events or self.ended or self.failure is not None:
            self._flush_due.set()
        elif self._flush_timer is None:
            loop = asyncio.get_running_loop()
            due_at = self._flushed_at + self.settings.edge_flush_interval_s
            if loop.time() >= due_at:
                self._flush_due.set()
            else:
                # One timer and one wake for a frame: a task that looks at each event would cost as much as the frame.
                self._flush_timer = loop.call_at(due_at, self._flush_due.set)

    async def _read(self) -> None:
        """Reads the upstream until the run has ended, and comes back to it whenever it is lost."""
        backoff_s = 0.1
        while not self.ended:
            before = self.ring.last
            wait_s, why = 0.05, "the feed's server goes down"
            try:
                wait_s = await self._read_once()
            except TrademeshError as error:
                if not is_lost(error) and reason_of(error) != "SEQUENCE_AHEAD":
                    self._fail(error)
                    return
                self._log.warning("upstream lost", error=error.message)
                wait_s, why = backoff_s, error.message
            except Exception:
                # A feed with a gap, or bytes that are none: nobody may wait for more of it.
                self._log.exception("the feed of a run is not what it should be")
                self._fail(TrademeshError("the feed of this run is damaged"))
                return
            backoff_s = 0.1 if self.ring.last > before else min(MAX_BACKOFF_S, backoff_s * 2)
            if not self.ended:
                await self._tell_source(why)
                self.upstream.forget(self.run_id)
                await asyncio.sleep(wait_s)

    async def _read_once(self) -> float:
        """Reads until the stream ends; returns after how long to come back."""
        run = await self.upstream.run(self.run_id, fresh=True)
        self._generation = run.generation
        async with self.upstream.client(run.feed_target) as client:
            # A feed that begins in silence says nothing for seconds: its server is asked whether it is there.
            await self._head(client)
            await self._tell_source("")
            request = subscribe_request(self.run_id, self.ring.last, self.epoch or None, EVERYTHING)
            async for payload in stream(client, SUBSCRIBE, request, idle_timeout_s=self.settings.edge_upstream_idle_s):
                part = read_feed(payload)
                if isinstance(part, FeedBatch):
                    if self.epoch not in (0, part.epoch):
                        raise EpochChanged(part.epoch, self.epoch)
                    self.epoch = part.epoch
                    if self.ring.append(part.events):
                        self._notify()
                elif isinstance(part, FeedEnd):
                    if part.run_ended:
                        self.ended = True
                        self._notify()
                    return part.retry_after_s
        return 0.05

    async def _tell_source(self, lost_because: str) -> None:
        """Says to everyone that the source is lost, or there again."""
        if bool(lost_because) == bool(self.lost_because):
            return
        self.lost_because = lost_because
        for number, follower in enumerate(list(self.followers), 1):
            follower.source_changed()
            if number % BROWSERS_PER_BREATH == 0:
                await asyncio.sleep(0)

    def _fail(self, error: TrademeshError) -> None:
        self._log.warning("feed failed", error=error.message)
        self.failure = error
        self._notify()
        self._expel_all()

    def _expel_all(self) -> None:
        for lane in self._lanes.values():
            lane.expel_all()

    async def _flush_forever(self) -> None:
        """Gives the lanes what is new: at once, but not sooner after the frame before than what comes meanwhile may share one."""
        while self.failure is None:
            try:
                async with asyncio.timeout(self.settings.edge_checkpoint_interval_s):
                    await self._flush_due.wait()
            except TimeoutError:
                pass
            self._flush_due.clear()
            self._stop_flush_timer()
            self._flushed = self.ring.last
            self._flushed_at = asyncio.get_running_loop().time()
            for lane in list(self._lanes.values()):
                await self._flush(lane)
            if self.ended and self._flushed == self.ring.last:
                self._expel_all()
                return

    def _stop_flush_timer(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None

    async def _flush(self, lane: Lane) -> None:
        now = asyncio.get_running_loop().time()
        if lane.uneven and lane.members:
            # The next span begins at one place for all.
            lane.uneven = False
            await self._send(lane, checkpoint_payload(lane.cursor, self.ring.last), lane.cursor)
        while lane.members and lane.cursor < self.ring.last:
            lane.expel_slow(self.settings.edge_slow_buffer_bytes)
            if not self.ring.covers(lane.cursor):
                # More came in one moment than the ring holds: everyone catches up from the journal.
                lane.expel_all()
                break
            part = self.ring.slice(lane.cursor, self.ring.last, lane.chosen)
            if part.events:
                lane.last_sent_at = now
                await self._send(lane, span_payload(self.epoch, lane.told, part), part.last_sequence)
            else:
                lane.cursor = part.last_sequence
        if lane.members and not self.lost_because and now - lane.last_sent_at >= self.settings.edge_checkpoint_interval_s:
            lane.last_sent_at = now
            await self._send(lane, checkpoint_payload(lane.cursor, self.ring.last), lane.cursor)
        key = (lane.form, lane.chosen)
        if not lane.members and self._lanes.get(key) is lane:
            del self._lanes[key]

    async def _send(self, lane: Lane, payload: bytes, cursor: int) -> None:
        await lane.send(lane.form.message(lane.channel, feed_service_pb2.SubscribeResponse, payload), cursor)
