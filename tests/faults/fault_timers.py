"""How fast time goes in the tests of faults: timers of supervision are a tenth of what they are, or, with `scripts/test --full`, as they are.

The defaults themselves are pinned by `tests/unit/runtime/test_policy.py`.
"""

from __future__ import annotations

import os

FULL = os.environ.get("TRADEMESH_TEST_FULL_TIMERS") == "true"
"""Set by `scripts/test --full`."""

TIMER_SCALE = 1.0 if FULL else 0.1
SCALED_TIMERS = {"TRADEMESH_RUNTIME_TIMER_SCALE": str(TIMER_SCALE)}
FULL_TEST_TIMEOUT_S = 1_800
"""The longest row waits 15 minutes for an orphan to end."""


def scaled_s(real_s: float, least_s: float = 0.0) -> float:
    """A time of the table as it is here; what a process needs to start does not scale, so that there may be a least."""
    return max(real_s * TIMER_SCALE, least_s)
