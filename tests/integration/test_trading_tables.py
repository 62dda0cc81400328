"""What MarketDataService tells besides bars of recorded sets: statements, insider trades, revised bars, one instrument."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import polars as pl
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from conftest import StartServer
from trademesh.trading.v1 import market_data_pb2 as market
from trademesh.trading.v1 import market_data_service_pb2 as messages
from trademesh.trading.v1 import market_data_service_pb2_grpc
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import RemoteError
from trademesh_kernel.server import registration
from trademesh_trading.importing import ImportOrder, import_set
from trademesh_trading.market_data_service import MarketDataServicer
from trademesh_trading.store import EMBEDDED_SETS, MarketStore

# exchange-calendars uses what pandas 3 deprecates; no name of ours is involved.
pytestmark = pytest.mark.filterwarnings("ignore:Series.values returning:DeprecationWarning")

FILES = {
    "bars": """ticker,date,close,known_at
A,2024-01-02,10,
A,2024-01-03,11,
A,2024-01-02,10.5,2024-01-04T22:00:00Z
B,2024-01-02,20,
B,2024-01-03,21,2024-01-05T12:00:00Z
""",
    "corporate_actions": "ticker,ex_date,dividend\nA,2024-01-03,0.25\n",
    "fundamentals": """ticker,fiscal_period_end,period,known_at,revenue,equity,shares_outstanding
A,2023-09-30,q3,2023-11-02T21:00:00Z,100,-7,1000
A,2023-12-31,fy,2024-02-01T21:00:00Z,400,,
A,2023-12-31,fy,2024-03-01T21:00:00Z,390,,
B,2023-12-31,h2,2024-02-02T21:00:00Z,55,,
""",
    "insider_trades": """ticker,transaction_date,code,shares,price,known_at,insider,role,trade_id
A,2024-01-02,P,5,10.1,2024-01-04T22:00:00Z,Ann,director,x
B,2024-01-02,S,7,,2024-01-05T22:00:00Z,,,
A,2024-01-02,P,6,10.1,2024-01-09T22:00:00Z,Ann,director,x
""",
}


def at(iso: str) -> Timestamp:
    instant = Timestamp()
    instant.FromJsonString(iso)
    return instant


ALWAYS = at("2025-01-01T00:00:00Z")


@pytest_asyncio.fixture
async def trading(start_server: StartServer, tmp_path: Path) -> AsyncIterator[ServiceClient]:
    """A client of trading_service's market data, with an imported set `mine`."""
    (tmp_path / "given").mkdir()
    for stem, text in FILES.items():
        (tmp_path / "given" / f"{stem}.csv").write_text(text)
    import_set(ImportOrder(tmp_path / "given", "mine", date(2024, 12, 31)), tmp_path / "sets")
    added = registration(
        market_data_service_pb2_grpc.add_MarketDataServiceServicer_to_server,
        MarketDataServicer(MarketStore(tmp_path / "sets")),
        messages.DESCRIPTOR,
        "MarketDataService",
    )
    server = await start_server([added])
    async with ServiceClient(server.target, "trading_service") as client:
        yield client


async def test_statements_are_told_as_they_were_filed_by_then(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    request = messages.ListFundamentalsRequest(set="mine", tickers=["A"], as_of=at("2024-02-01T21:00:00Z"))
    first, second = (await trading.call(stub.ListFundamentals, request)).statements
    assert (first.fiscal_period_end, first.period, first.known_at.ToJsonString()) == (
        *("2023-09-30", market.FISCAL_PERIOD_QUARTER),
        "2023-11-02T21:00:00Z",
    )
    assert (first.revenue_micros, first.equity_micros, first.shares_outstanding) == (100_000_000, -7_000_000, 1000)
    assert not first.HasField("net_income_micros")
    assert second.revenue_micros == 400_000_000
    request.as_of.CopyFrom(ALWAYS)
    assert [one.revenue_micros // 10**6 for one in (await trading.call(stub.ListFundamentals, request)).statements] == [100, 390]
    request.all_revisions = True
    assert [one.revenue_micros // 10**6 for one in (await trading.call(stub.ListFundamentals, request)).statements] == [100, 400, 390]


async def test_pages_of_statements_join_without_a_gap_or_a_repeat(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    request = messages.ListFundamentalsRequest(set="mine", start="2023-10-01", as_of=ALWAYS, all_revisions=True, page_size=2)
    first = await trading.call(stub.ListFundamentals, request)
    request.page_token = first.next_page_token
    second = await trading.call(stub.ListFundamentals, request)
    told = [(one.ticker, one.period, one.revenue_micros // 10**6) for page in (first, second) for one in page.statements]
    year, half = market.FISCAL_PERIOD_YEAR, market.FISCAL_PERIOD_HALF_YEAR
    assert told == [("A", year, 400), ("A", year, 390), ("B", half, 55)]
    assert (len(first.statements), second.next_page_token) == (2, "")


async def test_insider_trades_are_told_by_their_filing_and_amended(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    request = messages.ListInsiderTradesRequest(set="mine", as_of=at("2024-01-04T21:59:59Z"))
    assert not (await trading.call(stub.ListInsiderTrades, request)).trades
    request.as_of.CopyFrom(at("2024-01-05T22:00:00Z"))
    bought, sold = (await trading.call(stub.ListInsiderTrades, request)).trades
    assert (bought.ticker, bought.code, bought.shares, bought.price_micros) == ("A", market.INSIDER_TRADE_CODE_PURCHASE, 5, 10_100_000)
    assert (bought.insider, bought.role, bought.trade_id, bought.transaction_date) == ("Ann", "director", "x", "2024-01-02")
    assert (sold.code, sold.HasField("price_micros"), sold.trade_id) == (market.INSIDER_TRADE_CODE_SALE, False, "")
    request.as_of.CopyFrom(ALWAYS)
    assert [one.shares for one in (await trading.call(stub.ListInsiderTrades, request)).trades] == [7, 6]
    request.known_after.CopyFrom(at("2024-01-05T22:00:00Z"))
    assert [one.shares for one in (await trading.call(stub.ListInsiderTrades, request)).trades] == [6]


async def test_people_see_the_newest_known_form_of_a_bar_and_programs_all_of_them(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)

    async def closes(as_of: Timestamp) -> dict[tuple[str, str], int]:
        bars = (await trading.call(stub.ListBars, messages.ListBarsRequest(set="mine", as_of=as_of))).bars
        return {(bar.ticker, bar.session_date[-2:]): bar.close_micros // 10**5 for bar in bars}

    assert await closes(at("2024-01-03T21:00:00Z")) == {("A", "02"): 100, ("A", "03"): 110, ("B", "02"): 200}
    assert await closes(ALWAYS) == {("A", "02"): 105, ("A", "03"): 110, ("B", "02"): 200, ("B", "03"): 210}
    request = messages.StreamBarsRequest(set="mine", as_of=at("2024-01-04T22:00:00Z"))
    (response,) = [response async for response in trading.stream(stub.StreamBars, request)]
    assert list(response.block.close_micros) == [10_000_000, 20_000_000, 11_000_000, 0]
    revised = response.block.revisions
    assert (list(revised.rows), list(revised.close_micros)) == ([0], [10_500_000])
    assert list(revised.known_at_unix_s) == [at("2024-01-04T22:00:00Z").seconds]


async def test_an_instrument_is_told_with_its_set(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    answer = await trading.call(stub.GetInstrument, messages.GetInstrumentRequest(set="mine", ticker="B"))
    assert (answer.instrument.ticker, answer.instrument.last_session) == ("B", "2024-01-03")
    assert list(answer.set.tables) == [
        *(market.DATA_TABLE_CORPORATE_ACTIONS, market.DATA_TABLE_FUNDAMENTALS),
        market.DATA_TABLE_INSIDER_TRADES,
    ]
    with pytest.raises(RemoteError) as caught:
        await trading.call(stub.GetInstrument, messages.GetInstrumentRequest(set="mine", ticker="C"))
    assert (caught.value.remote_reason, caught.value.metadata["what"]) == ("DATA_ABSENT", "instrument")


async def test_a_set_says_which_tables_it_lacks_instead_of_an_empty_answer(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    listed = (await trading.call(stub.ListInstruments, messages.ListInstrumentsRequest())).sets
    assert {one.set.name.partition("@")[0]: len(one.set.tables) for one in listed} == {"us20": 0, "wiki5": 1, "mine": 3}
    for method, request, what in (
        (stub.ListFundamentals, messages.ListFundamentalsRequest(set="us20", as_of=ALWAYS), "fundamentals"),
        (stub.ListInsiderTrades, messages.ListInsiderTradesRequest(set="us20", as_of=ALWAYS), "insider trades"),
    ):
        with pytest.raises(RemoteError) as caught:
            await trading.call(method, request)
        assert (caught.value.remote_reason, caught.value.metadata["what"]) == ("DATA_ABSENT", what)


async def test_an_unknown_ticker_of_a_table_is_said(trading: ServiceClient) -> None:
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    with pytest.raises(RemoteError) as caught:
        await trading.call(stub.ListFundamentals, messages.ListFundamentalsRequest(set="mine", tickers=["C"], as_of=ALWAYS))
    assert caught.value.metadata["ticker"] == "C"


async def test_a_set_that_is_written_out_and_imported_again_is_answered_alike(start_server: StartServer, tmp_path: Path) -> None:
    given = tmp_path / "five"
    given.mkdir()
    bars, actions = (pl.read_parquet(EMBEDDED_SETS / "wiki5" / f"{table}.parquet") for table in ("bars", "actions"))
    dollars = [(pl.col(f"{field}_micros") / 10**6).alias(field) for field in ("open", "high", "low", "close")]
    bars.select("ticker", pl.col("session").alias("date"), *dollars, pl.col("volume_shares").alias("volume")).write_parquet(
        given / "bars.parquet"
    )
    dividend = (pl.col("dividend_micros") / 10**6).alias("dividend")
    actions.select("ticker", pl.col("session").alias("ex_date"), dividend, "split_new", "split_old").write_csv(
        given / "corporate_actions.csv"
    )
    import_set(ImportOrder(given, "five", date(2024, 12, 31), adjustment="NONE"), tmp_path / "sets")
    added = registration(
        market_data_service_pb2_grpc.add_MarketDataServiceServicer_to_server,
        MarketDataServicer(MarketStore(tmp_path / "sets")),
        messages.DESCRIPTOR,
        "MarketDataService",
    )
    server = await start_server([added])
    async with ServiceClient(server.target, "trading_service") as client:
        stub = client.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
        as_of = at("2012-11-20T00:00:00Z")
        told, streamed = list[messages.ListCorporateActionsResponse](), list[list[messages.StreamBarsResponse]]()
        dates = list[list[str]]()
        for name in ("wiki5", "five"):
            told.append(await client.call(stub.ListCorporateActions, messages.ListCorporateActionsRequest(set=name, as_of=as_of)))
            # As many at once as neither has ready: by themselves the blocks of an imported set end with its years.
            request = messages.StreamBarsRequest(set=name, as_of=as_of, sessions_per_block=200)
            streamed.append([one async for one in client.stream(stub.StreamBars, request)])
            request.sessions_per_block = 0
            dates.append([day async for one in client.stream(stub.StreamBars, request) for day in one.block.session_dates])
    assert len(told[0].actions) > 80
    assert told[0].actions == told[1].actions
    assert len(streamed[0]) > 10
    assert streamed[0] == streamed[1]
    assert dates[0] == dates[1] == [day for one in streamed[0] for day in one.block.session_dates]
