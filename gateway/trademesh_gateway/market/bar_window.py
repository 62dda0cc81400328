"""The newest bars of a run's tickers in memory: they come in blocks at one end and are forgotten at the other, so that a run of decades takes no
more than one of years. Who may see which of them is the point-in-time view's (`point_in_time.py`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Values: TypeAlias = npt.NDArray[np.int64]

CLOSE = "close"
OPTIONAL_FIELDS = ("open", "high", "low", "volume_plus_one")
"""What bars may have beside their close: micro-dollars, 0 where there is none; shares traded plus one, 0 where that is not known."""
LONGEST_WINDOW = 512
"""Sessions that are kept before the one in hand: more than any indicator reads."""


class Revision(NamedTuple):
    """A bar that came, or was told again, after the close of its session. `row` counts from the first session that was ever added."""

    known_at_unix_s: int
    row: int
    column: int
    values: Mapping[str, int]
    """By field; one that is not there is as it was."""


class BarWindow:
    """Rows are sessions, columns tickers."""

    def __init__(self, columns: int) -> None:
        self.sessions: list[str] = []
        """ISO dates, oldest first."""
        self.known_at: list[int] = []
        """When the first form of each session's bars became known: Unix seconds. No array: to search one, numpy lets other threads have the
        interpreter, and they wake for a microsecond."""
        self.revisions: list[Revision] = []
        """In the order in which they became known."""
        self.forgotten = 0
        """How many sessions are no longer here."""
        self._fields: dict[str, Values] = {CLOSE: np.zeros((LONGEST_WINDOW, columns), np.int64)}

    def add(
        self, sessions: Sequence[str], known_at_unix_s: Sequence[int], fields: Mapping[str, Values], revisions: Sequence[Revision] = ()
    ) -> None:
        """Adds the sessions that follow those that are there; rows of `revisions` count from the first of these."""
        count, added = len(self.sessions), len(sessions)
        close = self._fields[CLOSE]
        for name in fields:
            self._fields.setdefault(name, np.zeros_like(close))
        if count + added > len(close):
            more = max(len(close), added)
            for name, values in self._fields.items():
                self._fields[name] = np.concatenate([values, np.zeros((more, values.shape[1]), np.int64)])
        for name, values in self._fields.items():
            # Rows that were forgotten have left their values behind.
            values[count : count + added] = fields.get(name, 0)
        self.sessions.extend(sessions)
        self.known_at.extend(known_at_unix_s)
        if revisions:
            first = self.forgotten + count
            self.revisions += [one._replace(row=first + one.row) for one in revisions]
            self.revisions.sort(key=attrgetter("known_at_unix_s"))

    def field(self, name: str) -> Values | None:
        """All rows of a field, those at the end without meaning; None if no bar has it."""
        return self._fields.get(name)

    def closes(self) -> Values:
        """All rows of closes that there are."""
        return self._fields[CLOSE][: len(self.sessions)]

    def row_of(self, session: str) -> int | None:
        """The row of a session; None if it is not there."""
        row = bisect_left(self.sessions, session)
        return row if row < len(self.sessions) and self.sessions[row] == session else None

    def revisions_until(self, unix_s: int) -> Sequence[Revision]:
        """Those that were known at an instant."""
        return self.revisions[: bisect_right(self.revisions, unix_s, key=attrgetter("known_at_unix_s"))]

    def forget_before(self, session: str) -> int:
        """Lets go of sessions that nothing reads any more once this one is in hand; returns how many those were. Only if they are many: what
        stays is moved."""
        row = bisect_left(self.sessions, session)
        old = row - LONGEST_WINDOW
        if old < LONGEST_WINDOW:
            return 0
        count = len(self.sessions)
        for name, values in self._fields.items():
            kept = np.zeros((max(LONGEST_WINDOW, count - old), values.shape[1]), np.int64)
            kept[: count - old] = values[old:count]
            self._fields[name] = kept
        del self.sessions[:old]
        del self.known_at[:old]
        self.forgotten += old
        self.revisions = [one for one in self.revisions if one.row >= self.forgotten]
        return old
