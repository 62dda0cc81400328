"""Maintenance margin in a run: the call at a close, what is closed by force at the next session's first prices, and the orders that meet it;
and what short positions cost from a close to the next session."""

from __future__ import annotations

from typing import Any

import pytest

from journaled_desk import APPROVAL, GATE, Desk, config_of
from made_up_bars import DOLLAR, Prices, stage
from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_gateway.pipeline.cycle import OpenSession
from trademesh_runs.fold import LedgerMismatchError, replay_journal
from trademesh_runs.journal import Draft, Encoder
from trademesh_runs.journal_memory import MemoryStore

CASH = 100_000 * DOLLAR
FORCED = events.ORDER_ORIGIN_FORCED_LIQUIDATION
GTC = events.TIME_IN_FORCE_GOOD_TILL_CANCELED


def called(held: int = -1_300, later: float = 101, config: RunConfig | None = None, **fields: Prices) -> Desk:
    """The worked example of domain.md, section 4, after the close that calls: 1,300 short at 50, which are worth 100 now."""
    bars = stage({"AAA": [50, 50, 100, later, later, later], "BBB": [20] * 6}, **fields)
    desk = Desk(config or config_of(fee_bp=10), bars, cash_micros=CASH)
    desk.submit("held", "AAA", held)
    desk.run()
    desk.run()
    return desk


def filled(desk: Desk, session: int) -> list[events.OrderFilled]:
    """Fills of a session, in their order."""
    day = desk.stage.times(session).date
    parsed = (stored.parse() for stored in desk.store.events)
    return [one.order_filled for one in parsed if one.session_date == day and one.WhichOneof("payload") == "order_filled"]


def test_the_worked_example_comes_out_to_the_micro_dollar() -> None:
    desk = called()
    assert desk.told("margin_called") == [
        events.MarginCalled(nav_micros=34_935 * DOLLAR, required_micros=39_000 * DOLLAR, missing_micros=4_065 * DOLLAR)
    ]
    desk.run()
    (forced,) = filled(desk, 3)
    assert (forced.quantity, forced.side, forced.price_micros, forced.fee_micros) == (191, words.SIDE_LONG, 101 * DOLLAR, 19_291_000)
    assert (forced.cash_micros, forced.position_quantity, forced.realised_micros) == (145_624_709_000, -1_109, -9_741 * DOLLAR)
    assert desk.told("settled")[-1].nav_micros == 33_615_709_000


def test_a_call_is_journaled_before_what_settles_its_session() -> None:
    kinds = [stored.parse().WhichOneof("payload") for stored in called().store.events]
    assert kinds[-2:] == ["margin_called", "settled"]


def test_forced_fills_have_an_origin_and_a_name_of_their_own_and_come_before_any_other() -> None:
    desk = called()
    desk.submit("other", "AAA", 5)
    desk.run()
    assert [(one.order_id, one.origin) for one in filled(desk, 3)] == [("2020-01-09/AAA/forced", FORCED), ("other", 0)]


def test_no_call_is_answered_that_the_next_prices_have_answered() -> None:
    desk = called(later=60)
    desk.run()
    assert filled(desk, 3) == []
    assert len(desk.told("margin_called")) == 1


def test_an_order_that_was_to_close_what_was_closed_by_force_never_opens_the_other_side() -> None:
    desk = called()
    desk.submit("cover", "AAA", 1_300)
    desk.run()
    assert desk.fills()["cover"] == 1_109
    assert desk.told("order_rejected") == [
        events.OrderRejected(order_id="cover", ticker="AAA", reason=events.LIMIT_CODE_MARGIN_CALL, quantity=191)
    ]
    assert desk.desk.portfolio.quantity("AAA") == 0


def test_orders_that_close_a_position_together_close_together_what_is_left() -> None:
    desk = called()
    desk.submit("first", "AAA", 1_200)
    desk.submit("second", "AAA", 100)
    desk.run()
    assert desk.fills()["first"] == 1_109
    assert "second" not in desk.fills()
    assert {(one.order_id, one.quantity) for one in desk.told("order_rejected")} == {("first", 91), ("second", 100)}
    assert desk.in_force() == []


def test_an_order_that_was_to_flip_a_position_opens_no_more_than_it_was_to() -> None:
    desk = called()
    desk.submit("flip", "AAA", 1_400)
    desk.run()
    assert desk.fills()["flip"] == 1_109 + 100
    assert desk.desk.portfolio.quantity("AAA") == 100


@pytest.mark.parametrize("participation", [0.0, 0.5])
def test_an_order_that_lasts_and_was_cut_by_a_call_does_not_stay_in_force(participation: float) -> None:
    config = config_of(fee_bp=10)
    config.execution.participation = participation
    volumes: dict[str, list[float]] = {"AAA": [-1, -1, -1, 600, -1, -1], "BBB": [-1] * 6}
    desk = called(config=config, volumes=volumes)
    desk.submit("cover", "AAA", 1_300, time_in_force=GTC)
    desk.run()
    assert desk.fills()["cover"] == (300 if participation else 1_109)
    assert desk.in_force() == []


def test_a_call_is_answered_at_the_open_where_orders_are_filled_there() -> None:
    opens: dict[str, list[float]] = {"AAA": [50, 50, 50, 101, 101, 101], "BBB": [20] * 6}
    desk = called(config=config_of(contract.FILL_POLICY_NEXT_OPEN, fee_bp=10), later=104, opens=opens)
    desk.run()
    (forced,) = filled(desk, 3)
    assert (forced.quantity, forced.price_micros) == (191, 101 * DOLLAR)


def test_a_call_comes_before_an_order_at_the_opening_of_a_run_that_fills_at_closes() -> None:
    opens: dict[str, list[float]] = {"AAA": [50, 50, 50, 101, 101, 101], "BBB": [20] * 6}
    desk = called(later=104, opens=opens)
    desk.submit("early", "AAA", 5, time_in_force=events.TIME_IN_FORCE_AT_THE_OPENING)
    desk.run()
    assert [(one.order_id, one.price_micros) for one in filled(desk, 3)] == [
        ("2020-01-09/AAA/forced", 101 * DOLLAR),
        ("early", 101 * DOLLAR),
    ]


@pytest.mark.parametrize("dies", [False, True])
def test_a_call_is_answered_also_in_a_session_whose_cycle_was_given_up(dies: bool) -> None:
    desk = called()
    desk.submit("void", "AAA", 5)
    cycle = desk.run(GATE)
    cycle.give_up(APPROVAL, "too slow")
    if dies:
        desk.open()
        cycle = desk.cycle()
    desk.run(cycle=cycle, after=0 if dies else GATE)
    assert [(one.order_id, one.quantity) for one in filled(desk, 3)] == [("2020-01-09/AAA/forced", 191)]
    assert desk.told("cycle_failed")[0].void_order_ids == ["void"]
    assert desk.in_force() == []


def test_who_is_insolvent_loses_every_position_and_opens_none() -> None:
    bars = stage({"AAA": [50, 50, 200, 200, 200], "BBB": [20] * 5})
    desk = Desk(config_of(), bars, cash_micros=CASH)
    desk.submit("short", "AAA", -1_300)
    desk.submit("long", "BBB", 10)
    desk.run()
    desk.run()
    assert desk.told("settled")[-1].nav_micros == -95_000 * DOLLAR
    desk.submit("more", "BBB", 10)
    desk.run()
    forced = filled(desk, 3)
    assert [(one.ticker, one.quantity, one.origin) for one in forced] == [("AAA", 1_300, FORCED), ("BBB", 10, FORCED)]
    assert not desk.desk.portfolio.positions
    (rejected,) = desk.told("order_rejected")
    assert (rejected.order_id, rejected.reason) == ("more", events.LIMIT_CODE_DRAWDOWN_STOP)


def test_a_gateway_that_begins_between_call_and_liquidation_finds_the_call_again() -> None:
    dies, lives = called(), called()
    dies.open()
    assert dies.desk.account.call == lives.desk.account.call
    assert dies.desk.account.call is not None
    for desk in (dies, lives):
        desk.earlier = OpenSession()
        desk.run()
    assert dies.told("order_filled") == lives.told("order_filled")


def test_a_run_of_before_there_was_a_maintenance_margin_has_no_calls() -> None:
    desk = called()
    desk.config.margin.ClearField("maintenance_long_bp")
    desk.open()
    desk.run()
    assert filled(desk, 3) == []


def short(borrow_bp: int = 250) -> Desk:
    """200 short at 30 dollars, for three sessions."""
    bars = stage({"AAA": [30, 30, 31, 31], "BBB": [20] * 4})
    desk = Desk(config_of(borrow_bp=borrow_bp), bars, cash_micros=CASH)
    desk.submit("short", "AAA", -200)
    desk.submit("long", "BBB", 10)
    for _ in range(3):
        desk.run()
    return desk


def test_borrowed_shares_cost_at_each_close_for_the_days_to_the_next_session_and_nothing_after_the_last() -> None:
    charges = [settled.borrow for settled in short().told("settled")]
    assert [[(one.ticker, one.rate_bp, one.days, one.charge_micros) for one in told] for told in charges] == [
        [("AAA", 250, 1, 416_667)],
        [("AAA", 250, 1, 430_556)],
        [],
    ]
    assert short().desk.portfolio.borrow_micros == 416_667 + 430_556


def test_without_a_rate_nothing_is_charged() -> None:
    assert not any(settled.borrow for settled in short(borrow_bp=0).told("settled"))


@pytest.mark.parametrize(("field", "value"), [("charge_micros", 1), ("days", 3), ("rate_bp", 25), ("ticker", "BBB"), ("ticker", "CCC")])
def test_a_charge_that_was_changed_in_the_journal_is_found(field: str, value: Any) -> None:
    store, encoder = MemoryStore(), Encoder("demo", 1)
    for stored in short().store.events:
        event = stored.parse()
        kind = event.WhichOneof("payload") or ""
        if event.settled.borrow:
            setattr(event.settled.borrow[0], field, value)
        draft = Draft(kind, getattr(event, kind), event.session_date, event.phase, event.agent_id)
        store.events.append(encoder.encode(draft, event.sequence, event.event_id))
    with pytest.raises(LedgerMismatchError):
        replay_journal("demo", store.reader())
