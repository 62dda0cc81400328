"""How long the cycle in hand has worked, and when that is too long. Time in which it may not work, because of a pause, the pace, a person
who thinks or a disk that is full, is not counted. What happens to a cycle that is too slow is the controller's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager


class CycleOverdue(Exception):
    """The cycle in hand has worked longer than it may."""


class CycleClock:
    """Runs while a phase works. One cycle at a time."""

    def __init__(self, deadline_s: float = 300.0) -> None:
        self.deadline_s = deadline_s
        self.phase = 0
        """The phase in hand, or the one before while the cycle stands."""
        self.began_unix_ns: int | None = None
        """When the cycle in hand began, wall time; None between cycles."""
        self._spent_s = 0.0
        self._since_s: float | None = None
        self._timeout: asyncio.Timeout | None = None

    @property
    def spent_s(self) -> float:
        """How long the cycle in hand has worked so far."""
        return self._spent_s + (0.0 if self._since_s is None else time.monotonic() - self._since_s)

    @property
    def left_s(self) -> float:
        """How long it may go on; below zero if it is overdue."""
        return self.deadline_s - self.spent_s

    def begin(self) -> None:
        """A cycle begins."""
        self._spent_s, self._since_s, self.phase = 0.0, None, 0
        self.began_unix_ns = time.time_ns()

    def end(self) -> None:
        """The cycle is done, or left."""
        self.halt()
        self._spent_s, self.phase, self.began_unix_ns = 0.0, 0, None

    def begin_work(self, phase: int) -> None:
        """A phase, or the beginning of one, works without a pause in which it could be cancelled. The clock runs on into the next phase, if it
        follows at once; until `halt`."""
        self.phase = phase
        if self._since_s is None:
            self._since_s = time.monotonic()

    @asynccontextmanager
    async def working(self, phase: int, *, limited: bool) -> AsyncIterator[None]:
        """A phase works. One that is limited is cancelled when the time of its cycle is over.

        Raises:
            CycleOverdue: it was cancelled, or it has used the time up without a pause in which it could be.
        """
        self.halt()
        self.phase = phase
        timeout = self._timeout = asyncio.timeout(max(0.0, self.left_s) if limited else None)
        self._since_s = time.monotonic()
        try:
            async with timeout:
                yield
        except TimeoutError:
            if timeout.expired():
                raise CycleOverdue from None
            raise
        finally:
            self._timeout = None
            self.halt()
        if limited and self.left_s <= 0:
            raise CycleOverdue

    @contextmanager
    def standing(self) -> Iterator[None]:
        """A phase waits for somebody who may take as long as they like. Does nothing outside a phase."""
        timeout = self._timeout
        limited = timeout is not None and timeout.when() is not None and not timeout.expired()
        running = self._since_s is not None
        self.halt()
        if limited and timeout is not None:
            timeout.reschedule(None)
        try:
            yield
        finally:
            if running and self._timeout is timeout:
                self._since_s = time.monotonic()
                if limited and timeout is not None:
                    timeout.reschedule(asyncio.get_running_loop().time() + max(0.0, self.left_s))

    def halt(self) -> None:
        """The phase in hand works no more."""
        self._spent_s, self._since_s = self.spent_s, None
