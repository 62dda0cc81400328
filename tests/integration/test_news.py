"""NewsService and ExplainService over real servers; prices come from a real trading_service by RPC."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from conftest import StartServer
from trademesh.news.v1 import explain_service_pb2, explain_service_pb2_grpc, news_service_pb2, news_service_pb2_grpc
from trademesh.trading.v1 import market_data_service_pb2, market_data_service_pb2_grpc
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import RemoteError
from trademesh_kernel.server import registration
from trademesh_news.explain_service import ExplainServicer
from trademesh_news.market_model import TooFewObservationsError, split_move
from trademesh_news.news_service import NewsServicer
from trademesh_news.store import NewsStore
from trademesh_trading.market_data_service import MarketDataServicer
from trademesh_trading.set_files import load_set
from trademesh_trading.store import EMBEDDED_SETS, MarketStore


def at(iso: str) -> Timestamp:
    """An instant."""
    instant = Timestamp()
    instant.FromJsonString(iso)
    return instant


@pytest_asyncio.fixture
async def news(start_server: StartServer) -> AsyncIterator[ServiceClient]:
    """A client of news_service with a trading_service behind it."""
    market = registration(
        market_data_service_pb2_grpc.add_MarketDataServiceServicer_to_server,
        MarketDataServicer(MarketStore()),
        market_data_service_pb2.DESCRIPTOR,
        "MarketDataService",
    )
    trading = await start_server([market])
    async with ServiceClient(trading.target, "trading_service") as to_trading:
        server = await start_server(news_registrations(to_trading))
        async with ServiceClient(server.target, "news_service") as client:
            yield client


def news_registrations(trading: ServiceClient) -> list[object]:
    """news_service's servicers."""
    store = NewsStore()
    return [
        registration(
            news_service_pb2_grpc.add_NewsServiceServicer_to_server, NewsServicer(store), news_service_pb2.DESCRIPTOR, "NewsService"
        ),
        registration(
            explain_service_pb2_grpc.add_ExplainServiceServicer_to_server,
            ExplainServicer(store, trading),
            explain_service_pb2.DESCRIPTOR,
            "ExplainService",
        ),
    ]


async def test_no_item_is_told_before_it_was_published(news: ServiceClient) -> None:
    stub = news.stub(news_service_pb2_grpc.NewsServiceStub)
    request = news_service_pb2.ListNewsRequest(set="us20", published_after=at("2008-10-12T00:00:00Z"), as_of=at("2008-10-13T20:29:59Z"))
    assert not (await news.call(stub.ListNews, request)).items
    request.as_of.CopyFrom(at("2008-10-13T20:30:00Z"))
    items = (await news.call(stub.ListNews, request)).items
    assert {item.session_date for item in items} == {"2008-10-13"}
    assert {item.source for item in items} == {news_service_pb2.NEWS_SOURCE_DERIVED}
    assert all(item.figures and item.headline for item in items)


async def test_pages_of_news_join_without_a_gap_or_a_repeat(news: ServiceClient) -> None:
    stub = news.stub(news_service_pb2_grpc.NewsServiceStub)
    request = news_service_pb2.ListNewsRequest(set="us20", tickers=["AAPL", "KO"], as_of=at("2023-01-01T00:00:00Z"), page_size=40)
    seen = list[str]()
    while True:
        page = await news.call(stub.ListNews, request)
        seen += [item.news_id for item in page.items]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    request.page_size, request.page_token = 5000, ""
    assert seen == [item.news_id for item in (await news.call(stub.ListNews, request)).items]
    assert len(seen) == len(set(seen)) > 200


async def test_a_move_is_the_sum_of_its_parts_and_tells_its_model(news: ServiceClient) -> None:
    stub = news.stub(explain_service_pb2_grpc.ExplainServiceStub)
    request = explain_service_pb2.ExplainMoveRequest(set="us20", ticker="CVX", start="2008-10-13", as_of=at("2008-10-14T00:00:00Z"))
    answer = await news.call(stub.ExplainMove, request)
    assert math.isclose(answer.log_return, answer.market_part + answer.own_part)
    assert math.isclose(math.exp(answer.log_return) - 1, 0.2085596, rel_tol=1e-5)
    assert not answer.HasField("sector_part")
    assert answer.model.market_ticker == "SP500"
    assert (answer.model.window_sessions, answer.model.window_end) == (252, "2008-10-10")
    assert [item.tickers[0] for item in answer.news] == ["CVX"]


async def test_a_move_that_was_not_known_cannot_be_explained(news: ServiceClient) -> None:
    stub = news.stub(explain_service_pb2_grpc.ExplainServiceStub)
    request = explain_service_pb2.ExplainMoveRequest(set="us20", ticker="CVX", start="2008-10-13", as_of=at("2008-10-13T12:00:00Z"))
    with pytest.raises(RemoteError) as caught:
        await news.call(stub.ExplainMove, request)
    assert caught.value.violations[0].field == "start"


async def test_the_index_is_not_explained_by_itself(news: ServiceClient) -> None:
    stub = news.stub(explain_service_pb2_grpc.ExplainServiceStub)
    request = explain_service_pb2.ExplainMoveRequest(set="us20", ticker="SP500", start="2008-10-13", as_of=at("2008-10-14T00:00:00Z"))
    with pytest.raises(RemoteError) as caught:
        await news.call(stub.ExplainMove, request)
    assert caught.value.violations[0].field == "ticker"


async def test_a_trading_service_that_is_down_is_named(start_server: StartServer) -> None:
    async with ServiceClient("127.0.0.1:1", "trading_service") as nowhere:
        server = await start_server(news_registrations(nowhere))
        async with ServiceClient(server.target, "news_service") as client:
            stub = client.stub(explain_service_pb2_grpc.ExplainServiceStub)
            request = explain_service_pb2.ExplainMoveRequest(set="us20", ticker="CVX", start="2008-10-13", as_of=at("2008-10-14T00:00:00Z"))
            with pytest.raises(RemoteError) as caught:
                await client.call(stub.ExplainMove, request)
    assert (caught.value.remote_reason, caught.value.metadata["dependency"]) == ("DEPENDENCY_UNAVAILABLE", "trading_service")
    assert caught.value.retry_after_s is not None


def test_the_regression_agrees_with_numpys_least_squares() -> None:
    data = load_set(EMBEDDED_SETS / "us20")
    ticker, index = data.close_micros[:, 9], data.close_micros[:, 25]
    parts = split_move(ticker, index, 5000, 5004, 252)
    own, market = np.diff(np.log(ticker / 1e6)), np.diff(np.log(index / 1e6))
    window = slice(4999 - 252, 4999)
    beta, alpha = np.polyfit(market[window], own[window], 1)
    assert math.isclose(parts.beta, beta, rel_tol=1e-9)
    assert math.isclose(parts.alpha, alpha, rel_tol=1e-6, abs_tol=1e-12)
    correlation = np.corrcoef(market[window], own[window])[0, 1]
    assert math.isclose(parts.r_squared, correlation**2, rel_tol=1e-9)


def test_too_little_history_is_refused_rather_than_shortened() -> None:
    data = load_set(EMBEDDED_SETS / "us20")
    with pytest.raises(TooFewObservationsError):
        split_move(data.close_micros[:, 0], data.close_micros[:, 25], 252, 252, 252)
