"""The hub of the edge without a mesh: whoever waits gives others their turn, and nothing is kept for who has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from trademesh.gateway.v1 import event_pb2, feed_service_pb2
from trademesh.runtime.v1 import runtime_pb2
from trademesh_edge.formats import BINARY, Format
from trademesh_edge.hub import Channels, Hub
from trademesh_edge.hubs import Hubs
from trademesh_edge.lanes import Lane, Member
from trademesh_edge.pace import Pace
from trademesh_edge.ring import Filter
from trademesh_edge.settings import EdgeSettings
from trademesh_edge.subscriber import Subscriber
from trademesh_edge.wire import read_feed
from trademesh_kernel.errors import SequenceAhead
from waiting import until


class Sink:
    """Stands for a browser's socket: keeps what is sent."""

    unsent_bytes = 0
    form: Format = BINARY

    def __init__(self) -> None:
        self.frames = list[bytes]()

    async def send(self, frame: bytes) -> None:
        self.frames.append(frame)

    def send_now(self, frame: bytes) -> None:
        self.frames.append(frame)


class NoUpstream:
    """Stands for a mesh that takes its time: `opened` is set when a hub asks."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def run(self, run_id: str, *, fresh: bool = False) -> runtime_pb2.Run:
        self.asked.set()
        await self.answer.wait()
        return runtime_pb2.Run(run_id=run_id, feed_target="nowhere")

    @asynccontextmanager
    async def client(self, target: str) -> AsyncIterator[Any]:
        yield self

    @property
    def channel(self) -> Any:
        return self

    def unary_unary(self, _method: str) -> Any:
        return None

    def unary_stream(self, _method: str) -> Any:
        return None

    async def call(self, _method: Any, _request: bytes, *, timeout_s: float) -> bytes:
        return feed_service_pb2.ListEventsResponse(head_sequence=0).SerializeToString()

    async def stream(self, _method: Any, _request: bytes) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    def forget(self, run_id: str) -> None:
        pass


def batch(first: int, last: int) -> Any:
    """Events as the upstream sends them."""
    events = [event_pb2.Event(sequence=number, session_opened=event_pb2.SessionOpened()) for number in range(first, last + 1)]
    message = feed_service_pb2.SubscribeResponse(
        events=feed_service_pb2.EventBatch(epoch=1, first_sequence=first, last_sequence=last, events=events)
    )
    return read_feed(message.SerializeToString())


def hub_with(through: int) -> Hub:
    hub = Hub("demo", NoUpstream(), EdgeSettings(), Channels())  # type: ignore[arg-type]  # a stand-in
    hub.epoch = 1
    if through:
        hub.ring.append(batch(1, through).events)
    return hub


async def test_who_waits_for_an_ended_hub_gives_others_their_turn() -> None:
    hub = hub_with(3)
    hub.ended = True
    # A lane that the flush has not reached yet, as in the moment in which a run ends.
    lane = hub.lane(BINARY, Filter())
    lane.cursor = lane.told = 2
    lane.members.add(Member(Sink()))  # type: ignore[arg-type]  # a stand-in
    browser = Sink()
    subscriber = Subscriber(1, feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=3), hub, browser, Pace())  # type: ignore[arg-type]  # a stand-in
    following = asyncio.create_task(subscriber.run())

    async def flush_at_last() -> None:
        lane.cursor = lane.told = 3

    await asyncio.wait_for(asyncio.gather(following, flush_at_last()), 5)
    assert browser.frames


async def test_a_lane_that_is_left_takes_no_newer_one_with_it() -> None:
    hub = hub_with(3)
    old = Lane(7, BINARY, Filter(), 3, 3)
    newer = hub.lane(BINARY, Filter())
    newer.members.add(Member(Sink()))  # type: ignore[arg-type]  # a stand-in
    await hub._flush(old)
    assert hub.lane(BINARY, Filter()) is newer


async def test_a_cursor_ahead_of_the_ring_waits_for_events_that_are_on_their_way() -> None:
    hub = hub_with(10)
    request = feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=25)
    subscriber = Subscriber(1, request, hub, Sink(), Pace())  # type: ignore[arg-type]  # a stand-in
    beginning = asyncio.create_task(subscriber._begin())
    for first in (11, 21):
        await asyncio.sleep(0.01)
        hub.ring.append(batch(first, first + 9).events)
        hub._notify()
    await asyncio.wait_for(beginning, 5)


async def test_a_cursor_that_no_event_reaches_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trademesh_edge.subscriber.CATCH_UP_WITH_WRITER_S", 0.02)
    request = feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=25)
    with pytest.raises(SequenceAhead):
        await Subscriber(1, request, hub_with(10), Sink(), Pace())._begin()  # type: ignore[arg-type]  # a stand-in


async def test_a_cursor_beyond_a_run_that_has_ended_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trademesh_edge.subscriber.CATCH_UP_WITH_WRITER_S", 3600.0)
    hub = hub_with(10)
    hub.ended = True
    request = feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=25)
    with pytest.raises(SequenceAhead):
        await asyncio.wait_for(Subscriber(1, request, hub, Sink(), Pace())._begin(), 5)  # type: ignore[arg-type]  # a stand-in


async def test_a_browser_that_leaves_while_a_hub_opens_leaves_nothing_behind() -> None:
    upstream = NoUpstream()
    hubs = Hubs(upstream, EdgeSettings(edge_hub_linger_s=0.01), Channels())  # type: ignore[arg-type]  # a stand-in

    async def follow() -> None:
        async with hubs.following("demo"):
            raise AssertionError("it has left")

    browser = asyncio.create_task(follow())
    await upstream.asked.wait()
    browser.cancel()
    upstream.answer.set()
    await until(lambda: not hubs._opening)
    await hubs.close()


async def test_a_feed_that_is_not_what_it_should_be_ends_with_an_error() -> None:
    class Broken(NoUpstream):
        async def stream(self, _method: Any, _request: bytes) -> AsyncIterator[bytes]:
            yield b"\xff\xff"

    upstream = Broken()
    upstream.answer.set()
    hub = Hub("demo", upstream, EdgeSettings(), Channels())  # type: ignore[arg-type]  # a stand-in
    await hub.open()
    await until(lambda: hub.failure is not None)
    await hub.close()
