"""Scores of predictions against values worked out by hand and against scipy."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from trademesh_ledger.scores import (
    Z_95,
    BrierScore,
    HitCount,
    Interval,
    information_coefficient,
    rank_correlation,
    ranks,
    ranks_of_values,
    student_quantile,
    went_right,
    wilson_interval,
)

FEW_VALUES = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=5, max_size=40)


@pytest.mark.parametrize(
    ("rise", "before", "after", "right"),
    [
        (True, 10, 11, True),
        (True, 10, 9, False),
        (False, 10, 9, True),
        (False, 10, 11, False),
        (True, 10, 10, False),
        (False, 10, 10, False),
    ],
)
def test_a_prediction_is_right_only_if_the_price_went_there(rise: bool, before: int, after: int, right: bool) -> None:
    assert went_right(rise, before, after) is right
    assert went_right(rise, 0, after) is None
    assert went_right(rise, before, 0) is None


def test_unknown_outcomes_are_left_out_of_the_rate() -> None:
    assert HitCount(10, 3, 4).rate == 0.5
    assert HitCount(4, 0, 4).rate is None
    assert HitCount(4, 1, 1).add(HitCount(6, 3, 0)) == HitCount(10, 4, 1)


@pytest.mark.parametrize(("wins", "known", "low"), [(1, 1, 0.207), (9, 10, 0.596), (60, 100, 0.502)])
def test_the_lower_bounds_of_the_page(wins: int, known: int, low: float) -> None:
    bound = wilson_interval(wins, known)
    assert bound is not None
    assert bound.low == pytest.approx(low, abs=5e-4)


@given(st.integers(1, 5_000).flatmap(lambda known: st.tuples(st.integers(0, known), st.just(known))))
def test_intervals_of_rates_agree_with_scipy(counts: tuple[int, int]) -> None:
    wins, known = counts
    level = 2 * NormalDist().cdf(Z_95) - 1
    theirs = stats.binomtest(wins, known).proportion_ci(confidence_level=level, method="wilson")
    ours = wilson_interval(wins, known)
    assert ours is not None
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= ours.low <= wins / known <= ours.high <= 1


def test_without_a_sample_there_is_no_interval() -> None:
    assert wilson_interval(0, 0) is None


def test_ranks_go_by_the_lower_bound_then_by_the_sample_then_by_name_and_nobody_without_one_has_any() -> None:
    scores = {"lucky": HitCount(1, 1), "b": HitCount(10, 9), "a": HitCount(10, 9), "all-neutral": HitCount(), "unseen": HitCount(3, 0, 3)}
    assert ranks(scores) == {"a": 1, "b": 2, "lucky": 3, "all-neutral": None, "unseen": None}
    # Two that never were right have the same bound, zero: more known outcomes come first.
    assert ranks({"few": HitCount(2, 0), "many": HitCount(5, 0)}) == {"many": 1, "few": 2}


@given(st.lists(st.integers(-3, 3), max_size=30))
def test_equal_values_share_the_mean_of_their_ranks_as_in_scipy(values: list[int]) -> None:
    assert ranks_of_values([float(value) for value in values]) == stats.rankdata(values, method="average").tolist()


@given(FEW_VALUES)
def test_rank_correlations_agree_with_scipy(pairs: list[tuple[int, int]]) -> None:
    scores, returns = [float(score) for score, _ in pairs], [float(change) for _, change in pairs]
    ours = rank_correlation(scores, returns)
    if len(set(scores)) == 1 or len(set(returns)) == 1:
        assert ours is None
    else:
        assert ours == pytest.approx(stats.spearmanr(scores, returns).statistic, abs=1e-9)


def test_fewer_than_five_tickers_have_no_rank_correlation() -> None:
    assert rank_correlation([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]) is None
    assert rank_correlation([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 4.0, 6.0, 8.0, 9.0]) == 1.0


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=200))
def test_the_information_coefficient_agrees_with_scipys_test_of_a_mean(values: list[float]) -> None:
    found = information_coefficient(values)
    assume(found.deviation is not None and found.deviation > 1e-6)
    theirs = stats.ttest_1samp(values, 0.0)
    bounds = theirs.confidence_interval(0.95)
    assert found.mean is not None
    assert found.interval is not None
    assert found.t == pytest.approx(theirs.statistic, rel=1e-9, abs=1e-9)
    half = (bounds.high - bounds.low) / 2
    assert found.interval.low == pytest.approx(bounds.low, abs=0.01 * half + 1e-9)
    assert found.interval.high - found.mean == pytest.approx(found.mean - found.interval.low)


def test_an_information_coefficient_says_what_it_lacks() -> None:
    assert set(information_coefficient([]).undefined) == {"mean", "deviation", "t", "interval"}
    one = information_coefficient([0.1])
    assert (one.mean, set(one.undefined)) == (0.1, {"deviation", "t", "interval"})
    constant = information_coefficient([0.5, 0.5, 0.5])
    assert (constant.t, constant.interval, constant.deviation) == (None, None, 0.0)
    two = information_coefficient([0.1, 0.3])
    assert two.t == pytest.approx(2.0)
    assert (two.interval, set(two.undefined)) == (None, {"interval"})


@pytest.mark.parametrize(("degrees", "tolerance"), [(2, 1e-2), (3, 3e-3), (4, 4e-4), (10, 1e-5), (100, 1e-9), (10_000, 1e-12)])
def test_students_quantile_is_as_exact_as_it_says(degrees: int, tolerance: float) -> None:
    assert student_quantile(degrees) == pytest.approx(float(stats.t.ppf(0.975, degrees)), rel=tolerance)


def test_a_coin_has_a_quarter_and_certainty_is_punished() -> None:
    coin, sure = BrierScore(), BrierScore()
    assert coin.mean is None
    for right in (True, False):
        coin.add(0.5, right)
        sure.add(1.0, right)
    assert coin.mean == 0.25
    assert sure.mean == 0.5


@given(st.integers(1, 1_000))
def test_an_agent_that_was_always_right_or_wrong_has_a_bound_that_is_exact(known: int) -> None:
    none, every = wilson_interval(0, known), wilson_interval(known, known)
    assert none is not None
    assert every is not None
    assert (none.low, every.high) == (0.0, 1.0)
    assert every == Interval(1 - none.high, 1.0) or math.isclose(every.low, 1 - none.high, abs_tol=1e-12)
