"""Exceptions that domain code raises and a client can act on. Translation to gRPC is in `status.py`.

TrademeshError
├── InvalidRequest          fields at fault, all of them
│   └── RunConfigInvalid
├── PageTokenInvalid, RequestIdReused
├── NotFound, DataAbsent
├── AlreadyExists
├── EtagMismatch
├── StateConflict, ApprovalSettled
├── SequenceAhead, HistoryCompacted, EpochChanged, JournalUnreadable
├── NotAllowed
├── LimitReached
├── DiskLow
├── NotConfigured
├── DependencyUnavailable, Draining
└── RemoteError             what another service answered, passed on; DEPENDENCY_FAILED if it names no reason of ours
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import grpc


@dataclass(frozen=True)
class FieldViolation:
    """One field at fault: its path and what would be right."""

    field: str
    description: str


class TrademeshError(Exception):
    """A failure with a reason that the contract names (common.v1.ErrorReason, without its prefix)."""

    reason: ClassVar[str] = "INTERNAL"
    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[FieldViolation] = (),
        retry_after_s: float | None = None,
        moved: bool = False,
    ) -> None:
        """`moved`: the same call is soon right here or elsewhere, and was not begun; gRPC's own retry may repeat it after `retry_after_s`."""
        super().__init__(message)
        self.message = message
        self.moved = moved
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s


class InvalidRequest(TrademeshError):
    """Fields break a constraint; lists them all."""

    reason = "INVALID_REQUEST"
    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, violations: Iterable[FieldViolation]) -> None:
        found = tuple(violations)
        text = "; ".join(f"{violation.field}: {violation.description}" for violation in found[:5])
        more = f" (and {len(found) - 5} more)" if len(found) > 5 else ""
        super().__init__(text + more, metadata={"violations": str(len(found))}, violations=found)


class RunConfigInvalid(InvalidRequest):
    """A run configuration has faults; lists them all."""

    reason = "RUN_CONFIG_INVALID"


class PageTokenInvalid(TrademeshError):
    """A page token is damaged or belongs to another filter."""

    reason = "PAGE_TOKEN_INVALID"
    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, method: str) -> None:
        super().__init__(
            f"the page token does not belong to this {method}: begin again without one",
            metadata={"method": method},
            violations=[FieldViolation("page_token", "is damaged, or was made for another filter")],
        )


class RequestIdReused(TrademeshError):
    """A request id was used before with another body."""

    reason = "REQUEST_ID_REUSED"
    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"the id {request_id} was used before with another request: choose a new one",
            metadata={"request_id": request_id},
            violations=[FieldViolation("request_id", "was used before with another request")],
        )


class NotFound(TrademeshError):
    """The named resource does not exist."""

    reason = "RESOURCE_NOT_FOUND"
    code = grpc.StatusCode.NOT_FOUND

    def __init__(self, resource_type: str, name: str) -> None:
        super().__init__(f"there is no {resource_type} {name}", metadata={"type": resource_type, "name": name})


class DataAbsent(TrademeshError):
    """The set does not hold the data asked for."""

    reason = "DATA_ABSENT"
    code = grpc.StatusCode.NOT_FOUND

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message, metadata=metadata)


class AlreadyExists(TrademeshError):
    """A resource of that name exists."""

    reason = "RESOURCE_ALREADY_EXISTS"
    code = grpc.StatusCode.ALREADY_EXISTS

    def __init__(self, resource_type: str, name: str, state: str = "") -> None:
        text = f"there is a {resource_type} {name} already" + (f", {state}" if state else "")
        super().__init__(text, metadata={"type": resource_type, "name": name} | ({"state": state} if state else {}))


class EtagMismatch(TrademeshError):
    """Somebody changed the resource since it was read."""

    reason = "ETAG_MISMATCH"
    code = grpc.StatusCode.ABORTED

    def __init__(self, resource_type: str, name: str, etag: str) -> None:
        super().__init__(
            f"{resource_type} {name} has changed since it was read: read it again and retry",
            metadata={"type": resource_type, "name": name, "etag": etag},
        )


class StateConflict(TrademeshError):
    """The resource is in a state in which the call has no meaning."""

    reason = "STATE_CONFLICT"
    code = grpc.StatusCode.FAILED_PRECONDITION

    def __init__(self, message: str, *, resource_type: str, name: str, state: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, metadata={"type": resource_type, "name": name, "state": state}, retry_after_s=retry_after_s)


class ApprovalSettled(TrademeshError):
    """An approval was settled before this decision."""

    reason = "APPROVAL_SETTLED"
    code = grpc.StatusCode.FAILED_PRECONDITION

    def __init__(self, approval_id: str, state: str, decided_by: str) -> None:
        by = f" by {decided_by}" if decided_by else ""
        super().__init__(
            f"approval {approval_id} is {state}{by} already",
            metadata={"approval_id": approval_id, "state": state, "decided_by": decided_by},
        )


class SequenceAhead(TrademeshError):
    """The sequence lies beyond the journal's head."""

    reason = "SEQUENCE_AHEAD"
    code = grpc.StatusCode.OUT_OF_RANGE

    def __init__(self, sequence: int, head: int) -> None:
        super().__init__(f"sequence {sequence} is beyond the head, {head}", metadata={"sequence": str(sequence), "head": str(head)})


class HistoryCompacted(TrademeshError):
    """The events after the sequence are no longer kept one by one."""

    reason = "HISTORY_COMPACTED"
    code = grpc.StatusCode.OUT_OF_RANGE

    def __init__(self, sequence: int, compacted_through: int) -> None:
        super().__init__(
            f"events up to {compacted_through} were compacted, the cursor is {sequence}: begin again from a snapshot",
            metadata={"sequence": str(sequence), "compacted_through": str(compacted_through)},
        )


class EpochChanged(TrademeshError):
    """The cursor belongs to another epoch."""

    reason = "EPOCH_CHANGED"
    code = grpc.StatusCode.ABORTED

    def __init__(self, epoch: int, asked: int) -> None:
        super().__init__(
            f"the journal is in epoch {epoch}, the cursor is of {asked}: begin again from a snapshot",
            metadata={"epoch": str(epoch), "asked": str(asked)},
        )


class JournalUnreadable(TrademeshError):
    """The journal is damaged or newer than this program."""

    reason = "JOURNAL_UNREADABLE"
    code = grpc.StatusCode.DATA_LOSS

    def __init__(self, message: str, *, run_id: str, sequence: int | None = None) -> None:
        metadata = {"run_id": run_id} | ({} if sequence is None else {"sequence": str(sequence)})
        super().__init__(message, metadata=metadata)


class NotAllowed(TrademeshError):
    """The caller may not do this."""

    reason = "NOT_ALLOWED"
    code = grpc.StatusCode.PERMISSION_DENIED

    def __init__(self, message: str, method: str) -> None:
        super().__init__(message, metadata={"method": method})


class LimitReached(TrademeshError):
    """A bound of this server is reached."""

    reason = "LIMIT_REACHED"
    code = grpc.StatusCode.RESOURCE_EXHAUSTED

    def __init__(self, message: str, *, limit: str, value: int, retry_after_s: float | None = None) -> None:
        super().__init__(message, metadata={"limit": limit, "value": str(value)}, retry_after_s=retry_after_s)


class DiskLow(TrademeshError):
    """The disk has too little room."""

    reason = "DISK_LOW"
    code = grpc.StatusCode.FAILED_PRECONDITION

    def __init__(self, free_bytes: int, needed_bytes: int) -> None:
        mebibytes = 1024 * 1024
        super().__init__(
            f"the disk has {free_bytes // mebibytes} MiB free, and a run needs {needed_bytes // mebibytes}: make room, or delete runs",
            metadata={"free_bytes": str(free_bytes), "needed_bytes": str(needed_bytes)},
        )


class NotConfigured(TrademeshError):
    """What the call needs is not set up on this server."""

    reason = "NOT_CONFIGURED"
    code = grpc.StatusCode.FAILED_PRECONDITION

    def __init__(self, message: str, *, setting: str) -> None:
        super().__init__(message, metadata={"setting": setting})


class DeadlinePassed(TrademeshError):
    """The answer was not ready before the deadline."""

    reason = "DEADLINE_EXCEEDED"
    code = grpc.StatusCode.DEADLINE_EXCEEDED

    def __init__(self, method: str) -> None:
        super().__init__(f"{method} was not done before its deadline", metadata={"method": method})


class DependencyUnavailable(TrademeshError):
    """A service that the call needs did not answer."""

    reason = "DEPENDENCY_UNAVAILABLE"
    code = grpc.StatusCode.UNAVAILABLE

    def __init__(self, dependency: str, message: str = "", retry_after_s: float = 1.0, *, moved: bool = False) -> None:
        text = message or f"{dependency} does not answer: try again when it is up"
        super().__init__(text, metadata={"dependency": dependency}, retry_after_s=retry_after_s, moved=moved)


class Draining(TrademeshError):
    """The server takes no new work."""

    reason = "DRAINING"
    code = grpc.StatusCode.UNAVAILABLE

    def __init__(self, service: str, retry_after_s: float = 1.0) -> None:
        super().__init__(f"{service} is draining: try again soon", metadata={"service": service}, retry_after_s=retry_after_s, moved=True)


class RemoteError(TrademeshError):
    """What another server answered. `remote_code` and `remote_reason` are the answer's own."""

    def __init__(
        self,
        message: str,
        *,
        remote_code: grpc.StatusCode,
        remote_reason: str,
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[FieldViolation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, metadata=metadata, violations=violations, retry_after_s=retry_after_s)
        self.remote_code = remote_code
        self.remote_reason = remote_reason
