"""Values of an indicator for many sessions at once. An indicator over a window costs numpy as much for 500 sessions as for five: computed
session by session, the calls would be most of what an analyst costs.

No look-ahead comes of it: `compute` makes each row from its own window alone, and a reader asks for the row of its own last session.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

STRETCH = 256
"""So many sessions are computed at a time."""

Compute = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]]


class WindowTable:
    """The newest stretch of an indicator's values."""

    def __init__(self, window: int, compute: Compute) -> None:
        self._window = window
        self._compute = compute
        self._first = 0
        self._values: npt.NDArray[np.float64] = np.zeros((0, 0))

    def row(self, closes: npt.NDArray[np.int64], row: int) -> npt.NDArray[np.float64]:
        """The values for the window that ends in a row of these closes. Not to be changed."""
        if not self._first <= row < self._first + len(self._values):
            self._first = row
            begin = row - self._window + 1
            self._values = self._compute(closes[begin : row + STRETCH])
        found: npt.NDArray[np.float64] = self._values[row - self._first]
        return found
