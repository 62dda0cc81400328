"""`trademesh order submit|cancel|list`: a person's orders in a run that is live."""

from __future__ import annotations

import enum
import uuid
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1 import event_pb2, feed_service_pb2, feed_service_pb2_grpc, pipeline_service_pb2
from trademesh_cli import event_words
from trademesh_cli.event_words import MICROS
from trademesh_cli.rpc import EXIT_USAGE, as_record, call, fail, print_json
from trademesh_cli.run_commands import AsJson, RunId
from trademesh_cli.run_gateway import gateway_of

order_app = typer.Typer(no_args_is_help=True, help="Orders of people: they pass the same limits, approvals and ledger as the desk's own.")

NEEDED_FOR = "orders are taken"


class Way(enum.StrEnum):
    """Which way an order goes."""

    BUY = "buy"
    SELL = "sell"


@order_app.command("submit")
def submit(
    run_id: RunId,
    way: Annotated[Way, typer.Argument(help="buy covers a short first, sell goes short when nothing is held")],
    quantity: Annotated[int, typer.Argument(min=1, help="whole shares")],
    ticker: Annotated[str, typer.Argument(help="one of the run's tickers")],
    limit: Annotated[str | None, typer.Option(help="the worst price, in dollars")] = None,
    stop: Annotated[str | None, typer.Option(help="the price that makes it a market order, in dollars")] = None,
    gtc: Annotated[bool, typer.Option("--gtc", help="in force until it is executed or canceled, not for one session")] = False,
    at_open: Annotated[bool, typer.Option("--at-open", help="at the next session's open, or not at all; where the data has opens")] = False,
    at_close: Annotated[bool, typer.Option("--at-close", help="at the next session's close, or not at all")] = False,
    by: Annotated[str, typer.Option(help="who submits it")] = "",
    request_id: Annotated[str, typer.Option(help="a UUID: the same one submits the same order only once")] = "",
    as_json: AsJson = False,
) -> None:
    """Submit an order. Prints its id; what becomes of it is told by `trademesh feed tail`."""
    if limit is not None and stop is not None:
        fail("an order has a limit or a stop, not both", None, EXIT_USAGE)
    if gtc + at_open + at_close > 1:
        fail("an order is in force one way: --gtc, --at-open or --at-close", None, EXIT_USAGE)
    request = pipeline_service_pb2.SubmitOrderRequest(
        run_id=run_id,
        request_id=request_id or str(uuid.uuid4()),
        ticker=ticker,
        side=words.SIDE_LONG if way is Way.BUY else words.SIDE_SHORT,
        quantity=quantity,
        time_in_force=_time_in_force(gtc=gtc, at_open=at_open, at_close=at_close),
        submitted_by=by,
    )
    if limit is not None:
        request.limit_price_micros = _micros(limit)
    elif stop is not None:
        request.stop_price_micros = _micros(stop)

    async def work() -> pipeline_service_pb2.SubmitOrderResponse:
        async with gateway_of(run_id, NEEDED_FOR) as (gateway, stub):
            answer: pipeline_service_pb2.SubmitOrderResponse = await gateway.call(stub.SubmitOrder, request)
            return answer

    answer = call(work)
    if as_json:
        print_json(as_record(answer))
    else:
        print(f"{answer.order.order.order_id} in force from session {answer.order.from_session}")


def _time_in_force(*, gtc: bool, at_open: bool, at_close: bool) -> event_pb2.TimeInForce.ValueType:
    if gtc:
        return event_pb2.TIME_IN_FORCE_GOOD_TILL_CANCELED
    if at_open:
        return event_pb2.TIME_IN_FORCE_AT_THE_OPENING
    return event_pb2.TIME_IN_FORCE_AT_THE_CLOSE if at_close else event_pb2.TIME_IN_FORCE_DAY


def _micros(dollars: str) -> int:
    try:
        amount = Decimal(dollars) * MICROS
    except InvalidOperation:
        fail(f"{dollars} is no price", None, EXIT_USAGE)
    if not amount.is_finite() or amount != amount.to_integral_value() or amount <= 0:
        fail(f"{dollars} is no price: more than 0, with at most six digits after the point", None, EXIT_USAGE)
    return int(amount)


@order_app.command("cancel")
def cancel(
    run_id: RunId,
    order_id: Annotated[str, typer.Argument(metavar="ORDER", help="id of the order, also one of the desk's own")],
    by: Annotated[str, typer.Option(help="who takes it back")] = "",
    as_json: AsJson = False,
) -> None:
    """Take an order back that is not executed yet."""
    request = pipeline_service_pb2.CancelOrderRequest(run_id=run_id, order_id=order_id, canceled_by=by)

    async def work() -> pipeline_service_pb2.CancelOrderResponse:
        async with gateway_of(run_id, NEEDED_FOR) as (gateway, stub):
            answer: pipeline_service_pb2.CancelOrderResponse = await gateway.call(stub.CancelOrder, request)
            return answer

    answer = call(work)
    print_json(as_record(answer)) if as_json else print(f"{order_id} canceled")


@order_app.command("list")
def list_orders(run_id: RunId, as_json: AsJson = False) -> None:
    """List people's orders that are in force."""

    async def work() -> feed_service_pb2.GetSnapshotResponse:
        async with gateway_of(run_id, NEEDED_FOR) as (gateway, _):
            request = feed_service_pb2.GetSnapshotRequest(run_id=run_id)
            found: feed_service_pb2.GetSnapshotResponse = await gateway.call(
                gateway.stub(feed_service_pb2_grpc.FeedServiceStub).GetSnapshot, request, timeout_s=30
            )
            return found

    orders = call(work).state.working_orders
    if as_json:
        print_json([as_record(one) for one in orders])
    for one in () if as_json else orders:
        print(f"{one.order.order_id}  {event_words.submitted(one)}")
