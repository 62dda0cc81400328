"""The one place where our exceptions become google.rpc.Status, and back.

Every status has exactly one ErrorInfo; BadRequest, QuotaFailure and RetryInfo where they apply (AIP-193).
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from trademesh.common.v1.error_reason_pb2 import ErrorReason
from trademesh_kernel.errors import FieldViolation, LimitReached, RemoteError, TrademeshError

DOMAIN = "trademesh"

MESSAGE_BYTES = 500
VALUE_BYTES = 200
VIOLATIONS_BYTES = 3000
"""A status travels in trailing metadata, of which gRPC takes 8 KiB by default, after base64 and percent encoding: a larger one would end
the call with another status and no details at all."""


def status_of(error: TrademeshError) -> status_pb2.Status:
    """The status that a client gets for an error."""
    code, reason, told = error.code, error.reason, error.metadata
    if isinstance(error, RemoteError):
        code, reason = error.remote_code, error.remote_reason
        if f"ERROR_REASON_{reason}" not in ErrorReason.keys():  # noqa: SIM118  # a protobuf wrapper, no dict
            reason, told = "DEPENDENCY_FAILED", {"code": code.name}
    status = status_pb2.Status(code=code.value[0], message=_clipped(error.message, MESSAGE_BYTES))
    metadata = {key: _clipped(value, VALUE_BYTES) for key, value in told.items()}
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata))
    if error.violations:
        status.details.add().Pack(_bad_request(error.violations))
    if isinstance(error, LimitReached):
        breach = error_details_pb2.QuotaFailure.Violation(subject=error.metadata["limit"], description=_clipped(error.message, VALUE_BYTES))
        status.details.add().Pack(error_details_pb2.QuotaFailure(violations=[breach]))
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def _bad_request(violations: Sequence[FieldViolation]) -> error_details_pb2.BadRequest:
    """As many violations as may travel; the last says how many are left out."""
    found = error_details_pb2.BadRequest()
    for number, violation in enumerate(violations):
        if found.ByteSize() > VIOLATIONS_BYTES:
            found.field_violations.add(field="", description=f"and {len(violations) - number} more")
            break
        found.field_violations.add(field=_clipped(violation.field, VALUE_BYTES), description=_clipped(violation.description, VALUE_BYTES))
    return found


def _clipped(text: str, most_bytes: int) -> str:
    """A text as it is, or its beginning."""
    encoded = text.encode()
    return text if len(encoded) <= most_bytes else encoded[: most_bytes - 3].decode(errors="ignore") + "…"


def internal_status(request_id: str) -> status_pb2.Status:
    """The status for a fault of ours: no text of the exception, only where to look."""
    status = status_pb2.Status(
        code=grpc.StatusCode.INTERNAL.value[0], message=f"internal error; the server's log has it under request id {request_id}"
    )
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"request_id": request_id}))
    return status


class _AsCall:
    """An AioRpcError with the methods of a finished call that rpc_status reads."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self._error = error

    def code(self) -> grpc.StatusCode:
        """Status code."""
        return self._error.code()

    def details(self) -> str | None:
        """Message."""
        return self._error.details()

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Where the details travel."""
        return tuple(self._error.trailing_metadata() or ())


def error_of(rpc_error: grpc.aio.AioRpcError) -> RemoteError:
    """What a failed call says, as an exception of ours."""
    try:
        status = rpc_status.from_call(_AsCall(rpc_error))  # type: ignore[arg-type]  # it reads no more than _AsCall has
    except ValueError:
        # The library ended the call with another status than its details tell, for example since they were too large to travel.
        status = None
    message = rpc_error.details() or rpc_error.code().name
    if status is None:
        return RemoteError(message, remote_code=rpc_error.code(), remote_reason=rpc_error.code().name)
    reason, metadata = rpc_error.code().name, dict[str, str]()
    violations = list[FieldViolation]()
    retry_after_s: float | None = None
    for detail in status.details:
        info, bad_request, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad_request):
            violations += [FieldViolation(violation.field, violation.description) for violation in bad_request.field_violations]
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
    return RemoteError(
        message,
        remote_code=rpc_error.code(),
        remote_reason=reason,
        metadata=metadata,
        violations=violations,
        retry_after_s=retry_after_s,
    )
