"""What margin lets pass, and the figures of performance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plain_margin import largest_fill, refusal_of
from trademesh_ledger.costs import CostModel
from trademesh_ledger.margin import MarginRules
from trademesh_ledger.metrics import performance
from trademesh_ledger.portfolio import Portfolio

DOLLAR = 1_000_000
ORDERS = st.lists(
    st.tuples(st.sampled_from("AB"), st.integers(-500, 500).filter(bool), st.integers(1, 500 * DOLLAR), st.integers(0, 50)), max_size=30
)


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


def test_accounts_are_equal_if_every_amount_and_position_is() -> None:
    one = Portfolio(DOLLAR)
    one.apply_fill("X", 1, 10, 1)
    assert one == one.copy()
    for name in ("initial_cash_micros", "cash_micros", "realised_micros", "fees_micros", "borrow_micros", "dividends_micros"):
        other = one.copy()
        setattr(other, name, getattr(other, name) + 1)
        assert one != other
    other = one.copy()
    other.positions["X"].quantity += 1
    assert one != other


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
