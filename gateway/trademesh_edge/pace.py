"""What a browser wants of the speed of one feed, and how a replay's time runs. Pure but for the event that wakes the replay."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from trademesh.edge.v1 import frame_pb2

MOST_CATCH_UP_S = 0.1
"""A replay that was held up makes up for no more than this."""


class BadPaceError(Exception):
    """No speed that there can be."""


class Pace:
    """The wishes of one call. `on_change` is called, and `changed` set, when there is a new one."""

    __slots__ = ("_waiter", "changed", "on_change", "paused", "seek", "sessions_per_s")

    def __init__(self) -> None:
        self.sessions_per_s = 0.0
        """0: as fast as it can."""
        self.paused = False
        self.seek: int | None = None
        """Where to go next; whoever follows takes it away."""
        self.changed = False
        """True from a change until whoever follows sets it back."""
        self._waiter: asyncio.Future[None] | None = None
        self.on_change: Callable[[], None] = lambda: None

    @property
    def active(self) -> bool:
        """True if this feed does not simply come as fast as it can."""
        return self.paused or self.sessions_per_s > 0

    def set(self, frame: frame_pb2.Pace) -> None:
        """Takes in a frame; raises BadPaceError."""
        action = frame.WhichOneof("action")
        if action == "sessions_per_s":
            if not math.isfinite(frame.sessions_per_s) or frame.sessions_per_s < 0:
                raise BadPaceError("sessions_per_s must be zero or more")
            self.sessions_per_s = frame.sessions_per_s
        elif action == "paused":
            self.paused = frame.paused
        elif action == "seek_after_sequence":
            self.seek = frame.seek_after_sequence
        else:
            raise BadPaceError("a pace frame says what is to change")
        self.changed = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self.on_change()

    async def wait(self) -> None:
        """Returns when there has been a change. For one waiter; thousands never wait, so that an Event for each would be much."""
        if not self.changed:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def take_seek(self) -> int | None:
        """Where to go, once."""
        seek, self.seek = self.seek, None
        return seek


class ReplayClock:
    """When the next session is due."""

    def __init__(self, now: float) -> None:
        self._settled_at = now

    def due_in_s(self, pace: Pace, now: float) -> float:
        """How long until the next session; zero or less: now. Only while the pace is a number of sessions."""
        return self._settled_at + 1 / pace.sessions_per_s - now

    def session_told(self, pace: Pace, now: float) -> None:
        """A session was told to its end."""
        self._settled_at = max(self._settled_at + 1 / pace.sessions_per_s, now - MOST_CATCH_UP_S)

    def restart(self, now: float) -> None:
        """The next session is due one step from now."""
        self._settled_at = now
