"""The hub of the edge without a mesh: whoever waits gives others their turn, and nothing is kept for who has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from trademesh.edge.v1 import frame_pb2
from trademesh.gateway.v1 import event_pb2, feed_service_pb2
from trademesh.runtime.v1 import runtime_pb2
from trademesh_edge.formats import BINARY, Format
from trademesh_edge.hub import Channels, Hub
from trademesh_edge.hubs import Hubs
from trademesh_edge.lanes import Lane, Member
from trademesh_edge.pace import Pace
from trademesh_edge.quote_source import MOST_FRAMES
from trademesh_edge.ring import Filter
from trademesh_edge.settings import EdgeSettings
from trademesh_edge.subscriber import Subscriber
from trademesh_edge.wire import RingQuote, read_feed
from trademesh_kernel.errors import NotFound, SequenceAhead
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


def read_batch(events: list[event_pb2.Event]) -> Any:
    """These events as a ring takes them in."""
    first, last = events[0].sequence, events[-1].sequence
    part = feed_service_pb2.EventBatch(epoch=1, first_sequence=first, last_sequence=last, events=events)
    return read_feed(feed_service_pb2.SubscribeResponse(events=part).SerializeToString()).events  # type: ignore[union-attr]  # a batch


def hub_with(through: int) -> Hub:
    hub = Hub("demo", NoUpstream(), EdgeSettings(), Channels())  # type: ignore[arg-type]  # a stand-in
    hub.epoch = 1
    if through:
        hub.ring.append(batch(1, through).events)
    return hub


async def test_who_waits_for_an_ended_hub_gives_others_their_turn() -> None:
    hub = hub_with(3)
    # A lane that the flush has not reached yet, as in the moment in which a run ends.
    lane = hub.lane(BINARY, Filter())
    hub.ended = True
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


async def test_who_leaves_a_crowded_lane_goes_on_from_before_a_frame_that_has_not_reached_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trademesh_edge.lanes.BROWSERS_PER_BREATH", 2)
    reached = list[Any]()
    monkeypatch.setattr("trademesh_edge.lanes.send_to_all", lambda browsers, _frame, _form: reached.extend(browsers))
    members = [Member(Sink(), cursor=3) for _ in range(5)]  # type: ignore[arg-type]  # a stand-in
    lane = Lane(7, BINARY, Filter(), 3, 3, set(members))
    sending = asyncio.create_task(lane.send(b"4 to 6", 6))
    # One turn of the loop: the first two are reached, and the lane breathes.
    await asyncio.sleep(0)
    lane.expel_all()
    await sending
    for member in members:
        assert member.cursor == (6 if member.browser in reached else 3)
    assert len(reached) == 2


async def test_spans_join_for_all_of_a_lane_whose_filter_lets_little_through() -> None:
    hub = hub_with(3)
    chosen = Filter(kinds=frozenset({"settled"}))
    lane = hub.lane(BINARY, chosen)
    early = Member(Sink(), cursor=3)  # type: ignore[arg-type]  # a stand-in
    lane.members.add(early)
    lane.cursor = 3
    hub.ring.append(batch(4, 6).events)
    sent = list[bytes]()

    async def keep(_self: Lane, frame: bytes, cursor: int) -> None:
        sent.append(frame)
        lane.cursor = lane.told = cursor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lane, "send", keep)
        patch.setattr(Lane, "expel_slow", lambda _self, _most: None)
        lane.last_sent_at = asyncio.get_running_loop().time()
        await hub._flush(lane)
        assert (lane.cursor, lane.told, sent) == (6, 3, [])
        request = feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=6)
        request.filter.kinds.append("settled")
        late = asyncio.create_task(Subscriber(1, request, hub, Sink(), Pace()).run())  # type: ignore[arg-type]  # a stand-in
        await until(lambda: len(lane.members) == 2)
        settled = event_pb2.Event(sequence=7, settled=event_pb2.Settled())
        hub.ring.append(read_batch([settled]))
        await hub._flush(lane)
    told = [feed_service_pb2.SubscribeResponse.FromString(frame_pb2.EdgeFrame.FromString(frame).message.payload) for frame in sent]
    assert [one.WhichOneof("kind") for one in told] == ["checkpoint", "events"]
    assert told[0].checkpoint.through_sequence == 6
    assert told[1].events.first_sequence == 7
    lane.expel_all()
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)


async def test_a_run_that_cannot_be_followed_takes_nobodys_place_when_everyone_has_left() -> None:
    class Refusing(NoUpstream):
        async def run(self, run_id: str, *, fresh: bool = False) -> runtime_pb2.Run:
            await super().run(run_id, fresh=fresh)
            raise NotFound("run", run_id)

    upstream = Refusing()
    hubs = Hubs(upstream, EdgeSettings(), Channels())  # type: ignore[arg-type]  # a stand-in

    async def follow() -> None:
        async with hubs.following("nobody"):
            raise AssertionError("there is none")

    browser = asyncio.create_task(follow())
    await upstream.asked.wait()
    browser.cancel()
    await asyncio.gather(browser, return_exceptions=True)
    upstream.answer.set()
    await until(lambda: not hubs._opening)


async def test_lanes_of_a_run_that_has_ended_are_not_kept() -> None:
    hub = hub_with(3)
    hub.ended = True
    for number in range(50):
        hub.lane(BINARY, Filter(tickers=frozenset({str(number)})))
    assert not hub._lanes


async def test_frames_of_quotes_that_do_not_move_are_bounded() -> None:
    quotes = hub_with(3).quotes
    quotes.board.put("AAPL", RingQuote("AAPL", b"quote"))
    for channel in range(1, 500):
        assert quotes.frame(0, frozenset(), BINARY, channel)
    assert len(quotes._frames) <= MOST_FRAMES


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
