"""One upstream subscription per run, shared by all browsers that follow it.

The hub reads the run's events once, unfiltered, into a ring, and flushes what is new to its lanes: a lane is all browsers that want the
same events and have everything up to the same place, so that a frame is encoded once for all of them. How one browser gets to its
lane, or falls behind, is in `subscriber.py`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from trademesh.gateway.v1 import feed_service_pb2
from trademesh_edge.browser import Browser, send_to_all
from trademesh_edge.ring import EventRing, Filter, Slice
from trademesh_edge.settings import EdgeSettings
from trademesh_edge.upstream import Upstream, is_lost, stream, unary
from trademesh_edge.wire import FeedBatch, FeedEnd, checkpoint_payload, events_payload, message_frame, read_feed, subscribe_request
from trademesh_kernel.errors import EpochChanged, RemoteError, TrademeshError
from trademesh_kernel.logs import get_logger

FEED = "/trademesh.gateway.v1.FeedService"
MAX_BACKOFF_S = 2.0
BROWSERS_PER_BREATH = 200
"""After a frame to so many browsers the loop gets to do other things."""


@dataclass(eq=False)
class Member:
    """A browser in a lane. `expelled` is set when it is no longer in it: it fell behind, or the hub ended."""

    browser: Browser
    expelled: asyncio.Event = field(default_factory=asyncio.Event)
    cursor: int = 0


@dataclass(eq=False)
class Lane:
    """Browsers that want the same events and have all up to `cursor`; they were told so up to `told`."""

    channel: int
    chosen: Filter
    cursor: int
    told: int
    members: set[Member] = field(default_factory=set)
    last_sent_at: float = 0.0

    def expel(self, member: Member) -> None:
        """Takes a browser out; it goes on by itself from the lane's cursor."""
        member.cursor = self.told
        self.members.discard(member)
        member.expelled.set()


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
        self.ring = EventRing(0, max_events=settings.edge_ring_events, max_bytes=settings.edge_ring_bytes)
        self.ended = False
        """True when the run's last event is in the ring."""
        self.failure: TrademeshError | None = None
        """Why nobody can follow this run here any more."""
        self.users = 0
        self.history_slots = asyncio.Semaphore(settings.edge_history_streams)
        self._lanes: dict[Filter, Lane] = {}
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._log = get_logger("hub").bind(run_id=run_id)

    async def open(self) -> None:
        """Finds the journal's head and begins to read from there; raises as `Upstream.run` and the feed's ListEvents."""
        run = await self.upstream.run(self.run_id, fresh=True)
        request = feed_service_pb2.ListEventsRequest(run_id=self.run_id, page_size=1, newest_first=True)
        async with self.upstream.client(run.feed_target) as client:
            raw = await unary(client, f"{FEED}/ListEvents", request.SerializeToString(), self.settings.edge_unary_timeout_s)
        answer = feed_service_pb2.ListEventsResponse.FromString(raw)
        self.ring = EventRing(answer.head_sequence, max_events=self.settings.edge_ring_events, max_bytes=self.settings.edge_ring_bytes)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._flush_forever())]

    async def close(self) -> None:
        """Ends the upstream and sends every browser away."""
        self.failure = self.failure or TrademeshError("the edge closes")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._expel_all()

    def lane(self, chosen: Filter) -> Lane:
        """The lane of those who want these events; an empty one stands at the head."""
        lane = self._lanes.get(chosen)
        if lane is None or not lane.members:
            lane = self._lanes[chosen] = Lane(self.channels.next(), chosen, self.ring.last, self.ring.last)
        return lane

    async def changed(self, beyond: int, within_s: float) -> None:
        """Returns when the ring is beyond a sequence, when the hub ends or fails, or after a while."""
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

    async def _read(self) -> None:
        """Reads the upstream until the run has ended, and comes back to it whenever it is lost."""
        backoff_s = 0.1
        while not self.ended:
            before = self.ring.last
            try:
                await self._read_once()
                wait_s = 0.05
            except TrademeshError as error:
                if not is_lost(error) and not (isinstance(error, RemoteError) and error.remote_reason == "SEQUENCE_AHEAD"):
                    self._fail(error)
                    return
                self._log.warning("upstream lost", error=error.message)
                wait_s = backoff_s
            except Exception:
                # A feed with a gap, or bytes that are none: nobody may wait for more of it.
                self._log.exception("the feed of a run is not what it should be")
                self._fail(TrademeshError("the feed of this run is damaged"))
                return
            backoff_s = 0.1 if self.ring.last > before else min(MAX_BACKOFF_S, backoff_s * 2)
            if not self.ended:
                self.upstream.forget(self.run_id)
                await asyncio.sleep(wait_s)

    async def _read_once(self) -> None:
        run = await self.upstream.run(self.run_id, fresh=True)
        request = subscribe_request(self.run_id, self.ring.last, self.epoch or None)
        async with self.upstream.client(run.feed_target) as client:
            async for payload in stream(client, f"{FEED}/Subscribe", request):
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
                    else:
                        await asyncio.sleep(part.retry_after_s)
                    return

    def _fail(self, error: TrademeshError) -> None:
        self._log.warning("feed failed", error=error.message)
        self.failure = error
        self._notify()
        self._expel_all()

    def _expel_all(self) -> None:
        for lane in self._lanes.values():
            for member in list(lane.members):
                lane.expel(member)

    async def _flush_forever(self) -> None:
        """Gives the lanes what is new: soon, but together with what comes in the next moment."""
        flushed = self.ring.last
        while self.failure is None:
            await self.changed(flushed, self.settings.edge_checkpoint_interval_s)
            if 0 < self.ring.last - flushed < self.settings.edge_flush_events and not self.ended:
                await asyncio.sleep(self.settings.edge_flush_interval_s)
            flushed = self.ring.last
            for lane in list(self._lanes.values()):
                await self._flush(lane)
            if self.ended and flushed == self.ring.last:
                self._expel_all()
                return

    async def _flush(self, lane: Lane) -> None:
        now = asyncio.get_running_loop().time()
        while lane.members and lane.cursor < self.ring.last:
            for member in [each for each in lane.members if each.browser.unsent_bytes > self.settings.edge_slow_buffer_bytes]:
                lane.expel(member)
            if not self.ring.covers(lane.cursor):
                # More came in one moment than the ring holds: everyone catches up from the journal.
                for member in list(lane.members):
                    lane.expel(member)
                break
            part = self.ring.slice(lane.cursor, self.ring.last, lane.chosen)
            if part.events:
                frame = message_frame(lane.channel, span_payload(self.epoch, lane.told, part))
                lane.told = part.last_sequence
                lane.last_sent_at = now
                await self._send(lane, frame, part.last_sequence)
            else:
                lane.cursor = part.last_sequence
        if lane.members and now - lane.last_sent_at >= self.settings.edge_checkpoint_interval_s:
            lane.told = lane.cursor
            lane.last_sent_at = now
            await self._send(lane, message_frame(lane.channel, checkpoint_payload(lane.cursor, self.ring.last)), lane.cursor)
        if not lane.members and self._lanes.get(lane.chosen) is lane:
            del self._lanes[lane.chosen]

    async def _send(self, lane: Lane, frame: bytes, cursor: int) -> None:
        """The cursor moves first: who joins while we breathe is not sent what the frame holds, and does not need it."""
        members = list(lane.members)
        lane.cursor = cursor
        for start in range(0, len(members), BROWSERS_PER_BREATH):
            if start:
                await asyncio.sleep(0)
            send_to_all((member.browser for member in members[start : start + BROWSERS_PER_BREATH] if member in lane.members), frame)


def span_payload(epoch: int, told: int, part: Slice) -> bytes:
    """A batch that begins where the reader was last told of, so that spans join without a gap even where a filter leaves events out."""
    return events_payload(epoch, replace(part, first_sequence=told + 1))
