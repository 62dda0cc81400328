"""Faults of browsers and of the edge: rows W1 to W10 and D3 of the table, with real sockets. Times of the edge are settings, a tenth of the
defaults where a row waits for them, or with `scripts/test --full` the defaults.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from edge_client import SUBSCRIBE, EdgeClient, edge_client
from fault_timers import FULL
from mesh_processes import Mesh
from raw_socket import BINARY, TEXT, RawSocket, dropped, masked, unmasked
from relay import relay
from scripted_feed import RUN, EdgeProcess, ScriptedFeed, edge_process, told_edge
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from trademesh.edge.v1 import frame_pb2
from trademesh.gateway.v1 import feed_service_pb2
from trademesh_edge.session import Session
from trademesh_edge.subscriber import Subscriber
from waiting import until

pytestmark = pytest.mark.timeout(120)

HELLO = masked(BINARY, frame_pb2.EdgeFrame(hello=frame_pb2.Hello(client="raw")).SerializeToString())
MANY = 1_000
STALL_S, CLOSE_S, PING_S, OPEN_S = (30.0, 4.0, 10.0, 5.0) if FULL else (3.0, 4.0, 1.0, 3.0)
"""A close is waited for a little longer than by default, for one that reads again in that time."""


def subscribe(after_sequence: int, run_id: str = RUN) -> bytes:
    return feed_service_pb2.SubscribeRequest(run_id=run_id, after_sequence=after_sequence).SerializeToString()


def call(after_sequence: int) -> bytes:
    frame = frame_pb2.EdgeFrame(call=frame_pb2.Call(id=1, method=SUBSCRIBE, request=subscribe(after_sequence)))
    return masked(BINARY, frame.SerializeToString())


@pytest.fixture(autouse=True)
def enough_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4 * MANY:
        pytest.skip(f"needs {4 * MANY} open files, {hard} are allowed")
    if soft < 4 * MANY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4 * MANY, hard))


OpenRaw = Callable[..., Awaitable[RawSocket]]
"""As `RawSocket.open`."""


@pytest.fixture
async def open_raw() -> AsyncIterator[OpenRaw]:
    """Opens sockets, and drops them after the test."""
    async with AsyncExitStack() as stack:

        async def open_one(*arguments: Any, **options: Any) -> RawSocket:
            opened = await RawSocket.open(*arguments, **options)
            stack.push_async_callback(opened.abandon)
            return opened

        yield open_one


class Reader:
    """A browser that follows the run, over any number of sockets, and must never see a gap."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cursor = 0
        self.closes: list[tuple[int, str]] = []
        self.sockets = 0
        self.seen_at: dict[int, float] = {}

    async def run(self, through: int, run_id: str = RUN, within_s: float = 30.0) -> None:
        """Reads up to a sequence, coming back as often as it must."""
        deadline = time.monotonic() + within_s
        while self.cursor < through:
            assert time.monotonic() < deadline, f"only {self.cursor} of {through}; closes: {self.closes}"
            try:
                async with edge_client(self.port) as client:
                    self.sockets += 1
                    await self._read(client, through, run_id)
            except (ConnectionClosed, InvalidHandshake, OSError, EOFError) as error:
                await asyncio.sleep(self._wait_s(error))

    async def _read(self, client: EdgeClient, through: int, run_id: str) -> None:
        async for item in client.messages(await client.begin(SUBSCRIBE, subscribe(self.cursor, run_id))):
            if isinstance(item, frame_pb2.Status):
                return
            if item.HasField("events"):
                assert item.events.first_sequence == self.cursor + 1, f"{item.events.first_sequence} follows {self.cursor}"
                assert [one.sequence for one in item.events.events] == list(range(self.cursor + 1, item.events.last_sequence + 1))
                self.cursor = item.events.last_sequence
                self.seen_at[self.cursor] = time.monotonic()
                if self.cursor >= through:
                    return

    def _wait_s(self, error: Exception) -> float:
        if not isinstance(error, ConnectionClosed):
            return 0.2
        code, reason = (error.rcvd.code, error.rcvd.reason) if error.rcvd is not None else (1006, "")
        self.closes.append((code, reason))
        asked = re.fullmatch(r"retry_after_ms=(\d+)", reason)
        return int(asked[1]) / 1000 if asked else 0.2


async def readers(port: int, count: int, stack: AsyncExitStack) -> tuple[list[Reader], list[asyncio.Task[None]]]:
    """So many readers, reading to a place that is far away; ended with the stack."""
    found = [Reader(port) for _ in range(count)]
    tasks = [asyncio.create_task(one.run(10**9, within_s=100)) for one in found]

    async def end() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    stack.push_async_callback(end)
    return found, tasks


async def p99_s(feed: ScriptedFeed, reader: Reader, events: int = 150) -> float:
    """How long events take to a reader, one told every 10 ms."""
    waits = list[float]()
    for _ in range(events):
        feed.tell(1)
        told, sequence = time.monotonic(), feed.head
        await until(lambda sequence=sequence: reader.cursor >= sequence)  # type: ignore[misc]  # a lambda with a default
        waits.append(time.monotonic() - told)
        await asyncio.sleep(0.01)
    return statistics.quantiles(waits, n=100)[98]


async def test_w1_slow_browsers_are_closed_with_4408_and_hold_up_nobody(tmp_path: Path, open_raw: OpenRaw) -> None:
    settings = {"edge_stall_timeout_s": STALL_S, "edge_close_timeout_s": CLOSE_S, "edge_max_handshakes_per_s": 1_000}
    async with edge_process(tmp_path, 60_000, **settings) as (feed, edge), AsyncExitStack() as stack:
        (good,), _ = await readers(edge.port, 1, stack)
        await until(lambda: good.cursor == 60_000, 30)
        before_s, before_bytes = await p99_s(feed, good), edge.memory_bytes
        slow = [await open_raw(edge.port, HELLO, call(0), receive_buffer_bytes=8_192) for _ in range(20)]
        began = time.monotonic()

        async def read_1_kb_per_s(one: RawSocket) -> None:
            with suppress(ConnectionError):
                while await one.reader.read(100):  # noqa: ASYNC110  # it is slow on purpose
                    await asyncio.sleep(0.1)

        dripping = [asyncio.create_task(read_1_kb_per_s(one)) for one in slow[1:]]
        during_s, held_bytes = await p99_s(feed, good), edge.memory_bytes - before_bytes
        assert held_bytes <= 20 * 2**20, f"{held_bytes / 20 / 1024:.0f} KiB for each slow browser"
        # The shared cores of a test machine do more to a p99 than slow browsers: a tenth of a second is left to them.
        assert during_s <= before_s * 1.2 + 0.1, f"p99 was {before_s * 1000:.0f} ms, with slow browsers {during_s * 1000:.0f} ms"
        # One begins to read again after it was found slow, and before it is cut off.
        await asyncio.sleep(max(0.0, began + STALL_S + 1.5 - time.monotonic()))
        assert await asyncio.wait_for(slow[0].close_code(), 10) == frame_pb2.CLOSE_CODE_SLOW
        await until(lambda: edge.connections == 1, 20)
        took_s = time.monotonic() - began
        assert took_s <= STALL_S + CLOSE_S + 5, f"slow browsers were cut off after {took_s:.1f} s, of {STALL_S:g} s and {CLOSE_S:g} s"
        for task in dripping:
            task.cancel()
        await asyncio.gather(*dripping, return_exceptions=True)
        assert good.closes == []


@pytest.mark.parametrize("handshakes_per_s", [200, 100_000])
async def test_w2_a_thousand_browsers_at_once_are_welcomed_or_told_to_come_later(
    tmp_path: Path, open_raw: OpenRaw, handshakes_per_s: int
) -> None:
    async with edge_process(tmp_path, edge_max_handshakes_per_s=handshakes_per_s) as (_, edge):

        async def one() -> tuple[int, RawSocket]:
            opened = await open_raw(edge.port, HELLO)
            if opened.status == 101:
                opcode, payload = await opened.frame()
                assert opcode == BINARY
                assert frame_pb2.EdgeFrame.FromString(payload).HasField("welcome")
            return opened.status, opened

        began = time.monotonic()
        outcomes = await asyncio.wait_for(asyncio.gather(*(one() for _ in range(MANY))), 60)
        took_s = time.monotonic() - began
        statuses = [status for status, _ in outcomes]
        assert set(statuses) <= {101, 503}
        assert statuses.count(101) >= min(MANY, handshakes_per_s)
        assert took_s <= 10, f"{MANY} browsers were answered after {took_s:.1f} s"


async def test_w3_half_open_browsers_are_closed_with_1011_and_their_memory_comes_back() -> None:
    async with told_edge(100, edge_ping_interval_s=PING_S, edge_ping_timeout_s=PING_S, edge_close_timeout_s=0.5) as (_, edge):
        script = Path(__file__).with_name("stopped_browser.py")
        command = [sys.executable, str(script), str(edge.port), RUN]
        browser = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        try:
            assert browser.stdout is not None
            assert (await asyncio.wait_for(browser.stdout.readline(), 20)).strip() == b"100"
            browser.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            await until(lambda: edge.open_sockets == 0, 40)
            took_s = time.monotonic() - began
            browser.send_signal(signal.SIGCONT)
            assert (await asyncio.wait_for(browser.stdout.readline(), 20)).strip() == b"1011"
        finally:
            with suppress(ProcessLookupError):
                browser.kill()
            await browser.wait()
        assert took_s <= 2 * PING_S + 4, f"closed after {took_s:.1f} s; {2 * PING_S:g} are due, and half a one for the close"

        def left() -> list[object]:
            gc.collect()
            return [one for one in gc.get_objects() if isinstance(one, Session | Subscriber)]

        await until(lambda: not left())


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (unmasked(BINARY, b"x"), 1002),
        (masked(3, b"a reserved opcode"), 1002),
        (masked(BINARY, b"x" * 70_000), 1009),
        (masked(TEXT, b"\xff\xfe"), 1007),
        (masked(BINARY, b"\xff\xff"), 4400),
    ],
    ids=["unmasked", "reserved", "oversize", "bad utf-8", "no frame of ours"],
)
async def test_w4_what_breaks_the_protocol_is_closed_with_its_code(open_raw: OpenRaw, frame: bytes, code: int) -> None:
    async with told_edge() as (_, edge):
        quickest_s = 1e9
        for _ in range(3):
            opened = await open_raw(edge.port, HELLO)
            await opened.frame()
            began = time.monotonic()
            opened.writer.write(frame)
            assert await asyncio.wait_for(opened.close_code(), 10) == code
            quickest_s = min(quickest_s, time.monotonic() - began)
        assert quickest_s <= 0.1, f"{quickest_s * 1000:.0f} ms"


async def test_w5_strangers_are_refused_each_with_its_reason(open_raw: OpenRaw) -> None:
    async with told_edge(edge_token="secret") as (_, edge):
        for options, status in (
            ({"subprotocol": "graphql-ws"}, 400),
            ({"more": "Origin: https://evil.example\r\n"}, 403),
            ({"more": "Origin: null\r\n"}, 403),
        ):
            quickest_s = 1e9
            for _ in range(3):
                began = time.monotonic()
                opened = await open_raw(edge.port, **options)
                assert opened.status == status
                quickest_s = min(quickest_s, time.monotonic() - began)
            assert quickest_s <= 0.1, f"{status} after {quickest_s * 1000:.0f} ms"
        quickest_s = 1e9
        for _ in range(3):
            opened = await open_raw(edge.port, HELLO)
            began = time.monotonic()
            assert await asyncio.wait_for(opened.close_code(), 10) == frame_pb2.CLOSE_CODE_UNAUTHENTICATED
            quickest_s = min(quickest_s, time.monotonic() - began)
        assert quickest_s <= 0.1, f"4401 after {quickest_s * 1000:.0f} ms"


async def test_w6_five_hundred_slow_handshakes_are_cut_and_a_good_browser_gets_in(tmp_path: Path) -> None:
    async with edge_process(tmp_path, edge_open_timeout_s=OPEN_S) as (_, edge):
        hanging = list[asyncio.StreamWriter]()
        ended = list[asyncio.Task[bytes]]()
        began = time.monotonic()
        for _ in range(500):
            reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
            writer.write(b"GET /v1/socket HTTP/1.1\r\nHost: ")
            hanging.append(writer)
            ended.append(asyncio.create_task(_read_to_the_end(reader)))
        came = time.monotonic()
        async with edge_client(edge.port):
            waited_s = time.monotonic() - came
        assert waited_s <= 1, f"a good browser waited {waited_s:.2f} s"
        await asyncio.wait_for(asyncio.gather(*ended), 20)
        took_s = time.monotonic() - began
        for writer in hanging:
            await dropped(writer)
        assert took_s <= OPEN_S + 5, f"the last was cut after {took_s:.1f} s; {OPEN_S:g} s are theirs"


async def _read_to_the_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(10_000)
    except ConnectionError:
        return b""


async def test_w7_who_says_no_hello_or_talks_too_much_is_closed(open_raw: OpenRaw) -> None:
    async with told_edge(edge_hello_timeout_s=0.5, edge_max_messages_per_s=20) as (_, edge):
        silent = await open_raw(edge.port)
        began = time.monotonic()
        assert await asyncio.wait_for(silent.close_code(), 10) == frame_pb2.CLOSE_CODE_UNAUTHENTICATED
        assert 0.3 <= time.monotonic() - began <= 5
        loud = await open_raw(edge.port, HELLO)
        began = time.monotonic()
        ping = masked(BINARY, frame_pb2.EdgeFrame(ping=frame_pb2.Ping(nonce=1)).SerializeToString())
        loud.writer.write(ping * 1_000)
        assert await asyncio.wait_for(loud.close_code(), 10) == frame_pb2.CLOSE_CODE_RATE
        took_s = time.monotonic() - began
        assert took_s <= 1, f"{took_s:.2f} s"


async def _resumed(feed: ScriptedFeed, edge: EdgeProcess, end: signal.Signals, count: int) -> tuple[list[Reader], float]:
    """Ends the edge under so many readers, starts it again, and waits until they have what was told meanwhile."""
    async with AsyncExitStack() as stack:
        found, _ = await readers(edge.port, count, stack)
        await until(lambda: all(one.cursor == feed.head for one in found), 60)
        assert edge.process is not None
        began = time.monotonic()
        edge.process.send_signal(end)
        await edge.wait()
        feed.tell(100)
        await edge.start()
        await until(lambda: all(one.cursor == feed.head for one in found), 60)
        return found, time.monotonic() - began


async def test_w8_an_edge_that_is_restarted_sends_everyone_away_and_all_resume(tmp_path: Path) -> None:
    settings = {"edge_max_handshakes_per_s": 1_000, "edge_restart_spread_s": 2}
    async with edge_process(tmp_path, 300, **settings) as (feed, edge):
        found, took_s = await _resumed(feed, edge, signal.SIGTERM, 500)
    codes = {code for one in found for code, _ in one.closes}
    waits = {reason for one in found for _, reason in one.closes}
    assert codes == {1012}
    assert len(waits) > 100, "everyone is told another moment"
    assert took_s <= 10, f"500 browsers were back after {took_s:.1f} s"


async def test_w9_an_edge_that_is_killed_leaves_1006_and_all_resume(tmp_path: Path) -> None:
    async with edge_process(tmp_path, 300, edge_max_handshakes_per_s=1_000) as (feed, edge):
        found, took_s = await _resumed(feed, edge, signal.SIGKILL, 100)
    assert {code for one in found for code, _ in one.closes} == {1006}
    assert took_s <= 10, f"100 browsers were back after {took_s:.1f} s"


async def test_w10_a_run_that_ends_ends_its_feeds_after_the_last_event() -> None:
    async with told_edge(40) as (feed, edge), edge_client(edge.port) as client:
        kinds = list[str]()
        took_s = ended_at = 1e9
        async for item in client.messages(await client.begin(SUBSCRIBE, subscribe(0))):
            if isinstance(item, frame_pb2.Status):
                took_s = time.monotonic() - ended_at
                break
            kinds.append(item.WhichOneof("kind") or "")
            if not feed.ended and client.last_sequence == 40:
                feed.tell(1)
                feed.finish()
                ended_at = time.monotonic()
        assert client.last_sequence == 41
        assert kinds[-1] == "end"
        assert took_s <= 1, f"{took_s:.2f} s"


async def test_d3_a_reset_upstream_is_no_gap_for_browsers() -> None:
    feed = ScriptedFeed()
    await feed.start()
    async with relay(feed.port) as between, AsyncExitStack() as stack:
        feed.advertised_port = between.port
        stack.push_async_callback(feed.stop)
        async with told_edge(feed=feed) as (_, edge):
            feed.tell(100)
            (one, other), tasks = await readers(edge.port, 2, stack)
            for _ in range(3):
                await until(lambda: one.cursor == other.cursor == feed.head)
                assert between.reset() > 0
                began = time.monotonic()
                feed.tell(10)
                await until(lambda: one.cursor == other.cursor == feed.head)
                took_s = time.monotonic() - began
                assert took_s <= 1, f"{took_s:.2f} s"
            assert (one.sockets, other.sockets) == (1, 1)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_d3_a_gateway_that_is_killed_under_browsers_is_no_gap(fault_mesh: Mesh) -> None:
    path = fault_mesh.folder / "killed.md"
    path.write_text("---\nsessions: {start: 2007-06-01, end: 2008-01-31}\nsupervision: {linger_s: 2}\n---\n")
    outcome = await asyncio.to_thread(fault_mesh.cli, "run", "start", str(path), "--run-id", "killed", "--pace", "40", "--wait")
    assert outcome.returncode == 0, outcome.stderr
    async with edge_client(fault_mesh.ports["edge"]) as client:
        following = asyncio.create_task(_follow_to_the_end(client, "killed"))
        await until(lambda: client.last_sequence > 100, 30)
        pid = (await asyncio.to_thread(fault_mesh.json, "run", "show", "killed"))["run"]["pid"]
        os.kill(int(pid), signal.SIGKILL)
        story = await asyncio.wait_for(following, 60)
    assert story == list(range(1, len(story) + 1))
    assert [one.state for one in client.source][:2] == [frame_pb2.UPSTREAM_STATE_LOST, frame_pb2.UPSTREAM_STATE_CONNECTED]


async def _follow_to_the_end(client: EdgeClient, run_id: str) -> list[int]:
    seen = list[int]()
    messages: AsyncIterator[Any] = client.messages(await client.begin(SUBSCRIBE, subscribe(0, run_id)))
    async for item in messages:
        if isinstance(item, frame_pb2.Status):
            assert item.code == 0, item.message
            return seen
        seen += [one.sequence for one in item.events.events]
    raise AssertionError("no status")
