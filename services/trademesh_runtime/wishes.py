"""What was asked of each run last: kept in the registry before it is done, so that a runtime_service that is killed meanwhile is no excuse.
Who does it is `runs.py`."""

from __future__ import annotations

import sqlite3

from google.protobuf.message import Message

from trademesh.runtime.v1.runtime_pb2 import Run
from trademesh_kernel.logs import get_logger
from trademesh_runtime.registry import Registry, Wish, WishKind


class Wishes:
    """The newest wish about each run."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._newest = dict[str, Wish]()

    def load(self) -> None:
        """Takes in what an earlier runtime_service was asked."""
        self._newest = self._registry.wishes()

    def runs_asked_to(self, kind: WishKind) -> list[str]:
        """Names of runs of which this was asked last."""
        return [wish.run_id for wish in self._newest.values() if wish.kind is kind]

    def about(self, run_id: str) -> Wish | None:
        """What was asked last; None if nothing was."""
        return self._newest.get(run_id)

    def is_asked(self, kind: WishKind, run: Run) -> bool:
        """True if this was asked of the run last, and, of a restart, if no later gateway has begun."""
        wish = self._newest.get(run.run_id)
        return wish is not None and wish.kind is kind and (kind is not WishKind.RESTART or wish.generation == run.generation)

    def keep(self, run: Run, kind: WishKind, reason: str = "", request: Message | None = None) -> None:
        """Keeps a wish, and that its request was accepted. Raises sqlite3.Error."""
        wish = Wish(run.run_id, kind, reason, run.generation)
        self._registry.wish(wish, request)
        self._newest[run.run_id] = wish

    def keep_if_possible(self, run: Run, kind: WishKind, reason: str = "", request: Message | None = None) -> None:
        """As `keep`, for what is done at once all the same: a registry that cannot be written is no reason not to stop a run."""
        try:
            self.keep(run, kind, reason, request)
        except sqlite3.Error as error:
            self._newest[run.run_id] = Wish(run.run_id, kind, reason, run.generation)
            get_logger("runs").error("the registry cannot be written", run_id=run.run_id, reason=str(error), asked=kind.value)

    def withdraw(self, run_id: str, request: Message) -> None:
        """Takes back a wish that could not be done, and of which its caller is told so: it is not to be done some day all the same."""
        self._newest.pop(run_id, None)
        try:
            self._registry.withdraw(run_id, request)
        except sqlite3.Error as error:
            get_logger("runs").error("the registry cannot be written", run_id=run_id, reason=str(error))

    def forget(self, run_id: str) -> None:
        """The run is no more; the registry has forgotten it already."""
        self._newest.pop(run_id, None)
