"""Numbers of shares that a run begins with, against servers that have the statements: those that were filed, in shares of the first morning."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from conftest import StartServer
from trademesh.news.v1 import news_service_pb2, news_service_pb2_grpc
from trademesh.trading.v1 import market_data_service_pb2, market_data_service_pb2_grpc
from trademesh_gateway.market.bar_source import BarSource
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.server import registration
from trademesh_news.news_service import NewsServicer
from trademesh_news.store import NewsStore
from trademesh_trading.importing import ImportOrder, import_set
from trademesh_trading.market_data_service import MarketDataServicer
from trademesh_trading.store import MarketStore

# exchange-calendars uses what pandas 3 deprecates; no name of ours is involved.
pytestmark = pytest.mark.filterwarnings("ignore:Series.values returning:DeprecationWarning")

DAYS = ("2023-12-27", "2023-12-28", "2023-12-29", "2024-01-02", "2024-01-03", "2024-01-04")
FILES = {
    "bars": "\n".join(["ticker,date,close", *(f"{ticker},{day},10" for ticker in "ABC" for day in DAYS)]),
    "fundamentals": """ticker,fiscal_period_end,period,known_at,revenue,shares_outstanding
A,2023-09-30,q3,2023-11-02T21:00:00Z,100,1000
A,2023-12-28,q4,2023-12-28T21:00:00Z,100,
B,2023-09-30,q3,2023-11-02T21:00:00Z,100,50
B,2023-12-28,q4,2023-12-28T12:00:00Z,100,101
B,2023-12-31,fy,2024-01-04T12:00:00Z,100,999
""",
    "corporate_actions": """ticker,ex_date,split_new,split_old,dividend
A,2023-12-28,2,1,
A,2024-01-02,3,2,
A,2024-01-03,,,0.1
A,2024-01-04,5,1,
B,2023-12-28,2,1,
B,2023-12-29,1,2,
""",
}

Begun = Callable[[str, str], Awaitable[list[int]]]


@pytest.fixture
def begun(start_server: StartServer, tmp_path: Path) -> Begun:
    """Gives the numbers of shares of a run that begins on a session, of prices with an adjustment."""
    (tmp_path / "given").mkdir()
    for stem, text in FILES.items():
        (tmp_path / "given" / f"{stem}.csv").write_text(text + "\n")
    for adjustment in ("NONE", "AS_IMPORTED"):
        import_set(ImportOrder(tmp_path / "given", adjustment.lower(), date(2024, 1, 31), adjustment=adjustment), tmp_path / "sets")

    async def shares(adjustment: str, session: str) -> list[int]:
        added = [
            registration(
                market_data_service_pb2_grpc.add_MarketDataServiceServicer_to_server,
                MarketDataServicer(MarketStore(tmp_path / "sets")),
                market_data_service_pb2.DESCRIPTOR,
                "MarketDataService",
            ),
            registration(
                news_service_pb2_grpc.add_NewsServiceServicer_to_server,
                NewsServicer(NewsStore(tmp_path / "news", root=tmp_path)),
                news_service_pb2.DESCRIPTOR,
                "NewsService",
            ),
        ]
        server = await start_server(added)
        async with ServiceClient(server.target, "trading_service") as trading, ServiceClient(server.target, "news_service") as news:
            source = BarSource(trading, news, adjustment.lower(), session, "")
            await source.open(["A", "B", "C"])
            await source.close()
            decided = Timestamp()
            decided.FromJsonString(f"{session}T14:00:00Z")
            return await source.shares_outstanding(["A", "B", "C"], decided.seconds, session)

    return shares


async def test_shares_are_those_filed_by_the_first_decision_with_the_splits_since_the_end_of_their_period(begun: Begun) -> None:
    assert await begun("NONE", "2023-12-27") == [1000, 50, 0]
    assert await begun("NONE", "2023-12-28") == [2000, 101, 0]
    assert await begun("NONE", "2024-01-03") == [3000, 50, 0]
    assert await begun("NONE", "2024-01-04") == [15000, 999, 0]


async def test_of_adjusted_prices_shares_are_as_they_were_filed(begun: Begun) -> None:
    assert await begun("AS_IMPORTED", "2024-01-03") == [1000, 101, 0]
