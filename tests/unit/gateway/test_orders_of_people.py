"""A person's order in the cycle: the same limits and ledger as the desk's own, and the same outcome whenever the gateway dies."""

from __future__ import annotations

import pytest

from journaled_desk import APPROVAL, EXECUTION, GATE, SETTLEMENT, Desk
from real_closes import FIRST, us20
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_gateway.pipeline.cycle import OpenSession


def close_of(session: int, ticker: str) -> int:
    """A close of the embedded set, sessions counted from 1."""
    data = us20()
    column = [one.ticker for one in data.instruments].index(ticker)
    return int(data.close_micros[FIRST + session - 1, column])


@pytest.fixture
def desk() -> Desk:
    """A desk before its first session."""
    return Desk()


def test_a_market_order_is_filled_at_the_next_close_and_is_then_out_of_force(desk: Desk) -> None:
    desk.submit("mine", "KO", 100)
    assert desk.in_force() == ["mine"]
    desk.run()
    assert desk.fills()["mine"] == 100
    (filled,) = [one for one in desk.told("order_filled") if one.order_id == "mine"]
    assert filled.price_micros == close_of(1, "KO")
    assert desk.in_force() == []


def test_limits_cut_a_persons_order_as_the_desks_own_and_tell_it_by_its_id(desk: Desk) -> None:
    desk.submit("huge", "KO", 10_000_000)
    desk.run()
    (gated,) = desk.told("orders_gated")
    (result,) = [one for one in gated.results if one.order.order_id == "huge"]
    assert result.limit == events.LIMIT_CODE_POSITION_LIMIT
    assert result.requested_quantity == 10_000_000
    assert desk.fills()["huge"] == result.order.quantity < 10_000_000
    assert desk.in_force() == []


def test_an_order_that_limits_refuse_is_rejected_with_the_limit() -> None:
    config = RunConfig()
    config.margin.enabled = False
    desk = Desk(config)
    desk.submit("short", "KO", -100)
    desk.run()
    assert "short" not in desk.fills()
    rejected = [one for one in desk.told("order_rejected") if one.order_id == "short"]
    assert [(one.reason, one.quantity) for one in rejected] == [(events.LIMIT_CODE_SHORT_DISABLED, 100)]
    assert desk.in_force() == []


def test_an_order_for_the_day_whose_limit_is_not_met_expires(desk: Desk) -> None:
    desk.submit("cheap", "KO", 100, limit_price_micros=close_of(1, "KO") - 1)
    desk.run()
    assert desk.told("order_expired") == [events.OrderExpired(order_id="cheap", ticker="KO", quantity=100)]
    assert "cheap" not in desk.fills()
    assert desk.in_force() == []


def test_two_orders_in_one_ticker_are_both_executed(desk: Desk) -> None:
    desk.submit("first", "KO", 100)
    desk.submit("second", "KO", 100)
    desk.submit("back", "KO", -50)
    desk.run()
    fills = desk.fills()
    assert (fills["first"], fills["second"], fills["back"]) == (100, 100, -50)


def test_an_order_that_is_canceled_after_the_gate_is_not_executed(desk: Desk) -> None:
    desk.submit("mine", "KO", 100)
    cycle = desk.run(GATE)
    (gated,) = desk.told("orders_gated")
    own = next(one.order.order_id for one in gated.results if one.order.order_id != "mine")
    desk.cancel("mine")
    desk.cancel(own)
    desk.run(cycle=cycle, after=GATE)
    assert not {"mine", own} & set(desk.fills())
    assert desk.in_force() == []


def test_nobody_is_asked_about_an_order_that_was_canceled() -> None:
    config = RunConfig()
    config.approvals.orders_over_nav = 0.0
    desk = Desk(config)
    desk.submit("mine", "KO", 100)
    cycle = desk.run(GATE)
    (gated,) = desk.told("orders_gated")
    for one in gated.results:
        desk.cancel(one.order.order_id)
    # Who is asked here fails the test.
    desk.run(cycle=cycle, after=GATE)
    assert desk.fills() == {}


def test_orders_of_a_cycle_that_is_given_up_are_void_but_those_that_last(desk: Desk) -> None:
    desk.submit("day", "KO", 100)
    desk.submit("lasts", "KO", 50, time_in_force=events.TIME_IN_FORCE_GOOD_TILL_CANCELED)
    cycle = desk.run(GATE)
    cycle.give_up(APPROVAL, "too slow")
    (failed,) = desk.told("cycle_failed")
    assert "day" in failed.void_order_ids
    assert "lasts" not in failed.void_order_ids
    desk.open()
    desk.run()
    assert desk.in_force() == ["lasts"]
    desk.run()
    assert desk.fills()["lasts"] == 50


@pytest.mark.parametrize("dies_after", range(10))
@pytest.mark.parametrize("canceled", [False, True])
def test_a_gateway_that_dies_after_any_phase_neither_loses_nor_repeats_an_order(dies_after: int, canceled: bool) -> None:
    """The story of a desk that never died, but for the place of what people do in between."""

    def story(dies: bool) -> tuple[dict[str, int], list[str], bytes]:
        desk = Desk()
        desk.submit("before", "KO", 100)
        desk.submit("lasts", "GE", 40, time_in_force=events.TIME_IN_FORCE_GOOD_TILL_CANCELED)
        cycle = desk.run(min(dies_after, SETTLEMENT))
        desk.submit("between", "PG", 30)
        if canceled and dies_after < EXECUTION:
            desk.cancel("lasts")
        if dies:
            desk.open()
            cycle = desk.cycle() if dies_after < SETTLEMENT else cycle
        if dies_after < SETTLEMENT:
            desk.run(cycle=cycle, after=0 if dies else dies_after)
        desk.earlier = OpenSession()
        desk.run()
        settled = desk.told("settled")[-1]
        return desk.fills(), desk.in_force(), settled.SerializeToString(deterministic=True)

    assert story(dies=True) == story(dies=False)
    fills = story(dies=True)[0]
    assert fills["before"] == 100
    assert fills["between"] == 30
    assert ("lasts" in fills) is not (canceled and dies_after < EXECUTION)
