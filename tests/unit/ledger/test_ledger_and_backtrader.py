"""The same random orders through our ledger and through backtrader (Daniel Rodriguez, 2015 on), a program that shares nothing with it.

backtrader runs whole: feeds, strategy, broker, commission scheme. An order that the strategy gives at bar t is filled at the open of bar
t + 1; both accounts are then valued at that bar's close. Rules by which the two may differ, each with what it can come to:

    FLOATS      backtrader counts in doubles: half of 2^-32 dollars for each of some 400 operations on accounts under $2 million, which is
                1/20 micro-dollar: rounded to whole ones, nothing
    FEES        ours are whole micro-dollars, half to even; theirs are not rounded: 1/2 micro-dollar per fill. Prices in whole cents make
                every fee whole, and then there is no difference
    COST        the cost of a part that is closed is rounded by us, not by them: 1/2 micro-dollar per reduction, in the realised result;
                never in cash or net asset value
    BORROW      theirs is on average cost, actual/365, at the start of the next bar; ours on the mark, actual/360, at the close. The test
                tells them our price and year, and looks at ours before the charge. Ours is rounded: 1/2 micro-dollar per charge
    LEAST FEE   theirs has none; a flip is two commissions there and one fee here, which is the same sum without a least fee
    CHECKS      theirs fills the closing half of a flip that cash does not cover; ours rejects all of it. Here there is always enough cash
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import backtrader as bt
from hypothesis import given, settings
from hypothesis import strategies as st

from trademesh_ledger.account import Account
from trademesh_ledger.costs import CostModel
from trademesh_ledger.execution import Fill
from trademesh_ledger.margin import MarginRules
from trademesh_ledger.portfolio import Portfolio

MICROS = 1_000_000
CENT = 10_000
CASH_MICROS = 1_000_000 * MICROS
TICKERS = ("A", "B")
FIRST = datetime(2024, 1, 1)
FLOAT_SLACK_MICROS = 0.05


@dataclass(frozen=True)
class Bar:
    """A day of one ticker, and the signed shares that are ordered when it has closed."""

    open_micros: int
    close_micros: int
    order: int


Day = tuple[int, tuple[Bar, Bar]]
"""Days since the one before, and a bar per ticker."""


@dataclass
class Books:
    """An account after each day, in micro-dollars, and what was realised and paid in all."""

    nav: list[float] = field(default_factory=list)
    cash: list[float] = field(default_factory=list)
    shares: list[tuple[int, ...]] = field(default_factory=list)
    realised: float = 0.0
    fees: float = 0.0
    fills: int = 0
    reductions: int = 0
    charges: int = 0


def days(price: st.SearchStrategy[int]) -> st.SearchStrategy[list[Day]]:
    """Days with orders of all kinds: small ones are flips, covers in part and closings more often."""
    order = st.one_of(st.integers(-100, 100), st.integers(-5, 5))
    bar = st.builds(Bar, price, price, order)
    return st.lists(st.tuples(st.integers(1, 4), st.tuples(bar, bar)), min_size=2, max_size=25)


class Feed(bt.feed.DataBase):  # type: ignore[misc]  # backtrader has no types
    """Bars of one ticker."""

    def __init__(self, bars: Sequence[tuple[datetime, Bar]]) -> None:
        super().__init__()
        self._rows = iter(bars)

    def _load(self) -> bool:
        row = next(self._rows, None)
        if row is None:
            return False
        opened, closed = row[1].open_micros / MICROS, row[1].close_micros / MICROS
        self.lines.datetime[0] = bt.date2num(row[0])
        self.lines.open[0], self.lines.close[0] = opened, closed
        self.lines.high[0], self.lines.low[0] = max(opened, closed), min(opened, closed)
        self.lines.volume[0] = self.lines.openinterest[0] = 0
        return True


class Commission(bt.CommInfoBase):  # type: ignore[misc]  # backtrader has no types
    """Basis points of the traded value; borrow on the last close, actual/360."""

    params = (("stocklike", True), ("commtype", bt.CommInfoBase.COMM_PERC), ("percabs", True), ("borrow_bp", 0), ("interest", 1.0))

    def _get_credit_interest(self, data: Any, size: float, price: float, days: int, _dt0: object, _dt1: object) -> float:
        return float(abs(size) * data.close[-1] * self.p.borrow_bp * days / 3_600_000)


def backtraders(plan: list[Day], costs: CostModel) -> Books:
    """What backtrader makes of it."""
    books = Books()
    dates = [FIRST + timedelta(days=sum(gap for gap, _ in plan[: row + 1])) for row in range(len(plan))]

    class Orders(bt.Strategy):  # type: ignore[misc]  # backtrader has no types
        def next(self) -> None:
            books.nav.append(self.broker.getvalue() * MICROS)
            books.cash.append(self.broker.getcash() * MICROS)
            books.shares.append(tuple(int(self.getposition(data).size) for data in self.datas))
            for data, bar in zip(self.datas, plan[len(self) - 1][1], strict=True):
                if bar.order:
                    (self.buy if bar.order > 0 else self.sell)(data=data, size=abs(bar.order))

        def notify_order(self, order: Any) -> None:
            if order.status == order.Completed:
                books.fills += 1
                books.realised += order.executed.pnl * MICROS
                books.fees += order.executed.comm * MICROS
            else:
                assert order.status in (order.Submitted, order.Accepted), order.getstatusname()

    cerebro = bt.Cerebro(stdstats=False)
    for column, ticker in enumerate(TICKERS):
        bars = [(date, day[1][column]) for date, day in zip(dates, plan, strict=True)]
        cerebro.adddata(Feed(bars), name=ticker)
    cerebro.broker.setcash(CASH_MICROS / MICROS)
    cerebro.broker.set_checksubmit(False)
    cerebro.broker.addcommissioninfo(Commission(commission=costs.fee_bp / 10_000, borrow_bp=costs.borrow_bp))
    cerebro.addstrategy(Orders)
    cerebro.run()
    assert len(books.nav) == len(plan)
    return books


def ours(plan: list[Day], costs: CostModel) -> Books:
    """What the ledger makes of it. Net asset value and cash are those before the borrow of the night that follows."""
    books = Books()
    account = Account(Portfolio(CASH_MICROS), costs, MarginRules(initial_bp=0, allow_debit=True))
    pending = [0, 0]
    for row, (_, bars) in enumerate(plan):
        moment = account.execution({ticker: bar.open_micros for ticker, bar in zip(TICKERS, bars, strict=True)})
        for ticker, bar, delta in zip(TICKERS, bars, pending, strict=True):
            if delta:
                held = account.portfolio.quantity(ticker)
                outcome = moment.execute(ticker, delta, bar.open_micros)
                assert isinstance(outcome, Fill)
                books.fills += 1
                books.reductions += held * delta < 0
        pending = [bar.order for bar in bars]
        closes = {ticker: bar.close_micros for ticker, bar in zip(TICKERS, bars, strict=True)}
        until_next = plan[row + 1][0] if row + 1 < len(plan) else 0
        settled = account.settle(closes, until_next)
        tonight = sum(charge.charge_micros for charge in settled.borrow)
        books.charges += len(settled.borrow)
        books.nav.append(settled.nav_micros + tonight)
        books.cash.append(account.portfolio.cash_micros + tonight)
        books.shares.append(tuple(account.portfolio.quantity(ticker) for ticker in TICKERS))
    books.realised, books.fees = account.portfolio.realised_micros, account.portfolio.fees_micros
    return books


def compare(plan: list[Day], costs: CostModel, allowed_micros: float) -> tuple[Books, Books]:
    """Both books; they may differ by so much after each day."""
    left, right = ours(plan, costs), backtraders(plan, costs)
    assert left.shares == right.shares
    assert left.fills == right.fills
    for mine, theirs in zip(left.nav + left.cash, right.nav + right.cash, strict=True):
        assert abs(mine - theirs) <= allowed_micros + FLOAT_SLACK_MICROS
    return left, right


@settings(max_examples=60, deadline=None)
@given(days(st.integers(1, 10_000).map(lambda cents: cents * CENT)), st.integers(0, 100))
def test_net_asset_value_is_backtraders_to_the_micro_dollar(plan: list[Day], fee_bp: int) -> None:
    """Prices in whole cents: nothing in cash is rounded, so every micro-dollar is the same after every day."""
    left, right = compare(plan, CostModel(fee_bp=fee_bp), 0)
    assert [round(value) for value in right.nav] == left.nav
    assert round(right.fees) == left.fees
    assert abs(left.realised - right.realised) <= left.reductions / 2 + FLOAT_SLACK_MICROS, "rule COST"


@settings(max_examples=40, deadline=None)
@given(days(st.integers(CENT, 100 * MICROS)), st.integers(1, 100))
def test_at_any_price_net_asset_value_is_backtraders_but_for_the_rounding_of_fees(plan: list[Day], fee_bp: int) -> None:
    costs = CostModel(fee_bp=fee_bp)
    fills = ours(plan, costs).fills
    left, right = compare(plan, costs, fills / 2)
    assert abs(left.fees - right.fees) <= fills / 2 + FLOAT_SLACK_MICROS, "rule FEES"


@settings(max_examples=40, deadline=None)
@given(days(st.integers(1, 10_000).map(lambda cents: cents * CENT)), st.integers(1, 1_000))
def test_borrow_of_shorts_is_backtraders_but_for_its_rounding(plan: list[Day], borrow_bp: int) -> None:
    costs = CostModel(borrow_bp=borrow_bp)
    compare(plan, costs, ours(plan, costs).charges / 2)


def test_the_comparison_sees_flips_covers_and_borrow() -> None:
    """One plan worked out by hand, so that the properties above are not about accounts that do nothing."""
    plan: list[Day] = [
        (1, (Bar(10 * MICROS, 10 * MICROS, 100), Bar(20 * MICROS, 20 * MICROS, -50))),
        (1, (Bar(11 * MICROS, 12 * MICROS, -150), Bar(21 * MICROS, 20 * MICROS, 20))),
        (3, (Bar(12 * MICROS, 12 * MICROS, 0), Bar(20 * MICROS, 30 * MICROS, 0))),
        (1, (Bar(12 * MICROS, 13 * MICROS, 0), Bar(30 * MICROS, 30 * MICROS, 0))),
    ]
    costs = CostModel(fee_bp=10, borrow_bp=360)
    left, right = compare(plan, costs, 1)
    assert left.shares == [(0, 0), (100, -50), (-50, -30), (-50, -30)]
    assert left.realised == 100 * MICROS + 20 * MICROS
    assert math.isclose(right.realised, left.realised)
    night_of_two, night_of_three = 50 * 20 * 3 * 100, (50 * 12 + 30 * 30) * 100
    assert left.nav[3] == CASH_MICROS + 120 * MICROS - 50 * MICROS - 30 * 9 * MICROS - left.fees - night_of_two - night_of_three
