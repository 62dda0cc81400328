"""One browser that follows one run: history first, then the ring, then the lane that all share; and back again when it falls behind, or
when it wants a pace of its own.

Its whole position is one integer, the cursor; that is why no hand-over can lose or repeat an event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from trademesh.gateway.v1 import feed_service_pb2
from trademesh_edge.browser import Browser
from trademesh_edge.feed_channel import FeedChannel
from trademesh_edge.hub import Hub
from trademesh_edge.lanes import Lane, Member
from trademesh_edge.methods import SUBSCRIBE
from trademesh_edge.pace import Pace, ReplayClock
from trademesh_edge.replay import END_OF_SESSION, ReplayReader, pace_or_events
from trademesh_edge.ring import Slice
from trademesh_edge.upstream import is_lost, reason_of, stream, unary
from trademesh_edge.wire import (
    FeedBatch,
    FeedEnd,
    FeedGap,
    FeedSnapshot,
    checkpoint_payload,
    end_payload,
    filter_of,
    gap_payload,
    read_feed,
    read_snapshot,
    span_payload,
    subscribe_request,
)
from trademesh_kernel.errors import EpochChanged, SequenceAhead, TrademeshError

CATCH_UP_WITH_WRITER_S = 1.0
"""A cursor may be ahead of our ring for as long as events take to reach us."""
HISTORY_TURN_S = 1.0
"""Who reads history lets others have a turn after so long,"""
HISTORY_PATIENCE_S = 0.25
"""or at once, if one batch is not taken in so soon."""
GET_SNAPSHOT = "/trademesh.gateway.v1.FeedService/GetSnapshot"


class Subscriber:
    """A Subscribe call of a browser. `run` returns when the run has ended."""

    __slots__ = ("_browser", "_channel", "_chosen", "_hub", "_lane", "_member", "_pace", "_request", "_told", "cursor")

    def __init__(self, call_id: int, request: feed_service_pb2.SubscribeRequest, hub: Hub, browser: Browser, pace: Pace) -> None:
        self._request = request
        self._hub = hub
        self._browser = browser
        self._pace = pace
        self._chosen = filter_of(request)
        self._channel = FeedChannel(call_id, hub, browser)
        self._member: Member | None = None
        self._lane: Lane | None = None
        self.cursor = 0
        self._told = 0
        """How far the browser knows that it is; behind the cursor while a filter lets nothing through."""

    @property
    def _bridges_gaps(self) -> bool:
        """True if the browser wants a snapshot where events are missing, and not the call's end."""
        return self._request.snapshot and self._request.HasField("after_sequence")

    async def run(self) -> None:
        """Follows the run to its end; raises what ends the call with an error, and BrowserGoneError."""
        hub = self._hub
        hub.followers.add(self)
        self._pace.on_change = self._leave_lane
        quotes: asyncio.Task[None] | None = None
        try:
            await self._channel.open()
            await self._begin()
            if self._request.HasField("quotes"):
                quotes = asyncio.create_task(self._send_quotes())
            while not await self._step():
                pass
        finally:
            hub.followers.discard(self)
            if quotes is not None:
                quotes.cancel()
                await asyncio.gather(quotes, return_exceptions=True)

    def source_changed(self) -> None:
        """Tells the browser that the feed's source is lost, or there again."""
        self._channel.tell_source_now()

    async def _step(self) -> bool:
        """Goes on by one piece, or waits until there is one; True at the run's end."""
        hub = self._hub
        self._pace.changed = False
        if hub.failure is not None:
            raise hub.failure
        if self._pace.seek is not None:
            await self._seek()
        if self._pace.active:
            return await self._replay()
        if not hub.ring.covers(self.cursor):
            await self._read_history()
            return False
        return await self._step_in_ring()

    async def _step_in_ring(self) -> bool:
        hub = self._hub
        lane = hub.lane(self._browser.form, self._chosen)
        if self.cursor > lane.cursor:
            # The lane is about to be flushed to where we are.
            await asyncio.sleep(max(0.001, hub.settings.edge_flush_interval_s))
        elif self.cursor < lane.cursor:
            part = hub.ring.slice(self.cursor, lane.cursor, self._chosen)
            await self._send_part(part)
        elif hub.ended and self.cursor == hub.ring.last:
            await self._channel.send(end_payload(self.cursor))
            return True
        elif self._channel.behind:
            # Waits until the buffer is below its mark, or for the stall time-out.
            await self._tell()
        elif not self._pace.changed:
            # A wish that came since this step began would not be heard in the lane.
            await self._follow(lane)
        return False

    async def _begin(self) -> None:
        """Finds the cursor to begin with, and sends the snapshot if one is wanted."""
        hub, request = self._hub, self._request
        changed = request.HasField("epoch") and hub.epoch not in (0, request.epoch)
        if changed and not self._bridges_gaps:
            raise EpochChanged(hub.epoch, request.epoch)
        if changed:
            gap = gap_payload(feed_service_pb2.GAP_REASON_EPOCH_CHANGED, hub.compacted_through, hub.epoch)
            await self._channel.send(gap)
            await self._send_snapshot()
        elif request.HasField("after_sequence"):
            self.cursor = self._told = request.after_sequence
        elif request.snapshot:
            await self._send_snapshot()
        else:
            self.cursor = self._told = hub.ring.last
        await self._wait_for_ring()

    async def _wait_for_ring(self) -> None:
        """Waits for the events that our cursor is ahead of the ring; raises SequenceAhead if they do not come."""
        hub = self._hub
        try:
            async with asyncio.timeout(CATCH_UP_WITH_WRITER_S):
                while self.cursor > hub.ring.last and hub.failure is None and not hub.ended:
                    await hub.changed(hub.ring.last, CATCH_UP_WITH_WRITER_S)
        except TimeoutError:
            pass
        if self.cursor > hub.ring.last and hub.failure is None:
            raise SequenceAhead(self.cursor, hub.ring.last)

    async def _send_snapshot(self) -> None:
        hub = self._hub
        run = await hub.upstream.run(hub.run_id)
        asked = feed_service_pb2.GetSnapshotRequest(run_id=hub.run_id).SerializeToString()
        async with hub.upstream.client(run.feed_target) as client:
            snapshot = read_snapshot(await unary(client, GET_SNAPSHOT, asked, hub.settings.edge_unary_timeout_s))
        await self._channel.send(snapshot.payload)
        self.cursor = self._told = snapshot.as_of_sequence

    async def _send_part(self, part: Slice) -> None:
        self.cursor = part.last_sequence
        if part.events:
            payload = span_payload(self._hub.epoch, self._told, part)
            self._told = part.last_sequence
            await self._channel.send(payload)

    async def _read_history(self) -> None:
        """Passes on what the ring no longer holds, from an upstream of our own, until the ring goes on from there or others want a turn."""
        hub = self._hub
        if self._told < self.cursor:
            # What comes begins after the cursor: without a word the span up to it would seem to be missing.
            await self._tell()
        await self._wait_for_turn()
        unsent: asyncio.Task[None] | None = None
        try:
            run = await hub.upstream.run(hub.run_id)
            request = subscribe_request(hub.run_id, self.cursor, hub.epoch or None, self._chosen, snapshot=self._bridges_gaps)
            async with (
                hub.upstream.client(run.feed_target) as client,
                aclosing(stream(client, SUBSCRIBE, request, idle_timeout_s=hub.settings.edge_upstream_idle_s)) as payloads,
            ):
                unsent = await self._pass_on(payloads)
        except TrademeshError as error:
            if not is_lost(error):
                raise
            hub.upstream.forget(hub.run_id)
            await hub.changed(hub.ring.last, 0.5)
        finally:
            hub.history_slots.release()
        if unsent is not None:
            await unsent

    async def _wait_for_turn(self) -> None:
        """Takes one of the run's few places for readers of history; says that we live while it waits."""
        while True:
            try:
                async with asyncio.timeout(self._hub.settings.edge_checkpoint_interval_s):
                    await self._hub.history_slots.acquire()
                return
            except TimeoutError:
                await self._tell()

    async def _pass_on(self, payloads: AsyncGenerator[bytes, None]) -> asyncio.Task[None] | None:
        """Returns what the browser is too slow to take in at once: that must not hold a place for readers of history."""
        hub, loop = self._hub, asyncio.get_running_loop()
        until = loop.time() + HISTORY_TURN_S
        async for payload in payloads:
            part = read_feed(payload)
            if isinstance(part, FeedEnd):
                if not part.run_ended:
                    hub.upstream.forget(hub.run_id)
                    await asyncio.sleep(part.retry_after_s)
                return None
            if isinstance(part, FeedBatch):
                self.cursor = self._told = part.last_sequence
            elif isinstance(part, FeedSnapshot):
                self.cursor = self._told = part.as_of_sequence
            if part is not None:
                sending = asyncio.create_task(self._channel.send(payload))
                if not await _done_within(sending, HISTORY_PATIENCE_S):
                    return sending
            others_wait = hub.history_slots.locked() and loop.time() > until
            in_ring = hub.ring.covers(self.cursor) and not isinstance(part, FeedGap)
            if in_ring or hub.failure is not None or self._pace.changed or others_wait:
                return None
        return None

    async def _tell(self) -> None:
        self._told = self.cursor
        await self._channel.send(checkpoint_payload(self.cursor, self._hub.ring.last))

    async def _follow(self, lane: Lane) -> None:
        """Joins the lane, and stays until it is sent away. Between the look at the lane's cursor and the joining nothing may wait."""
        if self._told < self.cursor:
            self._channel.send_now(checkpoint_payload(self.cursor, self._hub.ring.last))
        member = self._member = Member(self._browser, cursor=self.cursor)
        self._lane = lane
        self._channel.join_now(lane)
        lane.members.add(member)
        lane.uneven = lane.uneven or lane.told < self.cursor
        try:
            await member.expelled
        finally:
            lane.members.discard(member)
            self._member = self._lane = None
        self.cursor = self._told = member.cursor
        await self._channel.open()

    def _leave_lane(self) -> None:
        if self._member is not None and self._lane is not None:
            self._lane.expel(self._member)

    async def _seek(self) -> None:
        """Goes on elsewhere, on a new channel: so the browser can tell what comes from there."""
        seek = self._pace.take_seek()
        if seek is None:
            return
        await self._channel.open_anew()
        self.cursor = self._told = seek
        await self._wait_for_ring()

    async def _replay(self) -> bool:
        """Tells the run session by session, in the browser's own time, until it wants something else; True at the run's end."""
        hub, pace, loop = self._hub, self._pace, asyncio.get_running_loop()
        heartbeat_s = hub.settings.edge_checkpoint_interval_s
        clock = ReplayClock(loop.time())
        with ReplayReader(hub) as reader:
            while pace.active and pace.seek is None and hub.failure is None:
                pace.changed = False
                wait_s = heartbeat_s if pace.paused else min(heartbeat_s, clock.due_in_s(pace, loop.time()))
                if wait_s > 0:
                    await self._wait_for_pace(wait_s)
                    if pace.paused:
                        clock.restart(loop.time())
                    continue
                events = await reader.after(self.cursor)
                if not events:
                    if hub.ended and self.cursor == hub.ring.last:
                        await self._channel.send(end_payload(self.cursor))
                        return True
                    await pace_or_events(hub, pace, heartbeat_s if hub.ring.covers(self.cursor) else 0.5)
                    continue
                part = Slice(self.cursor + 1, events[-1].sequence, tuple(event for event in events if self._chosen.passes(event)))
                await self._send_part(part)
                if events[-1].kind == END_OF_SESSION:
                    clock.session_told(pace, loop.time())
        return False

    async def _wait_for_pace(self, within_s: float) -> None:
        """Waits for a change of the pace; says that we live if it was a heartbeat's time."""
        try:
            async with asyncio.timeout(within_s):
                await self._pace.wait()
        except TimeoutError:
            if within_s >= self._hub.settings.edge_checkpoint_interval_s and not self._hub.lost_because:
                await self._tell()

    async def _send_quotes(self) -> None:
        """Sends quotes beside the events: at send time the newest, and none while the browser is behind."""
        hub, chosen = self._hub, self._request.quotes
        tickers = frozenset(chosen.tickers)
        interval_s = max(hub.settings.edge_quote_interval_s, chosen.min_interval.ToMilliseconds() / 1000)
        version = 0
        async with hub.quotes.wanted():
            while True:
                await hub.quotes.changed(version)
                if not self._channel.behind:
                    frame = hub.quotes.frame(version, tickers, self._browser.form, self._channel.number)
                    version = hub.quotes.board.version
                    if frame is not None:
                        self._browser.send_now(frame)
                await asyncio.sleep(interval_s)


async def _done_within(task: asyncio.Task[None], within_s: float) -> bool:
    """Waits for a task; raises as it does. It goes on if the time is over, and ends with us if we are cancelled."""
    try:
        done, _ = await asyncio.wait((task,), timeout=within_s)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if done:
        task.result()
    return bool(done)


def history_is_over(error: TrademeshError) -> bool:
    """True if a cursor belongs to a journal that is no more: a snapshot helps."""
    return reason_of(error) in ("EPOCH_CHANGED", "HISTORY_COMPACTED")
