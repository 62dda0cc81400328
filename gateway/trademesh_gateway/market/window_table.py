"""Values of an indicator, or what is made of some, for many sessions at once. An indicator over a window costs numpy as much for 500 sessions as
for five: computed session by session, the calls would be most of what an analyst costs.

No look-ahead comes of it: `compute` makes each row from its own window alone, and a reader asks for the row of its own last session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

STRETCH = 256
"""So many sessions are computed at a time."""

Row = TypeVar("Row", covariant=True)


class Rows(Protocol[Row]):
    """A row for each session: an array of figures, for one."""

    def __len__(self) -> int:
        """How many sessions."""

    def __getitem__(self, place: int, /) -> Row:
        """The row of one."""


Compute = Callable[[npt.NDArray[np.int64]], Rows[Row]]


class WindowTable(Generic[Row]):
    """The newest stretch of an indicator's values."""

    def __init__(self, window: int, compute: Compute[Row]) -> None:
        self._window = window
        self._compute = compute
        self._first = 0
        self._end = 0
        self._values: Any = ()

    def row(self, closes: npt.NDArray[np.int64], row: int) -> Row:
        """The values for the window that ends in a row of these closes. Not to be changed."""
        if not self._first <= row < self._end:
            begin = row - self._window + 1
            self._values = self._compute(closes[begin : row + STRETCH])
            self._first, self._end = row, row + len(self._values)
        found: Row = self._values[row - self._first]
        return found
