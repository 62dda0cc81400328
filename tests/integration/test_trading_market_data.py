"""MarketDataService over a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from conftest import StartServer
from trademesh.trading.v1 import market_data_pb2 as market
from trademesh.trading.v1 import market_data_service_pb2 as messages
from trademesh.trading.v1 import market_data_service_pb2_grpc
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import RemoteError
from trademesh_kernel.paging import page_token
from trademesh_kernel.server import registration
from trademesh_trading.market_data_service import MarketDataServicer
from trademesh_trading.store import MarketStore


def at(iso: str) -> Timestamp:
    """An instant."""
    instant = Timestamp()
    instant.FromJsonString(iso)
    return instant


@pytest_asyncio.fixture
async def trading(start_server: StartServer) -> AsyncIterator[ServiceClient]:
    """A client of trading_service's market data."""
    servicer = MarketDataServicer(MarketStore())
    added = registration(
        market_data_service_pb2_grpc.add_MarketDataServiceServicer_to_server,
        servicer,
        messages.DESCRIPTOR,
        "MarketDataService",
    )
    server = await start_server([added])
    async with ServiceClient(server.target, "trading_service") as client:
        yield client


async def test_nothing_is_answered_that_was_known_later(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    request = messages.ListBarsRequest(set="wiki5", tickers=["MSFT"], start="2003-02-14", as_of=at("2003-02-14T20:59:59.999999999Z"))
    assert not (await trading.call(stub.ListBars, request)).bars
    request.as_of.CopyFrom(at("2003-02-14T21:00:00Z"))
    (bar,) = (await trading.call(stub.ListBars, request)).bars
    assert (bar.session_date, bar.close_micros, bar.volume_shares) == ("2003-02-14", 48_300_000, 45_223_200)


async def test_pages_of_bars_join_without_a_gap_or_a_repeat(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    request = messages.ListBarsRequest(set="wiki5", start="2012-05-01", end="2012-06-15", as_of=at("2013-01-01T00:00:00Z"), page_size=17)
    seen = list[tuple[str, str]]()
    while True:
        page = await trading.call(stub.ListBars, request)
        assert len(page.bars) <= 17
        seen += [(bar.session_date, bar.ticker) for bar in page.bars]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == sorted(set(seen))
    assert len([ticker for _, ticker in seen if ticker == "MSFT"]) == 33
    assert len([ticker for _, ticker in seen if ticker == "FB"]) == 20  # listed on 2012-05-18: nothing before


async def test_a_page_token_of_another_filter_is_refused(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    request = messages.ListBarsRequest(set="wiki5", as_of=at("2013-01-01T00:00:00Z"), page_size=1)
    request.page_token = (await trading.call(stub.ListBars, request)).next_page_token
    request.tickers.append("MSFT")
    with pytest.raises(RemoteError) as caught:
        await trading.call(stub.ListBars, request)
    assert caught.value.remote_reason == "PAGE_TOKEN_INVALID"


@pytest.mark.parametrize("position", [["x"], [-5], [1.5], [True], []])
async def test_a_page_token_that_was_not_given_out_is_refused(trading: ServiceClient, position: list[Any]) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    request = messages.ListBarsRequest(set="wiki5", as_of=at("2013-01-01T00:00:00Z"))
    request.page_token = page_token(request, position)
    with pytest.raises(RemoteError) as caught:
        await trading.call(stub.ListBars, request)
    assert caught.value.remote_reason == "PAGE_TOKEN_INVALID"


async def test_a_date_that_is_none_is_named(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    request = messages.ListBarsRequest(set="us20", start="2020-02-30", end="2020-99-99", as_of=at("2022-01-01T00:00:00Z"))
    with pytest.raises(RemoteError) as caught:
        await trading.call(stub.ListBars, request)
    assert [violation.field for violation in caught.value.violations] == ["start", "end"]


async def test_programs_see_which_bars_are_doubtful(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    request = messages.StreamBarsRequest(
        set="us20", tickers=["RRC"], start="1990-04-09", end="1990-04-10", as_of=at("1991-01-01T00:00:00Z")
    )
    (response,) = [response async for response in trading.stream(stub.StreamBars, request)]
    suspect = 1 << (market.BAR_QUALITY_SUSPECT - 1)
    assert [bool(bits & suspect) for bits in response.block.quality_bits] == [False, True]


async def test_a_stream_of_blocks_holds_what_rows_hold(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    asked = {"set": "wiki5", "tickers": ["IBM", "FB"], "start": "2012-05-10", "end": "2012-06-29", "as_of": at("2020-01-01T00:00:00Z")}
    rows = (await trading.call(stub.ListBars, messages.ListBarsRequest(**asked, page_size=5000))).bars
    cells = dict[tuple[str, str], tuple[int, int, int]]()
    async for response in trading.stream(stub.StreamBars, messages.StreamBarsRequest(**asked, sessions_per_block=7)):
        block = response.block
        assert len(block.session_dates) <= 7
        for place, close in enumerate(block.close_micros):
            if close:
                key = (block.session_dates[place // 2], block.tickers[place % 2])
                cells[key] = (close, block.open_micros[place], block.volume_shares_plus_one[place] - 1)
    assert cells == {(bar.session_date, bar.ticker): (bar.close_micros, bar.open_micros, bar.volume_shares) for bar in rows}


async def test_what_a_set_lacks_is_said(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    bars = await trading.call(stub.ListBars, messages.ListBarsRequest(set="us20", as_of=at("1990-01-05T00:00:00Z"), page_size=1))
    assert not bars.bars[0].HasField("open_micros")
    assert not bars.bars[0].HasField("volume_shares")
    sets = (await trading.call(stub.ListInstruments, messages.ListInstrumentsRequest(set="us20"))).sets
    assert {instrument.bar_kind for instrument in sets[0].instruments} == {market.BAR_KIND_CLOSE_ONLY}
    assert sets[0].set.adjustment == market.ADJUSTMENT_SPLITS_AND_DIVIDENDS
    with pytest.raises(RemoteError) as caught:
        await trading.call(stub.ListBars, messages.ListBarsRequest(set="us20", tickers=["TSLA"], as_of=at("1990-01-05T00:00:00Z")))
    assert caught.value.remote_reason == "DATA_ABSENT"
    with pytest.raises(RemoteError) as caught:
        await trading.call(stub.ListSessions, messages.ListSessionsRequest(set="moon"))
    assert "us20" in str(caught.value)


async def test_half_days_close_early(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    request = messages.ListSessionsRequest(set="us20", start="2022-11-24", end="2022-11-25")
    (session,) = (await trading.call(stub.ListSessions, request)).sessions
    assert session.close_at.ToJsonString() == "2022-11-25T18:00:00Z"


async def test_a_split_is_not_seen_before_the_close_ahead_of_its_ex_date(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    request = messages.ListCorporateActionsRequest(set="wiki5", tickers=["MSFT"], end="2003-02-18", as_of=at("2003-02-14T20:59:59Z"))
    assert not (await trading.call(stub.ListCorporateActions, request)).actions
    request.as_of.CopyFrom(at("2003-02-14T21:00:00Z"))
    (action,) = (await trading.call(stub.ListCorporateActions, request)).actions
    assert (action.ticker, action.ex_date, action.known_at.ToJsonString()) == ("MSFT", "2003-02-18", "2003-02-14T21:00:00Z")
    assert (action.WhichOneof("action"), action.split.new_shares, action.split.old_shares) == ("split", 2, 1)


async def test_pages_of_actions_join_without_a_gap_or_a_repeat(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    request = messages.ListCorporateActionsRequest(set="wiki5", as_of=at("2020-01-01T00:00:00Z"), page_size=17)
    seen = list[tuple[str, str]]()
    while True:
        page = await trading.call(stub.ListCorporateActions, request)
        assert len(page.actions) <= 17
        seen += [(action.ex_date, action.ticker) for action in page.actions]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert len(seen) == 95
    assert seen == sorted(set(seen))


async def test_adjusted_prices_have_no_actions_to_book_and_an_unknown_ticker_is_said(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    request = messages.ListCorporateActionsRequest(set="us20", as_of=at("2022-01-01T00:00:00Z"))
    assert not (await trading.call(stub.ListCorporateActions, request)).actions
    request.tickers.append("TSLA")
    with pytest.raises(RemoteError) as caught:
        await trading.call(stub.ListCorporateActions, request)
    assert (caught.value.remote_reason, caught.value.metadata["what"]) == ("DATA_ABSENT", "corporate actions")


@pytest.mark.filterwarnings("ignore:Series.values returning:DeprecationWarning")  # exchange-calendars uses what pandas 3 deprecates
@pytest.mark.parametrize(
    ("calendar", "start", "end", "expected"),
    [
        # The day after Thanksgiving closes at 13:00 in New York, Christmas Eve at 12:30 in London.
        ("XNYS", "2026-11-26", "2026-11-30", {"2026-11-27": ("14:30", "18:00"), "2026-11-30": ("14:30", "21:00")}),
        ("XLON", "2026-12-23", "2026-12-28", {"2026-12-23": ("08:00", "16:30"), "2026-12-24": ("08:00", "12:30")}),
        ("XNYS", "2026-11-28", "2026-11-29", {}),
    ],
)
async def test_sessions_of_a_calendar_need_no_set(
    trading: ServiceClient, calendar: str, start: str, end: str, expected: dict[str, tuple[str, str]]
) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    request = messages.ListSessionsRequest(calendar=calendar, start=start, end=end)
    answer = await trading.call(stub.ListSessions, request, timeout_s=30)
    times = {one.session_date: (one.open_at.ToJsonString(), one.close_at.ToJsonString()) for one in answer.sessions}
    assert times == {day: (f"{day}T{opens}:00Z", f"{day}T{closes}:00Z") for day, (opens, closes) in expected.items()}


@pytest.mark.filterwarnings("ignore:Series.values returning:DeprecationWarning")  # as above
async def test_sessions_of_a_set_are_those_of_its_calendar(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    span = {"start": "2001-09-01", "end": "2002-01-31"}
    of_set = await trading.call(stub.ListSessions, messages.ListSessionsRequest(set="us20", **span))
    assert of_set == await trading.call(stub.ListSessions, messages.ListSessionsRequest(calendar="XNYS", **span), timeout_s=30)


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        ({}, ["set"]),
        ({"calendar": "XNYS"}, ["start", "end"]),
        ({"calendar": "XNYS", "set": "us20", "start": "2020-01-01", "end": "2020-02-01"}, ["set"]),
        ({"calendar": "XNYS", "start": "2020-01-02", "end": "2020-01-01"}, ["end"]),
        ({"calendar": "XNYS", "start": "1900-01-02", "end": "2020-01-01"}, ["end"]),
    ],
)
async def test_what_of_a_calendar_cannot_be_asked_is_named(trading: ServiceClient, asked: dict[str, str], fields: list[str]) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    with pytest.raises(RemoteError) as caught:
        await trading.call(stub.ListSessions, messages.ListSessionsRequest(**asked))
    assert [violation.field for violation in caught.value.violations] == fields


@pytest.mark.filterwarnings("ignore:Series.values returning:DeprecationWarning")  # as above
@pytest.mark.parametrize(
    ("calendar", "start", "said"), [("MOON", "2020-01-01", "no calendar MOON"), ("XHKG", "2150-01-01", "does not reach")]
)
async def test_a_calendar_that_is_not_recorded_is_said(trading: ServiceClient, calendar: str, start: str, said: str) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    with pytest.raises(RemoteError, match=said) as caught:
        await trading.call(stub.ListSessions, messages.ListSessionsRequest(calendar=calendar, start=start, end=start), timeout_s=30)
    assert caught.value.remote_reason == "DATA_ABSENT"


async def test_a_universe_of_many_tickers_comes_in_messages_of_bounded_size(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    request = messages.StreamBarsRequest(set="mock-5000@1", start="1999-12-27", end="2000-01-10", as_of=at("2001-01-01T00:00:00Z"))
    blocks = [response.block async for response in trading.stream(stub.StreamBars, request)]
    assert max(block.ByteSize() for block in blocks) < 4 * 1024 * 1024
    dates = [date for block in blocks for date in block.session_dates]
    assert (dates[0], dates[-1], len(dates), len(set(dates))) == ("1999-12-27", "2000-01-10", 11, 11)
    assert all(len(block.close_micros) == 5000 * len(block.session_dates) for block in blocks)


async def test_a_universe_is_listed_if_it_is_named(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    (named,) = (await trading.call(stub.ListInstruments, messages.ListInstrumentsRequest(set="mock-3@9"))).sets
    assert [one.ticker for one in named.instruments] == ["MOCK0001", "MOCK0002", "MOCK0003"]
    assert {one.bar_kind for one in named.instruments} == {market.BAR_KIND_OHLCV}
    assert (named.set.first_session, named.set.last_session, named.set.calendar) == ("1990-01-02", "2022-12-28", "XNYS")
    everything = (await trading.call(stub.ListInstruments, messages.ListInstrumentsRequest())).sets
    assert "mock-3@9" not in [one.set.name for one in everything]
