"""Looks after the room that a run has: little free space, or a journal that waits for the disk, pauses the pipeline before it is too late
for a last word. Feed and calls go on. Writing on a full disk is the journal's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from trademesh_kernel.logs import get_logger

CHECK_S = 1.0
ROOM_AGAIN = 1.25
"""So many times the least there must be before a pause is over: the pause itself is not to use up what was gained."""

Hold = Callable[[str], Awaitable[None]]
"""Is told why the pipeline is to stand; an empty reason: it need not any more."""


class DiskWatch:
    """One run's file system."""

    def __init__(self, folder: Path, least_free_bytes: int) -> None:
        self._folder = folder
        self._least_free_bytes = least_free_bytes
        self._low = False
        self._changed = asyncio.Event()
        self.stalled_because = ""
        """Why the journal cannot be written now; empty if it can."""
        self._log = get_logger("disk")

    def stalled(self, reason: str | None) -> None:
        """The journal waits for the disk, or, without a reason, does not any more. To be called in the event loop."""
        self.stalled_because = reason or ""
        self._changed.set()

    async def watch(self, hold: Hold) -> None:
        """Tells every change, and once at the start how it is. Never returns."""
        told: str | None = None
        while True:
            self._changed.clear()
            reason = self.stalled_because or await asyncio.to_thread(self._lack_of_room)
            if reason != told:
                told = reason
                self._log.warning("no room for more", reason=reason) if reason else self._log.info("there is room")
            # Also without a change: a run that its last gateway left paused by the disk is to go on.
            await hold(reason)
            try:
                async with asyncio.timeout(CHECK_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _lack_of_room(self) -> str:
        try:
            found = os.statvfs(self._folder)
        except OSError as error:
            return f"{error.strerror}"
        free_bytes = found.f_bavail * found.f_frsize
        self._low = free_bytes < self._least_free_bytes * (ROOM_AGAIN if self._low else 1)
        # No figure that moves: the reason is journaled.
        return f"less than {self._least_free_bytes // 2**20} MiB free" if self._low else ""
