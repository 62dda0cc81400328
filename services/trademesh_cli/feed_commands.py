"""`trademesh feed tail`: the events of a run in a terminal, without a gap, whatever happens to its gateway."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, TypeAlias

import grpc
import typer

from trademesh.gateway.v1 import event_pb2, feed_service_pb2, feed_service_pb2_grpc
from trademesh.runtime.v1 import runtime_service_pb2, runtime_service_pb2_grpc
from trademesh_cli.event_words import line_of
from trademesh_cli.rpc import as_record, call, print_json_line, runtime_client
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import DeadlinePassed, DependencyUnavailable, RemoteError

feed_app = typer.Typer()

FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0
AHEAD_S = 10.0
"""A head that is behind our place may belong to a gateway that has not read its journal yet; after so long it does not."""
IDLE_TIMEOUT_S = 30.0
"""A feed says every five seconds that it lives."""


@feed_app.command("tail")
def tail(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="id of the run")],
    after: Annotated[
        int | None, typer.Option(min=0, max=2**64 - 1, help="begin after this event; 0 = with the first; left out = with what happens now")
    ] = None,
    kind: Annotated[list[str] | None, typer.Option(help="only events of this kind, for example order_filled; may be repeated")] = None,
    agent: Annotated[list[str] | None, typer.Option(help="only events of this agent; may be repeated")] = None,
    ticker: Annotated[list[str] | None, typer.Option(help="only events that name this ticker; may be repeated")] = None,
    quotes: Annotated[bool, typer.Option(help="print quotes too, each second the newest of each ticker that moved")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, an event a line; a quote or a gap is a line with that key")] = False,
) -> None:
    """Print the events of a run, oldest first, until it has ended.

    A gateway that dies, or a service that restarts, is waited for; the feed goes on behind the last event that was printed. Where events
    are no longer kept, that is said, and it goes on with those that are.
    """
    request = feed_service_pb2.SubscribeRequest(
        run_id=run_id, after_sequence=after, filter=feed_service_pb2.EventFilter(kinds=kind, agent_ids=agent, tickers=ticker)
    )
    if quotes:
        request.quotes.tickers.extend(ticker or [])
        request.quotes.min_interval.seconds = 1

    async def work() -> None:
        async for item in told_of(request):
            if as_json:
                print_json_line(as_record(item) if isinstance(item, event_pb2.Event) else {_key_of(item): as_record(item)})
            elif isinstance(item, feed_service_pb2.Gap):
                print(_gap_line(item), file=sys.stderr, flush=True)
            else:
                print(line_of(item) if isinstance(item, event_pb2.Event) else _quote_line(item), flush=True)

    call(work)


Item: TypeAlias = event_pb2.Event | feed_service_pb2.Quote | feed_service_pb2.Gap


async def told_of(request: feed_service_pb2.SubscribeRequest) -> AsyncIterator[Item]:
    """Every event that a request asks for, each once, until the run has ended, and what is told beside events.

    Raises:
        RemoteError: there is no such run, or the feed refuses; also a place behind the last event, if it stays so.
        DependencyUnavailable: runtime_service did not answer when it was first asked.
    """
    run_id, wait_s, known, ahead_until = request.run_id, FIRST_WAIT_S, False, math.inf
    asked = feed_service_pb2.SubscribeRequest()
    asked.CopyFrom(request)
    # With a place, this asks for no more than that a gap is told and gone on behind.
    asked.snapshot = True
    while True:
        try:
            async with runtime_client() as runtime:
                stub = runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
                run = (await runtime.call(stub.GetRun, runtime_service_pb2.GetRunRequest(run_id=run_id))).run
            known = True
            async with ServiceClient(run.feed_target, f"feed of {run_id}") as feed:
                service = feed.stub(feed_service_pb2_grpc.FeedServiceStub)
                if not asked.HasField("after_sequence"):
                    # Now has a number, or a feed that is lost before its first word would go on from a later now.
                    newest = feed_service_pb2.ListEventsRequest(run_id=run_id, page_size=1, newest_first=True)
                    asked.after_sequence = (await feed.call(service.ListEvents, newest)).head_sequence
                async for message in feed.stream(service.Subscribe, asked, idle_timeout_s=IDLE_TIMEOUT_S):
                    wait_s, ahead_until = FIRST_WAIT_S, math.inf
                    for item in _items(message):
                        yield item
                    if message.HasField("end") and message.end.reason == feed_service_pb2.STREAM_END_REASON_RUN_ENDED:
                        return
                    _remember(asked, message)
                    if message.gap.reason == feed_service_pb2.GAP_REASON_COMPACTED:
                        # Of the snapshot that follows nothing is printed; the events that are kept are.
                        break
        except (DependencyUnavailable, DeadlinePassed):
            if not known:
                raise
        except RemoteError as error:
            if error.remote_reason == "SEQUENCE_AHEAD":
                now = time.monotonic()
                ahead_until = min(ahead_until, now + AHEAD_S)
                if now >= ahead_until:
                    raise
            elif error.remote_code is not grpc.StatusCode.UNAVAILABLE:
                raise
        await asyncio.sleep(wait_s)
        wait_s = min(LONGEST_WAIT_S, 2 * wait_s)


def _items(message: feed_service_pb2.SubscribeResponse) -> Sequence[Item]:
    if message.HasField("gap"):
        return [message.gap]
    return message.events.events or message.quotes.quotes


def _remember(asked: feed_service_pb2.SubscribeRequest, message: feed_service_pb2.SubscribeResponse) -> None:
    """Sets the place that is asked for next time behind what a message told."""
    match message.WhichOneof("kind"):
        case "events":
            asked.after_sequence, asked.epoch = message.events.last_sequence, message.events.epoch
        case "checkpoint":
            asked.after_sequence = message.checkpoint.through_sequence
        case "gap":
            asked.after_sequence, asked.epoch = message.gap.compacted_through, message.gap.epoch
        case "snapshot":
            asked.after_sequence, asked.epoch = message.snapshot.as_of_sequence, message.snapshot.epoch


def _key_of(item: Item) -> str:
    return "gap" if isinstance(item, feed_service_pb2.Gap) else "quote"


def _gap_line(gap: feed_service_pb2.Gap) -> str:
    if gap.reason == feed_service_pb2.GAP_REASON_EPOCH_CHANGED:
        return f"gap: the journal was made anew, and is in epoch {gap.epoch} now; going on with what happens next"
    return f"gap: events up to {gap.compacted_through:,} were compacted and are no longer told; going on behind them"


def _quote_line(quote: feed_service_pb2.Quote) -> str:
    return f"{'quote':>8}  {quote.session_date:<10}  {quote.ticker:<20}  {quote.price_micros / 1e6:,.2f}"
