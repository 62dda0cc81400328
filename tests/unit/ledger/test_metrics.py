"""Figures of performance against values worked out by hand, and against an independent library."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import empyrical
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trademesh_ledger.metrics import (
    SHORT_SAMPLE,
    ClosingTrade,
    closing_fee,
    hit_rate,
    mean_exposure,
    performance,
    profit_factor,
    session_rate,
    share_invested,
    turnover,
)

VECTOR = [100_000, 101_000, 100_495, 103_000, 99_000, 98_500, 103_500, 104_000]
"""The test vector of the domain page."""
CURVES = st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=300).map(
    lambda returns: [10**12, *(max(1, round(10**12 * float(growth))) for growth in np.cumprod(np.add(1, returns)))]
)
YIELDS = st.sampled_from([0.0, 0.05, -0.01])


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


def test_the_figures_of_the_pages_test_vector() -> None:
    figures = performance(VECTOR)
    assert figures.total_return == pytest.approx(0.04, abs=1e-15)
    assert figures.cagr == pytest.approx(3.103933, abs=5e-7)
    assert figures.annualised_volatility == pytest.approx(0.441092, abs=5e-7)
    assert figures.sharpe == pytest.approx(3.397943, abs=5e-7)
    assert figures.sortino == pytest.approx(6.327298, abs=5e-7)
    assert figures.max_drawdown == pytest.approx(-0.0436893, abs=5e-8)
    assert figures.max_drawdown_sessions == 2
    assert figures.calmar == pytest.approx(71.0456, abs=5e-5)
    assert figures.flags == (SHORT_SAMPLE,)


@pytest.mark.parametrize(("sessions", "flags"), [(62, (SHORT_SAMPLE,)), (63, ())])
def test_a_growth_rate_of_less_than_a_quarter_is_flagged(sessions: int, flags: tuple[str, ...]) -> None:
    assert performance([100] * sessions + [101]).flags == flags


@given(CURVES, YIELDS)
@example([1000000000000, 921897740664, 849895444240], 0.0)
def test_figures_agree_with_empyrical(values: list[int], risk_free_yield: float) -> None:
    figures, rate = performance(values, risk_free_yield), session_rate(risk_free_yield)
    returns = np.diff(np.array(values, float)) / np.array(values[:-1], float)
    pairs: list[tuple[float | None, Any]] = [
        (figures.total_return, empyrical.cum_returns_final(returns)),
        (figures.cagr, empyrical.annual_return(returns)),
        (figures.annualised_volatility, empyrical.annual_volatility(returns)),
        (figures.sharpe, empyrical.sharpe_ratio(returns, risk_free=rate)),
        (figures.sortino, empyrical.sortino_ratio(returns, required_return=rate)),
        (figures.max_drawdown, empyrical.max_drawdown(returns)),
        (figures.calmar, empyrical.calmar_ratio(returns)),
    ]
    if figures.sessions == 1:
        # empyrical tells no Sortino ratio of a single session.
        del pairs[4]
    # empyrical measures falls of some micro-dollars in a million dollars by floats, of which few digits are left.
    drawdown_is_rounding = abs(figures.max_drawdown or 1.0) < 1e-6
    for place, (ours, theirs) in enumerate(pairs):
        # Of returns that are nearly the same, a difference of floats is what both divide by: few digits of such a ratio mean anything.
        ratio_is_rounding = (ours is figures.sharpe or ours is figures.sortino) and min(abs(ours or 0.0), abs(theirs)) > 1e6
        if ours is not None and not ratio_is_rounding and not (drawdown_is_rounding and ours is figures.calmar):
            assert ours == pytest.approx(float(theirs), rel=1e-9, abs=1e-9), place
    for name in ("total_return", "max_drawdown"):
        assert getattr(figures, name) is not None
    # Where we have no answer, empyrical's is no number, or one that rounding alone has made.
    for ours, theirs in pairs:
        assert ours is not None or not math.isfinite(theirs) or abs(theirs) > 1e6, (ours, theirs)


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
        ([100, 110], "annualised_volatility", "needs two sessions"),
        ([100, -10, 5], "sharpe", "the account was worth nothing before a session, which has no return then"),
    ],
)
def test_a_figure_that_is_undefined_says_why(values: list[int], name: str, reason: str) -> None:
    figures = performance(values)
    assert getattr(figures, name) is None
    assert figures.undefined[name] == reason


@given(st.lists(st.integers(-(10**15), 10**15), max_size=12))
def test_every_figure_is_a_finite_number_or_has_a_reason_why_not(values: list[int]) -> None:
    figures = performance(values)
    for name in (field.name for field in fields(figures) if field.name not in ("sessions", "undefined", "flags")):
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
    assert mean_exposure([500, 3_000, 7], [1_000, 2_000, 0]) == pytest.approx(1.0)
    assert mean_exposure([500, -3_000], [1_000, 2_000]) == pytest.approx(-0.5)
    assert mean_exposure([], []) is None
    assert mean_exposure([7], [-1]) is None


def test_a_session_is_invested_if_it_closed_with_a_position() -> None:
    assert share_invested([0, 5, 0, 7]) == 0.5
    assert share_invested([]) is None


def test_the_rate_of_a_session_compounds_to_the_yield() -> None:
    assert (1 + session_rate(0.05)) ** 252 == pytest.approx(1.05, rel=1e-12)
    assert session_rate(0.0) == 0.0


def test_the_fee_of_an_order_is_shared_by_its_shares_and_rounded_half_to_even() -> None:
    assert [closing_fee(fee, 1, 2) for fee in (1, 2, 3, 5)] == [0, 1, 2, 2]
    assert closing_fee(1_001, 300, 800) == 375


def test_a_risk_free_rate_turns_gains_below_it_into_losses() -> None:
    values = [10**6 + 10 * session + session % 2 for session in range(30)]
    assert performance(values).undefined["sortino"] == "no session lost"
    assert (performance(values, 0.05).sortino or 0) < 0
