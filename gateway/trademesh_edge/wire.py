"""Between bytes and the edge's own objects: the messages of the feed. The forms of frames are in `formats.py`.

Events are taken apart only as far as filters need; what a browser gets is built from their encoded bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from trademesh.gateway.v1 import event_pb2, feed_service_pb2
from trademesh_edge.ring import EVERYTHING, Filter, RingEvent, Slice
from trademesh_kernel.errors import FieldViolation, InvalidRequest
from trademesh_kernel.validation import check_request
from trademesh_kernel.wire_format import delimited
from trademesh_runs.feed_filter import tickers_of

_EVENTS_FIELD = feed_service_pb2.EventBatch.DESCRIPTOR.fields_by_name["events"].number
_BATCH_FIELD = feed_service_pb2.SubscribeResponse.DESCRIPTOR.fields_by_name["events"].number
_QUOTE_FIELD = feed_service_pb2.QuoteBatch.DESCRIPTOR.fields_by_name["quotes"].number
_QUOTES_FIELD = feed_service_pb2.SubscribeResponse.DESCRIPTOR.fields_by_name["quotes"].number
_KINDS = frozenset(field.name for field in event_pb2.Event.DESCRIPTOR.oneofs_by_name["payload"].fields)


@dataclass(frozen=True, slots=True)
class FeedSnapshot:
    """The state of a run: where it stands in the journal, and its bytes as a SubscribeResponse."""

    epoch: int
    as_of_sequence: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class FeedGap:
    """Events are missing; a snapshot follows."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class FeedEnd:
    """The server ended a stream by its own will."""

    run_ended: bool
    reason: str
    resume_after_sequence: int
    retry_after_s: float
    payload: bytes


@dataclass(frozen=True, slots=True)
class FeedBatch:
    """Events as they came; between `first` and `last` nothing is missing."""

    epoch: int
    last_sequence: int
    events: tuple[RingEvent, ...]


@dataclass(frozen=True, slots=True)
class RingQuote:
    """A quote, and its bytes as they stand in a batch."""

    ticker: str
    encoded: bytes


@dataclass(frozen=True, slots=True)
class FeedQuotes:
    """Quotes as they came."""

    quotes: tuple[RingQuote, ...]


@dataclass(frozen=True, slots=True)
class FeedPage:
    """A page of history."""

    events: tuple[RingEvent, ...]
    head_sequence: int
    compacted_through: int


def read_feed(payload: bytes) -> FeedBatch | FeedEnd | FeedSnapshot | FeedGap | FeedQuotes | None:
    """A SubscribeResponse; None for what carries nothing but life."""
    response = feed_service_pb2.SubscribeResponse.FromString(payload)
    kind = response.WhichOneof("kind")
    if kind == "events":
        batch = response.events
        return FeedBatch(batch.epoch, batch.last_sequence, _ring_events(batch.events))
    if kind == "quotes":
        return FeedQuotes(
            tuple(RingQuote(quote.ticker, delimited(_QUOTE_FIELD, quote.SerializeToString())) for quote in response.quotes.quotes)
        )
    if kind == "snapshot":
        return FeedSnapshot(response.snapshot.epoch, response.snapshot.as_of_sequence, payload)
    if kind == "gap":
        return FeedGap(payload)
    if kind == "end":
        end = response.end
        return FeedEnd(
            end.reason == feed_service_pb2.STREAM_END_REASON_RUN_ENDED,
            feed_service_pb2.StreamEndReason.Name(end.reason).removeprefix("STREAM_END_REASON_").lower(),
            end.resume_after_sequence,
            end.retry_after.ToMilliseconds() / 1000,
            payload,
        )
    return None


def read_page(payload: bytes) -> FeedPage:
    """A ListEventsResponse."""
    page = feed_service_pb2.ListEventsResponse.FromString(payload)
    return FeedPage(_ring_events(page.events), page.head_sequence, page.compacted_through)


def _ring_events(events: Iterable[event_pb2.Event]) -> tuple[RingEvent, ...]:
    return tuple(
        RingEvent(
            event.sequence,
            event.WhichOneof("payload") or "",
            event.agent_id,
            delimited(_EVENTS_FIELD, event.SerializeToString()),
            _tickers_in_batch,
        )
        for event in events
    )


def _tickers_in_batch(encoded: bytes) -> frozenset[str]:
    """The tickers of an event that stands encoded as in a batch."""
    return frozenset(tickers_of(feed_service_pb2.EventBatch.FromString(encoded)))


def read_snapshot(payload: bytes) -> FeedSnapshot:
    """A GetSnapshotResponse, turned into a SubscribeResponse."""
    state = feed_service_pb2.GetSnapshotResponse.FromString(payload).state
    return FeedSnapshot(state.epoch, state.as_of_sequence, feed_service_pb2.SubscribeResponse(snapshot=state).SerializeToString())


def span_payload(epoch: int, told: int, part: Slice) -> bytes:
    """A SubscribeResponse with a batch, made of the events' own bytes. It begins where the reader was last told of, so that spans join
    without a gap even where a filter leaves events out."""
    head = feed_service_pb2.EventBatch(epoch=epoch, first_sequence=told + 1, last_sequence=part.last_sequence).SerializeToString()
    body = head + b"".join([event.encoded for event in part.events])
    return delimited(_BATCH_FIELD, body)


def quotes_payload(quotes: Iterable[RingQuote]) -> bytes:
    """A SubscribeResponse with quotes, made of their own bytes."""
    return delimited(_QUOTES_FIELD, b"".join([quote.encoded for quote in quotes]))


def checkpoint_payload(through_sequence: int, head_sequence: int) -> bytes:
    """A SubscribeResponse that says how far the stream is."""
    return feed_service_pb2.SubscribeResponse(
        checkpoint=feed_service_pb2.Checkpoint(through_sequence=through_sequence, head_sequence=head_sequence)
    ).SerializeToString()


def end_payload(resume_after_sequence: int) -> bytes:
    """A SubscribeResponse that ends a stream because the run has ended."""
    return feed_service_pb2.SubscribeResponse(
        end=feed_service_pb2.StreamEnd(reason=feed_service_pb2.STREAM_END_REASON_RUN_ENDED, resume_after_sequence=resume_after_sequence)
    ).SerializeToString()


def gap_payload(reason: feed_service_pb2.GapReason.ValueType, compacted_through: int, epoch: int) -> bytes:
    """A SubscribeResponse that says that events are missing."""
    gap = feed_service_pb2.Gap(reason=reason, compacted_through=compacted_through, epoch=epoch)
    return feed_service_pb2.SubscribeResponse(gap=gap).SerializeToString()


def read_subscribe(request: bytes) -> feed_service_pb2.SubscribeRequest:
    """The request of a Subscribe call.

    Raises:
        InvalidRequest: it is not one, or breaks a constraint.
    """
    try:
        message = feed_service_pb2.SubscribeRequest.FromString(request)
    except DecodeError:
        raise InvalidRequest([FieldViolation("request", "is not a trademesh.gateway.v1.SubscribeRequest")]) from None
    check_request(message)
    unknown = [kind for kind in message.filter.kinds if kind not in _KINDS]
    if unknown:
        raise InvalidRequest([FieldViolation("filter.kinds", f"{kind} is not a kind of event") for kind in unknown])
    return message


def filter_of(request: feed_service_pb2.SubscribeRequest) -> Filter:
    """What a subscriber asks for."""
    if not request.HasField("filter"):
        return EVERYTHING
    chosen = request.filter
    return Filter(frozenset(chosen.kinds), frozenset(chosen.agent_ids), frozenset(chosen.tickers))


def subscribe_request(run_id: str, after_sequence: int, epoch: int | None, chosen: Filter, *, snapshot: bool = False) -> bytes:
    """What is asked upstream. `snapshot`: a gap is bridged by one."""
    request = feed_service_pb2.SubscribeRequest(run_id=run_id, after_sequence=after_sequence, epoch=epoch, snapshot=snapshot)
    request.filter.kinds.extend(sorted(chosen.kinds))
    request.filter.agent_ids.extend(sorted(chosen.agent_ids))
    request.filter.tickers.extend(sorted(chosen.tickers))
    return request.SerializeToString()


def quotes_request(run_id: str, interval_s: float) -> bytes:
    """Asks upstream for the quotes of every ticker, and for as few events as can be: one kind, which comes once."""
    request = feed_service_pb2.SubscribeRequest(run_id=run_id)
    request.filter.kinds.append("run_finished")
    request.quotes.min_interval.FromMilliseconds(round(interval_s * 1000))
    return request.SerializeToString()


def page_request(run_id: str, after_sequence: int, size: int) -> bytes:
    """Asks upstream for a page of history."""
    return feed_service_pb2.ListEventsRequest(run_id=run_id, after_sequence=after_sequence, page_size=size).SerializeToString()


def head_request(run_id: str) -> bytes:
    """Asks upstream where its journal ends."""
    return feed_service_pb2.ListEventsRequest(run_id=run_id, page_size=1, newest_first=True).SerializeToString()
