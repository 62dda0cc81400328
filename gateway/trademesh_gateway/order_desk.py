"""Takes people's orders, and takes them back: checks them against the run, journals them, and knows the answer to a call that is repeated.

Which session an order is in force for is the order book's (`pipeline/order_book.py`), what becomes of it the cycle's.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1 import pipeline_service_pb2 as pipeline
from trademesh_gateway import wire
from trademesh_gateway.kept_answers import KEPT_ANSWERS, UNNAMED_PERSON, KeptAnswers
from trademesh_gateway.pipeline.controller import TERMINAL, Controller
from trademesh_gateway.pipeline.order_book import MOST_WORKING, OrderBook, TooLateError
from trademesh_kernel.errors import Draining, FieldViolation, InvalidRequest, LimitReached, NotFound, RequestIdReused, StateConflict
from trademesh_runs.journal import Draft, JournalReader, JournalWriter

_TYPES = {
    None: events.ORDER_TYPE_MARKET,
    "limit_price_micros": events.ORDER_TYPE_LIMIT,
    "stop_price_micros": events.ORDER_TYPE_STOP,
}


class OrderDesk:
    """Orders of people in one run."""

    def __init__(
        self,
        run_id: str,
        tickers: frozenset[str],
        book: OrderBook,
        controller: Controller,
        writer: JournalWriter,
        *,
        opens_known: Callable[[], bool | None] = lambda: None,
    ) -> None:
        """`opens_known`: whether the run's data has opens, at which orders can be executed; None as long as nobody knows."""
        self._run_id = run_id
        self._opens_known = opens_known
        self._tickers = tickers
        self._book = book
        self._controller = controller
        self._writer = writer
        self._submitted = KeptAnswers[pipeline.SubmitOrderResponse]()
        self._canceled = KeptAnswers[events.OrderCanceled]()

    def remember(self, reader: JournalReader) -> None:
        """Takes in what earlier gateways have answered."""
        for stored in reader.read_kind("order_submitted", newest=KEPT_ANSWERS):
            order = stored.parse().order_submitted
            self._submitted[order.order.order_id] = pipeline.SubmitOrderResponse(order=order, sequence=stored.sequence)
        for stored in reader.read_kind("order_canceled", newest=KEPT_ANSWERS):
            canceled = stored.parse().order_canceled
            self._canceled[canceled.order_id] = canceled

    async def submit(self, request: pipeline.SubmitOrderRequest) -> pipeline.SubmitOrderResponse:
        """Takes an order in; durable when this returns.

        Raises:
            RequestIdReused: another order was submitted with the id.
            InvalidRequest: the run does not trade the ticker.
            StateConflict: the pipeline has ended.
            LimitReached: too many orders are in force.
            Draining: this gateway takes no more orders.
        """
        answer = self._submitted.get(request.request_id) if request.request_id else None
        if answer is None:
            answer = self._take_in(request)
        elif answer.order.order != _order_of(request, request.request_id):
            raise RequestIdReused(request.request_id)
        await self._writer.flush()
        return answer

    def _take_in(self, request: pipeline.SubmitOrderRequest) -> pipeline.SubmitOrderResponse:
        self._check_open()
        if request.ticker not in self._tickers:
            known = ", ".join(sorted(self._tickers)[:20])
            raise InvalidRequest([FieldViolation("ticker", f"{request.ticker} is not one of the run's: {known}")])
        if request.time_in_force == events.TIME_IN_FORCE_AT_THE_OPENING and self._opens_known() is False:
            raise InvalidRequest([FieldViolation("time_in_force", "the data of this run has no opens: nothing can be executed at one")])
        if len(self._book.working) >= MOST_WORKING:
            raise LimitReached("too many orders are in force: cancel some", limit="working_orders", value=MOST_WORKING)
        order_id = request.request_id or str(uuid.uuid4())
        submitted = events.OrderSubmitted(order=_order_of(request, order_id), from_session=self._book.next_session)
        self._writer.append(Draft("order_submitted", submitted, item=order_id))
        self._book.add(wire.working_order_of(submitted))
        answer = pipeline.SubmitOrderResponse(order=submitted, sequence=self._writer.assigned)
        self._submitted.keep(order_id, answer)
        return answer

    async def cancel(self, request: pipeline.CancelOrderRequest) -> pipeline.CancelOrderResponse:
        """Takes an order out of force; durable when this returns.

        Raises:
            NotFound: there is no such order.
            StateConflict: it was executed, refused or has expired, or the pipeline has ended.
            Draining: this gateway takes no more orders.
        """
        canceled = self._canceled.get(request.order_id)
        if canceled is None:
            canceled = self._take_back(request)
        await self._writer.flush()
        return pipeline.CancelOrderResponse(order=canceled)

    def _take_back(self, request: pipeline.CancelOrderRequest) -> events.OrderCanceled:
        self._check_open()
        order_id = request.order_id
        ticker = self._book.ticker_of(order_id)
        if ticker is None:
            if order_id in self._submitted:
                raise self._too_late(order_id)
            raise NotFound("order", order_id)
        try:
            how_far = self._book.cancel(order_id)
        except TooLateError:
            raise self._too_late(order_id) from None
        canceled = events.OrderCanceled(
            order_id=order_id,
            ticker=ticker,
            canceled_by=request.canceled_by or UNNAMED_PERSON,
            gated_in_session=how_far.gated_in_session,
            executed_in_session=how_far.executed_in_session,
        )
        self._writer.append(Draft("order_canceled", canceled, item=order_id))
        self._canceled.keep(order_id, canceled)
        return canceled

    def _check_open(self) -> None:
        if self._controller.stopping:
            raise Draining("trademesh.gateway.v1.PipelineService")
        if self._controller.state in TERMINAL:
            what = f"the pipeline of {self._run_id} has ended: no order is executed any more"
            raise StateConflict(what, resource_type="pipeline", name=self._run_id, state="ENDED")

    def _too_late(self, order_id: str) -> StateConflict:
        return StateConflict(
            f"order {order_id} is not in force any more: it is being executed or was, was refused, or has expired",
            resource_type="order",
            name=order_id,
            state="DONE",
        )


def _order_of(request: pipeline.SubmitOrderRequest, order_id: str) -> events.Order:
    return events.Order(
        order_id=order_id,
        ticker=request.ticker,
        side=request.side,
        quantity=request.quantity,
        type=_TYPES[request.WhichOneof("price")],
        limit_price_micros=request.limit_price_micros,
        stop_price_micros=request.stop_price_micros,
        time_in_force=request.time_in_force or events.TIME_IN_FORCE_DAY,
        submitted_by=request.submitted_by or UNNAMED_PERSON,
    )
