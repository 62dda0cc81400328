"""Live quotes by RPC: a real gRPC server, and a real WebSocket server in the place of the provider."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

import pytest
import pytest_asyncio
import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import SecretStr

from conftest import StartServer
from finnhub_server import KEY, FinnhubServer
from trademesh.trading.v1 import market_data_service_pb2 as messages
from trademesh.trading.v1 import market_data_service_pb2_grpc
from trademesh.trading.v1 import quote_pb2 as live
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import RemoteError
from trademesh_kernel.server import registration
from trademesh_trading.finnhub import Finnhub, LinkTimers
from trademesh_trading.live_quotes import LiveQuotes
from trademesh_trading.market_data_service import MarketDataServicer
from trademesh_trading.quote_streams import QuoteStreams
from trademesh_trading.store import MarketStore
from waiting import until

NOW_MS = 1_795_790_400_000  # 2026-11-27 09:40 in New York
FAST = LinkTimers(idle_s=30.0, first_retry_s=0.01, longest_retry_s=0.05)


@dataclass
class Clock:
    """A clock that stands until it is set."""

    unix_ms: int = NOW_MS

    def __call__(self) -> int:
        return self.unix_ms * 1_000_000


@dataclass
class Desk:
    """trading_service with its provider."""

    provider: FinnhubServer
    quotes: LiveQuotes
    stub: market_data_service_pb2_grpc.MarketDataServiceStub
    client: ServiceClient
    clock: Clock

    async def get(
        self, *tickers: str, wait_s: int = 0, around_s: int | None = None, since_s: int | None = None
    ) -> messages.GetQuotesResponse:
        """The quotes of tickers."""
        around, since = (None if at_s is None else Timestamp(seconds=at_s) for at_s in (around_s, since_s))
        request = messages.GetQuotesRequest(tickers=tickers, wait=Duration(seconds=wait_s), around=around, since=since)
        answer: messages.GetQuotesResponse = await self.client.call(self.stub.GetQuotes, request, timeout_s=30)
        return answer

    async def listening(self, *tickers: str) -> None:
        """Returns when the provider is subscribed to these."""
        await self.get(*tickers)
        await self.provider.has(*tickers)
        await until(lambda: self.quotes.link.connected)

    @asynccontextmanager
    async def stream(self, *tickers: str, interval_ms: int = 0) -> AsyncIterator[Stream]:
        """A stream of quotes, read as it comes."""
        request = messages.StreamQuotesRequest(tickers=tickers, min_interval=Duration(nanos=interval_ms * 1_000_000))
        seen = Stream([])
        task = asyncio.create_task(self._read(request, seen))
        try:
            yield seen
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _read(self, request: messages.StreamQuotesRequest, seen: Stream) -> None:
        async for part in self.client.stream(self.stub.StreamQuotes, request):
            seen.parts.append(part)


@dataclass
class Stream:
    """What came of a stream so far."""

    parts: list[messages.StreamQuotesResponse]

    def kinds(self) -> list[str | None]:
        """Which parts, in order."""
        return [part.WhichOneof("part") for part in self.parts]

    def quotes(self) -> list[live.Quote]:
        """All quotes, in order."""
        return [quote for part in self.parts for quote in part.quotes.quotes]

    def prices(self) -> list[tuple[str, int]]:
        """Tickers and prices, in order."""
        return [(quote.ticker, quote.price_micros) for quote in self.quotes()]

    def links(self) -> list[live.QuoteProvider]:
        """What it told of the provider."""
        return [part.provider for part in self.parts if part.WhichOneof("part") == "provider"]


Begin = Callable[..., Awaitable[Desk]]


@pytest_asyncio.fixture
async def begin(start_server: StartServer) -> AsyncIterator[Begin]:
    """Starts a provider and a trading_service that listens to it."""
    async with AsyncExitStack() as running:

        async def start(
            *,
            timers: LinkTimers = FAST,
            key: str = KEY,
            most_symbols: int = 50,
            linger_s: float = 300.0,
            stale_s: float = 60.0,
            checkpoint_s: float = 5.0,
        ) -> Desk:
            provider = await running.enter_async_context(FinnhubServer())
            clock = Clock()
            quotes = LiveQuotes(Finnhub(provider.url, SecretStr(key), timers), most_symbols=most_symbols, linger_s=linger_s, clock=clock)
            quotes.start()
            running.push_async_callback(quotes.close)
            servicer = MarketDataServicer(MarketStore(), QuoteStreams(quotes, stale_s=stale_s, checkpoint_s=checkpoint_s))
            add = market_data_service_pb2_grpc.add_MarketDataServiceServicer_to_server
            server = await start_server([registration(add, servicer, messages.DESCRIPTOR, "MarketDataService")])
            server.drain_hooks.append(quotes.drain)
            client = await running.enter_async_context(ServiceClient(server.target, "trading_service"))
            return Desk(provider, quotes, client.stub(market_data_service_pb2_grpc.MarketDataServiceStub), client, clock)

        yield start


async def test_without_a_key_both_calls_say_which_variable_to_set(start_server: StartServer) -> None:
    servicer = MarketDataServicer(MarketStore())
    add = market_data_service_pb2_grpc.add_MarketDataServiceServicer_to_server
    server = await start_server([registration(add, servicer, messages.DESCRIPTOR, "MarketDataService")])
    async with ServiceClient(server.target, "trading_service") as client:
        stub = client.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
        with pytest.raises(RemoteError, match="TRADEMESH_FINNHUB_API_KEY") as unary:
            await client.call(stub.GetQuotes, messages.GetQuotesRequest(tickers=["AAPL"]))
        with pytest.raises(RemoteError, match="TRADEMESH_FINNHUB_API_KEY") as streamed:
            await anext(client.stream(stub.StreamQuotes, messages.StreamQuotesRequest(tickers=["AAPL"])))
    for caught in (unary.value, streamed.value):
        assert (caught.remote_reason, caught.remote_code.name) == ("NOT_CONFIGURED", "FAILED_PRECONDITION")
        assert caught.metadata["setting"] == "TRADEMESH_FINNHUB_API_KEY"


async def test_nobody_is_connected_to_before_something_is_wanted(begin: Begin) -> None:
    desk = await begin()
    assert (await desk.get("AAPL")).provider.name == "finnhub"
    await desk.provider.has("AAPL")
    assert json.loads(desk.provider.said[0]) == {"type": "subscribe", "symbol": "AAPL"}
    assert desk.provider.accepted == 1


async def test_a_trade_becomes_a_quote_with_its_price_volume_and_age(begin: Begin) -> None:
    desk = await begin()
    await desk.listening("AAPL", "MSFT")
    await desk.provider.trades(("AAPL", "190.25", NOW_MS - 1500, "120"))
    answer = await desk.get("MSFT", "AAPL", wait_s=1)
    (quote,) = answer.quotes
    assert (quote.ticker, quote.price_micros, quote.volume_shares) == ("AAPL", 190_250_000, 120)
    assert quote.traded_at.ToMilliseconds() == NOW_MS - 1500
    assert quote.age.ToMilliseconds() == 1500
    assert not quote.stale
    assert list(answer.missing) == ["MSFT"]
    assert answer.provider.link == live.QUOTE_LINK_CONNECTED


async def test_a_get_that_waits_is_answered_by_the_first_trade(begin: Begin) -> None:
    desk = await begin()
    asking = asyncio.create_task(desk.get("AAPL", wait_s=20))
    await desk.provider.has("AAPL")
    assert not asking.done()
    await desk.provider.trades(("AAPL", "3", NOW_MS, "1"))
    assert [quote.price_micros for quote in (await asking).quotes] == [3_000_000]


async def test_a_stream_begins_with_the_provider_then_what_is_then_a_checkpoint(begin: Begin) -> None:
    desk = await begin()
    await desk.listening("AAPL", "MSFT")
    await desk.provider.trades(("AAPL", "1", NOW_MS, "1"), ("MSFT", "2", NOW_MS, "1"))
    await until(lambda: desk.quotes.version == 2)
    async with desk.stream("AAPL", "MSFT") as stream:
        await until(lambda: len(stream.parts) == 3)
        assert stream.kinds() == ["provider", "quotes", "checkpoint"]
        assert stream.prices() == [("AAPL", 1_000_000), ("MSFT", 2_000_000)]
        await desk.provider.trades(("MSFT", "2.5", NOW_MS + 1, "1"))
        await until(lambda: len(stream.parts) == 4)
        assert stream.prices()[2:] == [("MSFT", 2_500_000)]


async def test_a_stream_conflates_what_comes_faster_than_its_interval(begin: Begin) -> None:
    desk = await begin()
    async with desk.stream("AAPL", interval_ms=200) as stream:
        await desk.provider.has("AAPL")
        for number in range(1000):
            await desk.provider.trades(("AAPL", f"{number + 1}", NOW_MS + number, "1"))
        await until(lambda: stream.prices()[-1:] == [("AAPL", 1_000_000_000)])
        prices = [price for _, price in stream.prices()]
        assert prices == sorted(set(prices))
        assert len(prices) < 100


async def test_a_stream_that_is_idle_says_that_it_is_alive(begin: Begin) -> None:
    desk = await begin(checkpoint_s=0.05)
    async with desk.stream("AAPL") as stream:
        await until(lambda: stream.kinds().count("checkpoint") >= 3)


async def test_streams_end_with_a_word_when_the_server_drains(begin: Begin) -> None:
    desk = await begin()
    async with desk.stream("AAPL") as stream:
        await until(lambda: "checkpoint" in stream.kinds())
        desk.quotes.drain()
        await until(lambda: stream.kinds()[-1] == "end")
        assert stream.parts[-1].end.retry_after.seconds == 1


async def test_what_one_stream_wants_another_does_not_get(begin: Begin) -> None:
    desk = await begin()
    async with desk.stream("AAPL") as one, desk.stream("MSFT") as other:
        await desk.provider.has("AAPL", "MSFT")
        await desk.provider.trades(("AAPL", "1", NOW_MS, "1"), ("MSFT", "2", NOW_MS, "1"))
        await until(lambda: one.prices() and other.prices())
        assert (one.prices(), other.prices()) == ([("AAPL", 1_000_000)], [("MSFT", 2_000_000)])


async def test_a_ticker_is_subscribed_once_for_all_and_left_after_the_last(begin: Begin) -> None:
    desk = await begin(linger_s=0.0)
    async with desk.stream("AAPL") as one:
        await desk.provider.has("AAPL")
        async with desk.stream("AAPL", "MSFT") as other:
            await desk.provider.has("AAPL", "MSFT")
            await until(lambda: one.parts and other.parts)
        await desk.provider.has("AAPL")
    await desk.provider.has()
    said = [(json.loads(text)["type"], json.loads(text)["symbol"]) for text in desk.provider.said]
    assert said.count(("subscribe", "AAPL")) == 1
    # With nothing wanted the connection itself goes.
    await until(lambda: not desk.provider.connections and not desk.quotes.link.connected)
    assert desk.quotes.link.disconnects == 0
    async with desk.stream("MSFT"):
        await desk.provider.has("MSFT")
    assert desk.provider.accepted == 2


async def test_more_tickers_than_the_plan_allows_are_refused_and_those_that_only_linger_make_room(begin: Begin) -> None:
    desk = await begin(most_symbols=2)
    await desk.listening("AAPL", "MSFT")
    async with desk.stream("GOOG"):
        await desk.provider.has("MSFT", "GOOG")
        with pytest.raises(RemoteError) as caught:
            await desk.get("AAPL", "MSFT")
        assert caught.value.remote_reason == "LIMIT_REACHED"
        assert caught.value.metadata == {"limit": "quotes_max_symbols", "value": "2"}
        await desk.provider.has("MSFT", "GOOG")


async def test_a_connection_that_is_cut_is_told_and_made_again(begin: Begin) -> None:
    desk = await begin()
    async with desk.stream("AAPL") as stream:
        await desk.provider.has("AAPL")
        await desk.provider.trades(("AAPL", "1", NOW_MS, "1"))
        await until(lambda: stream.prices())
        desk.provider.cut()
        await until(lambda: stream.links()[-1].disconnects == 1 and stream.links()[-1].link == live.QUOTE_LINK_CONNECTED)
        assert live.QUOTE_LINK_DISCONNECTED in [link.link for link in stream.links()[1:]]
        await desk.provider.has("AAPL")
        await desk.provider.trades(("AAPL", "2", NOW_MS + 5, "1"))
        await until(lambda: stream.prices()[-1] == ("AAPL", 2_000_000))


@pytest.mark.parametrize("code", [1000, 1001, 1011])
async def test_a_provider_that_closes_is_come_back_to(begin: Begin, code: int) -> None:
    desk = await begin()
    await desk.listening("AAPL")
    await desk.provider.close_politely(code)
    await until(lambda: desk.quotes.link.disconnects == 1 and desk.quotes.link.connected)
    await desk.provider.has("AAPL")


async def test_a_provider_that_is_away_is_found_when_it_is_back(begin: Begin) -> None:
    desk = await begin()
    await desk.listening("AAPL")
    await desk.provider.stop()
    await until(lambda: "cannot be reached" in desk.quotes.link.why)
    answer = await desk.get("AAPL")
    assert answer.provider.link == live.QUOTE_LINK_DISCONNECTED
    await desk.provider.start()
    await desk.provider.has("AAPL")
    await until(lambda: desk.quotes.link.connected)


async def test_a_provider_that_falls_silent_is_connected_to_again_and_pings_are_not_silence(begin: Begin) -> None:
    desk = await begin(timers=LinkTimers(idle_s=0.3, first_retry_s=0.01, longest_retry_s=0.05))
    await desk.listening("AAPL")
    began = time.monotonic()
    while time.monotonic() - began < 0.8:
        await desk.provider.ping()
        await asyncio.sleep(0.05)  # the pace of a provider that lives
    assert desk.provider.accepted == 1
    await until(lambda: desk.provider.accepted >= 2)
    assert desk.quotes.link.disconnects >= 1


async def test_bad_frames_are_counted_and_what_follows_them_is_read(begin: Begin) -> None:
    desk = await begin()
    await desk.listening("AAPL")
    for frame in ("{", "[]", '{"type":"trade"}', b"\xff\xff", '{"type":"trade","data":[{"s":"AAPL","p":NaN,"t":1,"v":1}]}'):
        await desk.provider.say(frame)
    await desk.provider.trades(("AAPL", "5", NOW_MS, "1"))
    answer = await desk.get("AAPL", wait_s=10)
    assert answer.quotes[0].price_micros == 5_000_000
    assert answer.provider.bad_frames == 5
    assert desk.provider.accepted == 1


async def test_duplicates_late_ticks_and_nonsense_do_not_move_the_quote(begin: Begin) -> None:
    desk = await begin()
    await desk.listening("AAPL")
    await desk.provider.trades(
        ("AAPL", "5", NOW_MS, "1"),
        ("AAPL", "5", NOW_MS, "1"),
        ("AAPL", "4", NOW_MS - 1, "1"),
        ("AAPL", "0", NOW_MS + 1, "1"),
        ("AAPL", "-3", NOW_MS + 1, "1"),
        ("AAPL", "99999999999", NOW_MS + 1, "1"),
        ("EVIL", "7", NOW_MS + 1, "1"),
    )
    await until(lambda: desk.quotes.link.refused == 4)
    answer = await desk.get("AAPL")
    assert [(quote.price_micros, quote.traded_at.ToMilliseconds()) for quote in answer.quotes] == [(5_000_000, NOW_MS)]
    provider = answer.provider
    assert (provider.duplicates, provider.late, provider.refused, provider.bad_frames) == (1, 1, 4, 0)


async def test_a_trade_of_the_far_future_does_not_make_all_others_late(begin: Begin) -> None:
    desk = await begin()
    await desk.listening("AAPL")
    await desk.provider.trades(("AAPL", "9", NOW_MS + 3_600_000, "1"), ("AAPL", "5", NOW_MS, "1"))
    assert [quote.price_micros for quote in (await desk.get("AAPL", wait_s=10)).quotes] == [5_000_000]


async def test_after_a_cut_the_trades_that_are_told_again_count_once(begin: Begin) -> None:
    desk = await begin()
    await desk.listening("AAPL")
    told = [("AAPL", "5", NOW_MS - 2, "1"), ("AAPL", "6", NOW_MS, "1")]
    await desk.provider.trades(*told)
    await until(lambda: desk.quotes.version == 2)
    desk.provider.cut()
    await until(lambda: desk.provider.accepted == 2)
    await desk.provider.has("AAPL")
    await desk.provider.trades(*told)
    await until(lambda: desk.quotes.link.late == 1 and desk.quotes.link.duplicates == 1)
    assert desk.quotes.version == 2


async def test_a_quote_turns_stale_with_time_and_a_stream_says_so_once(begin: Begin) -> None:
    desk = await begin(checkpoint_s=0.05)
    async with desk.stream("AAPL") as stream:
        await desk.provider.has("AAPL")
        await desk.provider.trades(("AAPL", "5", NOW_MS, "1"))
        await until(lambda: stream.quotes())
        assert not stream.quotes()[-1].stale
        desk.clock.unix_ms += 61_000
        await until(lambda: stream.quotes()[-1].stale)
        told = len(stream.quotes())
        checkpoints = stream.kinds().count("checkpoint")
        await until(lambda: stream.kinds().count("checkpoint") >= checkpoints + 2)
        assert len(stream.quotes()) == told


async def test_quotes_are_stale_while_the_connection_is_lost(begin: Begin) -> None:
    desk = await begin()
    await desk.listening("AAPL")
    await desk.provider.trades(("AAPL", "5", NOW_MS, "1"))
    await until(lambda: desk.quotes.version == 1)
    await desk.provider.stop()
    await until(lambda: not desk.quotes.link.connected)
    assert (await desk.get("AAPL")).quotes[0].stale


async def test_the_trades_around_the_open_are_told_to_the_millisecond(begin: Begin) -> None:
    desk = await begin()
    await desk.listening("AAPL", "MSFT")
    open_s = NOW_MS // 1000 - 600
    at = [(-1, "1"), (3, "2"), (900, "3")]
    await desk.provider.trades(*[("AAPL", price, open_s * 1000 + offset, "1") for offset, price in at])
    await until(lambda: desk.quotes.version == 3)
    aapl, msft = (await desk.get("AAPL", "MSFT", around_s=open_s)).around
    assert (aapl.ticker, aapl.before.price_micros, aapl.after.price_micros) == ("AAPL", 1_000_000, 2_000_000)
    assert aapl.after.traded_at.ToMilliseconds() == open_s * 1000 + 3
    assert aapl.heard_since.ToMilliseconds() == NOW_MS
    assert [field.name for field, _ in msft.ListFields()] == ["ticker", "heard_since"]


async def test_the_range_of_prices_is_told_from_the_open_up_to_the_close(begin: Begin) -> None:
    desk = await begin()
    await desk.listening("AAPL", "MSFT")
    close_s = NOW_MS // 1000
    at = [(-601, "99"), (-600, "5"), (-300, "7"), (-1, "6"), (0, "98")]
    await desk.provider.trades(*[("AAPL", price, (close_s + offset) * 1000, "1") for offset, price in at])
    await until(lambda: desk.quotes.version == 5)
    aapl, msft = (await desk.get("AAPL", "MSFT", around_s=close_s, since_s=close_s - 600)).around
    assert (aapl.high_micros, aapl.low_micros) == (7_000_000, 5_000_000)
    assert not msft.HasField("high_micros")
    assert not (await desk.get("AAPL", around_s=close_s)).around[0].HasField("low_micros")


@pytest.mark.parametrize(
    ("around_s", "since_s", "fields"),
    [(1, None, ["around"]), (300, 1, ["since"]), (None, 300, ["since"]), (300, 600, ["since"]), (1, 1, ["around", "since"])],
)
async def test_instants_that_are_no_whole_five_minutes_or_the_wrong_way_round_are_refused(
    begin: Begin, around_s: int | None, since_s: int | None, fields: list[str]
) -> None:
    desk = await begin()
    with pytest.raises(RemoteError) as caught:
        await desk.get("AAPL", around_s=around_s, since_s=since_s)
    assert [violation.field for violation in caught.value.violations] == fields


@pytest.mark.parametrize(
    ("status", "words"),
    [(None, "refuses the key (HTTP 401)"), (HTTPStatus.TOO_MANY_REQUESTS, "refuses the connection (HTTP 429)")],
)
async def test_a_refusal_is_told_in_words(begin: Begin, status: HTTPStatus | None, words: str) -> None:
    desk = await begin(key="a-wrong-key-of-a-user" if status is None else KEY)
    desk.provider.refuse_with = status
    await desk.get("AAPL")
    await until(lambda: words in desk.quotes.link.why)
    assert words in (await desk.get("AAPL")).provider.reason


async def test_the_key_is_never_written_down(begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as lines:
        desk = await begin()
        await desk.listening("AAPL")
        await desk.provider.say(json.dumps({"type": "error", "msg": f"no {KEY}"}))
        await desk.provider.say("{")
        await until(lambda: desk.quotes.link.bad_frames)
        await desk.provider.stop()
        await until(lambda: "cannot be reached" in desk.quotes.link.why)
        desk.provider.refuse_with = HTTPStatus.FORBIDDEN
        await desk.provider.start()
        await until(lambda: "refuses the key" in desk.quotes.link.why)
    provider_side = [record for record in caplog.records if record.name.startswith("websockets.server")]
    assert any(KEY in record.getMessage() for record in provider_side)  # the server of the test says what it gets
    ours = [record.getMessage() for record in caplog.records if record not in provider_side]
    assert not [line for line in [*map(str, lines), *ours, desk.quotes.link.why] if KEY in line]
    # Whether lines of information are written is a setting of the process.
    assert {line["event"] for line in lines} >= {"no live quotes", "the provider complains"}


async def test_waits_between_tries_grow_to_a_bound_and_are_spread() -> None:
    timers = LinkTimers(first_retry_s=0.5, longest_retry_s=60.0)
    for failures, full_s in ((1, 0.5), (2, 1.0), (5, 8.0), (8, 60.0), (5000, 60.0)):
        waits = {timers.wait_s(failures) for _ in range(50)}
        assert all(full_s / 2 <= wait <= full_s for wait in waits)
        assert len(waits) > 1


async def test_a_fault_of_ours_in_the_connection_does_not_end_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trademesh_trading.live_quotes._RESTART_S", 0.0)
    runs = list[int]()

    class Faulty:
        name = "faulty"

        async def run(self, _listener: object) -> None:
            runs.append(1)
            if len(runs) < 3:
                raise RuntimeError(KEY)
            await asyncio.Event().wait()

    quotes = LiveQuotes(Faulty())
    with structlog.testing.capture_logs() as lines:
        quotes.start()
        await until(lambda: len(runs) == 3)
        await quotes.close()
    assert KEY not in str(lines)


async def test_a_provider_that_complains_of_everything_is_written_down_once_in_a_while(begin: Begin) -> None:
    with structlog.testing.capture_logs() as lines:
        desk = await begin()
        await desk.listening("AAPL")
        for _ in range(50):
            await desk.provider.say('{"type":"error","msg":"Subscribing to too many symbols"}')
            await desk.provider.say("{")
        await until(lambda: desk.quotes.link.bad_frames == 50)
    told = [line["event"] for line in lines]
    assert told.count("the provider complains") == 1
    assert told.count("messages that cannot be read are left out") == 1
    assert desk.provider.accepted == 1
