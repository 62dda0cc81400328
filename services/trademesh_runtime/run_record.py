"""What a run shows of itself: its message, kept in the registry and in `state/runtime_state.json`, and told to watchers. Why it changes is
`supervisor.py`'s."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import suppress

from google.protobuf import json_format

from trademesh.runtime.v1 import runtime_pb2 as wire
from trademesh_kernel.atomic_files import replace_file
from trademesh_kernel.context import detached
from trademesh_kernel.logs import get_logger
from trademesh_runs.layout import RunLayout
from trademesh_runtime.gateway_logs import drop_log
from trademesh_runtime.policy import TERMINAL, Supervision
from trademesh_runtime.registry import KEPT_ATTEMPTS, Registry, Revisions
from trademesh_runtime.run_snapshots import keep_snapshot

REGISTRY_RETRY_S = 1.0


class RunRecord:
    """The message of one run. A registry that cannot be written holds nothing up: what it misses is written when it can be."""

    def __init__(
        self,
        run: wire.Run,
        layout: RunLayout,
        registry: Registry,
        revisions: Revisions,
        finished_feed: str,
        changed: Callable[[wire.Run], None],
    ) -> None:
        """`finished_feed` is where the feed of a run is that has no gateway."""
        self.run = run
        self._layout = layout
        self._registry = registry
        self._revisions = revisions
        self._finished_feed = finished_feed
        self._changed = changed
        self._log = get_logger("supervisor").bind(run_id=run.run_id)
        self._unsaved = False
        self._ended_generation: int | None = None
        """One that has ended, and whose snapshot is not kept yet: the run must say first what followed."""
        self._save_timer: asyncio.TimerHandle | None = None

    def publish(self, supervision: Supervision, *, durable: bool = True) -> None:
        """Brings the message up to date, keeps it, and tells everyone."""
        run = self.run
        run.state = wire.RunState.ValueType(int(supervision.state))
        run.reason = supervision.reason
        run.restart_count = supervision.restarts
        run.feed_target = run.target or self._finished_feed
        run.updated_at.GetCurrentTime()
        if supervision.state not in TERMINAL:
            run.ClearField("ended_at")
        elif not run.HasField("ended_at"):
            run.ended_at.GetCurrentTime()
        run.revision = self._revisions.next()
        self._unsaved = self._unsaved or durable
        if self._save_timer is None:
            self._save()
        text = json_format.MessageToJson(run, preserving_proto_field_name=True)
        with suppress(OSError):
            replace_file(self._layout.runtime_state, text.encode() + b"\n", durable=False)
            if self._ended_generation is not None:
                keep_snapshot(self._layout, self._ended_generation)
                self._ended_generation = None
        self._changed(run)

    def begin_attempt(self, generation: int) -> None:
        """Says that a generation is about to be started: the registry knows it before its process is. Raises sqlite3.Error."""
        self._registry.attempt_begins(self.run.run_id, generation)
        self.run.generation = generation
        self._registry.save(self.run)
        with suppress(OSError):
            # As many logs are kept as attempts are: a run that is started again each minute would fill the disk.
            drop_log(self._layout.gateway_log(generation - KEPT_ATTEMPTS))

    def end_attempt(self, generation: int, cause: str) -> None:
        """Says how a generation ended; with code and signal if the run's last exit is that one."""
        self._ended_generation = generation
        last = self.run.last_exit if self.run.last_exit.generation == generation else wire.GatewayExit()
        code = last.code if last.HasField("code") else None
        number = last.signal if last.HasField("signal") else None
        try:
            self._registry.attempt_ends(self.run.run_id, generation, cause, code, number)
        except sqlite3.Error as error:
            self._log.error("the registry cannot be written", reason=str(error), cause=cause)

    def is_attempt_open(self) -> bool:
        """True if the newest generation was to be started, and has not been seen to end."""
        return self._registry.is_open(self.run.run_id, self.run.generation)

    def attempt_began_within(self, seconds: float) -> bool:
        """True if the newest generation was started so short a time ago, and may live although it has not said yet who it is."""
        if not self._layout.gateway_log(self.run.generation).exists():
            # The log is made before the process.
            return False
        with suppress(OSError, ValueError, KeyError, TypeError):
            if json.loads(self._layout.gateway_identity.read_text())["generation"] == self.run.generation:
                return False
        return self._registry.began_within(self.run.run_id, self.run.generation, seconds)

    def close(self) -> None:
        """Ends the tries to write what is unwritten."""
        if self._save_timer is not None:
            self._save_timer.cancel()
            self._save_timer = None

    def _save(self) -> None:
        self._save_timer = None
        if not self._unsaved:
            return
        try:
            self._registry.save(self.run)
            self._unsaved = False
        except sqlite3.Error as error:
            self._log.error("the registry cannot be written; it will be tried again", reason=str(error))
            self._save_timer = asyncio.get_running_loop().call_later(REGISTRY_RETRY_S, self._save, context=detached())
