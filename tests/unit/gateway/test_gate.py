"""Limits on orders: each of them against arithmetic of fractions that knows nothing of running sums, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway import wire
from trademesh_gateway.agents.records import Book
from trademesh_gateway.pipeline.order_book import SessionOrder
from trademesh_gateway.risk.gate import Gated, apply_limits
from trademesh_gateway.risk.limits import UNITS, GroupLimit, Limit, Limits, Market, Unit, limits_that_are_on

WIDE = Limits(position_bp=10**6, gross_bp=10**6, net_bp=10**6, drawdown_stop_bp=0, shorts_allowed=True)
"""Limits that bind nothing."""
DOLLAR = 1_000_000
TICKERS = ("AAA", "BBB", "CCC", "DDD", "EEE")
REJECTS = {Limit.NO_PRICE, Limit.RUN_HALTED, Limit.TICKER_HALTED}


def book(quantity: Sequence[int], nav_dollars: int = 1000, price_dollars: int = 10) -> Book:
    """Positions at one price."""
    return Book(nav_dollars * DOLLAR, nav_dollars * DOLLAR, quantity, [price_dollars * DOLLAR] * len(quantity))


def only(results: list[Gated]) -> Gated:
    """The one result."""
    (result,) = results
    return result


@dataclass(frozen=True)
class Case:
    """Orders before the gate."""

    orders: list[tuple[int, int]]
    book: Book
    limits: Limits
    market: Market


TIGHT = {
    "position_bp": st.integers(0, 12_000),
    "gross_bp": st.integers(0, 20_000),
    "net_bp": st.integers(0, 12_000),
    "volatility_target_bp": st.integers(1, 5_000),
    "groups": st.integers(0, 12_000),
    "concentration_bp": st.integers(1, 10_000),
    "order_size_bp": st.integers(1, 5_000),
    "turnover_bp": st.integers(1, 20_000),
    "orders_per_session": st.integers(1, 4),
    "volume_bp": st.integers(1, 5_000),
}
RESTRAINTS = {
    "drawdown_stop_bp": st.integers(1, 10_000),
    "shorts_allowed": st.just(False),
    "halted": st.just(True),
    "halted_columns": st.frozensets(st.integers(0, len(TICKERS) - 1), max_size=2),
    "not_borrowable": st.frozensets(st.integers(0, len(TICKERS) - 1), max_size=2),
    "daily_loss_bp": st.integers(1, 10_000),
}


@st.composite
def cases(draw: st.DrawFn, *, restrained: bool = True, pro_rata: bool | None = None) -> Case:
    """Orders of a session, at most one in each ticker, for a book that may be over every limit. Few limits are on at a time, so that each
    has its turn to bind."""
    count = draw(st.integers(1, len(TICKERS)))
    columns = st.integers(0, count - 1)
    quantity = draw(st.lists(st.integers(-60, 60), min_size=count, max_size=count))
    prices = draw(st.lists(st.one_of(st.integers(1, 30 * DOLLAR), st.sampled_from([0, 7 * DOLLAR])), min_size=count, max_size=count))
    nav = draw(st.integers(1, 2000)) * DOLLAR + draw(st.integers(0, 999_999))
    orders = draw(st.lists(st.tuples(columns, st.integers(-200, 200).filter(bool)), unique_by=lambda order: order[0]))
    on = draw(st.sets(st.sampled_from(sorted(TIGHT)), max_size=3))
    on |= draw(st.sets(st.sampled_from(sorted(RESTRAINTS)), max_size=2)) if restrained else set()
    values: dict[str, Any] = {name: draw({**TIGHT, **RESTRAINTS}[name]) for name in sorted(on)}
    if "groups" in values:
        inside = draw(st.lists(st.frozensets(columns, min_size=1), min_size=1, max_size=3))
        values["groups"] = tuple(GroupLimit(f"group {number}", one, values["groups"]) for number, one in enumerate(inside))
    shared = draw(st.booleans()) if pro_rata is None else pro_rata
    limits = replace(WIDE, volatility_positions=draw(st.integers(1, 30)), pro_rata=shared, **values)
    market = Market(
        draw(st.lists(st.one_of(st.just(0), st.integers(1, 20_000)), min_size=count, max_size=count)),
        draw(st.lists(st.integers(-1, 3_000), min_size=count, max_size=count)),
    )
    peak = draw(st.integers(nav, 3 * nav)) if restrained else nav
    previous = draw(st.integers(0, 2 * nav)) if restrained else 0
    return Case(orders, Book(nav, peak, quantity, prices, previous, restrained and draw(st.integers(0, 9)) == 0), limits, market)


def figures(case: Case, quantity: Sequence[int], traded: int, count: int, column: int, delta: int) -> dict[str, tuple[Fraction, Fraction]]:
    """After an order of `delta` shares on a book: each limit that is on, its figure and its bound, by fractions. The net is signed by the
    order's direction."""
    limits, nav, prices = case.limits, case.book.nav_micros, case.book.price_micros
    after = list(quantity)
    after[column] += delta
    weight = [Fraction(shares * price, nav) for shares, price in zip(after, prices, strict=True)]
    order = Fraction(abs(delta) * prices[column], nav)
    bp = 10_000
    found = {
        "position": (abs(weight[column]), Fraction(limits.position_bp, bp)),
        "gross": (sum(map(abs, weight), Fraction()), Fraction(limits.gross_bp, bp)),
        "net": ((1 if delta > 0 else -1) * sum(weight, Fraction()), Fraction(limits.net_bp, bp)),
    }
    level = case.market.volatility_bp[column]
    if limits.volatility_target_bp and level:
        # Both sides squared, for the root of the number of positions.
        bound = Fraction(limits.volatility_target_bp, level) ** 2 / limits.volatility_positions
        found["volatility"] = (weight[column] ** 2, bound)
    elif limits.volatility_target_bp:
        found["volatility"] = (abs(weight[column]), Fraction(limits.position_bp, 2 * bp))
    for group in limits.groups:
        if column in group.columns:
            found[group.name] = (sum((abs(weight[one]) for one in group.columns), Fraction()), Fraction(group.limit_bp, bp))
    if limits.concentration_bp:
        found["concentration"] = (sum((one * one for one in weight), Fraction()), Fraction(limits.concentration_bp, bp))
    if limits.order_size_bp:
        found["order size"] = (order, Fraction(limits.order_size_bp, bp))
    if limits.turnover_bp:
        found["turnover"] = (Fraction(traded, nav) + order, Fraction(limits.turnover_bp, bp))
    if limits.orders_per_session:
        found["orders"] = (Fraction(count + 1), Fraction(limits.orders_per_session))
    if limits.volume_bp and case.market.volume_shares[column] >= 0:
        found["volume"] = (Fraction(abs(delta)), Fraction(limits.volume_bp * case.market.volume_shares[column], bp))
    return found


def broken(found: dict[str, tuple[Fraction, Fraction]]) -> set[str]:
    """Limits whose figure is over their bound."""
    return {name for name, (figure, bound) in found.items() if figure > bound}


def closing_of(held: int, delta: int) -> int:
    """The part of an order that closes a position."""
    return 0 if held * delta >= 0 else delta if abs(delta) <= abs(held) else -held


@given(cases())
def test_a_limit_never_enlarges_an_order_never_turns_it_and_is_told_whenever_it_cuts(case: Case) -> None:
    results = apply_limits(case.orders, case.book, case.limits, case.market)
    assert sorted((result.column, result.requested) for result in results) == sorted(case.orders)
    for result in results:
        assert abs(result.allowed) <= abs(result.requested)
        assert result.allowed * result.requested >= 0
        assert (result.allowed == result.requested) == (result.limit is Limit.NONE)
        assert case.orders[result.place] == (result.column, result.requested)


@given(cases())
def test_reductions_always_pass_but_in_a_halt(case: Case) -> None:
    for result in apply_limits(case.orders, case.book, case.limits, case.market):
        closing = closing_of(case.book.quantity[result.column], result.requested)
        if result.limit in REJECTS:
            assert result.allowed == 0
            no_price = case.book.price_micros[result.column] == 0
            assert no_price or case.limits.halted or result.column in case.limits.halted_columns
        else:
            assert abs(result.allowed) >= abs(closing)


@given(cases(restrained=False, pro_rata=False))
def test_what_opens_a_position_keeps_every_limit_and_a_share_more_would_break_one(case: Case) -> None:
    """Orders are taken in one by one as the gate says; the figures are made anew for each."""
    quantity, traded, count = list(case.book.quantity), 0, 0
    for result in apply_limits(case.orders, case.book, case.limits, case.market):
        column, held = result.column, quantity[result.column]
        if case.book.price_micros[column] == 0:
            continue
        sign = 1 if result.requested > 0 else -1
        if result.allowed != closing_of(held, result.requested):
            assert not broken(figures(case, quantity, traded, count, column, result.allowed))
        if result.allowed != result.requested:
            assert broken(figures(case, quantity, traded, count, column, result.allowed + sign))
        quantity[column] += result.allowed
        traded += abs(result.allowed) * case.book.price_micros[column]
        count += result.allowed != 0


@given(cases())
def test_no_limit_that_held_before_is_broken_by_the_book_after_the_gate(case: Case) -> None:
    """The net is left out: to buy a short position back is a reduction, and raises it. The next test is about the net."""
    before, after = list(case.book.quantity), list(case.book.quantity)
    for result in apply_limits(case.orders, case.book, case.limits, case.market):
        after[result.column] += result.allowed
    for column in range(len(before)):
        then = figures(case, before, 0, 0, column, 0)
        now = figures(case, after, 0, 0, column, 0)
        for name in {"position", "gross", "concentration", "volatility", *(group.name for group in case.limits.groups)} & set(now):
            assert now[name][0] <= max(now[name][1], then[name][0])


@given(cases(restrained=False))
def test_the_net_that_held_before_holds_after_orders_that_open(case: Case) -> None:
    held = case.book.quantity
    assume(all(held[column] * delta >= 0 for column, delta in case.orders))
    nav, prices = case.book.nav_micros, case.book.price_micros
    after = list(held)
    for result in apply_limits(case.orders, case.book, case.limits, case.market):
        after[result.column] += result.allowed
    net_before = abs(sum(shares * price for shares, price in zip(held, prices, strict=True)))
    net_after = abs(sum(shares * price for shares, price in zip(after, prices, strict=True)))
    assert net_after * 10_000 <= max(case.limits.net_bp * nav, net_before * 10_000)


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_in_which_orders_are_given_does_not_matter(case: Case, random: Random) -> None:
    shuffled = list(case.orders)
    random.shuffle(shuffled)
    results, again = (apply_limits(orders, case.book, case.limits, case.market) for orders in (case.orders, shuffled))
    assert [result._replace(place=0) for result in results] == [result._replace(place=0) for result in again]


def moved(case: Case, limits: Limits, places: list[int]) -> list[tuple[int, Gated]]:
    """The results where tickers have other places, by the columns that they had before."""
    book = case.book._replace(
        quantity=[case.book.quantity[place] for place in places],
        price_micros=[case.book.price_micros[place] for place in places],
    )
    market = Market([case.market.volatility_bp[place] for place in places], [case.market.volume_shares[place] for place in places])
    orders = [(places.index(column), delta) for column, delta in case.orders]
    results = apply_limits(orders, book, limits, market)
    return sorted(((places[one.column], one._replace(column=0, place=0)) for one in results), key=lambda pair: pair[0])


@given(cases(restrained=False), st.permutations(range(len(TICKERS))))
def test_the_order_of_tickers_does_not_matter_where_limits_bind_single_tickers(case: Case, permutation: list[int]) -> None:
    limits = replace(case.limits, gross_bp=10**9, net_bp=10**9, groups=(), concentration_bp=0, turnover_bp=0, orders_per_session=0)
    places = [place for place in permutation if place < len(case.book.quantity)]
    assert moved(case, limits, places) == moved(case, limits, sorted(places))


@given(cases(restrained=False, pro_rata=True), st.permutations(range(len(TICKERS))))
def test_the_order_of_tickers_does_not_matter_where_room_is_shared_pro_rata(case: Case, permutation: list[int]) -> None:
    """But where a net limit is narrower than a share of each."""
    assume(case.limits.net_bp * case.book.nav_micros >= 10_000 * sum(case.book.price_micros))
    limits = replace(case.limits, groups=(), concentration_bp=0, orders_per_session=0)
    places = [place for place in permutation if place < len(case.book.quantity)]
    assert moved(case, limits, places) == moved(case, limits, sorted(places))


@given(cases(restrained=False, pro_rata=True))
@example(Case([(0, 1), (1, -1)], Book(DOLLAR, DOLLAR, [0, 0], [1, 2]), replace(WIDE, net_bp=0), Market()))
@example(Case([(0, 90)], book([0, -50]), replace(WIDE, net_bp=2000), Market()))
def test_shared_room_keeps_gross_turnover_and_net_and_is_used_up_to_a_share_of_each(case: Case) -> None:
    """The net may stay beyond its bound by what closes positions, and is then not moved further."""
    limits = replace(WIDE, gross_bp=case.limits.gross_bp, net_bp=case.limits.net_bp, turnover_bp=case.limits.turnover_bp, pro_rata=True)
    nav, prices = case.book.nav_micros, case.book.price_micros
    after, closed, traded, closing_traded = list(case.book.quantity), list(case.book.quantity), 0, 0
    results = apply_limits(case.orders, case.book, limits, case.market)
    for result in results:
        price = prices[result.column]
        closing = closing_of(case.book.quantity[result.column], result.requested) if price else 0
        after[result.column] += result.allowed
        closed[result.column] += closing
        traded += abs(result.allowed) * price
        closing_traded += abs(closing) * price

    def sums(quantity: list[int]) -> tuple[int, int]:
        values = [shares * price for shares, price in zip(quantity, prices, strict=True)]
        return sum(map(abs, values)), sum(values)

    (gross, net), (closed_gross, closed_net) = sums(after), sums(closed)
    assert gross * 10_000 <= max(limits.gross_bp * nav, closed_gross * 10_000)
    assert net * 10_000 <= max(limits.net_bp * nav, closed_net * 10_000)
    assert -net * 10_000 <= max(limits.net_bp * nav, -closed_net * 10_000)
    if limits.turnover_bp:
        assert traded * 10_000 <= max(limits.turnover_bp * nav, closing_traded * 10_000)
    cut = {result.limit for result in results} - {Limit.NONE, Limit.NO_PRICE}
    slack = sum(prices[result.column] for result in results) + 1
    if cut == {Limit.GROSS_LIMIT}:
        assert gross + slack > limits.gross_bp * nav // 10_000
    if cut == {Limit.TURNOVER_LIMIT}:
        assert traded + slack > limits.turnover_bp * nav // 10_000
    if cut == {Limit.NET_LIMIT} and limits.net_bp * nav >= 10_000 * slack:
        assert abs(net) + slack > limits.net_bp * nav // 10_000


@pytest.mark.parametrize(
    ("limits", "orders", "allowed", "limit", "figure"),
    [
        (replace(WIDE, gross_bp=5000), [(0, 40), (1, 40), (2, -20)], [20, 20, -10], Limit.GROSS_LIMIT, 10_000),
        (replace(WIDE, turnover_bp=5000), [(0, 40), (1, 40), (2, -20)], [20, 20, -10], Limit.TURNOVER_LIMIT, 10_000),
        (replace(WIDE, net_bp=2000), [(0, 40), (1, 40), (2, -40)], [30, 30, -40], Limit.NET_LIMIT, 4000),
        (replace(WIDE, net_bp=2000), [(0, -40), (1, -40), (2, 40)], [-30, -30, 40], Limit.NET_LIMIT, 4000),
    ],
)
def test_shared_room_scales_all_openings_alike(
    limits: Limits, orders: list[tuple[int, int]], allowed: list[int], limit: Limit, figure: int
) -> None:
    results = apply_limits(orders, book([0, 0, 0]), replace(limits, pro_rata=True))
    assert [result.allowed for result in results] == allowed
    assert {(result.limit, result.figure) for result in results if result.allowed != result.requested} == {(limit, figure)}


def test_shared_room_is_what_reductions_leave_and_they_pass_whole() -> None:
    limits = replace(WIDE, gross_bp=10_000, pro_rata=True)
    results = apply_limits([(0, 40), (1, -30), (2, 80)], book([0, 100, 0]), limits)
    assert [(result.column, result.allowed) for result in results] == [(1, -30), (0, 10), (2, 20)]


@pytest.mark.parametrize("pro_rata", [False, True])
@given(
    orders=st.lists(st.tuples(st.integers(0, 1), st.integers(-99, 99).filter(bool)), max_size=5),
    held=st.lists(st.integers(-30, 30), min_size=2, max_size=2),
)
@example(orders=[(0, 99), (0, -99), (1, 40)], held=[0, 0])
def test_several_orders_of_one_ticker_keep_the_limits_together_and_are_told_apart(
    pro_rata: bool, orders: list[tuple[int, int]], held: list[int]
) -> None:
    results = apply_limits(orders, book(held), replace(WIDE, gross_bp=2000, position_bp=1500, pro_rata=pro_rata))
    assert sorted(result.place for result in results) == list(range(len(orders)))
    after = list(held)
    for result in results:
        assert orders[result.place] == (result.column, result.requested)
        assert 0 <= result.allowed * (1 if result.requested > 0 else -1) <= abs(result.requested)
        after[result.column] += result.allowed
    assert sum(map(abs, after)) * 10 <= max(200, sum(map(abs, held)) * 10)
    assert all(abs(now) <= max(15, abs(before)) for now, before in zip(after, held, strict=True))


@given(cases())
@example(Case([(0, 5)], book([0]), replace(WIDE, order_size_bp=400), Market()))
def test_a_figure_is_over_its_bound_whenever_a_limit_cuts(case: Case) -> None:
    """A stop that no person has lifted tells the fall as it is now."""
    for result in apply_limits(case.orders, case.book, case.limits, case.market):
        if UNITS[result.limit] is Unit.NONE:
            assert (result.bound, result.figure) == (None, None)
        elif result.limit in {Limit.DRAWDOWN_STOP, Limit.DAILY_LOSS}:
            assert result.figure is not None
            assert case.book.drawdown_stopped or result.figure >= (result.bound or 0)
        elif result.figure is None:
            assert result.limit is Limit.LIQUIDITY
        else:
            assert result.bound is not None
            assert result.figure > result.bound


@pytest.mark.parametrize(
    ("limits", "held", "order", "allowed", "limit", "bound", "figure"),
    [
        (replace(WIDE, position_bp=2000), [0, 0], 30, 20, Limit.POSITION_LIMIT, 2000, 3000),
        (replace(WIDE, position_bp=2000), [5, 0], 30, 15, Limit.POSITION_LIMIT, 2000, 3500),
        (replace(WIDE, position_bp=2000), [30, 0], 1, 0, Limit.POSITION_LIMIT, 2000, 3100),
        (replace(WIDE, position_bp=2000), [5, 0], -30, -25, Limit.POSITION_LIMIT, 2000, 2500),
        (replace(WIDE, gross_bp=10_000), [0, -70], 40, 30, Limit.GROSS_LIMIT, 10_000, 11_000),
        (replace(WIDE, gross_bp=10_000), [-20, 70], -20, -10, Limit.GROSS_LIMIT, 10_000, 11_000),
        (replace(WIDE, net_bp=2000), [0, -70], 100, 90, Limit.NET_LIMIT, 2000, 3000),
        (replace(WIDE, net_bp=2000), [-20, 30], -100, -30, Limit.NET_LIMIT, 2000, 9000),
        (replace(WIDE, groups=(GroupLimit("tech", frozenset({0, 1}), 4000),)), [0, -30], 20, 10, Limit.SECTOR_LIMIT, 4000, 5000),
        (replace(WIDE, groups=(GroupLimit("tech", frozenset({0, 1}), 4000),)), [5, -30], 20, 5, Limit.SECTOR_LIMIT, 4000, 5500),
        (replace(WIDE, concentration_bp=2500), [0, 40], 40, 30, Limit.CONCENTRATION, 2500, 3200),
        (replace(WIDE, concentration_bp=2500), [20, 40], 20, 10, Limit.CONCENTRATION, 2500, 3200),
        (replace(WIDE, order_size_bp=500), [0, 0], 7, 5, Limit.ORDER_SIZE, 500, 700),
        (replace(WIDE, turnover_bp=500), [0, 0], 7, 5, Limit.TURNOVER_LIMIT, 500, 700),
        (replace(WIDE, shorts_allowed=False), [3, 0], -7, -3, Limit.SHORT_DISABLED, None, None),
        (replace(WIDE, not_borrowable=frozenset({0})), [3, 0], -7, -3, Limit.NO_BORROW, None, None),
        (replace(WIDE, not_borrowable=frozenset({1})), [3, 0], -7, -7, Limit.NONE, None, None),
        (replace(WIDE, halted=True), [3, 0], -2, 0, Limit.RUN_HALTED, None, None),
        (replace(WIDE, halted_columns=frozenset({0})), [3, 0], -2, 0, Limit.TICKER_HALTED, None, None),
        (replace(WIDE, halted_columns=frozenset({1})), [3, 0], -2, -2, Limit.NONE, None, None),
    ],
)
def test_each_limit_cuts_to_its_bound_and_tells_its_figure(
    limits: Limits, held: list[int], order: int, allowed: int, limit: Limit, bound: int | None, figure: int | None
) -> None:
    result = only(apply_limits([(0, order)], book(held), limits))
    assert (result.allowed, result.limit, result.bound, result.figure) == (allowed, limit, bound, figure)


def test_the_group_whose_limit_binds_is_named() -> None:
    groups = (GroupLimit("tech", frozenset({0, 1}), 4000), GroupLimit("all", frozenset({0, 1, 2}), 2000))
    assert only(apply_limits([(0, 50)], book([0, 0, 10]), replace(WIDE, groups=groups))).group == "all"


def test_a_position_is_scaled_to_its_volatility_and_half_the_limit_is_left_where_it_is_not_known() -> None:
    """0.15 / (0.30 x root of 10) = 15.81 %, of 1,000 dollars 15 shares at 10."""
    limits = replace(WIDE, position_bp=5000, volatility_target_bp=1500)
    known, unknown = apply_limits([(0, 40), (1, 40)], book([0, 0]), limits, Market([3000, 0]))
    assert (known.allowed, known.limit, known.bound, known.figure) == (15, Limit.VOL_LIMIT, 1581, 4000)
    assert (unknown.allowed, unknown.limit, unknown.bound, unknown.figure) == (25, Limit.VOL_LIMIT, 2500, 4000)


def test_an_order_is_cut_to_a_share_of_the_usual_volume_where_that_is_known() -> None:
    limits = replace(WIDE, volume_bp=500)
    few, none, unknown = apply_limits([(0, 40), (1, 40), (2, 40)], book([0, 0, 0]), limits, Market((), [300, 0, -1]))
    assert (few.allowed, few.limit, few.bound, few.figure) == (15, Limit.LIQUIDITY, 500, 1334)
    assert (none.allowed, none.limit, none.figure) == (0, Limit.LIQUIDITY, None)
    assert unknown.allowed == 40


def test_the_turnover_of_a_session_counts_what_passed_before() -> None:
    limits = replace(WIDE, turnover_bp=2500)
    results = apply_limits([(0, 20), (1, 20), (2, -10)], book([0, 0, 10]), limits)
    assert [(result.column, result.allowed) for result in results] == [(2, -10), (0, 15), (1, 0)]
    assert (results[2].limit, results[2].figure) == (Limit.TURNOVER_LIMIT, 4500)


@pytest.mark.parametrize(
    ("limits", "limit", "second"),
    [
        (replace(WIDE, gross_bp=5000), Limit.GROSS_LIMIT, 20),
        (replace(WIDE, net_bp=5000), Limit.NET_LIMIT, 20),
        (replace(WIDE, groups=(GroupLimit("tech", frozenset({0, 1}), 5000),)), Limit.SECTOR_LIMIT, 20),
        (replace(WIDE, concentration_bp=2500), Limit.CONCENTRATION, 40),
    ],
)
def test_an_order_is_held_against_the_book_as_those_before_it_leave_it(limits: Limits, limit: Limit, second: int) -> None:
    results = apply_limits([(0, 30), (1, 45)], book([0, 0]), limits)
    assert [(result.allowed, result.limit) for result in results] == [(30, Limit.NONE), (second, limit)]


def test_orders_over_the_number_of_a_session_are_refused_and_reductions_counted() -> None:
    limits = replace(WIDE, orders_per_session=3)
    results = apply_limits([(0, 1), (1, 1), (2, -5), (3, -1)], book([0, 0, 5, 5]), limits)
    assert [(result.column, result.allowed) for result in results] == [(2, -5), (3, -1), (0, 1), (1, 0)]
    assert (results[3].limit, results[3].bound, results[3].figure) == (Limit.ORDER_LIMIT, 3, 4)


def test_an_order_that_is_refused_is_not_counted() -> None:
    limits = replace(WIDE, orders_per_session=1, halted_columns=frozenset({0}))
    assert [result.allowed for result in apply_limits([(0, 1), (1, 1)], book([0, 0]), limits)] == [0, 1]


def test_room_that_a_clamp_leaves_is_not_handed_on() -> None:
    """The first is cut to its position limit; the second gets no more for it than it asked."""
    limits = replace(WIDE, position_bp=1000, gross_bp=3000)
    assert [result.allowed for result in apply_limits([(0, 50), (1, 5), (2, 50)], book([0, 0, 0]), limits)] == [10, 5, 10]


def test_the_room_that_a_reduction_makes_is_there_for_the_others_whatever_their_tickers() -> None:
    limits = replace(WIDE, gross_bp=10_000)
    results = apply_limits([(0, 40), (1, -30)], book([0, 100]), limits)
    assert [(result.column, result.allowed) for result in results] == [(1, -30), (0, 30)]


def test_a_loss_of_the_last_session_lets_only_reductions_pass_and_tells_the_loss() -> None:
    lost = Book(940 * DOLLAR, 1000 * DOLLAR, [10, 0], [10 * DOLLAR] * 2, previous_nav_micros=1000 * DOLLAR)
    limits = replace(WIDE, daily_loss_bp=500)
    reduction, opening = apply_limits([(1, 4), (0, -4)], lost, limits)
    assert (reduction.place, opening.place) == (1, 0)
    assert (reduction.allowed, opening.allowed) == (-4, 0)
    assert (opening.limit, opening.bound, opening.figure) == (Limit.DAILY_LOSS, 500, 600)
    assert only(apply_limits([(1, 4)], lost._replace(nav_micros=951 * DOLLAR), limits)).limit is Limit.NONE
    assert only(apply_limits([(1, 4)], lost._replace(nav_micros=950 * DOLLAR), limits)).limit is Limit.DAILY_LOSS


def test_a_stop_that_nobody_lifted_holds_after_the_fall_is_made_good() -> None:
    stopped = book([10, 0])._replace(drawdown_stopped=True)
    flip = only(apply_limits([(0, -14)], stopped, replace(WIDE, drawdown_stop_bp=2000)))
    assert (flip.allowed, flip.limit, flip.bound, flip.figure) == (-10, Limit.DRAWDOWN_STOP, 2000, 0)


class CountedList(list[int]):
    """Counts how often an entry is read."""

    reads = 0

    def __getitem__(self, place: Any) -> Any:
        self.reads += 1
        return super().__getitem__(place)

    def __iter__(self) -> Iterator[int]:
        self.reads += len(self)
        return super().__iter__()


def test_each_order_looks_at_as_many_prices_among_20_tickers_as_among_2000() -> None:
    reads = dict[int, float]()
    for count in (20, 2000):
        limits = replace(
            WIDE,
            concentration_bp=10**6,
            turnover_bp=10**6,
            order_size_bp=10**6,
            groups=(GroupLimit("all", frozenset(range(count)), 10**6),),
        )
        prices = CountedList([DOLLAR] * count)
        results = apply_limits([(column, 1) for column in range(count)], Book(10**12, 10**12, [1] * count, prices), limits)
        assert all(result.allowed for result in results)
        reads[count] = prices.reads / count
    assert reads[20] == reads[2000] < 20


def test_every_figure_is_journaled_in_its_own_unit() -> None:
    rows = [
        Gated(0, 9, 4, Limit.POSITION_LIMIT, 2000, 4501),
        Gated(1, -9, 0, Limit.ORDER_LIMIT, 50, 51),
        Gated(2, 9, 0, Limit.TICKER_HALTED),
        Gated(3, 9, 0, Limit.SECTOR_LIMIT, 4000, 4100, "tech"),
        Gated(4, 9, 9),
    ]
    told = wire.orders_gated(TICKERS, [(SessionOrder(TICKERS[row.column], row.column, row.requested), row) for row in rows]).results
    assert [(one.unit, one.limit_value, one.figure, one.group) for one in told] == [
        (events.LIMIT_UNIT_FRACTION_OF_NAV, 0.2, 0.4501, ""),
        (events.LIMIT_UNIT_ORDERS, 50.0, 51.0, ""),
        (events.LIMIT_UNIT_UNSPECIFIED, 0.0, 0.0, ""),
        (events.LIMIT_UNIT_FRACTION_OF_NAV, 0.4, 0.41, "tech"),
        (events.LIMIT_UNIT_UNSPECIFIED, 0.0, 0.0, ""),
    ]
    assert [one.HasField("figure") for one in told] == [True, True, False, True, False]


def test_limits_and_units_have_the_contracts_names_and_numbers() -> None:
    codes = {name.removeprefix("LIMIT_CODE_"): number for name, number in events.LimitCode.items()}
    units = {name.removeprefix("LIMIT_UNIT_"): number for name, number in events.LimitUnit.items()}
    for limit in Limit:
        if limit:
            assert codes[limit.name] == limit.value
        assert limit in UNITS
    assert {unit.name: unit.value for unit in Unit if unit} == {name: number for name, number in units.items() if number}


def test_only_limits_that_are_on_are_shown() -> None:
    assert [one.limit for one in limits_that_are_on(WIDE)] == [Limit.POSITION_LIMIT, Limit.GROSS_LIMIT, Limit.NET_LIMIT]
    full = replace(
        WIDE,
        drawdown_stop_bp=1,
        shorts_allowed=False,
        halted=True,
        halted_columns=frozenset({1}),
        not_borrowable=frozenset({0}),
        daily_loss_bp=1,
        volatility_target_bp=1,
        groups=(GroupLimit("tech", frozenset({0}), 1),),
        concentration_bp=1,
        order_size_bp=1,
        turnover_bp=1,
        orders_per_session=1,
        volume_bp=1,
    )
    assert {one.limit for one in limits_that_are_on(full)} == set(Limit) - {Limit.NONE, Limit.NO_PRICE, Limit.MARGIN_CALL}


@pytest.mark.parametrize("pro_rata", [False, True])
def test_orders_that_are_preferred_get_the_room_and_what_reduces_is_still_first(pro_rata: bool) -> None:
    book = Book(1_000_000, 1_000_000, [0, 0, 100], [100, 100, 100])
    limits = Limits(10_000, 5_000, 5_000, 0, shorts_allowed=True, pro_rata=pro_rata)
    wanted = [(1, 4_000), (0, 4_000), (2, -50)]
    assert [(one.column, one.allowed) for one in apply_limits(wanted, book, limits, preferred=1)] == [(2, -50), (1, 4_000), (0, 950)]
    assert [(one.column, one.allowed) for one in apply_limits(wanted, book, limits)] == (
        [(2, -50), (0, 2_475), (1, 2_475)] if pro_rata else [(2, -50), (0, 4_000), (1, 950)]
    )
