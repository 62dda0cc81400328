"""A desk on paper: when a moment has come, and which prices are its."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from trademesh_gateway.pipeline.broker import Moment, SessionTimes
from trademesh_gateway.pipeline.controller import Interrupted
from trademesh_gateway.pipeline.paper_broker import Observed, PaperBroker, Patience, TradesAround
from trademesh_kernel.errors import DependencyUnavailable

OPEN, CLOSE = 1_795_789_800, 1_795_802_400  # 2026-11-27 in New York, which closes at 13:00
DAY = SessionTimes("2026-11-27", OPEN, CLOSE)
NEXT_DAY = SessionTimes("2026-11-30", OPEN + 3 * 86_400, CLOSE + 3 * 86_400)
PATIENCE = Patience()


@dataclass
class Market:
    """Trades of two tickers, a clock that a wait moves on, and what was told of prices."""

    now_s: float
    trades: list[list[tuple[float, int]]] = field(default_factory=lambda: [[], []])
    heard_since_s: float | None = 0.0
    gone_until_s: float = 0.0
    stand_at_s: float | None = None
    observed: list[tuple[str, Moment, list[int]]] = field(default_factory=list)
    waits: int = 0

    def now_unix_s(self) -> float:
        return self.now_s

    async def wait(self, within_s: float) -> None:
        assert 0 < within_s <= PATIENCE.poll_s
        self.waits += 1
        assert self.waits < 100_000
        self.now_s += within_s
        if self.stand_at_s is not None and self.now_s >= self.stand_at_s:
            raise Interrupted

    async def around(self, unix_s: int, since_unix_s: int | None = None) -> TradesAround:
        if self.now_s < self.gone_until_s:
            raise DependencyUnavailable("trading_service")
        before = [max(((at, price) for at, price in told if at <= unix_s and at <= self.now_s), default=(0.0, 0)) for told in self.trades]
        after = [min(((at, price) for at, price in told if unix_s <= at <= self.now_s), default=(0.0, 0)) for told in self.trades]
        since = unix_s if since_unix_s is None else since_unix_s
        between = [[price for at, price in told if since <= at < unix_s and at <= self.now_s] for told in self.trades]
        heard = self.heard_since_s if self.heard_since_s is not None and self.heard_since_s <= self.now_s else None
        return TradesAround(
            [price for _, price in before],
            [round(at * 1000) for at, _ in before],
            [price for _, price in after],
            [round(at * 1000) for at, _ in after],
            [max(prices, default=0) for prices in between],
            [min(prices, default=0) for prices in between],
            heard,
        )

    async def observe(self, session: SessionTimes, moment: Moment, found: Observed) -> None:
        self.observed.append((session.date, moment, list(found.prices)))

    def broker(self, observed: dict[tuple[str, Moment], Observed] | None = None) -> PaperBroker:
        return PaperBroker(self, self, self.wait, self.observe, observed or {}, columns=2, other_columns=1)


async def test_a_decision_waits_until_half_an_hour_before_the_open() -> None:
    market = Market(OPEN - 5000)
    broker = market.broker()
    assert not broker.is_time(DAY, Moment.DECISION)
    await broker.until(DAY, Moment.DECISION)
    assert market.now_s == OPEN - 1800
    assert broker.is_time(DAY, Moment.DECISION)
    assert not broker.is_time(DAY, Moment.OPEN)


async def test_the_open_is_the_first_trade_at_or_after_it_and_is_not_waited_for_longer_than_all_have_one() -> None:
    market = Market(OPEN - 100, [[(OPEN - 1, 1), (OPEN, 2), (OPEN + 1, 3)], [(OPEN + 5, 7), (OPEN + 6, 8)]])
    broker = market.broker()
    await broker.until(DAY, Moment.OPEN)
    assert broker.bar(DAY, Moment.OPEN).opens == [2, 7, 0]
    assert market.now_s == pytest.approx(OPEN + 5, abs=PATIENCE.poll_s)
    assert market.observed == [("2026-11-27", Moment.OPEN, [2, 7])]


async def test_a_ticker_that_does_not_trade_at_the_open_has_no_price_there() -> None:
    market = Market(OPEN - 1, [[(OPEN + 1, 3)], [(OPEN - 50, 9), (OPEN + 600, 9)]])
    broker = market.broker()
    await broker.until(DAY, Moment.OPEN)
    assert broker.bar(DAY, Moment.OPEN).opens == [3, 0, 0]
    assert market.now_s == pytest.approx(OPEN + PATIENCE.open_s, abs=PATIENCE.poll_s)


async def test_while_no_trades_arrive_the_open_is_waited_for_and_a_provider_that_is_back_has_its_time() -> None:
    market = Market(OPEN - 1, [[(OPEN + 4000, 3)], []], heard_since_s=OPEN + 3990)
    broker = market.broker()
    await broker.until(DAY, Moment.OPEN)
    assert broker.bar(DAY, Moment.OPEN).opens == [3, 0, 0]
    assert market.now_s == pytest.approx(OPEN + 3990 + PATIENCE.open_s, abs=2 * PATIENCE.poll_s)


async def test_a_provider_that_stays_away_is_waited_for_until_the_close_and_then_there_is_no_price() -> None:
    market = Market(OPEN - 1, heard_since_s=None)
    broker = market.broker()
    await broker.until(DAY, Moment.OPEN)
    assert broker.bar(DAY, Moment.OPEN).opens == [0, 0, 0]
    assert market.now_s == pytest.approx(CLOSE, abs=PATIENCE.poll_s)


async def test_the_close_is_the_last_trade_at_or_before_it() -> None:
    market = Market(CLOSE - 10, [[(OPEN, 2), (CLOSE - 1, 5), (CLOSE, 6), (CLOSE + 1, 7)], [(OPEN + 3, 8)]])
    broker = market.broker()
    await broker.until(DAY, Moment.CLOSE)
    bar = broker.bar(DAY, Moment.CLOSE)
    assert (bar.opens, bar.closes) == ([2, 8, 0], [6, 8, 0])
    assert (bar.highs, bar.lows) == ([5, 8, 0], [2, 8, 0])
    assert bar.has_range(0)
    assert not bar.has_range(2)
    assert market.now_s == CLOSE + PATIENCE.close_s


async def test_a_trade_of_another_session_is_no_price_of_this_one() -> None:
    market = Market(OPEN - 10, [[(OPEN - 60_000, 4)], [(NEXT_DAY.open_unix_s, 5)]])
    market.now_s = NEXT_DAY.open_unix_s + 10
    broker = market.broker()
    await broker.until(DAY, Moment.CLOSE)
    bar = broker.bar(DAY, Moment.CLOSE)
    assert (bar.opens, bar.closes) == ([0, 0, 0], [0, 0, 0])


async def test_a_session_that_is_over_is_not_waited_for() -> None:
    market = Market(CLOSE + 3600, [[(OPEN, 4), (CLOSE - 5, 5)], []])
    await market.broker().until(DAY, Moment.CLOSE)
    assert market.waits == 0
    assert [(moment, prices) for _, moment, prices in market.observed] == [(Moment.OPEN, [4, 0]), (Moment.CLOSE, [5, 0])]


async def test_a_service_that_does_not_answer_is_asked_again_and_in_the_end_there_are_no_prices() -> None:
    back = Market(CLOSE + 20, [[(CLOSE - 5, 5)], []], gone_until_s=CLOSE + 200)
    broker = back.broker()
    await broker.until(DAY, Moment.CLOSE)
    assert broker.bar(DAY, Moment.CLOSE).closes == [5, 0, 0]
    gone = Market(CLOSE + 20, [[(CLOSE - 5, 5)], []], gone_until_s=CLOSE + 86_400)
    broker = gone.broker()
    await broker.until(DAY, Moment.CLOSE)
    assert broker.bar(DAY, Moment.CLOSE).closes == [0, 0, 0]
    assert gone.now_s == pytest.approx(CLOSE + PATIENCE.unheard_s, abs=PATIENCE.poll_s)


async def test_prices_that_were_journaled_bind_whatever_the_feed_says_now() -> None:
    market = Market(OPEN + 100, [[(OPEN, 2)], [(OPEN, 3)]])
    broker = market.broker({("2026-11-27", Moment.OPEN): Observed([9, 0])})
    assert broker.is_time(DAY, Moment.OPEN)
    await broker.until(DAY, Moment.OPEN)
    assert broker.bar(DAY, Moment.OPEN).opens == [9, 0, 0]
    assert market.observed == []
    assert not broker.is_time(NEXT_DAY, Moment.OPEN)


async def test_prices_are_told_before_they_are_known_to_whoever_fills_at_them() -> None:
    market = Market(OPEN, [[(OPEN, 2)], [(OPEN, 3)]])
    durable = asyncio.Event()

    async def observe(session: SessionTimes, moment: Moment, found: Observed) -> None:
        await durable.wait()

    broker = PaperBroker(market, market, market.wait, observe, {}, columns=2)
    waiting = asyncio.create_task(broker.until(DAY, Moment.OPEN))
    await asyncio.sleep(0)
    assert not broker.is_time(DAY, Moment.OPEN)
    durable.set()
    await waiting
    assert broker.is_time(DAY, Moment.OPEN)


@pytest.mark.parametrize(("moment", "stand_at_s"), [(Moment.DECISION, OPEN - 4000), (Moment.OPEN, OPEN - 10), (Moment.CLOSE, CLOSE - 10)])
async def test_who_waits_gives_way_and_goes_on_where_it_was(moment: Moment, stand_at_s: float) -> None:
    market = Market(OPEN - 5000, [[(OPEN, 2), (CLOSE, 4)], [(OPEN, 3)]], stand_at_s=stand_at_s)
    broker = market.broker()
    with pytest.raises(Interrupted):
        await broker.until(DAY, moment)
    market.stand_at_s = None
    await broker.until(DAY, moment)
    assert broker.is_time(DAY, moment)
    told = [moment for _, moment, _ in market.observed]
    assert told == sorted(set(told))


async def test_a_moment_is_over_by_the_clock() -> None:
    market = Market(OPEN - 1)
    broker = market.broker()
    assert broker.is_over(DAY, Moment.DECISION)
    assert not broker.is_over(DAY, Moment.OPEN)
    market.now_s = OPEN
    assert broker.is_over(DAY, Moment.OPEN)
    assert not broker.is_over(DAY, Moment.CLOSE)
