"""What the order desk takes in and refuses: it knows the run's tickers and whether there are opens, and answers a call twice alike."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from journaled_desk import Desk, config_of
from made_up_bars import stage
from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1 import pipeline_service_pb2 as pipeline
from trademesh_gateway.order_desk import OrderDesk
from trademesh_gateway.pipeline.controller import Controller
from trademesh_gateway.pipeline.order_book import OrderBook
from trademesh_kernel.errors import InvalidRequest, NotFound, RequestIdReused, StateConflict
from trademesh_runs.journal_memory import MemoryStore

AT_OPEN, GTC = events.TIME_IN_FORCE_AT_THE_OPENING, events.TIME_IN_FORCE_GOOD_TILL_CANCELED


class Counter:
    """An order desk before the first session, with its book and its journal."""

    def __init__(self) -> None:
        self.store, self.book = MemoryStore(), OrderBook()
        self.opens_known: bool | None = None
        self.writer = self.store.writer("demo", 1, lambda _group: None)
        controller = Controller("demo", self.writer.append, state=events.PIPELINE_STATE_RUNNING, reason="", pace=0)
        self.desk = OrderDesk("demo", frozenset({"KO"}), self.book, controller, self.writer, opens_known=lambda: self.opens_known)

    def kinds(self) -> list[str]:
        """What is journaled."""
        return [stored.parse().WhichOneof("payload") or "" for stored in self.store.events]


@pytest_asyncio.fixture
async def counter() -> AsyncIterator[Counter]:
    """An order desk whose journal is closed afterwards."""
    found = Counter()
    yield found
    await found.writer.close()


def order(**fields: Any) -> pipeline.SubmitOrderRequest:
    """A purchase of 100 KO."""
    given = {"run_id": "demo", "request_id": str(uuid.uuid4()), "ticker": "KO", "side": words.SIDE_LONG, "quantity": 100} | fields
    return pipeline.SubmitOrderRequest(**given)


async def test_an_order_at_the_opening_is_refused_where_the_data_has_no_opens(counter: Counter) -> None:
    counter.opens_known = False
    with pytest.raises(InvalidRequest) as caught:
        await counter.desk.submit(order(time_in_force=AT_OPEN))
    assert [one.field for one in caught.value.violations] == ["time_in_force"]
    assert (counter.kinds(), counter.book.working) == ([], [])
    await counter.desk.submit(order(time_in_force=events.TIME_IN_FORCE_AT_THE_CLOSE))


@pytest.mark.parametrize("known", [True, None])
async def test_an_order_at_the_opening_is_taken_in_where_there_are_opens_or_nobody_knows_yet(counter: Counter, known: bool | None) -> None:
    counter.opens_known = known
    answer = await counter.desk.submit(order(time_in_force=AT_OPEN))
    assert (answer.order.order.time_in_force, answer.order.from_session) == (AT_OPEN, 1)


def test_one_that_was_taken_in_before_it_was_known_that_there_are_no_opens_expires() -> None:
    desk = Desk(config_of(), stage({"KO": [10, 10, 10]}))
    desk.submit("early", "KO", 100, time_in_force=AT_OPEN)
    desk.run()
    assert desk.told("order_expired") == [events.OrderExpired(order_id="early", ticker="KO", quantity=100)]
    assert desk.in_force() == []


async def test_a_call_that_is_repeated_has_the_same_answer_and_submits_nothing(counter: Counter) -> None:
    request = order()
    assert await counter.desk.submit(request) == await counter.desk.submit(request)
    assert counter.kinds() == ["order_submitted"]
    request.quantity = 101
    with pytest.raises(RequestIdReused):
        await counter.desk.submit(request)


async def test_a_cancellation_tells_how_far_the_order_had_come(counter: Counter) -> None:
    request = order(time_in_force=GTC)
    await counter.desk.submit(request)
    counter.book.begin(1)
    counter.book.due(lambda _ticker: 1)
    counter.book.begin_execution()
    counter.book.shrink(request.request_id, 40)
    counter.book.close()
    answer = await counter.desk.cancel(pipeline.CancelOrderRequest(run_id="demo", order_id=request.request_id, canceled_by="ada"))
    assert answer.order == events.OrderCanceled(
        order_id=request.request_id, ticker="KO", canceled_by="ada", gated_in_session=1, executed_in_session=1
    )
    again = await counter.desk.cancel(pipeline.CancelOrderRequest(run_id="demo", order_id=request.request_id))
    assert again == answer


async def test_an_order_that_was_refused_by_limits_is_not_canceled_any_more(counter: Counter) -> None:
    request = order()
    await counter.desk.submit(request)
    counter.book.begin(1)
    counter.book.due(lambda _ticker: 1)
    counter.book.end(request.request_id)
    with pytest.raises(StateConflict):
        await counter.desk.cancel(pipeline.CancelOrderRequest(run_id="demo", order_id=request.request_id))
    with pytest.raises(NotFound):
        await counter.desk.cancel(pipeline.CancelOrderRequest(run_id="demo", order_id="nobody's"))
    assert counter.kinds() == ["order_submitted"]
