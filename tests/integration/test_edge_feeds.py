"""The edge before a feed that does what the test says: both forms of frames, paces, quotes, gaps, and a source that comes and goes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from edge_client import SUBSCRIBE, EdgeClient, edge_client
from scripted_feed import RUN, told_edge
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from trademesh.edge.v1 import frame_pb2
from trademesh.gateway.v1 import feed_service_pb2
from trademesh_edge.server import EdgeServer
from waiting import until

pytestmark = pytest.mark.timeout(60)


def subscribe(**fields: Any) -> feed_service_pb2.SubscribeRequest:
    return feed_service_pb2.SubscribeRequest(run_id=RUN, **fields)


async def begin(client: EdgeClient, **fields: Any) -> int:
    return await client.begin(SUBSCRIBE, subscribe(**fields).SerializeToString())


async def collect(messages: AsyncIterator[feed_service_pb2.SubscribeResponse | frame_pb2.Status], through: int) -> list[int]:
    """Sequences up to one, in the order in which they come; asserts that spans join."""
    seen, told = list[int](), None
    async for message in messages:
        assert isinstance(message, feed_service_pb2.SubscribeResponse), message
        if message.HasField("events"):
            assert told is None or message.events.first_sequence == told + 1
            told = message.events.last_sequence
            seen += [one.sequence for one in message.events.events]
            if told >= through:
                return seen
        if message.HasField("checkpoint"):
            told = message.checkpoint.through_sequence
            if told >= through:
                return seen
    raise AssertionError("the feed ended")


class JsonClient:
    """A socket that speaks JSON."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def send(self, frame: dict[str, Any]) -> None:
        await self.connection.send(json.dumps(frame))

    async def receive(self, kind: str) -> Any:
        while True:
            data = await self.connection.recv()
            assert isinstance(data, str)
            frame = json.loads(data)
            if kind in frame:
                return frame[kind]


def json_socket(port: int) -> Any:
    return connect(f"ws://127.0.0.1:{port}/v1/socket", subprotocols=[Subprotocol("trademesh.v1+json")], proxy=None)


async def test_json_frames_tell_the_same_story_as_binary_ones() -> None:
    async with told_edge(1_000) as (feed, edge), edge_client(edge.port) as binary, json_socket(edge.port) as socket:
        client = JsonClient(socket)
        await client.send({"hello": {"client": "test"}, "aFieldOfTomorrow": {"x": 1}})
        assert (await client.receive("welcome"))["maxCalls"] == 32
        await client.send({"call": {"id": 1, "method": SUBSCRIBE, "request": {"runId": RUN, "afterSequence": "0", "new": 1}}})
        told = list[dict[str, Any]]()
        feed.tell(1)
        while len(told) < 1_001:
            told += (await client.receive("message"))["payload"].get("events", {}).get("events", [])
        assert [int(one["sequence"]) for one in told] == list(range(1, 1_002))
        assert told[0]["orderFilled"]["cashMicros"] == str(2**60 + 1)
        assert await collect(binary.subscribe(subscribe(after_sequence=0)), 1_001) == list(range(1, 1_002))


async def test_json_errors_stand_inline_and_leave_the_socket_open() -> None:
    async with told_edge(10) as (_, edge), json_socket(edge.port) as socket:
        client = JsonClient(socket)
        await client.send({"hello": {}})
        await client.send({"call": {"id": 1, "method": SUBSCRIBE, "request": {"runId": RUN, "afterSequence": "99999"}}})
        status = await client.receive("status")
        assert status["code"] == 11
        assert status["details"]["details"][0]["reason"] == "SEQUENCE_AHEAD"
        await client.send({"call": {"id": 2, "method": SUBSCRIBE, "request": {"runId": 7}}})
        assert (await client.receive("status"))["code"] == 3
        await client.send({"call": {"id": 3, "method": "/nobody.v1.Knows/This", "request": {"whatever": 1}}})
        assert (await client.receive("status"))["code"] == 7
        await client.send({"ping": {"nonce": "18446744073709551615"}})
        assert (await client.receive("pong"))["nonce"] == "18446744073709551615"


@pytest.mark.parametrize(
    "frame", ["[]", "{", '{"tomorrow": {}}', '{"hello": {}, "ping": {}}', "[" * 60_000, b"{}", '{"welcome": {}}', '{"call": 7}']
)
async def test_what_is_no_json_frame_closes_the_socket_with_4400(frame: str | bytes) -> None:
    async with told_edge() as (_, edge), json_socket(edge.port) as socket:
        await socket.send('{"hello": {}}')
        await socket.recv()
        await socket.send(frame)
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == frame_pb2.CLOSE_CODE_PROTOCOL


async def test_welcome_tells_the_limits_and_a_token_is_asked_for() -> None:
    async with told_edge(edge_token="open sesame", edge_max_messages_per_s=7, edge_checkpoint_interval_s=3) as (_, edge):
        async with edge_client(edge.port, token="open sesame") as client:
            assert (client.welcome.heartbeat_s, client.welcome.max_messages_per_s, client.welcome.max_calls) == (3, 7, 32)
        with pytest.raises(ConnectionClosed) as closed:
            async with edge_client(edge.port, token="open sesam"):
                pass
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == frame_pb2.CLOSE_CODE_UNAUTHENTICATED


async def test_a_replay_of_one_browsers_own_counts_sessions_and_nobody_else_notices() -> None:
    async with told_edge(400, edge_ring_events=64) as (feed, edge), edge_client(edge.port) as paced, edge_client(edge.port) as other:
        call = await begin(paced, after_sequence=0)
        await paced.pace(call, sessions_per_s=20.0)
        await paced.pace(call, seek_after_sequence=0)
        before = await until_seek(paced, call)
        messages = paced.messages(call)
        began = time.monotonic()
        reading = asyncio.create_task(collect(messages, 40))
        assert await asyncio.wait_for(collect(other.subscribe(subscribe(after_sequence=0)), 400), 10) == list(range(1, 401))
        assert await reading == list(range(1, 41)), before
        # Ten sessions at twenty a second; the first is due after one step.
        assert time.monotonic() - began >= 0.4
        await paced.pace(call, sessions_per_s=0.0)
        assert await asyncio.wait_for(collect(messages, 400), 10) == list(range(41, 401))
        feed.tell(4)
        assert await asyncio.wait_for(collect(messages, 404), 10) == [401, 402, 403, 404]


async def until_seek(client: EdgeClient, call: int) -> int:
    """Reads what was on its way before a seek; the channel that comes with it is a new one."""
    channels = set[int]()
    while True:
        frame = await client.receive()
        if frame.WhichOneof("kind") == "opened" and frame.opened.id == call:
            channels.add(frame.opened.channel)
            client.channel = frame.opened.channel
            if len(channels) == 2:
                return frame.opened.channel


async def test_a_paused_feed_stands_still_and_goes_on_where_it_was() -> None:
    async with told_edge(8, edge_checkpoint_interval_s=0.2) as (feed, edge), edge_client(edge.port) as client:
        call = await begin(client, after_sequence=0)
        messages = client.messages(call)
        assert await collect(messages, 8) == list(range(1, 9))
        await client.pace(call, paused=True)
        await client.send(ping=frame_pb2.Ping(nonce=1))
        while (await client.receive()).WhichOneof("kind") != "pong":
            pass
        feed.tell(100)
        # Heartbeats tell where it stands; nothing else comes.
        heartbeats = 0
        async for message in messages:
            assert isinstance(message, feed_service_pb2.SubscribeResponse)
            assert not message.HasField("events")
            heartbeats += message.checkpoint.through_sequence == 8
            if heartbeats == 3:
                break
        await client.pace(call, paused=False)
        assert await asyncio.wait_for(collect(client.messages(call), 108), 10) == list(range(9, 109))


async def test_a_seek_goes_back_and_forward_on_a_new_channel() -> None:
    async with told_edge(2_000, edge_ring_events=64) as (_, edge), edge_client(edge.port) as client:
        call = await begin(client, after_sequence=1_990)
        assert await collect(client.messages(call), 2_000) == list(range(1_991, 2_001))
        for place in (10, 1_500, 1_999):
            channel = client.channel
            await client.pace(call, seek_after_sequence=place)
            assert await asyncio.wait_for(collect(client.messages(call), 2_000), 10) == list(range(place + 1, 2_001))
            assert client.channel != channel
        await client.pace(call, seek_after_sequence=999_999)
        async for message in client.messages(call):
            if isinstance(message, frame_pb2.Status):
                assert message.code == 11
                break


async def test_a_paced_run_that_ends_says_so() -> None:
    async with told_edge(12) as (feed, edge), edge_client(edge.port) as client:
        feed.finish()
        call = await begin(client, after_sequence=4)
        await client.pace(call, sessions_per_s=50.0)
        kinds = list[str]()
        async for message in client.messages(call):
            if isinstance(message, frame_pb2.Status):
                assert message.code == 0
                break
            kinds.append(message.WhichOneof("kind") or "")
        assert kinds[-1] == "end"


async def test_replays_are_bounded_and_a_refusal_says_when_to_come_back() -> None:
    async with told_edge(40, edge_max_replays=1) as (_, edge), edge_client(edge.port) as first, edge_client(edge.port) as second:
        call = await begin(first, after_sequence=0)
        await first.pace(call, paused=True)
        await first.pace(call, seek_after_sequence=0)
        await until_seek(first, call)
        await first.send(ping=frame_pb2.Ping(nonce=1))
        while (await first.receive()).WhichOneof("kind") != "pong":
            pass
        refused = await begin(second, after_sequence=0)
        await second.pace(refused, sessions_per_s=1.0)
        async for message in second.messages(refused):
            if isinstance(message, frame_pb2.Status):
                assert message.code == 8
                assert message.retry_after_ms > 0
                break


@pytest.mark.parametrize("speed", [-1.0, float("nan"), float("inf")])
async def test_a_speed_that_cannot_be_is_a_fault_of_the_protocol(speed: float) -> None:
    async with told_edge(4) as (_, edge), edge_client(edge.port) as client:
        call = await begin(client, after_sequence=0)
        await client.pace(call, sessions_per_s=speed)
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(collect(client.messages(call), 5), 10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == frame_pb2.CLOSE_CODE_PROTOCOL


async def test_filters_by_ticker_hold_in_the_ring_and_in_history() -> None:
    async with told_edge(2_000, edge_ring_events=64) as (feed, edge), edge_client(edge.port) as client:
        request = subscribe(after_sequence=0)
        request.filter.tickers.append("AAPL")
        request.filter.kinds.append("order_filled")
        call = await client.begin(SUBSCRIBE, request.SerializeToString())
        seen = asyncio.create_task(collect(client.messages(call), 2_999))
        feed.tell(1_000)
        expected = [
            one.sequence for one in feed.events if one.order_filled.ticker == "AAPL" and one.WhichOneof("payload") == "order_filled"
        ]
        assert await asyncio.wait_for(seen, 20) == [sequence for sequence in expected if sequence <= 2_999]


async def test_an_unknown_kind_in_a_filter_is_refused() -> None:
    async with told_edge(4) as (_, edge), edge_client(edge.port) as client:
        request = subscribe(after_sequence=0)
        request.filter.kinds.append("no_such_kind")
        _, status = await client.unary(SUBSCRIBE, request)
        assert status.code == 3


async def test_quotes_are_conflated_filtered_and_asked_for_only_while_somebody_wants_them() -> None:
    async with told_edge(4) as (feed, edge), edge_client(edge.port) as client, edge_client(edge.port) as plain:
        await begin(plain, after_sequence=0)
        await until(lambda: feed.streams == 1)
        assert feed.quote_streams == 0
        request = subscribe(after_sequence=0)
        request.quotes.tickers.append("AAPL")
        call = await client.begin(SUBSCRIBE, request.SerializeToString())
        await until(lambda: feed.quote_streams == 1)
        for price in range(1, 501):
            feed.quote("AAPL", price)
            feed.quote("MSFT", price)
        prices = list[int]()
        async for message in client.messages(call):
            assert isinstance(message, feed_service_pb2.SubscribeResponse)
            for quote in message.quotes.quotes:
                assert quote.ticker == "AAPL"
                prices.append(quote.price_micros)
            if prices and prices[-1] == 500:
                break
        assert len(prices) < 10
        assert prices == sorted(prices)
        await client.send(cancel=frame_pb2.Cancel(id=call))
        await until(lambda: feed.quote_streams == 0)


async def test_a_lost_source_is_told_to_all_and_to_who_comes_later_and_leaves_no_gap() -> None:
    async with told_edge(8) as (feed, edge), edge_client(edge.port) as client, edge_client(edge.port) as late:
        call = await begin(client, after_sequence=0)
        story = asyncio.create_task(collect(client.messages(call), 16))
        await until(lambda: client.last_sequence == 8)
        await feed.stop()
        await until(lambda: [one.state for one in client.source] == [frame_pb2.UPSTREAM_STATE_LOST])
        assert client.source[0].reason
        # The hub stands, so that who comes now finds it; runtime_service is away with the feed here.
        late_call = await begin(late, after_sequence=0)
        late_story = asyncio.create_task(collect(late.messages(late_call), 16))
        await until(lambda: [one.state for one in late.source][:1] == [frame_pb2.UPSTREAM_STATE_LOST])
        await feed.start()
        await until(lambda: client.source[-1].state == frame_pb2.UPSTREAM_STATE_CONNECTED)
        await until(lambda: late.source[-1].state == frame_pb2.UPSTREAM_STATE_CONNECTED)
        feed.tell(8)
        assert await asyncio.wait_for(story, 10) == await asyncio.wait_for(late_story, 10) == list(range(1, 17))


async def test_a_source_that_falls_silent_is_lost() -> None:
    async with told_edge(8, edge_upstream_idle_s=1.0) as (feed, edge), edge_client(edge.port) as client:
        call = await begin(client, after_sequence=0)
        story = asyncio.create_task(collect(client.messages(call), 12))
        await until(lambda: client.last_sequence == 8)
        feed.silent = True
        await until(lambda: client.source and client.source[-1].state == frame_pb2.UPSTREAM_STATE_LOST)
        feed.silent = False
        feed.tell(4)
        assert await asyncio.wait_for(story, 20) == list(range(1, 13))
        assert client.source[-1].state == frame_pb2.UPSTREAM_STATE_CONNECTED


async def gap_of(client: EdgeClient, request: feed_service_pb2.SubscribeRequest, then: int) -> tuple[feed_service_pb2.Gap, int, list[int]]:
    """The gap, the snapshot's sequence, and the events after it up to one."""
    gap, start, seen = feed_service_pb2.Gap(), -1, list[int]()
    async for message in client.subscribe(request):
        assert isinstance(message, feed_service_pb2.SubscribeResponse), message
        if message.HasField("gap"):
            gap.CopyFrom(message.gap)
        if message.HasField("snapshot"):
            assert gap.reason
            start = message.snapshot.as_of_sequence
            if start >= then:
                return gap, start, seen
        seen += [one.sequence for one in message.events.events]
        if seen and seen[-1] >= then:
            return gap, start, seen
    raise AssertionError("the feed ended")


async def test_history_that_is_gone_is_a_gap_and_a_snapshot_or_a_refusal() -> None:
    async with told_edge(1_000) as (feed, edge), edge_client(edge.port) as client:
        feed.compact(900)
        _, status = await client.unary(SUBSCRIBE, subscribe(after_sequence=5))
        assert status.code == 11
        assert b"HISTORY_COMPACTED" in status.details
        gap, start, _ = await gap_of(client, subscribe(after_sequence=5, snapshot=True), 1_000)
        assert (gap.reason, gap.compacted_through, start) == (feed_service_pb2.GAP_REASON_COMPACTED, 900, 1_000)


async def test_a_cursor_of_an_epoch_that_is_over_is_a_gap_and_a_snapshot_or_a_refusal() -> None:
    async with told_edge(100) as (feed, edge), edge_client(edge.port) as client:
        feed.begin_epoch(keep=90)
        _, status = await client.unary(SUBSCRIBE, subscribe(after_sequence=95, epoch=1))
        assert status.code == 10
        gap, start, _ = await gap_of(client, subscribe(after_sequence=95, epoch=1, snapshot=True), 90)
        assert (gap.reason, gap.epoch, start) == (feed_service_pb2.GAP_REASON_EPOCH_CHANGED, 2, 90)


async def test_an_epoch_that_changes_under_a_reader_is_a_gap_and_the_new_story() -> None:
    async with told_edge(100) as (feed, edge), edge_client(edge.port) as client:
        reading = asyncio.create_task(gap_of(client, subscribe(after_sequence=0, snapshot=True), 110))
        await until(lambda: client.last_sequence == 100)
        feed.begin_epoch(keep=90)
        await until(lambda: feed.streams == 0)
        await until(lambda: feed.streams == 1)
        feed.tell(20)
        gap, start, seen = await asyncio.wait_for(reading, 20)
        assert gap.epoch == 2
        assert start >= 90
        after_snapshot = seen[100:]
        assert after_snapshot == list(range(start + 1, start + 1 + len(after_snapshot)))


async def test_a_run_that_has_ended_ends_after_its_last_event() -> None:
    async with told_edge(8) as (feed, edge), edge_client(edge.port) as client:
        call = await begin(client, after_sequence=0)
        feed.finish()
        kinds = list[str]()
        async for message in client.messages(call):
            if isinstance(message, frame_pb2.Status):
                assert message.code == 0
                break
            kinds.append(message.WhichOneof("kind") or "")
        assert kinds[-1] == "end"
        assert client.last_sequence == 8


async def test_a_run_that_is_started_again_after_its_end_goes_on_for_who_comes() -> None:
    async with told_edge(8) as (feed, edge), edge_client(edge.port) as client:
        feed.finish()
        call = await begin(client, after_sequence=0)
        assert [one async for one in client.messages(call)][-1] == frame_pb2.Status(id=call)
        feed.restart()
        feed.tell(4)
        again = await begin(client, after_sequence=8)
        assert await asyncio.wait_for(collect(client.messages(again), 12), 10) == [9, 10, 11, 12]


def edge_asks(edge: EdgeServer) -> bool:
    """True once a browser's call has reached the edge."""
    assert edge._mesh is not None
    return bool(edge._mesh.hubs._opening)


async def test_a_feed_that_moves_while_a_browser_asks_for_it_is_found() -> None:
    async with told_edge(8) as (feed, edge), edge_client(edge.port) as client:
        await feed.stop()
        call = await begin(client, after_sequence=0)
        story = asyncio.create_task(collect(client.messages(call), 8))
        await until(lambda: edge_asks(edge))
        await feed.start()
        assert await asyncio.wait_for(story, 10) == list(range(1, 9))
