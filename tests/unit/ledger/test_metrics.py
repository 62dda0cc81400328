"""Figures of performance against values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademesh_ledger.metrics import ClosingTrade, hit_rate, mean_gross_exposure, performance, profit_factor, turnover


def test_figures_of_four_sessions_worked_out_by_hand() -> None:
    """Returns are +10 %, -10 %, -10 %, +20 %; their mean is 0.025 and their squared deviations sum to 0.0675 (sample of 4)."""
    figures = performance([1_000_000, 1_100_000, 990_000, 891_000, 1_069_200])
    assert figures.sessions == 4
    assert figures.total_return == pytest.approx(0.0692)
    assert figures.cagr == pytest.approx(1.0692**63 - 1)
    deviation = math.sqrt(0.0675 / 3)
    assert figures.annualised_volatility == pytest.approx(deviation * math.sqrt(252))
    assert figures.sharpe == pytest.approx(0.025 / deviation * math.sqrt(252))
    assert figures.sortino == pytest.approx(0.025 / math.sqrt(0.02 / 4) * math.sqrt(252))
    assert figures.max_drawdown == pytest.approx(-0.19)
    assert figures.max_drawdown_sessions == 3
    assert figures.calmar == pytest.approx((1.0692**63 - 1) / 0.19)
    assert figures.undefined == {}


@pytest.mark.parametrize(
    ("values", "name", "reason"),
    [
        ([100], "max_drawdown_sessions", "no session was settled"),
        ([0, 100], "total_return", "the initial cash is not above zero"),
        ([100, 110], "sharpe", "needs two sessions"),
        ([100, 100, 100], "sharpe", "returns do not vary"),
        ([100, 110, 120], "sortino", "no session lost"),
        ([100, 110, 120], "calmar", "there was no drawdown"),
        ([100, -10], "cagr", "the last value is not above zero"),
        ([1, 1_000], "cagr", "a year at the rate of so few sessions is beyond all numbers"),
    ],
)
def test_a_figure_that_is_undefined_says_why(values: list[int], name: str, reason: str) -> None:
    figures = performance(values)
    assert getattr(figures, name) is None
    assert figures.undefined[name] == reason


@given(st.lists(st.integers(-(10**15), 10**15), max_size=12))
def test_every_figure_is_a_finite_number_or_has_a_reason_why_not(values: list[int]) -> None:
    figures = performance(values)
    for name in (field.name for field in fields(figures) if field.name not in ("sessions", "undefined")):
        value = getattr(figures, name)
        assert (value is None) == (name in figures.undefined), name
        assert value is None or math.isfinite(value), name


def test_hit_rate_and_profit_factor_count_results_after_fees() -> None:
    trades = [ClosingTrade(30, 10), ClosingTrade(5, 10), ClosingTrade(10, 10), ClosingTrade(-10, 5)]
    assert hit_rate(trades) == pytest.approx(1 / 3)
    assert profit_factor(trades) == pytest.approx(20 / 20)


def test_hit_rate_and_profit_factor_need_trades_that_decide_them() -> None:
    assert hit_rate([ClosingTrade(10, 10)]) is None
    assert hit_rate([ClosingTrade(20, 10)]) == 1.0
    assert profit_factor([ClosingTrade(20, 10)]) is None
    assert profit_factor([ClosingTrade(-20, 10)]) == 0.0


def test_buying_and_selling_the_whole_account_once_in_a_year_turns_it_over_once() -> None:
    assert turnover(2_000, [1_000] * 253) == pytest.approx(1.0)
    assert turnover(0, [1_000, 1_000]) == 0.0
    assert turnover(2_000, [1_000]) is None
    assert turnover(2_000, [1_000, -1_000]) is None


def test_exposure_is_the_mean_of_ratios_where_there_is_a_value() -> None:
    assert mean_gross_exposure([500, 3_000, 7], [1_000, 2_000, 0]) == pytest.approx(1.0)
    assert mean_gross_exposure([], []) is None
    assert mean_gross_exposure([7], [-1]) is None
