"""What time it is, for those who trade by the clock. A backtest asks nobody."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now_unix_s(self) -> float:
        """Seconds since 1970."""


class WallClock:
    """The clock of this machine, as it is set: one that was wrong and is put right moves what waits for it, too."""

    def now_unix_s(self) -> float:
        """Seconds since 1970."""
        return time.time()
