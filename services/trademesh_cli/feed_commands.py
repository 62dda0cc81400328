"""`trademesh feed tail`: the events of a run in a terminal, without a gap, whatever happens to its gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import grpc
import typer

from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1 import event_pb2, feed_service_pb2, feed_service_pb2_grpc
from trademesh.runtime.v1 import runtime_service_pb2, runtime_service_pb2_grpc
from trademesh_cli.rpc import as_record, call, print_json_line, runtime_client
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import DeadlinePassed, DependencyUnavailable, RemoteError

feed_app = typer.Typer(no_args_is_help=True, help="Read the events of runs.")

FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0
IDLE_TIMEOUT_S = 30.0
"""A feed says every five seconds that it lives."""


@feed_app.command("tail")
def tail(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="id of the run")],
    after: Annotated[
        int | None, typer.Option(min=0, help="begin after this event; 0 = with the first; left out = with what happens now")
    ] = None,
    kind: Annotated[list[str] | None, typer.Option(help="only events of this kind, for example order_filled; may be repeated")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, an event a line")] = False,
) -> None:
    """Print the events of a run, oldest first, until it has ended.

    A gateway that dies, or a service that restarts, is waited for; the feed goes on behind the last event that was printed.
    """

    async def work() -> None:
        async for event in events_of(run_id, after, kind or []):
            print_json_line(as_record(event)) if as_json else print(line_of(event), flush=True)

    call(work)


async def events_of(run_id: str, after: int | None, kinds: list[str]) -> AsyncIterator[event_pb2.Event]:
    """Every event after a sequence, each once, until the run has ended.

    Raises:
        RemoteError: there is no such run, or the feed refuses.
        DependencyUnavailable: runtime_service did not answer when it was first asked.
    """
    cursor, wait_s, known = after, FIRST_WAIT_S, False
    while True:
        try:
            async with runtime_client() as runtime:
                stub = runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
                run = (await runtime.call(stub.GetRun, runtime_service_pb2.GetRunRequest(run_id=run_id))).run
            known = True
            async with ServiceClient(run.feed_target, f"feed of {run_id}") as feed:
                service = feed.stub(feed_service_pb2_grpc.FeedServiceStub)
                if cursor is None:
                    # Now has a number, or a feed that is lost before its first word would go on from a later now.
                    newest = feed_service_pb2.ListEventsRequest(run_id=run_id, page_size=1, newest_first=True)
                    cursor = int((await feed.call(service.ListEvents, newest)).head_sequence)
                request = feed_service_pb2.SubscribeRequest(
                    run_id=run_id, after_sequence=cursor, filter=feed_service_pb2.EventFilter(kinds=kinds)
                )
                async for message in feed.stream(service.Subscribe, request, idle_timeout_s=IDLE_TIMEOUT_S):
                    wait_s = FIRST_WAIT_S
                    for event in message.events.events:
                        yield event
                    if message.HasField("events"):
                        cursor = message.events.last_sequence
                    elif message.HasField("checkpoint"):
                        cursor = message.checkpoint.through_sequence
                    elif message.HasField("end") and message.end.reason == feed_service_pb2.STREAM_END_REASON_RUN_ENDED:
                        return
        except (DependencyUnavailable, DeadlinePassed):
            if not known:
                raise
        except RemoteError as error:
            # A head that is behind our cursor belongs to a gateway that has not read its journal yet.
            if error.remote_code is not grpc.StatusCode.UNAVAILABLE and error.remote_reason != "SEQUENCE_AHEAD":
                raise
        await asyncio.sleep(wait_s)
        wait_s = min(LONGEST_WAIT_S, 2 * wait_s)


def line_of(event: event_pb2.Event) -> str:
    """An event in one line: its number, session, who, what, and the figures of those that have few."""
    kind = event.WhichOneof("payload") or ""
    text = f"{event.sequence:>8}  {event.session_date or '-':<10}  {event.agent_id or 'desk':<20}  {kind}"
    match kind:
        case "order_filled":
            fill = event.order_filled
            side = words.Side.Name(fill.side).removeprefix("SIDE_")
            text += f"  {side} {fill.quantity:,} {fill.ticker} at {fill.price_micros / 1e6:,.2f}"
        case "settled":
            text += f"  net asset value {event.settled.nav_micros / 1e6:,.2f}"
        case "cycle_failed":
            failed = event.cycle_failed
            text += (
                f"  {event_pb2.Phase.Name(failed.phase).removeprefix('PHASE_')} {failed.reason}, {len(failed.void_order_ids)} orders void"
            )
        case "pipeline_state_changed":
            change = event.pipeline_state_changed
            text += f"  {event_pb2.PipelineState.Name(change.state).removeprefix('PIPELINE_STATE_')} {change.reason}".rstrip()
    return text
