"""Tasks that outlive the call that caused them, and that call's deadline; what they fail by is logged. Who waits for what is their owner's."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from trademesh_kernel.context import detached


class HeldTasks:
    """Holds tasks until they are done: one that nobody holds may be collected while it waits."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._tasks = set[asyncio.Task[None]]()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begins some work."""
        task = asyncio.create_task(work, context=detached())
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("a task failed", task=task.get_name(), exc_info=task.exception())

    def cancel(self) -> None:
        """Ends all that are left."""
        for task in self._tasks:
            task.cancel()
