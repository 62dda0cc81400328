"""Orders of people: in force for which session, triggered and accepted at which prices, and the same again after a crash."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademesh_gateway.pipeline.order_book import Cancellation, OrderBook, OrderType, TooLateError, WorkingOrder

PRICES = {"AAPL": 100, "GE": 50}


def order(
    name: str, delta: int = 10, kind: OrderType = OrderType.MARKET, price: int = 0, *, lasts: bool = False, since: int = 1
) -> WorkingOrder:
    """An order for AAPL."""
    return WorkingOrder(name, "AAPL", delta, kind, price, lasts, since)


def due(book: OrderBook, prices: Mapping[str, int] = PRICES) -> list[str]:
    """Ids of the orders of the session in hand."""
    return [found.order_id for found in book.due(lambda ticker: prices.get(ticker, 0))]


def executed(book: OrderBook) -> list[str]:
    """Executes nothing; ids of what has expired."""
    book.begin_execution()
    return [found.order_id for found in book.close()]


def test_an_order_is_for_the_session_whose_limits_were_not_applied_yet() -> None:
    book = OrderBook(4)
    assert book.next_session == 5
    book.begin(5)
    assert book.next_session == 5
    due(book)
    assert book.next_session == 6
    executed(book)
    assert book.next_session == 6


def test_an_order_that_comes_after_an_earlier_gateway_applied_limits_is_for_the_next_session() -> None:
    book = OrderBook(4)
    book.begin(5, gated_before=True)
    assert book.next_session == 6
    book.add(order("a", since=6))
    assert due(book) == []


def test_an_order_for_the_day_expires_and_one_that_lasts_is_there_again() -> None:
    book = OrderBook(0, [order("day"), order("lasts", lasts=True), order("later", since=2)])
    book.begin(1)
    assert due(book) == ["day", "lasts"]
    assert executed(book) == ["day"]
    book.begin(2)
    assert due(book) == ["lasts", "later"]
    assert executed(book) == ["later"]


def test_what_was_executed_is_out_of_force() -> None:
    book = OrderBook(0, [order("a", lasts=True)])
    book.begin(1)
    assert due(book) == ["a"]
    book.begin_execution()
    book.end("a")
    assert book.close() == []
    assert book.working == []


@pytest.mark.parametrize(
    ("delta", "price", "last", "triggered"),
    [(10, 100, 99, False), (10, 100, 100, True), (10, 100, 0, False), (-10, 100, 101, False), (-10, 100, 100, True), (-10, 100, 0, False)],
)
def test_a_stop_waits_for_its_price(delta: int, price: int, last: int, triggered: bool) -> None:
    assert order("a", delta, OrderType.STOP, price).is_triggered(last) is triggered
    book = OrderBook(0, [order("a", delta, OrderType.STOP, price)])
    book.begin(1)
    assert due(book, {"AAPL": last}) == (["a"] if triggered else [])


@pytest.mark.parametrize(("delta", "price", "accepted"), [(10, 100, True), (10, 101, False), (-10, 100, True), (-10, 99, False)])
def test_a_limit_is_the_worst_price(delta: int, price: int, accepted: bool) -> None:
    assert order("a", delta, OrderType.LIMIT, 100).accepts(price) is accepted
    assert order("a", delta).accepts(price)


def test_an_order_is_canceled_before_the_limits_as_if_it_had_never_been() -> None:
    book = OrderBook(0, [order("a"), order("b")])
    assert book.cancel("a") == Cancellation()
    book.begin(1)
    assert due(book) == ["b"]
    with pytest.raises(TooLateError):
        book.cancel("a")


def test_an_order_that_is_canceled_after_the_limits_is_not_executed() -> None:
    book = OrderBook(6, [order("a", since=7)])
    book.begin(7)
    assert due(book) == ["a"]
    book.also_gated({"own": "GE"})
    assert (book.cancel("a"), book.cancel("own")) == (Cancellation(7), Cancellation(7))
    assert book.ticker_of("own") == "GE"
    assert book.working == []
    book.begin_execution()
    assert book.is_canceled("a")
    assert book.is_canceled("own")
    assert book.close() == []
    book.begin(8)
    assert not book.is_canceled("own")


def test_nothing_is_canceled_while_orders_are_executed() -> None:
    book = OrderBook(0, [])
    book.begin(1)
    due(book)
    book.also_gated({"own": "GE"})
    book.begin_execution()
    assert book.ticker_of("own") is None
    with pytest.raises(TooLateError):
        book.cancel("own")


@given(
    st.lists(st.tuples(st.sampled_from(["add", "cancel", "gate", "execute"]), st.integers(0, 5), st.booleans()), max_size=40),
    st.integers(0, 39),
)
def test_a_session_that_is_done_again_after_a_crash_has_the_same_orders(acts: list[tuple[str, int, bool]], crash: int) -> None:
    """What a gateway journals (submissions, cancellations) makes a book that gives the next gateway the orders of the session in hand."""
    book = OrderBook(0)
    settled_working: list[WorkingOrder] = []
    since_settled: list[tuple[str, object]] = []
    session, stage, gated = 1, "open", list[str]()
    book.begin(1)
    for place, (act, number, lasts) in enumerate(acts):
        if place == crash:
            break
        if act == "add":
            new = order(f"{place}", lasts=lasts, since=book.next_session)
            book.add(new)
            since_settled.append(("add", new))
        elif act == "cancel" and book.working:
            chosen = book.working[number % len(book.working)].order_id
            since_settled.append(("cancel", (chosen, book.cancel(chosen))))
        elif act == "gate" and stage == "open":
            gated, stage = due(book), "gated"
        elif act == "execute" and stage == "gated":
            executed(book)
            book.settle()
            settled_working, since_settled = book.working, []
            session, stage, gated = session + 1, "open", []
            book.begin(session)
    submitted = [what for act, what in since_settled if act == "add"]
    canceled = dict(what for act, what in since_settled if act == "cancel")  # type: ignore[misc]  # pairs
    again = OrderBook(session - 1, [*settled_working, *submitted], canceled)  # type: ignore[list-item]  # orders
    again.begin(session, gated_before=stage == "gated")
    if stage == "gated":
        assert again.next_session == session + 1
        assert due(again) == gated
    assert {one.order_id for one in again.working} == {one.order_id for one in book.working}
    again.begin_execution()
    book.begin_execution()
    assert [name for name in gated if again.is_canceled(name)] == [name for name in gated if book.is_canceled(name)]


def test_what_is_canceled_after_its_session_was_executed_is_executed_again_and_then_out_of_force() -> None:
    book = OrderBook(6, [order("a", lasts=True, since=7), order("b", lasts=True, since=8)])
    book.begin(7)
    due(book)
    book.begin_execution()
    book.shrink("a", 4)
    book.close()
    told = {name: book.cancel(name) for name in ("a", "b")}
    assert told == {"a": Cancellation(7, 7), "b": Cancellation()}
    assert book.working == []
    again = OrderBook(6, [order("a", lasts=True, since=7), order("b", lasts=True, since=8)], told)
    again.begin(7, gated_before=True, executed_before={"a"})
    assert (due(again), again.working) == (["a"], [])
    assert not again.is_canceled("a")
    again.begin_execution()
    again.shrink("a", 4)
    again.close()
    again.begin(8)
    assert due(again) == []


def test_an_order_that_is_to_be_executed_once_more_is_not_canceled_before() -> None:
    book = OrderBook(6, [order("a", lasts=True, since=7), order("b", lasts=True, since=7)])
    book.begin(7, gated_before=True, executed_before={"a"})
    for _ in range(2):
        with pytest.raises(TooLateError):
            book.cancel("a")
        due(book)
    assert book.cancel("b") == Cancellation(7)
    book.begin_execution()
    book.shrink("a", 4)
    book.close()
    assert book.cancel("a") == Cancellation(7, 7)


def test_a_part_that_was_executed_at_the_open_stays_when_the_rest_is_canceled_before_the_close() -> None:
    book = OrderBook(0, [order("a", lasts=True), order("b")])
    book.begin(1)
    due(book)
    book.shrink("a", 4)
    book.end("b")
    assert book.cancel("a") == Cancellation(1, 1)
    with pytest.raises(TooLateError):
        book.cancel("b")
    assert not book.is_canceled("a")
    book.begin_execution()
    assert book.close() == []
    assert book.working == []


def test_once_its_session_is_settled_an_order_that_lasts_is_canceled_as_if_it_had_not_begun() -> None:
    book = OrderBook(0, [order("a", lasts=True)])
    book.begin(1)
    due(book)
    book.begin_execution()
    book.close()
    book.settle()
    assert book.cancel("a") == Cancellation()
