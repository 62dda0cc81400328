"""Baselines: the same money, fees and ledger, by rules that anyone can follow."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from trademesh_ledger.baselines import MOMENTUM_CLOSES, Baseline, Momentum, equal_weight, market_cap_weighted
from trademesh_ledger.costs import CostModel

DOLLAR = 1_000_000
FREE, TEN_BP = CostModel(), CostModel(fee_bp=10)
COSTS = st.builds(
    CostModel, fee_bp=st.integers(0, 200), min_fee_micros=st.sampled_from([0, 1, 5 * DOLLAR]), slippage_bp=st.sampled_from([0, 7])
)
PRICES = st.lists(st.integers(0, 90), min_size=4, max_size=4).map(lambda dollars: [price * DOLLAR for price in dollars])


def holdings(one: Baseline) -> dict[str, int]:
    """Shares by ticker."""
    return {ticker: position.quantity for ticker, position in one.portfolio.positions.items()}


def test_equal_parts_are_bought_whole_with_their_fee_and_held() -> None:
    one = equal_weight(100_000 * DOLLAR, ("A", "B"), TEN_BP)
    # floor(50_000 x 10_000 / (30 x 10_010)) and the same for 7 dollars.
    assert one.settle([30 * DOLLAR, 7 * DOLLAR], [30 * DOLLAR, 7 * DOLLAR]) == 100_000 * DOLLAR - one.portfolio.fees_micros
    assert holdings(one) == {"A": 1665, "B": 7135}
    assert one.portfolio.fees_micros == 49_950_000 + 49_945_000
    value = one.settle([60 * DOLLAR, 7 * DOLLAR], [60 * DOLLAR, 7 * DOLLAR])
    assert value == 100_000 * DOLLAR - one.portfolio.fees_micros + 1665 * 30 * DOLLAR
    assert holdings(one) == {"A": 1665, "B": 7135}


def test_a_ticker_without_a_price_keeps_its_part_as_cash_until_its_first() -> None:
    one = equal_weight(1_000 * DOLLAR, ("A", "B"), FREE)
    assert one.settle([10 * DOLLAR, 0], [10 * DOLLAR, 0]) == 1_000 * DOLLAR
    assert holdings(one) == {"A": 50}
    one.settle([20 * DOLLAR, 25 * DOLLAR], [20 * DOLLAR, 25 * DOLLAR])
    assert holdings(one) == {"A": 50, "B": 20}


def test_slippage_makes_purchases_dearer() -> None:
    one = equal_weight(1_000 * DOLLAR, ("A",), CostModel(slippage_bp=100))
    one.settle([10 * DOLLAR], [10 * DOLLAR])
    assert holdings(one) == {"A": 99}
    assert one.portfolio.cash_micros == 1_000 * DOLLAR - 99 * 10_100_000


def test_parts_like_company_values_leave_out_and_name_those_that_are_not_known() -> None:
    one, reason = market_cap_weighted(1_000 * DOLLAR, ("A", "B", "C"), FREE, [300, 0, 50], [DOLLAR, DOLLAR, 2 * DOLLAR])
    assert one is not None
    assert reason == "without B, whose value is not known"
    one.settle([DOLLAR] * 3, [DOLLAR] * 3)
    assert holdings(one) == {"A": 750, "C": 250}
    assert market_cap_weighted(1_000 * DOLLAR, ("A",), FREE, [0], [DOLLAR]) == (None, "the numbers of shares are not known")


def closes_before(*rises: int) -> list[list[int]]:
    """The last 21 closes of tickers that began at 100 dollars, and ended so many dollars higher; 0 for one that did not trade."""
    first, last = [100 * DOLLAR] * len(rises), [(100 + rise) * DOLLAR for rise in rises]
    return [first, *[first] * (MOMENTUM_CLOSES - 2), last]


def test_momentum_holds_the_better_half_and_turns_it_over_on_the_first_session_of_a_month() -> None:
    one = Momentum(1_000 * DOLLAR, ("A", "B", "C"), FREE)
    prices = [10 * DOLLAR] * 3
    assert one.is_due("2008-01-14")
    one.settle("2008-01-14", prices, closes_before(1, 5, 3), prices)
    assert holdings(one) == {"B": 50, "C": 50}
    assert not one.is_due("2008-01-15")
    one.settle("2008-01-15", prices, closes_before(9, -5, 3), prices)
    assert holdings(one) == {"B": 50, "C": 50}
    one.settle("2008-02-01", [20 * DOLLAR, 20 * DOLLAR, 10 * DOLLAR], closes_before(9, -5, 3), [20 * DOLLAR, 20 * DOLLAR, 10 * DOLLAR])
    # B is sold first; 1,500 dollars are 750 in each.
    assert holdings(one) == {"A": 37, "C": 75}
    assert one.portfolio.cash_micros == 10 * DOLLAR


def test_momentum_needs_twenty_intervals_and_breaks_ties_by_ticker() -> None:
    one = Momentum(1_000 * DOLLAR, ("B", "C", "A"), FREE)
    prices = [DOLLAR] * 3
    one.settle("2008-01-02", prices, closes_before(1, 1, 1)[1:], prices)
    assert holdings(one) == {}
    assert not one.is_due("2008-01-31")
    one.settle("2008-02-01", prices, closes_before(1, 1, 1), prices)
    assert holdings(one) == {"A": 500, "B": 500}


def test_a_ticker_without_both_closes_has_no_rank_and_without_any_rank_there_is_cash() -> None:
    one = Momentum(1_000 * DOLLAR, ("A", "B"), FREE)
    known = closes_before(5, 1)
    known[0] = [0, 100 * DOLLAR]
    one.settle("2008-01-02", [DOLLAR] * 2, known, [DOLLAR] * 2)
    assert holdings(one) == {"B": 1_000}
    known[-1] = [0, 0]
    one.settle("2008-02-01", [DOLLAR] * 2, known, [DOLLAR] * 2)
    assert holdings(one) == {}
    assert one.portfolio.cash_micros == 1_000 * DOLLAR


def test_fees_of_sales_come_out_of_the_last_purchase_and_never_out_of_nothing() -> None:
    one = Momentum(1_000 * DOLLAR, ("A", "B"), CostModel(fee_bp=500))
    prices = [DOLLAR] * 2
    one.settle("2008-01-02", prices, closes_before(1, 0), prices)
    assert holdings(one) == {"A": 952}
    one.settle("2008-02-01", prices, closes_before(0, 1), prices)
    # 952 dollars less 47.60 and 0.40 in cash buy 861; before the fee of the sale it looked like 907.
    assert holdings(one) == {"B": 861}
    assert one.portfolio.cash_micros == 750_000


def test_a_month_that_begins_without_prices_turns_over_when_there_are_some() -> None:
    one = Momentum(1_000 * DOLLAR, ("A",), FREE)
    assert one.settle("2008-01-02", [0], closes_before(1), [0]) == 1_000 * DOLLAR
    assert one.is_due("2008-01-03")
    one.settle("2008-01-03", [DOLLAR], closes_before(1), [DOLLAR])
    assert holdings(one) == {"A": 1_000}


@given(st.lists(PRICES, min_size=1, max_size=120), COSTS)
def test_every_baseline_keeps_exact_accounts_and_never_owes(sessions: Sequence[list[int]], costs: CostModel) -> None:
    tickers = ("A", "B", "C", "D")
    hold, rise = equal_weight(10_000 * DOLLAR, tickers, costs), Momentum(10_000 * DOLLAR, tickers, costs)
    marks, day = [0] * 4, date(2008, 1, 2)
    for place, closes in enumerate(sessions):
        marks = [close or mark for close, mark in zip(closes, marks, strict=True)]
        values = hold.settle(closes, marks), rise.settle(day.isoformat(), closes, sessions[max(0, place - 21) : place], marks)
        for one, value in zip((hold, rise), values, strict=True):
            assert one.portfolio.balances()
            # A sale for less than its least fee may leave less than that owing.
            assert one.portfolio.cash_micros >= -4 * costs.min_fee_micros
            assert all(position.quantity > 0 for position in one.portfolio.positions.values())
            assert value == one.portfolio.net_asset_value(dict(zip(tickers, marks, strict=True)))
        day += timedelta(1)


@given(PRICES, st.integers(0, 500))
def test_what_a_part_buys_is_the_formula_of_the_page(prices: list[int], fee_bp: int) -> None:
    one = equal_weight(10_000 * DOLLAR + 7, ("A", "B", "C", "D"), CostModel(fee_bp=fee_bp))
    one.settle(prices, prices)
    part = Fraction(10_000 * DOLLAR + 7, 4)
    for ticker, price in zip("ABCD", prices, strict=True):
        assert one.portfolio.quantity(ticker) == (part * 10_000 // (price * (10_000 + fee_bp)) if price else 0)
