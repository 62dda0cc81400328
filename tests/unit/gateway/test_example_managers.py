"""The two shipped strategies order what the reference works do, on any prices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journaled_desk import Desk, config_of
from made_up_bars import DOLLAR, Stage, day, stage
from reference_works import CASH_MICROS, Market, Orders, orders_of_a, orders_of_b, trend_of
from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh_gateway.agents.example_managers import monthly_equal_weight, sma_crossover
from trademesh_gateway.agents.records import Book
from trademesh_gateway.market.point_in_time import MarketHistory
from trademesh_ledger.account import Account
from trademesh_ledger.costs import CostModel
from trademesh_ledger.margin import MarginRules
from trademesh_ledger.portfolio import Portfolio

TICKERS = ("AAA", "BBB", "CCC")
WORKS = {"monthly-equal-weight": orders_of_a, "sma-crossover": orders_of_b}


def market_of(seed: int, rows: int) -> tuple[Stage, Market]:
    """The same random prices for the desk, all of whose sessions are traded, and for the works."""
    numbers = np.random.default_rng(seed)
    dollars = np.round(40 * np.exp(numbers.normal(0, 0.03, (rows, len(TICKERS))).cumsum(axis=0)) + 1, 2)
    found = stage({ticker: dollars[:, column].tolist() for column, ticker in enumerate(TICKERS)}, before=0)
    closes = found.history.as_of(2**40).last_closes(rows)
    market = Market(TICKERS, tuple(day(row) for row in range(rows)), closes.tolist(), trend_of(closes).tolist())
    return found, market


def ordered_by_desk(found: Stage, manager: str) -> list[Orders]:
    """Decisions of each session of a run that decides and fills at the close."""
    desk = Desk(config_of(3, manager=manager, fee_bp=1), found, cash_micros=CASH_MICROS)
    for _ in range(found.sessions):
        desk.run()
    return [
        [(row.ticker, row.quantity if row.action == words.ACTION_LONG else -row.quantity) for row in one.decisions if row.quantity]
        for one in desk.told("decisions")
    ]


def ordered_by_work(market: Market, manager: str) -> list[Orders]:
    """Orders of the reference work, filled at the closes on which they are decided."""
    account, told = Account(Portfolio(CASH_MICROS), CostModel(fee_bp=1), MarginRules()), list[Orders]()
    for row, closes in enumerate(market.closes_micros):
        prices = dict(zip(market.tickers, closes, strict=True))
        execution = account.execution(prices)
        orders = [order for order in WORKS[manager](account, market, row) if order[1]]
        told.append(orders)
        for ticker, delta in orders:
            execution.execute(ticker, delta, prices[ticker])
        account.settle(prices, 1)
    return told


@pytest.mark.parametrize("manager", WORKS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(61, 130))
def test_a_manager_orders_what_the_work_orders_on_any_prices(manager: str, seed: int, rows: int) -> None:
    found, market = market_of(seed, rows)
    desk, work = ordered_by_desk(found, manager), ordered_by_work(market, manager)
    assert [sorted(orders) for orders in desk] == [sorted(orders) for orders in work]
    # In a few sessions of falling prices nothing crosses.
    assert any(work) or (manager == "sma-crossover" and rows < 100)


def history_of(months: list[str]) -> MarketHistory:
    """One ticker at 10 dollars, a session in each of some months."""
    found = MarketHistory(["AAA"])
    found.add_sessions([f"{month}-05" for month in months], range(len(months)), np.full((len(months), 1), 10 * DOLLAR))
    return found


@pytest.mark.parametrize(
    ("months", "session", "delta"),
    [(["2020-01", "2020-02"], 7, 98), (["2020-02", "2020-02"], 7, 0), (["2020-02", "2020-02"], 1, 98), (["2020-02"], 1, 98)],
)
def test_weights_are_made_equal_at_the_first_session_of_a_month_and_of_the_run(months: list[str], session: int, delta: int) -> None:
    book = Book(1_000 * DOLLAR, 1_000 * DOLLAR, [0], [10 * DOLLAR])
    decided = monthly_equal_weight(history_of(months).as_of(9), book, session)
    assert list(decided.deltas) == [delta]


def test_a_ticker_without_a_price_is_left_alone() -> None:
    book = Book(1_000 * DOLLAR, 1_000 * DOLLAR, [5], [0])
    assert list(monthly_equal_weight(history_of(["2020-01", "2020-02"]).as_of(9), book, 1).deltas) == [0]


def test_without_sixty_closes_or_with_one_missing_there_is_no_trend_and_no_order() -> None:
    book = Book(10_000 * DOLLAR, 10_000 * DOLLAR, [0], [10 * DOLLAR])
    for rows, missing in ((59, -1), (60, 3)):
        rising = np.arange(1, rows + 1, dtype=np.int64).reshape(-1, 1) * DOLLAR
        if missing >= 0:
            rising[missing] = 0
        found = MarketHistory(["AAA"])
        found.add_sessions([f"{row:04}" for row in range(rows)], range(rows), rising)
        assert list(sma_crossover(found.as_of(rows), book, 10_000 * DOLLAR).deltas) == [0]
