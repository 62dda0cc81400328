"""What is known about the call in hand: its request id, its method, its deadline. Kept in context variables, so that logs and
downstream calls find it without being handed it."""

from __future__ import annotations

import contextvars
import random
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, TypeAlias

import grpc

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
"""The servicer context, as our handlers annotate it."""

REQUEST_ID_KEY = "x-request-id"
"""Metadata key of the request id, both ways."""

_LONGEST_REQUEST_ID = 128


class CallScope:
    """The call in hand.

    Most calls end without anyone asking for their request id, and an id costs as much as the rest of this: it is looked up, or made, when
    it is first read.
    """

    __slots__ = ("_metadata", "_request_id", "deadline", "method", "run_id")

    def __init__(
        self, method: str, deadline: float | None, *, request_id: str = "", metadata: Callable[[], Iterable[Any] | None] | None = None
    ) -> None:
        """`deadline` is a reading of time.monotonic(), or None; `metadata` gives the inbound metadata, which may hold a request id."""
        self.method = method
        self.deadline = deadline
        self.run_id = ""
        """The run that the call is about, if it says so."""
        self._request_id = request_id
        self._metadata = metadata

    @property
    def request_id(self) -> str:
        """Given by the client, or made here; the same whenever it is read."""
        if not self._request_id:
            for key, value in (self._metadata() if self._metadata is not None else None) or ():
                if key == REQUEST_ID_KEY and isinstance(value, str):
                    self._request_id = value[:_LONGEST_REQUEST_ID]
            self._request_id = self._request_id or new_request_id()
        return self._request_id

    def remaining_s(self) -> float | None:
        """Seconds to the deadline; below zero when it has passed; None without one."""
        return None if self.deadline is None else self.deadline - time.monotonic()


current_call: ContextVar[CallScope | None] = ContextVar("trademesh_call", default=None)
"""The inbound call that this code runs for, if any."""


def new_request_id() -> str:
    """A fresh request id: 16 hexadecimal digits. It tells calls apart and guards nothing."""
    return f"{random.getrandbits(64):016x}"  # no secret


def detached() -> contextvars.Context:
    """The context for work that outlives the call in hand: without its deadline, and not logged under its name.

    A task, and a callback of the loop, inherits the context of whoever starts it: without this a supervisor's heartbeat would run on
    the deadline of the StartRun that began it.
    """
    context = contextvars.copy_context()
    context.run(current_call.set, None)
    return context
