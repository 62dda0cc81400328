"""Something that is done at most so often, however often it is asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from trademesh_kernel.context import detached


class Throttle:
    """Calls a function at once, or when a while has passed since it was called last."""

    def __init__(self, period_s: float, act: Callable[[], None]) -> None:
        self._period_s = period_s
        self._act = act
        self._acted_at = -period_s
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_waiting(self) -> bool:
        """True if it was asked for and is not done yet."""
        return self._timer is not None

    def ask(self) -> None:
        """Has it done soon."""
        if self._timer is None:
            delay_s = max(0.0, self._acted_at + self._period_s - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._due, context=detached())

    def cancel(self) -> None:
        """Has it not done, if it is not done yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._timer, self._acted_at = None, time.monotonic()
        self._act()
