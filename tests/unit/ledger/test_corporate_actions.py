"""Dividends, splits and delistings on the morning of an ex-date."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademesh_ledger.corporate_actions import ActionEffect, Delisting, Dividend, Split, apply_actions
from trademesh_ledger.portfolio import Portfolio

DOLLAR = 1_000_000


def holding(quantity: int, price_dollars: int = 10) -> Portfolio:
    """An account with a position in X."""
    portfolio = Portfolio(100_000 * DOLLAR)
    portfolio.apply_fill("X", quantity, price_dollars * DOLLAR, 0)
    return portfolio


@pytest.mark.parametrize("quantity", [100, -100])
def test_longs_are_paid_a_dividend_and_shorts_pay_it(quantity: int) -> None:
    portfolio = holding(quantity)
    cash = portfolio.cash_micros
    [effect] = apply_actions(portfolio, [Dividend("X", 250_000)], {"X": 10 * DOLLAR})
    assert effect == ActionEffect(Dividend("X", 250_000), quantity, quantity, quantity * 250_000, 0, 10 * DOLLAR)
    assert portfolio.cash_micros - cash == portfolio.dividends_micros == quantity * 250_000


def test_a_dividend_on_the_day_of_a_split_is_paid_on_the_shares_before_it() -> None:
    portfolio = holding(100)
    effects = apply_actions(portfolio, [Split("X", 2, 1), Dividend("X", DOLLAR)], {"X": 10 * DOLLAR})
    assert [effect.cash_micros for effect in effects] == [100 * DOLLAR, 0]
    assert portfolio.quantity("X") == 200


def test_a_split_that_leaves_no_whole_share_takes_the_whole_cost() -> None:
    portfolio, marks = holding(3), {"X": 4 * DOLLAR}
    [effect] = apply_actions(portfolio, [Split("X", new=1, old=10)], marks)
    assert (effect.quantity_after, effect.cash_micros, effect.realised_micros) == (0, 12 * DOLLAR, 12 * DOLLAR - 30 * DOLLAR)
    assert (portfolio.positions, marks) == ({}, {"X": 40 * DOLLAR})
    assert portfolio.balances()


def test_an_action_on_a_ticker_that_is_not_held_changes_its_mark_alone() -> None:
    portfolio, marks = holding(3), {"Y": 4 * DOLLAR}
    same = portfolio.copy()
    assert apply_actions(portfolio, [Split("Y", 2, 1), Dividend("Y", 1), Delisting("Y", 0), Split("Z", 2, 1)], marks) == []
    assert portfolio == same
    assert marks == {"Y": 2 * DOLLAR}


def test_a_split_of_a_held_ticker_without_a_mark_is_an_error_and_not_a_fraction_that_is_worth_nothing() -> None:
    portfolio = holding(3)
    same = portfolio.copy()
    with pytest.raises(KeyError):
        apply_actions(portfolio, [Split("X", 1, 2)], {})
    assert portfolio == same


@pytest.mark.parametrize(("price", "realised"), [(0, -1_000 * DOLLAR), (7 * DOLLAR, -300 * DOLLAR)])
def test_a_delisting_closes_at_the_last_price_or_at_nothing(price: int, realised: int) -> None:
    long, short = holding(100), holding(-100)
    for portfolio, sign in ((long, 1), (short, -1)):
        [effect] = apply_actions(portfolio, [Delisting("X", price)], {"X": 7 * DOLLAR})
        assert (effect.quantity_after, effect.cash_micros, effect.realised_micros) == (0, sign * 100 * price, sign * realised)
        assert (portfolio.positions, portfolio.fees_micros) == ({}, 0)
        assert portfolio.balances()


@given(st.integers(1, 10_000), st.integers(1, 20), st.integers(1, 20), st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_split_keeps_value_and_treats_long_and_short_alike(quantity: int, new: int, old: int, cost_cents: int, mark_cents: int) -> None:
    """The mark after a split of a:b is P b/a. Made exact here by a P that a divides, so nothing but the cash in lieu is rounded."""
    mark = mark_cents * 10_000 * new
    long, short = Portfolio(0), Portfolio(0)
    for portfolio, sign in ((long, 1), (short, -1)):
        portfolio.apply_fill("X", sign * quantity, cost_cents * 10_000, 0)
        before, marks = portfolio.net_asset_value({"X": mark}), {"X": mark}
        apply_actions(portfolio, [Split("X", new, old)], marks)
        assert portfolio.net_asset_value(marks) == before
        assert portfolio.balances()
    assert long.quantity("X") == -short.quantity("X") == quantity * new // old
    assert (long.cash_micros, long.realised_micros) == (-short.cash_micros, -short.realised_micros)
