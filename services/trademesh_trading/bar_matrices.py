"""Bars of many sessions and tickers in memory: a matrix per field, and a list of what became known late.

A window of a few sessions and tickers is the same kind of thing, so that readers need not know where theirs comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Matrix: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Revisions:
    """Bars that came, or were told again, after the close of their session: entry k of every array belongs together.

    Ordered by `known_unix_s`, then row, then column; both count within the matrices that these revise. Prices are 0 where absent, as there.
    An entry replaces all that was known of its bar before.
    """

    known_unix_s: Matrix
    rows: Matrix
    columns: Matrix
    open_micros: Matrix
    high_micros: Matrix
    low_micros: Matrix
    close_micros: Matrix
    volume_plus_one: Matrix
    quality: Flags

    def where(self, chosen: npt.NDArray[np.bool_]) -> Revisions:
        """Some of them, in the same order."""
        return Revisions(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def known_by(self, as_of_unix_s: int) -> Revisions:
        """Those that are known by then."""
        return self.where(self.known_unix_s <= as_of_unix_s)

    def window(self, rows: range, columns: Sequence[int] | None) -> Revisions:
        """Those of some rows and columns, counted within that window."""
        inside = self.where((self.rows >= rows.start) & (self.rows < rows.stop))
        place_of = np.full(int(inside.columns.max(initial=-1)) + 1, -1, np.int64)
        for place, column in enumerate(range(len(place_of)) if columns is None else columns):
            if column < len(place_of):
                place_of[column] = place
        found = inside.where(place_of[inside.columns] >= 0)
        return found.moved(found.rows - rows.start, place_of[found.columns])

    def moved(self, rows: Matrix, columns: Matrix) -> Revisions:
        """The same bars at other places; ordered anew."""
        return replace(self, rows=rows, columns=columns).in_order()

    def in_order(self) -> Revisions:
        """The same, ordered as they must be."""
        order = np.lexsort((self.columns, self.rows, self.known_unix_s))
        return Revisions(*(getattr(self, field.name)[order] for field in fields(self)))


@dataclass(frozen=True)
class Bars:
    """Bars of some sessions and tickers.

    Matrices have a row per session and a column per ticker, and hold what was known at the close of each session: 0 where there is no
    price; `volume_plus_one` holds shares + 1. A field that no bar has is None. `revisions` is None where nothing became known later.
    """

    open_micros: Matrix | None
    high_micros: Matrix | None
    low_micros: Matrix | None
    close_micros: Matrix
    volume_plus_one: Matrix | None
    quality: Flags
    revisions: Revisions | None = None

    def window(self, rows: range, columns: Sequence[int] | None = None) -> Bars:
        """Those of some rows, and of some columns or all."""
        place = (slice(rows.start, rows.stop), slice(None) if columns is None else columns)

        def part(matrix: Matrix | None) -> Matrix | None:
            return None if matrix is None else matrix[place]

        return Bars(
            part(self.open_micros),
            part(self.high_micros),
            part(self.low_micros),
            self.close_micros[place],
            part(self.volume_plus_one),
            self.quality[place],
            None if self.revisions is None else self.revisions.window(rows, columns),
        )

    def memory_bytes(self) -> int:
        """Memory that all of it takes."""
        arrays = [getattr(self, field.name) for field in fields(self) if field.name != "revisions"]
        if self.revisions is not None:
            arrays += [getattr(self.revisions, field.name) for field in fields(self.revisions)]
        return sum(array.nbytes for array in arrays if array is not None)


def joined(parts: Sequence[Bars]) -> Bars:
    """Windows of successive sessions and the same tickers as one; a field that only some have is 0 where the others have none."""

    def matrix(of_parts: Sequence[Matrix | None]) -> Matrix | None:
        if all(one is None for one in of_parts):
            return None
        return np.concatenate([np.zeros_like(part.close_micros) if one is None else one for one, part in zip(of_parts, parts, strict=True)])

    return Bars(
        matrix([part.open_micros for part in parts]),
        matrix([part.high_micros for part in parts]),
        matrix([part.low_micros for part in parts]),
        np.concatenate([part.close_micros for part in parts]),
        matrix([part.volume_plus_one for part in parts]),
        np.concatenate([part.quality for part in parts]),
        _joined_revisions(parts),
    )


def _joined_revisions(parts: Sequence[Bars]) -> Revisions | None:
    found, first = list[Revisions](), 0
    for part in parts:
        if part.revisions is not None:
            found.append(part.revisions.moved(part.revisions.rows + first, part.revisions.columns))
        first += len(part.close_micros)
    if not found:
        return None
    together = Revisions(*(np.concatenate([getattr(one, field.name) for one in found]) for field in fields(Revisions)))
    return together.in_order()
