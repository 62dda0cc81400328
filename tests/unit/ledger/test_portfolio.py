"""The account: worked examples, and what holds for any stream of fills."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademesh_ledger.costs import CostModel, Tick
from trademesh_ledger.margin import MarginRules, Refusal, largest_fill, refusal_of
from trademesh_ledger.metrics import performance
from trademesh_ledger.money import divide_half_even
from trademesh_ledger.portfolio import LegKind, Portfolio

DOLLAR = 1_000_000
TEN_BP = CostModel(fee_bp=10)
FREE = CostModel()


def trade(portfolio: Portfolio, delta: int, dollars: float, costs: CostModel = TEN_BP, ticker: str = "X") -> list[LegKind]:
    """Fills and returns the kinds of the legs."""
    price = round(dollars * DOLLAR)
    effect = portfolio.apply_fill(ticker, delta, price, costs.fee(delta, price))
    assert portfolio.balances()
    return [leg.kind for leg in effect.legs]


def test_a_long_round_trip() -> None:
    account = Portfolio(100_000 * DOLLAR)
    assert trade(account, 100, 50) == [LegKind.BUY]
    assert (account.cash_micros, account.positions["X"].cost_micros) == (94_995_000_000, 5_000_000_000)
    assert account.net_asset_value({"X": 55 * DOLLAR}) == 100_495_000_000
    assert trade(account, -40, 55) == [LegKind.SELL]
    assert (account.realised_micros, account.cash_micros) == (200 * DOLLAR, 97_192_800_000)
    trade(account, -60, 48)
    assert (account.cash_micros, account.realised_micros, account.fees_micros) == (100_069_920_000, 80 * DOLLAR, 10_080_000)
    assert account.positions == {}


def test_a_short_round_trip_with_borrow_and_dividend() -> None:
    account = Portfolio(100_000 * DOLLAR)
    assert trade(account, -200, 30) == [LegKind.SHORT]
    assert account.net_asset_value({"X": 30 * DOLLAR}) == 99_994 * DOLLAR
    assert account.charge_borrow("X", 31 * DOLLAR, borrow_bp=250, days=3) == 1_291_667
    assert account.net_asset_value({"X": 31 * DOLLAR}) == 99_792_708_333
    assert account.pay_dividend("X", 250_000) == -50 * DOLLAR
    assert trade(account, 200, 28) == [LegKind.COVER]
    assert (account.realised_micros, account.cash_micros, account.fees_micros) == (400 * DOLLAR, 100_337_108_333, 11_600_000)


def test_a_flip_is_one_fill_of_two_legs() -> None:
    account = Portfolio(100_000 * DOLLAR)
    trade(account, 100, 50)
    assert trade(account, -150, 52) == [LegKind.SELL, LegKind.SHORT]
    assert (account.quantity("X"), account.positions["X"].cost_micros, account.realised_micros) == (-50, -2_600 * DOLLAR, 200 * DOLLAR)
    assert (account.cash_micros, account.fees_micros) == (102_787_200_000, 12_800_000)
    assert account.net_asset_value({"X": 52 * DOLLAR}) == 100_187_200_000


def test_a_flip_beyond_the_margin_is_refused_whole() -> None:
    account = Portfolio(10_000 * DOLLAR)
    trade(account, 100, 50)
    refusal = refusal_of(account, "X", -600, 52 * DOLLAR, TEN_BP, MarginRules(), {"X": 52 * DOLLAR})
    assert refusal is Refusal.INSUFFICIENT_MARGIN


def test_covering_in_parts_leaves_no_residue() -> None:
    account = Portfolio(100_000 * DOLLAR)
    for delta, price in ((-2, 10.00), (-1, 10.01)):
        trade(account, delta, price, FREE)
    assert account.positions["X"].cost_micros == -30_010_000
    trade(account, 1, 9.50, FREE)
    assert (account.realised_micros, account.positions["X"].cost_micros) == (503_333, -20_006_667)
    trade(account, 2, 9.50, FREE)
    assert (account.realised_micros, account.cash_micros) == (1_510_000, 100_001_510_000)


def test_a_split_pays_the_fraction_in_cash() -> None:
    account = Portfolio(100_000 * DOLLAR)
    trade(account, -15, 100, FREE)
    assert account.net_asset_value({"X": 90 * DOLLAR}) == 100_150 * DOLLAR
    assert account.split("X", 3, 2, 90 * DOLLAR) == -30 * DOLLAR
    assert (account.quantity("X"), account.positions["X"].cost_micros) == (-22, -1_500_000_000 + 33_333_333)
    assert account.balances()
    assert account.net_asset_value({"X": 60 * DOLLAR}) == 100_150 * DOLLAR


@pytest.mark.parametrize(("numerator", "denominator", "rounded"), [(5, 2, 2), (7, 2, 4), (-5, 2, -2), (-7, 2, -4), (8, 3, 3), (-8, 3, -3)])
def test_halves_go_to_the_even_neighbour(numerator: int, denominator: int, rounded: int) -> None:
    assert divide_half_even(numerator, denominator) == rounded


def test_slippage_and_ticks_go_against_the_trader() -> None:
    costs = CostModel(slippage_bp=10, tick=Tick.US_EQUITY)
    assert costs.fill_price(10_001_000, 1) == 10_020_000
    assert costs.fill_price(10_001_000, -1) == 9_990_000
    assert CostModel(slippage_bp=10).fill_price(10_001_000, 1) == 10_011_001


ORDERS = st.lists(
    st.tuples(st.sampled_from("AB"), st.integers(-500, 500).filter(bool), st.integers(1, 500 * DOLLAR), st.integers(0, 50)), max_size=30
)


@given(ORDERS)
def test_identities_hold_after_any_fills(orders: list[tuple[str, int, int, int]]) -> None:
    account = Portfolio(1_000_000 * DOLLAR)
    for ticker, delta, price, fee_bp in orders:
        marks = {"A": price, "B": price}
        before, held = account.net_asset_value(marks), account.quantity(ticker)
        fee = CostModel(fee_bp=fee_bp).fee(delta, price)
        account.apply_fill(ticker, delta, price, fee)
        assert account.balances()
        assert account.net_asset_value(marks) == before - fee
        assert account.quantity(ticker) == held + delta
        assert all((position.quantity > 0) == (position.cost_micros > 0) for position in account.positions.values())


@given(st.integers(2, 400), st.integers(1, 100 * DOLLAR), st.integers(1, 100 * DOLLAR), st.data())
def test_closing_at_one_price_in_any_parts_gives_the_same(quantity: int, opened: int, closed: int, data: st.DataObject) -> None:
    whole, parts = Portfolio(0), Portfolio(0)
    for account in (whole, parts):
        account.apply_fill("X", quantity, opened, 0)
    whole.apply_fill("X", -quantity, closed, 0)
    while (left := parts.quantity("X")) > 0:
        parts.apply_fill("X", -data.draw(st.integers(1, left)), closed, 0)
    assert (whole.cash_micros, whole.realised_micros) == (parts.cash_micros, parts.realised_micros)


@given(ORDERS, st.integers(1, 5_000_000).map(lambda dollars: dollars * DOLLAR))
def test_what_margin_lets_pass_keeps_both_checks_and_is_the_largest(orders: list[tuple[str, int, int, int]], cash: int) -> None:
    account, rules, marks = Portfolio(cash), MarginRules(), {"A": 10 * DOLLAR, "B": 10 * DOLLAR}
    for ticker, delta, price, fee_bp in orders:
        costs = CostModel(fee_bp=fee_bp)
        part = largest_fill(account, ticker, delta, price, costs, rules, marks)
        assert part == 0 or ((part > 0) == (delta > 0) and abs(part) <= abs(delta))
        if part != delta:
            further = part + (1 if delta > 0 else -1)
            assert refusal_of(account, ticker, further, price, costs, rules, marks) is not None
        if part:
            assert refusal_of(account, ticker, part, price, costs, rules, marks) is None
            account.apply_fill(ticker, part, price, costs.fee(part, price))
            marks[ticker] = price


def test_figures_of_performance_are_those_of_the_textbook() -> None:
    values = [value * DOLLAR for value in (100000, 101000, 100495, 103000, 99000, 98500, 103500, 104000)]
    found = performance(values)
    assert found.total_return == pytest.approx(0.04)
    assert found.cagr == pytest.approx(3.103933, abs=1e-6)
    assert found.annualised_volatility == pytest.approx(0.441092, abs=1e-6)
    assert found.sharpe == pytest.approx(3.397943, abs=1e-6)
    assert found.sortino == pytest.approx(6.327298, abs=1e-6)
    assert found.max_drawdown == pytest.approx(-0.0436893, abs=1e-7)
    assert found.max_drawdown_sessions == 2
    assert found.calmar == pytest.approx(71.0456, abs=1e-4)


def test_what_is_undefined_is_absent_with_a_reason() -> None:
    found = performance([100, 101])
    assert (found.sharpe, found.annualised_volatility) == (None, None)
    assert {"sharpe", "annualised_volatility", "sortino", "calmar"} <= set(found.undefined)
    assert performance([100]).total_return is None
