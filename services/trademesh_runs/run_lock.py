"""The lock of a run, for work on its files that no gateway may disturb. A gateway holds the same one for its life."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from trademesh_runs.layout import RunLayout


class RunLiveError(Exception):
    """A gateway, or other work on the run's files, holds its lock."""


@contextmanager
def held_lock(layout: RunLayout) -> Iterator[None]:
    """Holds the run's lock; does not wait for it.

    Raises:
        RunLiveError: another has it.
    """
    descriptor = os.open(layout.gateway_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunLiveError(f"run {layout.run_id} is live: its lock {layout.gateway_lock} is held") from None
        yield
    finally:
        os.close(descriptor)
