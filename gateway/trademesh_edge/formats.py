"""The two forms of a frame on the wire, one for each subprotocol: bytes of EdgeFrame, or its protobuf JSON.

In JSON a call's request, a message's payload and a status' details stand inline, as the method's own messages. One generic encoder serves
every method: 64-bit integers are strings and absent fields are left out, as protobuf JSON has it. It takes 12 us for a
fill of 350 bytes, once for all browsers on a channel; a batch has at most 256 events, so that a frame holds the loop for a few milliseconds.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from websockets.typing import Subprotocol

from trademesh.edge.v1 import frame_pb2
from trademesh_edge.methods import ALLOWED_METHODS
from trademesh_kernel.errors import FieldViolation, InvalidRequest, TrademeshError

_OF_BROWSERS = frozenset({"hello", "call", "cancel", "ping", "pace"})


class BadFrameError(Exception):
    """A browser sent something that is not a frame of its side."""


@dataclass(frozen=True, slots=True)
class Received:
    """A browser's frame. `refusal` is why a call cannot be made: its request is not the method's message."""

    frame: frame_pb2.EdgeFrame
    refusal: TrademeshError | None = None


class Format(ABC):
    """How frames stand on the wire. There is one object of each form: channels are shared by those of one form."""

    subprotocol: Subprotocol
    text: bool
    """True if frames are text messages."""

    @abstractmethod
    def read(self, data: str | bytes) -> Received:
        """A frame of a browser; raises BadFrameError."""

    @abstractmethod
    def frame(self, frame: frame_pb2.EdgeFrame) -> bytes:
        """Any frame of the edge's but a message or a status."""

    @abstractmethod
    def message(self, channel: int, message_class: type[Message], payload: bytes) -> bytes:
        """A message of a channel; `payload` is an encoded `message_class`."""

    @abstractmethod
    def status(self, call_id: int, status: status_pb2.Status | None) -> bytes:
        """The end of a call; None is OK."""


class _BinaryFormat(Format):
    """`trademesh.v1+proto`."""

    subprotocol = Subprotocol("trademesh.v1+proto")
    text = False

    def read(self, data: str | bytes) -> Received:
        if isinstance(data, str):
            raise BadFrameError("frames of this subprotocol are binary")
        try:
            return Received(_of_browser(frame_pb2.EdgeFrame.FromString(data)))
        except DecodeError:
            raise BadFrameError("not an EdgeFrame") from None

    def frame(self, frame: frame_pb2.EdgeFrame) -> bytes:
        return frame.SerializeToString()

    def message(self, channel: int, message_class: type[Message], payload: bytes) -> bytes:
        return frame_pb2.EdgeFrame(message=frame_pb2.Message(channel=channel, payload=payload)).SerializeToString()

    def status(self, call_id: int, status: status_pb2.Status | None) -> bytes:
        return frame_pb2.EdgeFrame(status=_status(call_id, status)).SerializeToString()


class _JsonFormat(Format):
    """`trademesh.v1+json`."""

    subprotocol = Subprotocol("trademesh.v1+json")
    text = True

    def read(self, data: str | bytes) -> Received:
        if isinstance(data, bytes):
            raise BadFrameError("frames of this subprotocol are text")
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            raise BadFrameError("not JSON") from None
        if not isinstance(found, dict):
            raise BadFrameError("not an EdgeFrame")
        call = found.get("call")
        request = call.pop("request", None) if isinstance(call, dict) else None
        frame = frame_pb2.EdgeFrame()
        _parse(found, frame)
        frame = _of_browser(frame)
        method = ALLOWED_METHODS.get(frame.call.method) if frame.HasField("call") else None
        if method is None:
            return Received(frame)
        message = method.request_class()
        try:
            _parse({} if request is None else request, message)
        except BadFrameError as error:
            return Received(frame, InvalidRequest([FieldViolation("request", str(error))]))
        frame.call.request = message.SerializeToString()
        return Received(frame)

    def frame(self, frame: frame_pb2.EdgeFrame) -> bytes:
        return _dumped(json_format.MessageToDict(frame))

    def message(self, channel: int, message_class: type[Message], payload: bytes) -> bytes:
        return _dumped({"message": {"channel": channel, "payload": json_format.MessageToDict(message_class.FromString(payload))}})

    def status(self, call_id: int, status: status_pb2.Status | None) -> bytes:
        frame = _status(call_id, status)
        frame.ClearField("details")
        found = json_format.MessageToDict(frame)
        if status is not None and status.code:
            found["details"] = json_format.MessageToDict(status)
        return _dumped({"status": found})


BINARY, JSON = _BinaryFormat(), _JsonFormat()
FORMATS: dict[str | None, Format] = {BINARY.subprotocol: BINARY, JSON.subprotocol: JSON}
"""By subprotocol."""


def _of_browser(frame: frame_pb2.EdgeFrame) -> frame_pb2.EdgeFrame:
    if frame.WhichOneof("kind") not in _OF_BROWSERS:
        raise BadFrameError("not a frame of the browser's side")
    return frame


def _parse(found: Any, message: Message) -> None:
    if not isinstance(found, dict):
        raise BadFrameError(f"not a {message.DESCRIPTOR.full_name}")
    try:
        json_format.ParseDict(found, message, ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BadFrameError(f"not a {message.DESCRIPTOR.full_name}: {str(error)[:100]}") from None


def _dumped(found: dict[str, Any]) -> bytes:
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()


def _status(call_id: int, status: status_pb2.Status | None) -> frame_pb2.Status:
    frame = frame_pb2.Status(id=call_id)
    if status is not None and status.code:
        frame.code = status.code
        frame.message = status.message
        frame.details = status.SerializeToString()
        for detail in status.details:
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(retry):
                frame.retry_after_ms = max(0, retry.retry_delay.ToMilliseconds())
    return frame
