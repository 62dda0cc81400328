"""The market of a run on paper: which news are read when, and what becomes of sessions that the run has seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from trademesh.trading.v1 import market_data_service_pb2 as data
from trademesh_gateway.market.paper_market import PaperMarket
from trademesh_gateway.market.point_in_time import MarketHistory, NewsFact
from trademesh_gateway.pipeline.broker import Moment, SessionTimes
from trademesh_gateway.pipeline.paper_broker import Observed, ObservedKey
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import DependencyUnavailable

OPEN = 1_795_789_800
DAY_S = 86_400
SESSIONS = [
    SessionTimes(f"2026-11-{day}", OPEN + number * DAY_S, OPEN + number * DAY_S + 12_600) for number, day in enumerate((27, 28, 29))
]


@dataclass
class Clock:
    """A clock that stands."""

    unix_s: float

    def now_unix_s(self) -> float:
        return self.unix_s


class Market(PaperMarket):
    """With news that the test has, and no bars of a set."""

    def __init__(self, client: ServiceClient, now_s: float, observed: dict[ObservedKey, Observed]) -> None:
        request = data.ListSessionsRequest(calendar="XNYS", start=SESSIONS[0].date, end=SESSIONS[-1].date)
        super().__init__(client, client, "mine", request, observed, Clock(now_s))
        self.told = list[int]()
        self.down = False
        self.history = MarketHistory(["AAPL", "MSFT", "INDEX"])
        self._as_of.seconds = int(now_s)

    async def _read_news(self, tickers: list[str], after_unix_s: int = 0) -> None:
        if self.down:
            raise DependencyUnavailable("news_service")
        self.history.add_news([NewsFact("AAPL", at, 1) for at in self.told if after_unix_s < at <= self._as_of.seconds])

    def seen(self, session: SessionTimes) -> list[int]:
        """When what is seen at a session's decision became known."""
        return [fact.published_unix_s for fact in self.history.as_of(session.open_unix_s - 1800).news_since(0)]


@pytest_asyncio.fixture
async def client() -> AsyncIterator[ServiceClient]:
    """Nobody is there."""
    async with ServiceClient("127.0.0.1:1", "nobody") as found:
        yield found


async def test_each_decision_sees_the_news_up_to_it_once(client: ServiceClient) -> None:
    market = Market(client, OPEN - 7200, {})
    market.told = [OPEN - 3600, OPEN - 60, OPEN + 60, OPEN + DAY_S - 3600]
    for session in SESSIONS[:2]:
        assert not market.has(session)
        await market.have(session)
        assert market.has(session)
    assert market.seen(SESSIONS[0]) == [OPEN - 3600]
    assert market.seen(SESSIONS[1]) == market.told


async def test_who_begins_in_the_middle_of_a_session_does_not_read_its_news_twice(client: ServiceClient) -> None:
    market = Market(client, OPEN + 3600, {})
    market.told = [OPEN + 60, OPEN + 7200]
    await market._read_news([])  # as `open` does
    for session in SESSIONS[:2]:
        await market.have(session)
    assert market.seen(SESSIONS[0]) == []
    assert market.seen(SESSIONS[1]) == market.told


async def test_news_that_could_not_be_read_are_read_the_next_time(client: ServiceClient) -> None:
    market = Market(client, OPEN - 7200, {})
    market.told, market.down = [OPEN - 3600], True
    with pytest.raises(DependencyUnavailable):
        await market.have(SESSIONS[0])
    assert not market.has(SESSIONS[0])
    market.down = False
    await market.have(SESSIONS[0])
    assert market.seen(SESSIONS[0]) == [OPEN - 3600]


async def test_a_session_that_the_run_has_seen_is_a_bar_with_nothing_in_the_column_of_the_index(client: ServiceClient) -> None:
    market = Market(client, OPEN, {})
    market.add_session(SESSIONS[0], Observed([1, 0]), Observed([5, 6], [7, 8], [2, 3]))
    view = market.history.as_of(SESSIONS[0].close_unix_s)
    assert view.last_closes(1).tolist() == [[5, 6, 0]]
    for name, expected in (("open", [1, 0, 0]), ("high", [7, 8, 0]), ("low", [2, 3, 0])):
        values = view.last(name, 1)
        assert values is not None
        assert values.tolist() == [expected]
    assert market.history.as_of(SESSIONS[0].close_unix_s - 1).last_session() == ""


async def test_a_session_of_which_nothing_was_heard_has_no_bar(client: ServiceClient) -> None:
    market = Market(client, OPEN, {("2026-11-27", Moment.CLOSE): Observed([0, 0])})
    market.add_session(SESSIONS[0], Observed([0, 0]), Observed([0, 0]))
    assert len(market.history) == 0
    assert market.has(SESSIONS[0])
