"""What the portfolio manager makes of the weights that it wants: no more than the book may be, and never the other side."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trademesh_gateway.agents.portfolio_manager import CASH_RESERVE, Bounds, fitted

LEAST = 1e-9
fractions = st.one_of(st.sampled_from([0.0, 1e-6, CASH_RESERVE / 2, CASH_RESERVE, 0.5, 1.0]), st.floats(0, 100))


@given(
    st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=1, max_size=20),
    st.builds(Bounds, position=st.just(100.0), gross=fractions, net=fractions, bought=fractions),
)
@example([0.5], Bounds(position=1.0, gross=0.0, net=1.0, bought=0.0))
@example([0.5, -0.2], Bounds(position=1.0, gross=0.005, net=1.0, bought=0.005))
def test_targets_keep_their_side_get_no_larger_and_are_within_every_bound(targets: list[float], bounds: Bounds) -> None:
    found = fitted(targets, bounds)
    assert all(one * target >= 0 and abs(one) <= abs(target) for one, target in zip(found, targets, strict=True))
    assert math.fsum(one for one in found if one > 0) <= max(0.0, bounds.bought - CASH_RESERVE) + LEAST
    assert math.fsum(map(abs, found)) <= bounds.gross + LEAST
    assert abs(math.fsum(found)) <= bounds.net + LEAST


def test_targets_within_every_bound_are_left_as_they_are() -> None:
    assert fitted([0.3, -0.2, 0.0], Bounds(position=1.0, gross=0.5, net=0.2)) == [0.3, -0.2, 0.0]


def test_what_is_bought_is_scaled_alike_to_the_cash_then_both_sides_to_their_sum_then_the_side_that_goes_too_far() -> None:
    assert fitted([0.9, 0.9, -0.3], Bounds(position=1.0, gross=2.0, net=2.0)) == pytest.approx([0.495, 0.495, -0.3])
    assert fitted([0.6, -0.6], Bounds(position=1.0, gross=0.6, net=1.0)) == pytest.approx([0.3, -0.3])
    assert fitted([0.5, 0.1, -0.2], Bounds(position=1.0, gross=2.0, net=0.1)) == pytest.approx([0.25, 0.05, -0.2])
