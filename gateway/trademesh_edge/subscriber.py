"""One browser that follows one run: history first, then the ring, then the lane that all share; and back again when it falls behind.

Its whole position is one integer, the cursor; that is why no hand-over can lose or repeat an event.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from google.protobuf.message import DecodeError

from trademesh.gateway.v1 import feed_service_pb2
from trademesh_edge.browser import Browser
from trademesh_edge.hub import FEED, Hub, Lane, Member, span_payload
from trademesh_edge.upstream import is_lost, stream, unary
from trademesh_edge.wire import (
    FeedBatch,
    FeedEnd,
    checkpoint_payload,
    end_payload,
    filter_of,
    message_frame,
    opened_frame,
    read_feed,
    read_snapshot,
    subscribe_request,
)
from trademesh_kernel.errors import EpochChanged, FieldViolation, InvalidRequest, SequenceAhead, TrademeshError
from trademesh_kernel.validation import check_request

CATCH_UP_WITH_WRITER_S = 1.0
"""A cursor may be ahead of our ring for as long as events take to reach us."""


def read_subscribe(request: bytes) -> feed_service_pb2.SubscribeRequest:
    """The request of a Subscribe call.

    Raises:
        InvalidRequest: it is not one, or breaks a constraint.
    """
    try:
        message = feed_service_pb2.SubscribeRequest.FromString(request)
    except DecodeError:
        raise InvalidRequest([FieldViolation("request", "is not a trademesh.gateway.v1.SubscribeRequest")]) from None
    check_request(message)
    return message


class Subscriber:
    """A Subscribe call of a browser. `run` returns when the run has ended."""

    def __init__(self, call_id: int, request: feed_service_pb2.SubscribeRequest, hub: Hub, browser: Browser) -> None:
        self._call_id = call_id
        self._request = request
        self._hub = hub
        self._browser = browser
        self._chosen = filter_of(request)
        self._channel = hub.channels.next()
        self._cursor = 0
        self._told = 0
        """How far the browser knows that it is; behind the cursor while a filter lets nothing through."""

    async def run(self) -> None:
        """Follows the run to its end; raises what ends the call with an error, and BrowserGoneError."""
        hub = self._hub
        await self._browser.send(opened_frame(self._call_id, self._channel))
        await self._begin()
        while True:
            if hub.failure is not None:
                raise hub.failure
            if not hub.ring.covers(self._cursor):
                await self._read_history()
                continue
            lane = hub.lane(self._chosen)
            if self._cursor > lane.cursor:
                # The lane is about to be flushed to where we are.
                await asyncio.sleep(max(0.001, hub.settings.edge_flush_interval_s))
            elif self._cursor < lane.cursor:
                await self._send_from_ring(lane.cursor)
            elif hub.ended and self._cursor == hub.ring.last:
                await self._browser.send(message_frame(self._channel, end_payload(self._cursor)))
                return
            elif self._browser.unsent_bytes > hub.settings.edge_slow_buffer_bytes:
                # Waits until the buffer is below its mark, or for the stall time-out.
                await self._tell()
            else:
                await self._follow(lane)

    async def _begin(self) -> None:
        """Finds the cursor to begin with, and sends the snapshot if one is wanted."""
        hub, request = self._hub, self._request
        if request.HasField("epoch") and hub.epoch and request.epoch != hub.epoch:
            raise EpochChanged(hub.epoch, request.epoch)
        if request.snapshot:
            run = await hub.upstream.run(hub.run_id)
            asked = feed_service_pb2.GetSnapshotRequest(run_id=hub.run_id).SerializeToString()
            async with hub.upstream.client(run.feed_target) as client:
                raw = await unary(client, f"{FEED}/GetSnapshot", asked, hub.settings.edge_unary_timeout_s)
            snapshot = read_snapshot(raw)
            await self._browser.send(message_frame(self._channel, snapshot.payload))
            self._cursor = snapshot.as_of_sequence
        else:
            self._cursor = request.after_sequence if request.HasField("after_sequence") else hub.ring.last
        self._told = self._cursor
        try:
            async with asyncio.timeout(CATCH_UP_WITH_WRITER_S):
                while self._cursor > hub.ring.last and hub.failure is None and not hub.ended:
                    await hub.changed(hub.ring.last, CATCH_UP_WITH_WRITER_S)
        except TimeoutError:
            pass
        if self._cursor > hub.ring.last and hub.failure is None:
            raise SequenceAhead(self._cursor, hub.ring.last)

    async def _send_from_ring(self, until: int) -> None:
        part = self._hub.ring.slice(self._cursor, until, self._chosen)
        self._cursor = part.last_sequence
        if part.events:
            payload = span_payload(self._hub.epoch, self._told, part)
            self._told = part.last_sequence
            await self._browser.send(message_frame(self._channel, payload))

    async def _read_history(self) -> None:
        """Passes on what the ring no longer holds, from an upstream of our own, until the ring goes on from there."""
        hub = self._hub
        async with hub.history_slots:
            run = await hub.upstream.run(hub.run_id)
            request = subscribe_request(hub.run_id, self._cursor, hub.epoch or None, self._chosen)
            try:
                async with (
                    hub.upstream.client(run.feed_target) as client,
                    aclosing(stream(client, f"{FEED}/Subscribe", request)) as payloads,
                ):
                    async for payload in payloads:
                        part = read_feed(payload)
                        if isinstance(part, FeedBatch):
                            self._cursor = self._told = part.last_sequence
                            await self._browser.send(message_frame(self._channel, payload))
                        if isinstance(part, FeedEnd) and not part.run_ended:
                            hub.upstream.forget(hub.run_id)
                            await asyncio.sleep(part.retry_after_s)
                        if isinstance(part, FeedEnd) or hub.ring.covers(self._cursor) or hub.failure is not None:
                            return
            except TrademeshError as error:
                if not is_lost(error):
                    raise
                hub.upstream.forget(hub.run_id)
                await hub.changed(hub.ring.last, 0.5)

    async def _tell(self) -> None:
        self._told = self._cursor
        await self._browser.send(message_frame(self._channel, checkpoint_payload(self._cursor, self._hub.ring.last)))

    async def _follow(self, lane: Lane) -> None:
        """Joins the lane, and stays until it is sent away. Between the look at the lane's cursor and the joining nothing may wait."""
        if self._told < self._cursor:
            self._browser.send_now(message_frame(self._channel, checkpoint_payload(self._cursor, self._hub.ring.last)))
        member = Member(self._browser)
        self._browser.send_now(opened_frame(self._call_id, lane.channel))
        lane.members.add(member)
        try:
            await member.expelled.wait()
        finally:
            lane.members.discard(member)
        self._cursor = self._told = member.cursor
        await self._browser.send(opened_frame(self._call_id, self._channel))
