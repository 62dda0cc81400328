"""The lease that runtime_service renews with every heartbeat. Without a supervisor nobody could stop us: no new cycle begins, and after a
while we end. Both are a matter of this process and not of the run: nothing of it is journaled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

CHECKS_PER_LEASE = 10
LOST = "no runtime_service renews the lease: no new cycle begins"


class Lease:
    """Held as long as heartbeats come."""

    def __init__(self, lease_s: float, orphan_s: float) -> None:
        self._lease_s = lease_s
        self._orphan_s = orphan_s
        self._renewed_at = time.monotonic()

    def renew(self) -> None:
        """A heartbeat came."""
        self._renewed_at = time.monotonic()

    def held(self) -> bool:
        """True as long as a new cycle may begin. Asked right before each: a process that has slept may not begin one on an old answer."""
        return time.monotonic() - self._renewed_at < self._lease_s

    async def watch(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Calls `changed` when the lease is lost or comes back; returns when we are an orphan."""
        held, overdue = True, False
        while True:
            await asyncio.sleep(self._lease_s / CHECKS_PER_LEASE)
            was_held, held = held, self.held()
            if held != was_held:
                await changed()
            # Twice in a row: after a sleep of this process the heartbeats that wait for it are to be read first.
            was_overdue, overdue = overdue, time.monotonic() - self._renewed_at > self._orphan_s
            if overdue and was_overdue:
                return
