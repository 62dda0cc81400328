"""What became of orders, from their events: every way that one can end, and totals that agree whatever happens in between."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.trading.v1 import portfolio_service_pb2 as messages
from trademesh_trading.kept_orders import KEPT_S, KeptOrders
from trademesh_trading.order_history import IN_FORCE, ORDER_KINDS, OrderHistory, matches

DAY, NEXT = "2008-09-15", "2008-09-16"
DESK = f"{DAY}/AAPL"
PERSON = "0b7a"


class Told:
    """A history that is told events one after the other."""

    def __init__(self) -> None:
        self.history = OrderHistory()
        self.sequence = 0

    def tell(self, payload: Message, day: str = DAY) -> Told:
        self.sequence += 1
        kind = next(one.name for one in events.Event.DESCRIPTOR.oneofs_by_name["payload"].fields if one.message_type is payload.DESCRIPTOR)
        event = events.Event(sequence=self.sequence, session_date=day, **{kind: payload})
        assert kind in (*ORDER_KINDS, "decisions")
        self.history.add_decisions(event) if kind == "decisions" else self.history.add(event)
        return self

    def gated(self, order_id: str, asked: int, allowed: int, limit: int = 0, day: str = DAY) -> Told:
        order = events.Order(order_id=order_id, ticker="AAPL", side=words.SIDE_LONG, quantity=allowed)
        return self.tell(events.OrdersGated(results=[events.GateResult(order=order, requested_quantity=asked, limit=limit)]), day)

    def filled(self, order_id: str, quantity: int, price: int, fee: int = 7, day: str = DAY) -> Told:
        return self.tell(events.OrderFilled(order_id=order_id, quantity=quantity, price_micros=price, fee_micros=fee), day)

    def submitted(self, quantity: int, **fields: Any) -> Told:
        order = events.Order(order_id=PERSON, ticker="KO", side=words.SIDE_LONG, quantity=quantity, submitted_by="ada", **fields)
        return self.tell(events.OrderSubmitted(order=order, from_session=3), day="")

    def one(self) -> messages.OrderRecord:
        (record,) = self.history.orders.values()
        return record


def shares(record: messages.OrderRecord) -> tuple[int, int, int, int]:
    """Ordered, allowed, filled, remaining."""
    return record.order.quantity, record.allowed_quantity, record.filled_quantity, record.remaining_quantity


def test_an_order_of_the_desk_is_new_at_the_gate_and_filled_at_the_fill() -> None:
    told = Told().gated(DESK, 100, 100)
    assert (told.one().state, shares(told.one())) == (messages.ORDER_STATE_NEW, (100, 100, 0, 100))
    record = told.filled(DESK, 100, 2_000_001).one()
    assert (record.state, shares(record)) == (messages.ORDER_STATE_FILLED, (100, 100, 100, 0))
    assert (record.average_price_micros, record.fees_micros, record.fills) == (2_000_001, 7, 1)
    assert (record.origin, record.first_session, record.last_session) == (messages.ORDER_ORIGIN_DESK, DAY, DAY)
    assert (record.sequence, record.last_sequence) == (1, 2)


def test_an_order_that_limits_cut_is_filled_once_what_they_let_pass_is() -> None:
    record = Told().gated(DESK, 100, 60, events.LIMIT_CODE_POSITION_LIMIT).filled(DESK, 60, 5).one()
    assert (record.state, shares(record), record.limit) == (messages.ORDER_STATE_FILLED, (100, 60, 60, 0), events.LIMIT_CODE_POSITION_LIMIT)
    assert record.gate.requested_quantity == 100


def test_an_order_that_limits_refuse_is_rejected() -> None:
    record = Told().gated(DESK, 100, 0, events.LIMIT_CODE_DRAWDOWN_STOP).one()
    assert (record.state, shares(record), record.limit) == (messages.ORDER_STATE_REJECTED, (100, 0, 0, 0), events.LIMIT_CODE_DRAWDOWN_STOP)
    assert not record.HasField("average_price_micros")


def test_what_cash_does_not_reach_for_is_cut_at_the_fill() -> None:
    cut = events.OrderRejected(order_id=DESK, reason=events.LIMIT_CODE_INSUFFICIENT_CASH, quantity=40)
    record = Told().gated(DESK, 100, 90, events.LIMIT_CODE_GROSS_LIMIT).tell(cut).filled(DESK, 50, 5).one()
    assert (record.state, shares(record)) == (messages.ORDER_STATE_FILLED, (100, 50, 50, 0))
    assert record.limit == events.LIMIT_CODE_INSUFFICIENT_CASH
    assert record.gate.limit == events.LIMIT_CODE_GROSS_LIMIT


def test_an_order_without_a_price_is_rejected_at_the_fill() -> None:
    none = events.OrderRejected(order_id=DESK, reason=events.LIMIT_CODE_NO_PRICE, quantity=100)
    assert Told().gated(DESK, 100, 100).tell(none).one().state == messages.ORDER_STATE_REJECTED


@pytest.mark.parametrize("approved", [True, False])
def test_an_order_waits_for_approval_until_somebody_answers(approved: bool) -> None:
    told = Told().gated(DESK, 100, 100).tell(events.ApprovalRequested(order=events.Order(order_id=DESK)))
    assert (told.one().state, told.one().remaining_quantity) == (messages.ORDER_STATE_PENDING_APPROVAL, 100)
    told.tell(events.ApprovalResolved(order_id=DESK, approved=approved, decided_by="ann", reason="as I see it"))
    if not approved:
        told.tell(events.OrderRejected(order_id=DESK, reason=events.LIMIT_CODE_APPROVAL_DENIED, quantity=100))
    record = told.one()
    assert (record.decided_by, record.reason) == ("ann", "as I see it")
    assert record.state == (messages.ORDER_STATE_NEW if approved else messages.ORDER_STATE_REJECTED)
    assert record.limit == (0 if approved else events.LIMIT_CODE_APPROVAL_DENIED)


def test_a_persons_order_is_new_before_its_first_session() -> None:
    record = Told().submitted(10).one()
    assert (record.state, shares(record), record.origin) == (messages.ORDER_STATE_NEW, (10, 10, 0, 10), messages.ORDER_ORIGIN_PERSON)
    assert (record.first_session, record.from_session, record.order.submitted_by) == ("", 3, "ada")


def test_fills_of_several_sessions_are_added_up_and_their_prices_averaged() -> None:
    told = Told().submitted(10, time_in_force=events.TIME_IN_FORCE_GOOD_TILL_CANCELED).gated(PERSON, 10, 10).filled(PERSON, 4, 1_000_000)
    assert (told.one().state, shares(told.one())) == (messages.ORDER_STATE_PARTIALLY_FILLED, (10, 10, 4, 6))
    record = told.gated(PERSON, 6, 6, day=NEXT).filled(PERSON, 6, 2_000_001, day=NEXT).one()
    assert (record.state, shares(record), record.fills, record.fees_micros) == (messages.ORDER_STATE_FILLED, (10, 10, 10, 0), 2, 14)
    assert record.average_price_micros == 1_600_001
    assert (record.first_session, record.last_session) == (DAY, NEXT)
    assert record.order.ticker == "KO"


@pytest.mark.parametrize("filled", [0, 4])
def test_an_order_that_ends_without_its_rest_says_how_and_keeps_its_fills(filled: int) -> None:
    for ending, state in (
        (events.OrderCanceled(order_id=PERSON, canceled_by="bob"), messages.ORDER_STATE_CANCELED),
        (events.OrderExpired(order_id=PERSON, quantity=10 - filled), messages.ORDER_STATE_EXPIRED),
        (events.CycleFailed(reason="late", void_order_ids=[PERSON]), messages.ORDER_STATE_CANCELED),
    ):
        told = Told().submitted(10).gated(PERSON, 10, 10)
        if filled:
            told.filled(PERSON, filled, 5)
        record = told.tell(ending).one()
        assert (record.state, record.filled_quantity, record.remaining_quantity) == (state, filled, 0)
    assert record.reason == "late"


def test_the_rest_of_an_order_that_was_too_large_for_the_volume_stays_in_force_or_expires() -> None:
    rest = events.OrderFilled(order_id=PERSON, quantity=30, price_micros=1, remaining_quantity=50)
    told = Told().submitted(100, time_in_force=events.TIME_IN_FORCE_GOOD_TILL_CANCELED)
    told.gated(PERSON, 100, 80, events.LIMIT_CODE_POSITION_LIMIT).tell(rest)
    assert (told.one().state, shares(told.one())) == (messages.ORDER_STATE_PARTIALLY_FILLED, (100, 80, 30, 50))
    expired = events.OrderExpired(order_id=DESK, quantity=70, reason=events.EXPIRY_REASON_PARTICIPATION)
    record = Told().gated(DESK, 100, 100).filled(DESK, 30, 1).tell(expired).one()
    assert (record.state, record.filled_quantity, record.remaining_quantity) == (messages.ORDER_STATE_EXPIRED, 30, 0)
    assert record.expiry == events.EXPIRY_REASON_PARTICIPATION


def test_what_a_margin_call_closes_is_an_order_of_nobodys() -> None:
    forced = events.OrderFilled(
        order_id=f"{DAY}/KO/forced",
        ticker="KO",
        side=words.SIDE_SHORT,
        quantity=30,
        price_micros=7,
        origin=events.ORDER_ORIGIN_FORCED_LIQUIDATION,
    )
    record = Told().tell(forced).one()
    assert (record.origin, record.state, shares(record)) == (messages.ORDER_ORIGIN_FORCED, messages.ORDER_STATE_FILLED, (30, 30, 30, 0))
    assert (record.order.ticker, record.order.side) == ("KO", words.SIDE_SHORT)


def test_an_order_given_up_before_the_limits_is_described_by_the_decisions() -> None:
    told = Told().tell(events.CycleFailed(reason="late", void_order_ids=[DESK]))
    assert told.history.undescribed == {DESK}
    decisions = [
        events.Decision(ticker="KO", action=words.ACTION_HOLD),
        events.Decision(ticker="AAPL", action=words.ACTION_SHORT, quantity=30),
    ]
    told.tell(events.Decisions(decisions=decisions), NEXT)
    assert told.history.undescribed == {DESK}
    record = told.tell(events.Decisions(decisions=decisions)).one()
    assert (record.order.order_id, record.order.ticker, record.order.side, record.order.quantity) == (DESK, "AAPL", words.SIDE_SHORT, 30)
    assert record.state == messages.ORDER_STATE_CANCELED
    assert not told.history.undescribed


def test_orders_are_found_by_state_ticker_session_and_origin() -> None:
    told = Told().submitted(10).gated(DESK, 5, 5).filled(DESK, 5, 1)
    person, desk = told.history.orders.values()

    def found(**fields: Any) -> list[messages.OrderRecord]:
        return [one for one in (person, desk) if matches(one, messages.ListOrdersRequest(**fields))]

    assert found() == [person, desk]
    assert found(ticker="KO") == [person]
    assert found(states=[messages.ORDER_STATE_FILLED, messages.ORDER_STATE_EXPIRED]) == [desk]
    assert found(origin=messages.ORDER_ORIGIN_PERSON) == [person]
    assert found(start=DAY) == found(end=DAY) == found(start=DAY, end=NEXT) == [desk]
    assert found(start=NEXT) == found(end="2008-09-14") == []


def test_histories_are_kept_for_their_later_pages_the_newest_two_for_a_minute() -> None:
    now = [0.0]
    kept, histories = KeptOrders(lambda: now[0]), [OrderHistory() for _ in range(3)]
    for place, history in enumerate(histories):
        history.through = place
        kept.keep("run", history)
    assert [kept.get("run", place) for place in range(3)] == [None, histories[1], histories[2]]
    assert kept.get("other", 1) is None
    now[0] = KEPT_S
    assert kept.get("run", 2) is None


STEP = st.one_of(
    st.tuples(st.just("gate"), st.integers(0, 20), st.integers(0, 20)),
    st.tuples(st.just("fill"), st.integers(1, 20), st.integers(1, 10**9)),
    st.tuples(st.just("reject"), st.integers(1, 20), st.just(0)),
)


@given(st.lists(STEP, max_size=12), st.booleans())
def test_shares_add_up_whatever_happens(steps: list[tuple[str, int, int]], person: bool) -> None:
    name = PERSON if person else DESK
    told = Told().submitted(20) if person else Told().gated(DESK, 20, 20)
    filled = paid = 0
    for step, first, second in steps:
        room = told.one().remaining_quantity
        if step == "gate":
            told.gated(name, 20 - filled, min(first, 20 - filled), second)
        elif step == "fill" and room:
            quantity = min(first, room)
            filled, paid = filled + quantity, paid + quantity * second
            told.filled(name, quantity, second)
        elif step == "reject":
            told.tell(events.OrderRejected(order_id=name, quantity=first, reason=events.LIMIT_CODE_INSUFFICIENT_CASH))
        record = told.one()
        assert record.filled_quantity == filled
        assert 0 <= record.filled_quantity <= record.allowed_quantity <= record.order.quantity == 20
        assert (record.remaining_quantity > 0) == (record.state in IN_FORCE)
        assert not filled or abs(record.average_price_micros * filled - paid) * 2 <= filled
        assert (record.state == messages.ORDER_STATE_REJECTED) == (record.allowed_quantity == 0)
