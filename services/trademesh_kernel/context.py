"""What is known about the call in hand: its request id, its method, its deadline. Kept in context variables, so that logs and
downstream calls find it without being handed it."""

from __future__ import annotations

import contextvars
import random
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
"""The servicer context, as our handlers annotate it."""

REQUEST_ID_KEY = "x-request-id"
"""Metadata key of the request id, both ways."""


@dataclass(slots=True)
class CallScope:
    """The call in hand. `deadline` is a reading of time.monotonic(), or None; `run_id` is the run that it is about, if it says so."""

    request_id: str
    method: str
    deadline: float | None
    run_id: str = ""

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
