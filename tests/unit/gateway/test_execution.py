"""At which price an order is filled, in which parts, and what becomes of the rest: by fill policy, kind, time in force and volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journaled_desk import EXECUTION, Desk, config_of
from made_up_bars import DOLLAR, Stage, stage
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1.run_config_pb2 import RunConfig

CASH = 100_000 * DOLLAR
NEXT_CLOSE, NEXT_OPEN = contract.FILL_POLICY_NEXT_CLOSE, contract.FILL_POLICY_NEXT_OPEN
SAME_CLOSE = contract.FILL_POLICY_SAME_CLOSE
GTC, DAY = events.TIME_IN_FORCE_GOOD_TILL_CANCELED, events.TIME_IN_FORCE_DAY
AT_OPEN, AT_CLOSE = events.TIME_IN_FORCE_AT_THE_OPENING, events.TIME_IN_FORCE_AT_THE_CLOSE
Bar = tuple[float, float, float, float]
"""Open, high, low and close, in dollars."""


def bars(*sessions: Bar, ranges: bool = True, volumes: Sequence[int] | None = None) -> Stage:
    """Sessions of one ticker, which closed at 10 dollars before."""
    columns = [[10.0, *(bar[field] for bar in sessions)] for field in range(4)]
    opens, highs, lows, closes = ({"AAA": column} for column in columns)
    known = None if volumes is None else {"AAA": [1_000, *volumes]}
    return stage(closes, opens=opens, highs=highs if ranges else None, lows=lows if ranges else None, volumes=known)


def price_of(fill: contract.FillPolicy.ValueType, bar: Bar, delta: int, *, ranges: bool = True, slippage_bp: int = 0, **order: Any) -> int:
    """Price at which an order is filled in its first session; 0 if it is not."""
    desk = Desk(config_of(fill, slippage_bp=slippage_bp), bars(bar, ranges=ranges), cash_micros=CASH)
    desk.submit("mine", "AAA", delta, **order)
    desk.run()
    desk.in_force()
    filled = desk.told("order_filled")
    assert len(filled) <= 1
    return filled[0].price_micros if filled else 0


def test_each_policy_fills_at_its_own_price() -> None:
    bar = (11.0, 13.0, 9.0, 12.0)
    assert price_of(NEXT_CLOSE, bar, 10) == price_of(SAME_CLOSE, bar, 10) == 12 * DOLLAR
    assert price_of(NEXT_OPEN, bar, 10) == 11 * DOLLAR


def test_the_desks_own_order_without_an_open_is_refused_for_want_of_a_price() -> None:
    config = config_of(NEXT_OPEN, manager="monthly-equal-weight")
    desk = Desk(config, bars((0.0, 13.0, 9.0, 12.0)), cash_micros=CASH)
    desk.run()
    (rejected,) = desk.told("order_rejected")
    assert rejected.reason == events.LIMIT_CODE_NO_PRICE
    assert desk.told("order_filled") == []


@pytest.mark.parametrize("fill", [NEXT_CLOSE, NEXT_OPEN])
def test_an_order_at_the_opening_or_the_close_has_that_moment_whatever_the_policy(fill: contract.FillPolicy.ValueType) -> None:
    bar = (11.0, 13.0, 9.0, 12.0)
    assert price_of(fill, bar, 10, time_in_force=AT_OPEN) == 11 * DOLLAR
    assert price_of(fill, bar, 10, time_in_force=AT_CLOSE) == 12 * DOLLAR


@pytest.mark.parametrize(("when", "limit"), [(AT_OPEN, 10), (AT_CLOSE, 11)])
def test_an_order_for_a_moment_whose_limit_is_not_met_then_expires_though_the_session_went_beyond_it(when: Any, limit: int) -> None:
    desk = Desk(config_of(NEXT_OPEN), bars((11.0, 13.0, 9.0, 12.0)), cash_micros=CASH)
    desk.submit("mine", "AAA", 10, time_in_force=when, limit_price_micros=limit * DOLLAR)
    desk.run()
    assert desk.told("order_expired") == [events.OrderExpired(order_id="mine", ticker="AAA", quantity=10)]
    assert desk.in_force() == []


LIMITS = [
    pytest.param(10, 9.5, 9.5, id="a purchase below the open is filled at its limit"),
    pytest.param(10, 9.0, 0, id="a purchase whose limit is only touched is not filled"),
    pytest.param(10, 8.0, 0, id="a purchase below the low is not filled"),
    pytest.param(10, 12.0, 11.0, id="a purchase above the open is filled at the open"),
    pytest.param(-10, 12.5, 12.5, id="a sale above the open is filled at its limit"),
    pytest.param(-10, 13.0, 0, id="a sale whose limit is only touched is not filled"),
    pytest.param(-10, 10.0, 11.0, id="a sale below the open is filled at the open"),
]


@pytest.mark.parametrize(("delta", "limit", "expected"), LIMITS)
def test_a_limit_works_within_a_session(delta: int, limit: float, expected: float) -> None:
    price = price_of(NEXT_OPEN, (11.0, 13.0, 9.0, 12.0), delta, limit_price_micros=round(limit * DOLLAR))
    assert price == round(expected * DOLLAR)


STOPS = [
    pytest.param(10, 12.5, 12.5, id="a purchase is filled at its stop"),
    pytest.param(10, 13.0, 13.0, id="a stop that is touched is reached"),
    pytest.param(10, 13.5, 0, id="a stop above the high is not reached"),
    pytest.param(10, 10.5, 11.0, id="a purchase that opens beyond its stop is filled at the open"),
    pytest.param(-10, 9.5, 9.5, id="a sale is filled at its stop"),
    pytest.param(-10, 11.5, 11.0, id="a sale that opens beyond its stop is filled at the open"),
    pytest.param(-10, 8.5, 0, id="a stop below the low is not reached"),
]


@pytest.mark.parametrize(("delta", "stop", "expected"), STOPS)
def test_a_stop_works_within_a_session(delta: int, stop: float, expected: float) -> None:
    price = price_of(NEXT_OPEN, (11.0, 13.0, 9.0, 12.0), delta, stop_price_micros=round(stop * DOLLAR))
    assert price == round(expected * DOLLAR)


def test_a_stop_pays_slippage_and_a_limit_does_not() -> None:
    bar = (11.0, 13.0, 9.0, 12.0)
    assert price_of(NEXT_OPEN, bar, 10, slippage_bp=100, stop_price_micros=12 * DOLLAR) == 12_120_000
    assert price_of(NEXT_OPEN, bar, -10, slippage_bp=100, stop_price_micros=10 * DOLLAR) == 9_900_000
    assert price_of(NEXT_OPEN, bar, 10, slippage_bp=100, limit_price_micros=10 * DOLLAR) == 10 * DOLLAR


@pytest.mark.parametrize("order", [{"limit_price_micros": 10 * DOLLAR}, {"stop_price_micros": 12 * DOLLAR}])
def test_without_ranges_a_session_executes_nothing_between_its_open_and_its_close(order: dict[str, int]) -> None:
    assert price_of(NEXT_OPEN, (11.0, 13.0, 9.0, 12.0), 10, ranges=False, **order) == 0


@pytest.mark.parametrize(
    ("delta", "order", "expected"),
    [
        pytest.param(10, {"limit_price_micros": 10 * DOLLAR}, 10, id="a limit within the bar"),
        pytest.param(10, {"limit_price_micros": 15 * DOLLAR}, 13, id="a purchase above the bar gets its high"),
        pytest.param(-10, {"limit_price_micros": 8 * DOLLAR}, 9, id="a sale below the bar gets its low"),
        pytest.param(10, {"stop_price_micros": 12 * DOLLAR}, 12, id="a stop within the bar"),
        pytest.param(10, {"stop_price_micros": 8 * DOLLAR}, 13, id="a purchase whose stop lies below the bar gets its high"),
        pytest.param(-10, {"stop_price_micros": 15 * DOLLAR}, 9, id="a sale whose stop lies above the bar gets its low"),
        pytest.param(10, {}, 0, id="a market order has no price"),
    ],
)
def test_without_an_open_limits_and_stops_go_on_working_and_get_the_worst_that_may_be(
    delta: int, order: dict[str, int], expected: int
) -> None:
    assert price_of(NEXT_OPEN, (0.0, 13.0, 9.0, 12.0), delta, **order) == expected * DOLLAR


CENTS = st.integers(100, 3_000)


@settings(max_examples=60, deadline=None)
@given(st.lists(CENTS, min_size=4, max_size=4), CENTS, st.sampled_from([-7, 7]), st.booleans(), st.sampled_from([0, 3, 250]), st.booleans())
def test_no_limit_is_filled_beyond_itself_and_no_stop_better_than_its_price(
    prices: list[int], at: int, delta: int, stop: bool, slippage_bp: int, opens: bool
) -> None:
    low, first, last, high = sorted(prices)
    bar = (first / 100, high / 100, low / 100, last / 100)
    order = {"stop_price_micros" if stop else "limit_price_micros": at * 10_000}
    price = price_of(NEXT_OPEN if opens else NEXT_CLOSE, bar, delta, slippage_bp=slippage_bp, **order)
    if price and stop and opens:
        assert (price - at * 10_000) * delta >= 0
    if price and not stop:
        assert (price - at * 10_000) * delta <= 0
    if price and not slippage_bp:
        assert low * 10_000 <= price <= high * 10_000


def parts(volumes: Sequence[int], *orders: tuple[str, int, Any], config: RunConfig | None = None) -> Desk:
    """Orders of session 1, of which a session may fill a tenth of its volume, in as many sessions as there are volumes."""
    config = config or config_of(NEXT_CLOSE)
    config.execution.participation = 0.1
    desk = Desk(config, bars(*[(10.0, 11.0, 9.0, 10.0)] * len(volumes), volumes=volumes), cash_micros=CASH)
    for name, delta, lasts in orders:
        desk.submit(name, "AAA", delta, time_in_force=lasts)
    for _ in volumes:
        desk.run()
        desk.in_force()
    return desk


def told_parts(desk: Desk) -> list[tuple[str, int, int]]:
    """Order, shares and what remains of each fill."""
    return [(one.order_id, one.quantity, one.remaining_quantity) for one in desk.told("order_filled")]


def test_an_order_that_lasts_is_filled_in_as_many_sessions_as_the_volume_asks_for() -> None:
    desk = parts([1_000, 555, 5_000], ("mine", 250, GTC))
    assert told_parts(desk) == [("mine", 100, 150), ("mine", 55, 95), ("mine", 95, 0)]
    assert desk.told("order_expired") == []
    assert desk.desk.portfolio.quantity("AAA") == 250


def test_the_rest_of_an_order_for_the_day_expires_and_says_why() -> None:
    desk = parts([1_000], ("mine", 250, DAY))
    assert told_parts(desk) == [("mine", 100, 0)]
    expected = events.OrderExpired(order_id="mine", ticker="AAA", quantity=150, reason=events.EXPIRY_REASON_PARTICIPATION)
    assert desk.told("order_expired") == [expected]


def test_the_rest_of_the_desks_own_order_expires_likewise() -> None:
    desk = parts([1_000], config=config_of(NEXT_CLOSE, manager="monthly-equal-weight"))
    (filled,) = desk.told("order_filled")
    (expired,) = desk.told("order_expired")
    assert (filled.quantity, expired.order_id, expired.reason) == (100, filled.order_id, events.EXPIRY_REASON_PARTICIPATION)
    assert filled.quantity + expired.quantity == 98_000 // 10


def test_orders_of_a_ticker_share_the_sessions_volume_in_their_order() -> None:
    desk = parts([1_000], ("first", 70, DAY), ("second", 70, GTC), ("third", 70, DAY))
    assert told_parts(desk) == [("first", 70, 0), ("second", 30, 40)]
    assert [(one.order_id, one.quantity) for one in desk.told("order_expired")] == [("third", 70)]
    assert desk.in_force() == ["second"]


@pytest.mark.parametrize("fill", [NEXT_CLOSE, NEXT_OPEN])
def test_a_volume_that_is_not_known_bounds_nothing_and_one_of_nothing_fills_nothing(fill: contract.FillPolicy.ValueType) -> None:
    assert told_parts(parts([-1], ("mine", 900, DAY), config=config_of(fill))) == [("mine", 900, 0)]
    desk = parts([0, -1], ("mine", 900, GTC), config=config_of(fill))
    assert told_parts(desk) == [("mine", 900, 0)]
    assert len(desk.told("settled")) == 2


def test_a_share_of_volume_that_rounds_to_nothing_is_not_taken_for_no_bound() -> None:
    config = config_of(NEXT_CLOSE)
    config.execution.participation = 0.00001
    desk = Desk(config, bars((10.0, 11.0, 9.0, 10.0), volumes=[100_000]), cash_micros=CASH)
    desk.submit("mine", "AAA", 900)
    desk.run()
    assert told_parts(desk) == [("mine", 10, 0)]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(-1, 4_000), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(-900, 900).filter(bool), st.sampled_from([GTC, DAY])), min_size=1, max_size=4),
)
def test_every_share_of_an_order_is_filled_refused_expired_or_stays(volumes: list[int], orders: list[tuple[int, Any]]) -> None:
    desk = parts(volumes, *[(f"{place}", delta, lasts) for place, (delta, lasts) in enumerate(orders)])
    filled = {name: abs(shares) for name, shares in desk.fills().items()}
    rest = {one.order_id: abs(one.delta) for one in desk.desk.orders.working}
    for place, (delta, _) in enumerate(orders):
        name = f"{place}"
        ended = [one.quantity for kind in ("order_expired", "order_rejected") for one in desk.told(kind) if one.order_id == name]
        assert filled.get(name, 0) + sum(ended) + rest.get(name, 0) == abs(delta)
    for place, volume in enumerate(volumes):
        day = desk.stage.times(place + 1).date
        of_day = [one.parse() for one in desk.store.events if one.parse().session_date == day]
        assert volume < 0 or sum(one.order_filled.quantity for one in of_day) <= volume // 10


def decided(fill: contract.FillPolicy.ValueType, later: float, phase: int) -> list[bytes]:
    """What a desk journals up to a phase of session 3, with the closes from that session on changed."""
    closes = [10.0, 11.0, 10.5, *(price * later for price in (12.0, 11.0))]
    market = stage(
        {"AAA": closes, "BBB": [price * 2 for price in closes]},
        opens={"AAA": [10.0, 10.5, 11.0, 11.5, 12.0], "BBB": [20.0, 21.0, 22.0, 23.0, 24.0]},
    )
    desk = Desk(config_of(fill, manager="monthly-equal-weight"), market, cash_micros=CASH)
    for number in (1, 2, 3):
        desk.submit(f"{number}", "AAA", 10 * number)
        desk.run(phase if number == 3 else 9)
    return [one.data[: one.core_length] for one in desk.store.events]


@pytest.mark.parametrize("later", [0.5, 1.1])
@pytest.mark.parametrize(("fill", "phase"), [(NEXT_CLOSE, EXECUTION - 1), (NEXT_OPEN, EXECUTION)])
def test_closes_that_are_not_known_yet_change_nothing(fill: contract.FillPolicy.ValueType, phase: int, later: float) -> None:
    """Filled at the open, the session's close changes not even the fills."""
    truth = decided(fill, 1.0, phase)
    assert truth == decided(fill, later, phase)
    assert decided(fill, 1.0, 9) != decided(fill, later, 9)


def test_at_the_very_close_the_sessions_own_close_is_known_and_the_run_says_so() -> None:
    assert decided(SAME_CLOSE, 1.0, 5) != decided(SAME_CLOSE, 1.1, 5)
    desk = Desk(config_of(SAME_CLOSE), bars((11.0, 13.0, 9.0, 12.0)), cash_micros=CASH)
    desk.run()
    (opened,) = desk.told("session_opened")
    assert opened.decision_time.seconds == desk.stage.times(1).close_unix_s


def test_two_sales_of_one_position_are_no_margin_call() -> None:
    desk = Desk(config_of(NEXT_CLOSE), bars(*[(10.0, 11.0, 9.0, 10.0)] * 2), cash_micros=CASH)
    desk.submit("long", "AAA", 100)
    desk.run()
    desk.submit("first", "AAA", -60)
    desk.submit("second", "AAA", -60)
    desk.run()
    assert desk.fills() == {"long": 100, "first": -60, "second": -60}
    assert desk.told("order_rejected") == []


def test_an_order_that_limits_cut_stays_whole_in_a_session_without_volume() -> None:
    config = config_of(NEXT_CLOSE)
    config.risk.position = 0.01
    desk = parts([0], ("mine", 250, GTC), config=config)
    assert [(one.order_id, abs(one.delta)) for one in desk.desk.orders.working] == [("mine", 250)]
    assert desk.in_force() == ["mine"]
