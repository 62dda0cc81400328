"""Fees, slippage, ticks, borrow."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademesh_ledger.borrow import BorrowCharge, calendar_days, charge_borrow
from trademesh_ledger.costs import CostModel, Tick
from trademesh_ledger.money import divide_half_even
from trademesh_ledger.portfolio import Portfolio

DOLLAR = 1_000_000


@pytest.mark.parametrize(
    ("market_micros", "slippage_bp", "delta", "paid_micros"),
    [
        (10_001_000, 10, 1, 10_020_000),  # 10.011001 up to the cent
        (10_001_000, 10, -1, 9_990_000),  # 9.990999 down
        (10_000_000, 0, 1, 10_000_000),  # on the grid already
        (10_000_000, 0, -1, 10_000_000),
        (999_901, 0, 1, 1_000_000),  # under $1 the grid is finer
        (999_901, 0, -1, 999_900),
        (123_450, 0, 1, 123_500),
        (123_450, 0, -1, 123_400),
        (1_000_001, 0, -1, 1_000_000),
        (1_000_001, 0, 1, 1_010_000),
        (1_000_450, 10, -1, 999_400),  # slippage comes first: 0.99944955, a price under $1
    ],
)
def test_fill_prices_move_against_the_trader_and_onto_the_grid_of_us_shares(
    market_micros: int, slippage_bp: int, delta: int, paid_micros: int
) -> None:
    assert CostModel(slippage_bp=slippage_bp, tick=Tick.US_EQUITY).fill_price(market_micros, delta) == paid_micros


def test_without_a_tick_the_price_is_kept_and_slippage_rounds_half_to_even() -> None:
    assert CostModel().fill_price(10_001_003, 5) == 10_001_003
    assert CostModel(slippage_bp=1).fill_price(5_000, 1) == 5_000
    assert CostModel(slippage_bp=1).fill_price(15_000, 1) == 15_002
    assert CostModel(slippage_bp=1).fill_price(15_000, -1) == 14_998


def test_a_fee_rounds_half_to_even_and_is_never_less_than_the_least() -> None:
    assert CostModel(fee_bp=1).fee(5, 1_000) == 0
    assert CostModel(fee_bp=1).fee(-15, 1_000) == 2
    assert CostModel(fee_bp=1, min_fee_micros=DOLLAR).fee(-15, 1_000) == DOLLAR
    assert CostModel(fee_bp=1, min_fee_micros=DOLLAR).fee(1, 20_000 * DOLLAR) == 2 * DOLLAR


@given(st.integers(-(10**20), 10**20), st.integers(1, 10**12))
def test_division_is_that_of_fractions_rounded_half_to_even(numerator: int, denominator: int) -> None:
    assert divide_half_even(numerator, denominator) == round(Fraction(numerator, denominator))


@given(st.integers(1, 10**9), st.integers(0, 500), st.sampled_from(Tick), st.booleans())
def test_a_fill_price_is_never_better_than_the_market_and_less_than_a_tick_beyond_the_slippage(
    market_micros: int, slippage_bp: int, tick: Tick, buys: bool
) -> None:
    paid = CostModel(slippage_bp=slippage_bp, tick=tick).fill_price(market_micros, 1 if buys else -1)
    slipped = Fraction(market_micros * (10_000 + (slippage_bp if buys else -slippage_bp)), 10_000)
    worse = paid - slipped if buys else slipped - paid
    grid = 1 if tick is Tick.NONE else 10_000
    assert -Fraction(1, 2) <= worse < grid + Fraction(1, 2)
    assert paid >= market_micros if buys else paid <= market_micros


def test_days_are_those_of_the_calendar() -> None:
    assert calendar_days("2012-12-28", "2012-12-31") == 3
    assert calendar_days("2001-09-10", "2001-09-17") == 7
    assert calendar_days("2012-02-28", "2012-02-29") == 1


def test_borrow_is_charged_on_shorts_alone_by_ticker() -> None:
    portfolio = Portfolio(0)
    for ticker, delta in (("S2", -200), ("L", 100), ("S1", -1)):
        portfolio.apply_fill(ticker, delta, 30 * DOLLAR, 0)
    marks = {"S2": 31 * DOLLAR, "L": DOLLAR, "S1": DOLLAR}
    cash = portfolio.cash_micros
    charges = charge_borrow(portfolio, marks, 250, 3)
    assert charges == [BorrowCharge("S1", 208), BorrowCharge("S2", 1_291_667)]
    assert cash - portfolio.cash_micros == portfolio.borrow_micros == 1_291_875
    assert portfolio.balances()
    assert charge_borrow(portfolio, marks, 0, 3) == []
    assert portfolio.charge_borrow("L", DOLLAR, 250, 3) == 0
