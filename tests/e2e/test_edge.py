"""The edge against a real mesh: the same gapless story for every socket, and bounds that hold."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from edge_client import SUBSCRIBE, EdgeClient, edge_client
from google.protobuf import json_format
from mesh_processes import Mesh, wait_until
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from trademesh.edge.v1 import frame_pb2
from trademesh.gateway.v1 import event_pb2, feed_service_pb2, pipeline_service_pb2, supervision_service_pb2
from trademesh.runtime.v1 import runtime_service_pb2
from trademesh.trading.v1 import market_data_service_pb2
from trademesh_edge.formats import JSON
from trademesh_edge.server import EdgeServer
from trademesh_edge.settings import EdgeSettings
from waiting import until

pytestmark = pytest.mark.timeout(180)
HEAD = "/trademesh.gateway.v1.FeedService/ListEvents"
PIPELINE = "/trademesh.gateway.v1.PipelineService"


def start(mesh: Mesh, run_id: str, pace: int = 0, end: str = "2008-03-01", linger_s: int = 2) -> None:
    path = mesh.folder / f"{run_id}.md"
    path.write_text(f"---\nsessions: {{start: 2007-06-01, end: {end}}}\nsupervision: {{linger_s: {linger_s}}}\n---\n")
    outcome = mesh.cli("run", "start", str(path), "--run-id", run_id, "--pace", str(pace), "--wait")
    assert outcome.returncode == 0, outcome.stderr


@asynccontextmanager
async def deaf_client(port: int) -> AsyncIterator[EdgeClient]:
    """A socket that takes in little before somebody reads it: what a browser does not read must not vanish into the kernel."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    found.connect(("127.0.0.1", port))
    found.setblocking(False)
    async with edge_client(port, max_queue=1, sock=found) as client:
        yield client


async def drained(client: EdgeClient) -> int:
    """Reads a socket to its end; the last sequence that was told."""
    last = 0
    with suppress(ConnectionClosed):
        while True:
            frame = await client.receive()
            if frame.WhichOneof("kind") == "message":
                last = max(last, feed_service_pb2.SubscribeResponse.FromString(frame.message.payload).events.last_sequence)
    return last


@asynccontextmanager
async def own_edge(mesh: Mesh, **settings: Any) -> AsyncIterator[EdgeServer]:
    """An edge in this process, with bounds of its own, in front of the mesh."""
    targets = {f"{name}_target": f"127.0.0.1:{mesh.ports[name]}" for name in ("agent", "trading", "news", "runtime")}
    server = EdgeServer(EdgeSettings(edge_listen="127.0.0.1:0", **targets, **settings))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def follow(client: EdgeClient, run_id: str, *, stop_at: int = 0, kinds: tuple[str, ...] = (), **start_from: object) -> list[int]:
    """Sequences of a feed until it ends, or until one is reached; asserts that spans join."""
    request = feed_service_pb2.SubscribeRequest(run_id=run_id, **start_from)  # type: ignore[arg-type]  # fields by name
    request.filter.kinds.extend(kinds)
    told = request.after_sequence if request.HasField("after_sequence") else None
    seen = list[int]()
    async for item in client.subscribe(request):
        if isinstance(item, frame_pb2.Status):
            assert item.code == 0, item.message
            return seen
        if item.HasField("snapshot"):
            told = item.snapshot.as_of_sequence
        if item.HasField("checkpoint"):
            told = item.checkpoint.through_sequence
        if item.HasField("events"):
            assert told is None or item.events.first_sequence == told + 1
            told = item.events.last_sequence
            seen += [event.sequence for event in item.events.events]
            if stop_at and told >= stop_at:
                return seen
    raise AssertionError("no status")


async def test_many_sockets_see_one_gapless_story(mesh: Mesh) -> None:
    await asyncio.to_thread(start, mesh, "told-to-many", 40)
    port = mesh.ports["edge"]

    async def one(delay_s: float, **start_from: object) -> list[int]:
        await asyncio.sleep(delay_s)
        async with edge_client(port) as client:
            return await follow(client, "told-to-many", **start_from)

    stories = await asyncio.gather(
        *(one(0.1 * place, after_sequence=0) for place in range(12)), one(1.0, snapshot=True), one(1.5), one(3.0, after_sequence=500)
    )
    last = stories[0][-1]
    for story in stories[:12]:
        assert story == list(range(1, last + 1))
    for story in stories[12:]:
        assert story == list(range(story[0], last + 1))
    assert stories[14][0] == 501


async def test_a_filter_lets_through_what_it_says_and_nothing_else_is_lost(mesh: Mesh) -> None:
    await asyncio.to_thread(start, mesh, "filtered", 60)
    async with edge_client(mesh.ports["edge"]) as client:
        fills = await follow(client, "filtered", after_sequence=0, kinds=("order_filled",))
        everything = await follow(client, "filtered", after_sequence=0)
        by_page = feed_service_pb2.ListEventsRequest(run_id="filtered", page_size=1000)
        by_page.filter.kinds.append("order_filled")
        payload, status = await client.unary("/trademesh.gateway.v1.FeedService/ListEvents", by_page)
    assert status.code == 0
    assert fills == [event.sequence for event in feed_service_pb2.ListEventsResponse.FromString(payload).events]
    assert set(fills) < set(everything)


async def test_closes_of_the_gateways_sessions_are_quotes_for_browsers(mesh: Mesh) -> None:
    await asyncio.to_thread(start, mesh, "closes-quoted", 5)
    request = feed_service_pb2.SubscribeRequest(run_id="closes-quoted")
    request.filter.kinds.append("settled")
    request.quotes.SetInParent()
    sessions = list[str]()
    async with edge_client(mesh.ports["edge"]) as client:
        closes = dict[str, int]()
        async for item in client.subscribe(request):
            assert isinstance(item, feed_service_pb2.SubscribeResponse), item
            for quote in item.quotes.quotes:
                closes[quote.ticker] = quote.price_micros
                if not sessions or quote.session_date > sessions[-1]:
                    sessions.append(quote.session_date)
                assert quote.session_date == sessions[-1]
            if len(sessions) == 3:
                break
    async with edge_client(mesh.ports["edge"]) as client:
        run = (await asyncio.to_thread(mesh.json, "run", "show", "closes-quoted"))["run"]
        asked = market_data_service_pb2.ListBarsRequest(set=run["config"]["data"]["set"], start=sessions[-1], end=sessions[-1])
        asked.as_of.GetCurrentTime()
        payload, status = await client.unary("/trademesh.trading.v1.MarketDataService/ListBars", asked)
    await asyncio.to_thread(mesh.json, "run", "stop", "closes-quoted")
    assert status.code == 0, status.message
    bars = market_data_service_pb2.ListBarsResponse.FromString(payload).bars
    assert closes
    assert closes.items() <= {(bar.ticker, bar.close_micros) for bar in bars}


async def test_json_frames_of_a_whole_mesh_tell_what_binary_ones_do(mesh: Mesh) -> None:
    await asyncio.to_thread(start, mesh, "in-json", 0, "2007-07-01", 0)
    url = f"ws://127.0.0.1:{mesh.ports['edge']}/v1/socket"
    request = {"runId": "in-json", "afterSequence": "0"}
    told = list[Any]()
    async with connect(url, subprotocols=[JSON.subprotocol], max_size=None, proxy=None) as socket_in_json:
        await socket_in_json.send(json.dumps({"hello": {"client": "test"}}))
        await socket_in_json.send(json.dumps({"call": {"id": 1, "method": SUBSCRIBE, "request": request}}))
        async for data in socket_in_json:
            frame = json.loads(data)
            if "message" in frame:
                told += frame["message"]["payload"].get("events", {}).get("events", [])
            if "status" in frame:
                assert frame["status"] == {"id": 1}
                break
    async with edge_client(mesh.ports["edge"]) as client:
        binary = list[event_pb2.Event]()
        async for item in client.subscribe(feed_service_pb2.SubscribeRequest(run_id="in-json", after_sequence=0)):
            if isinstance(item, feed_service_pb2.SubscribeResponse):
                binary += item.events.events
    assert [json_format.ParseDict(one, event_pb2.Event()) for one in told] == binary
    # As generated clients in TypeScript have it: what is wider than a number is a text.
    assert [one["sequence"] for one in told] == [str(number) for number in range(1, len(binary) + 1)]
    assert all(isinstance(one["orderFilled"]["cashMicros"], str) for one in told if "orderFilled" in one)


async def test_a_gateway_that_dies_is_no_gap_for_a_browser(mesh: Mesh) -> None:
    await asyncio.to_thread(start, mesh, "survived", 60)
    async with edge_client(mesh.ports["edge"]) as client:
        following = asyncio.create_task(follow(client, "survived", after_sequence=0))
        await until(lambda: client.last_sequence > 100)
        run = (await asyncio.to_thread(mesh.json, "run", "show", "survived"))["run"]
        os.kill(int(run["pid"]), signal.SIGKILL)
        story = await asyncio.wait_for(following, 60)
    assert story == list(range(1, len(story) + 1))
    assert int((await asyncio.to_thread(mesh.json, "run", "show", "survived"))["run"]["generation"]) == 2


async def test_a_browser_that_comes_back_goes_on_where_it_was(mesh: Mesh) -> None:
    await asyncio.to_thread(start, mesh, "come-back", 60)
    story = list[int]()
    for stop_at in (200, 600, 900, 0):
        async with edge_client(mesh.ports["edge"]) as client:
            story += await follow(client, "come-back", stop_at=stop_at, after_sequence=story[-1] if story else 0)
    assert story == list(range(1, story[-1] + 1))


async def test_calls_reach_every_service_and_others_are_refused(mesh: Mesh) -> None:
    await asyncio.to_thread(start, mesh, "called", 20)
    async with edge_client(mesh.ports["edge"]) as client:
        payload, status = await client.unary(
            "/trademesh.runtime.v1.RuntimeService/GetRun", runtime_service_pb2.GetRunRequest(run_id="called")
        )
        assert status.code == 0
        assert runtime_service_pb2.GetRunResponse.FromString(payload).run.run_id == "called"
        payload, status = await client.unary(f"{PIPELINE}/PausePipeline", pipeline_service_pb2.PausePipelineRequest(run_id="called"))
        assert status.code == 0
        assert pipeline_service_pb2.PausePipelineResponse.FromString(payload).pipeline.run_id == "called"
        _, status = await client.unary("/trademesh.runtime.v1.RuntimeService/GetRun", runtime_service_pb2.GetRunRequest(run_id="nobody"))
        assert (status.code, status.message) == (5, "there is no run nobody")
        _, status = await client.unary(
            "/trademesh.gateway.v1.SupervisionService/Heartbeat", supervision_service_pb2.HeartbeatRequest(generation=1)
        )
        assert status.code == 7
        _, status = await client.unary("/trademesh.gateway.v1.FeedService/Subscribe", feed_service_pb2.SubscribeRequest(run_id="NO"))
        assert status.code == 3
        assert status.details
    await asyncio.to_thread(mesh.cli, "run", "stop", "called")


async def test_a_cancelled_call_leaves_the_socket_to_others(mesh: Mesh) -> None:
    async with edge_client(mesh.ports["edge"]) as client:
        call_id = await client.begin("/trademesh.runtime.v1.RuntimeService/WatchRuns", b"")
        assert (await client.receive()).opened.id == call_id
        await client.connection.send(frame_pb2.EdgeFrame(cancel=frame_pb2.Cancel(id=call_id)).SerializeToString())
        await client.connection.send(frame_pb2.EdgeFrame(ping=frame_pb2.Ping(nonce=7)).SerializeToString())
        async with asyncio.timeout(10):
            while (frame := await client.receive()).WhichOneof("kind") != "pong":
                pass
        assert frame.pong.nonce == 7


async def closed_with(mesh: Mesh, *frames: bytes | str) -> int:
    """The close code that these frames lead to."""
    async with connect(f"ws://127.0.0.1:{mesh.ports['edge']}/v1/socket", subprotocols=["trademesh.v1+proto"], proxy=None) as connection:  # type: ignore[list-item]  # a name, as people write it
        with suppress(ConnectionClosed):
            for frame in frames:
                await connection.send(frame)
            async with asyncio.timeout(20):
                while True:
                    await connection.recv()
        return int(connection.close_code or 0)


async def test_calls_that_are_cancelled_at_once_free_their_places(mesh: Mesh) -> None:
    request = runtime_service_pb2.ListRunsRequest()
    method = "/trademesh.runtime.v1.RuntimeService/ListRuns"
    async with own_edge(mesh, edge_max_messages_per_s=10_000) as edge, edge_client(edge.port) as client:
        for _ in range(100):
            call_id = await client.begin(method, request.SerializeToString())
            await client.connection.send(frame_pb2.EdgeFrame(cancel=frame_pb2.Cancel(id=call_id)).SerializeToString())
        _, status = await asyncio.wait_for(client.unary(method, request), 10)
        assert status.code == 0, status.message


async def test_a_browser_that_reads_nothing_is_cut_off_and_holds_up_nobody(mesh: Mesh) -> None:
    await asyncio.to_thread(start, mesh, "stalled", 0, "2010-06-01", 60)
    await asyncio.to_thread(mesh.summary, "stalled")
    async with own_edge(mesh, edge_stall_timeout_s=0.5) as edge, deaf_client(edge.port) as deaf:
        await deaf.begin(SUBSCRIBE, feed_service_pb2.SubscribeRequest(run_id="stalled", after_sequence=0).SerializeToString())
        async with edge_client(edge.port) as reader:
            head = (await reader.unary(HEAD, feed_service_pb2.ListEventsRequest(run_id="stalled", page_size=1)))[0]
            count = feed_service_pb2.ListEventsResponse.FromString(head).head_sequence
            assert await follow(reader, "stalled", after_sequence=0, stop_at=count) == list(range(1, count + 1))
            await until(lambda: edge.open_sockets == 1)
        # What is in the kernel's buffers already arrives; behind it there is no more than the end.
        outcome = await asyncio.wait_for(drained(deaf), 20)
        assert outcome < count


async def test_faults_of_the_protocol_close_the_socket_with_their_code(mesh: Mesh) -> None:
    hello = frame_pb2.EdgeFrame(hello=frame_pb2.Hello(client="test")).SerializeToString()
    ping = frame_pb2.EdgeFrame(ping=frame_pb2.Ping(nonce=1)).SerializeToString()
    assert await closed_with(mesh, "text") == 4400
    assert await closed_with(mesh, ping) == 4400
    assert await closed_with(mesh, hello, hello) == 4400
    assert await closed_with(mesh, hello, b"\xff\xff") == 4400
    assert await closed_with(mesh, hello, *[ping] * 100) == 4429
    assert await closed_with(mesh, hello, b"\0" * 70_000) == 1009
    assert await closed_with(mesh) == 4401


async def test_strangers_are_refused(mesh: Mesh) -> None:
    url = f"ws://127.0.0.1:{mesh.ports['edge']}/v1/socket"
    for options, status in (
        ({"subprotocols": ["trademesh.v9"]}, 400),
        ({"subprotocols": ["trademesh.v1+proto"], "origin": "https://evil.example"}, 403),
        ({"subprotocols": ["trademesh.v1+proto"], "additional_headers": {"Host": "evil.example"}}, 403),
    ):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url, proxy=None, **options):  # type: ignore[arg-type]  # headers by name
                pass
        assert refused.value.response.status_code == status


async def test_an_edge_that_goes_down_says_when_to_come_back(mesh: Mesh) -> None:
    async with edge_client(mesh.ports["edge"]) as client:
        mesh.processes["edge"].terminate()
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(client.receive(), 10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert 0 <= int(closed.value.rcvd.reason.removeprefix("retry_after_ms=")) <= 5_000
    assert await asyncio.to_thread(mesh.processes["edge"].wait, 10) == 0
    mesh.start("edge")
    await asyncio.to_thread(wait_until, mesh.edge_answers, 30, "the edge")
