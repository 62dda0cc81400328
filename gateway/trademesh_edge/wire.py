"""Between bytes and the edge's own objects: the socket's frames, and the messages of the feed.

Events are taken apart only as far as filters need; what a browser gets is built from their encoded bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from trademesh.edge.v1 import frame_pb2
from trademesh.gateway.v1 import event_pb2, feed_service_pb2
from trademesh_edge.ring import Filter, RingEvent, Slice
from trademesh_kernel.wire_format import delimited

_EVENTS_FIELD = feed_service_pb2.EventBatch.DESCRIPTOR.fields_by_name["events"].number
_BATCH_FIELD = feed_service_pb2.SubscribeResponse.DESCRIPTOR.fields_by_name["events"].number


class BadFrameError(Exception):
    """A browser sent something that is not a frame of its side."""


@dataclass(frozen=True, slots=True)
class FeedSnapshot:
    """The state of a run: where it stands in the journal, and its bytes as a SubscribeResponse."""

    epoch: int
    as_of_sequence: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class FeedEnd:
    """The server ended a stream by its own will."""

    run_ended: bool
    resume_after_sequence: int
    retry_after_s: float
    payload: bytes


@dataclass(frozen=True, slots=True)
class FeedBatch:
    """Events as they came; between `first` and `last` nothing is missing."""

    epoch: int
    last_sequence: int
    events: tuple[RingEvent, ...]


def read_frame(data: bytes) -> frame_pb2.EdgeFrame:
    """A frame of a browser.

    Raises:
        BadFrameError: it is not one.
    """
    try:
        frame = frame_pb2.EdgeFrame.FromString(data)
    except DecodeError:
        raise BadFrameError("not an EdgeFrame") from None
    if frame.WhichOneof("kind") not in ("hello", "call", "cancel", "ping"):
        raise BadFrameError("not a frame of the browser's side")
    return frame


def welcome_frame(max_calls: int, max_frame_bytes: int, version: str) -> bytes:
    """The answer to hello."""
    return frame_pb2.EdgeFrame(
        welcome=frame_pb2.Welcome(max_calls=max_calls, max_frame_bytes=max_frame_bytes, version=version)
    ).SerializeToString()


def opened_frame(call_id: int, channel: int) -> bytes:
    """Where a call's messages come from now on."""
    return frame_pb2.EdgeFrame(opened=frame_pb2.Opened(id=call_id, channel=channel)).SerializeToString()


def message_frame(channel: int, payload: bytes) -> bytes:
    """A message of a channel."""
    return frame_pb2.EdgeFrame(message=frame_pb2.Message(channel=channel, payload=payload)).SerializeToString()


def pong_frame(nonce: int) -> bytes:
    """The answer to ping."""
    return frame_pb2.EdgeFrame(pong=frame_pb2.Pong(nonce=nonce)).SerializeToString()


def status_frame(call_id: int, status: status_pb2.Status | None) -> bytes:
    """The end of a call; None is OK."""
    frame = frame_pb2.Status(id=call_id)
    if status is not None and status.code:
        frame.code = status.code
        frame.message = status.message
        frame.details = status.SerializeToString()
        for detail in status.details:
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(retry):
                frame.retry_after_ms = max(0, retry.retry_delay.ToMilliseconds())
    return frame_pb2.EdgeFrame(status=frame).SerializeToString()


def read_feed(payload: bytes) -> FeedBatch | FeedEnd | FeedSnapshot | None:
    """A SubscribeResponse; None for what carries nothing but life."""
    response = feed_service_pb2.SubscribeResponse.FromString(payload)
    kind = response.WhichOneof("kind")
    if kind == "events":
        batch = response.events
        return FeedBatch(batch.epoch, batch.last_sequence, tuple(_ring_event(event) for event in batch.events))
    if kind == "snapshot":
        return FeedSnapshot(response.snapshot.epoch, response.snapshot.as_of_sequence, payload)
    if kind == "end":
        end = response.end
        return FeedEnd(
            end.reason == feed_service_pb2.STREAM_END_REASON_RUN_ENDED,
            end.resume_after_sequence,
            end.retry_after.ToMilliseconds() / 1000,
            payload,
        )
    return None


def _ring_event(event: event_pb2.Event) -> RingEvent:
    encoded = event.SerializeToString()
    return RingEvent(event.sequence, event.WhichOneof("payload") or "", event.agent_id, delimited(_EVENTS_FIELD, encoded))


def read_snapshot(payload: bytes) -> FeedSnapshot:
    """A GetSnapshotResponse, turned into a SubscribeResponse."""
    state = feed_service_pb2.GetSnapshotResponse.FromString(payload).state
    return FeedSnapshot(state.epoch, state.as_of_sequence, feed_service_pb2.SubscribeResponse(snapshot=state).SerializeToString())


def events_payload(epoch: int, part: Slice) -> bytes:
    """A SubscribeResponse with a batch, made of the events' own bytes."""
    head = feed_service_pb2.EventBatch(
        epoch=epoch, first_sequence=part.first_sequence, last_sequence=part.last_sequence
    ).SerializeToString()
    body = head + b"".join([event.encoded for event in part.events])
    return delimited(_BATCH_FIELD, body)


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


def filter_of(request: feed_service_pb2.SubscribeRequest) -> Filter:
    """What a subscriber asks for."""
    return Filter(frozenset(request.filter.kinds), frozenset(request.filter.agent_ids))


def subscribe_request(run_id: str, after_sequence: int, epoch: int | None, chosen: Filter | None = None) -> bytes:
    """What is asked upstream."""
    request = feed_service_pb2.SubscribeRequest(run_id=run_id, after_sequence=after_sequence, epoch=epoch)
    if chosen is not None:
        request.filter.kinds.extend(sorted(chosen.kinds))
        request.filter.agent_ids.extend(sorted(chosen.agent_ids))
    return request.SerializeToString()
