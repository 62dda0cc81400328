"""How far runs are, kept in the registry once a second, so that a journal that has lost its end is noticed. Changes of state are kept at
once, by `run_record.py`."""

from __future__ import annotations

import asyncio
import sqlite3

from trademesh.runtime.v1.runtime_pb2 import Run
from trademesh_kernel.context import detached
from trademesh_kernel.logs import get_logger
from trademesh_runtime.registry import Registry
from trademesh_runtime.run_changes import copy_of

SAVED_EACH_S = 1.0


class ProgressKeeper:
    """Keeps the newest word of every run that went on, in one transaction for all, in a thread: the disk may be slow."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._unsaved = dict[str, Run]()
        self._timer: asyncio.TimerHandle | None = None
        self._saving: asyncio.Task[None] | None = None
        self._closed = False

    def note(self, run: Run) -> None:
        """Takes in how far a run is."""
        if run.progress.head_sequence:
            self._unsaved[run.run_id] = copy_of(run)
            self._plan()

    def _plan(self) -> None:
        if self._timer is None and self._saving is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(SAVED_EACH_S, self._begin, context=detached())

    def _begin(self) -> None:
        self._timer = None
        self._saving = asyncio.create_task(self._save(), context=detached())

    async def _save(self) -> None:
        runs, self._unsaved = self._unsaved, {}
        try:
            await asyncio.to_thread(self._registry.save_progress, list(runs.values()))
        except sqlite3.Error as error:
            get_logger("supervisor").error("the registry cannot be written; progress is kept later", reason=str(error))
            self._unsaved = runs | self._unsaved
        finally:
            self._saving = None
            if self._unsaved:
                self._plan()

    async def close(self) -> None:
        """Keeps what is not kept yet."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._saving is not None:
            await self._saving
        if self._unsaved:
            await self._save()
