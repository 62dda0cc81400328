"""Typed calls to other services: a deadline, the request id, and a retry policy, in one place.

    trading = ServiceClient(settings.trading_target, "trading_service")
    stub = trading.stub(MarketDataServiceStub)
    response = await trading.call(stub.ListSessions, request, timeout_s=5)

Retries are gRPC's own: UNAVAILABLE only, with throttling, and only where the server could not be reached or went away. A status that a
server of ours made is an answer, and ends the call. Calls that change something carry a request id, or come to the same when they are
repeated.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, TypeVar

import grpc

from trademesh_kernel.context import REQUEST_ID_KEY, current_call, new_request_id
from trademesh_kernel.errors import DeadlinePassed, DependencyUnavailable
from trademesh_kernel.status import error_of

DEADLINE_MARGIN_S = 0.05
"""What is taken off an inbound deadline for the way back."""

_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }
)

Stub = TypeVar("Stub")


class ServiceClient:
    """A channel to one service, with the mesh's ways around it. Create it inside the running loop."""

    def __init__(
        self,
        target: str,
        service: str,
        *,
        default_timeout_s: float = 10.0,
        max_message_bytes: int = 16 * 1024 * 1024,
        longest_reconnect_s: float = 2.0,
    ) -> None:
        """`service` is the name that errors tell. `longest_reconnect_s` bounds the wait between two tries to connect."""
        self.target = target
        self._service = service
        self._default_timeout_s = default_timeout_s
        self.channel = grpc.aio.insecure_channel(
            target,
            options=[
                ("grpc.service_config", _SERVICE_CONFIG),
                ("grpc.enable_retries", 1),
                # A proxy for the web, as http_proxy names one, knows nothing of our servers.
                ("grpc.enable_http_proxy", 0),
                # Keeps what a server may send to a reader that stands still at 97 KB instead of megabytes.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", round(longest_reconnect_s * 1000)),
                # Channels to one address are pooled by default: a replaced gateway must not inherit the old one's back-off.
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )

    def stub(self, stub_class: Callable[[Any], Stub]) -> Stub:
        """A generated stub on this channel."""
        return stub_class(self.channel)

    async def call(self, method: Any, request: Any, *, timeout_s: float | None = None, wait_for_ready: bool = False) -> Any:
        """One unary call.

        Raises:
            DependencyUnavailable: the service does not answer.
            DeadlinePassed: it did not answer in time.
            RemoteError: it answered with an error; has its reason and details.
        """
        try:
            return await method(
                request,
                timeout=_within_inbound(self._default_timeout_s if timeout_s is None else timeout_s),
                metadata=_metadata(),
                wait_for_ready=wait_for_ready,
            )
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from None

    async def stream(
        self, method: Any, request: Any, *, timeout_s: float | None = None, idle_timeout_s: float | None = None
    ) -> AsyncIterator[Any]:
        """Messages of a server stream; leaving the loop cancels the call. Raises as `call`.

        Args:
            timeout_s: for the whole stream; None: that of the inbound call, or none.
            idle_timeout_s: the longest wait for the next message; DeadlinePassed after it. None: no bound.
        """
        call = method(request, timeout=_within_inbound(timeout_s), metadata=_metadata())
        try:
            while True:
                async with asyncio.timeout(idle_timeout_s):
                    response = await call.read()
                if response is grpc.aio.EOF:
                    return
                yield response
        except TimeoutError:
            raise DeadlinePassed(self._method_in_hand()) from None
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from None
        finally:
            # Dropping the last reference to a stream does not cancel it.
            call.cancel()

    async def close(self) -> None:
        """Closes the channel; calls in flight are cancelled."""
        await self.channel.close()

    async def __aenter__(self) -> ServiceClient:
        return self

    async def __aexit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        await self.close()

    def _method_in_hand(self) -> str:
        """What was not done in time: the call that we answer, or, on our own account, one to the service."""
        scope = current_call.get()
        return scope.method if scope is not None else f"a call to {self._service}"

    def _translated(self, error: grpc.aio.AioRpcError) -> Exception:
        remote = error_of(error)
        if error.code() is grpc.StatusCode.UNAVAILABLE and remote.remote_reason == "UNAVAILABLE":
            return DependencyUnavailable(self._service)
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlinePassed(self._method_in_hand())
        return remote


def _within_inbound(wanted_s: float | None) -> float | None:
    """The time-out that is wanted, or less if the call that we answer must be done before; None: no bound."""
    scope = current_call.get()
    remaining_s = scope.remaining_s() if scope is not None else None
    if remaining_s is None:
        return wanted_s
    allowed_s = max(0.001, remaining_s - DEADLINE_MARGIN_S)
    return allowed_s if wanted_s is None else min(wanted_s, allowed_s)


def _metadata() -> tuple[tuple[str, str], ...]:
    scope = current_call.get()
    return ((REQUEST_ID_KEY, scope.request_id if scope is not None else new_request_id()),)
