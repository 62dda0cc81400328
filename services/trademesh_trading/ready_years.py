"""A year of ready rows, on the disk: its messages, each proved the first time that it is read, and rows of fields out of them.

Whose rows are asked for, and what is done where they are not what was written, is `ready_rows.py`'s; what is in the files `ready_files.py`'s.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from trademesh_trading.bar_matrices import Matrix, Revisions
from trademesh_trading.packed_columns import Pieces
from trademesh_trading.ready_files import ReadyIndex, ReadySet, late_name, read_index, read_late, ready_name


@dataclass(frozen=True)
class Tickers:
    """Which of a set's tickers are wanted: `chosen` of them by their columns, None: all in their order."""

    of: int
    chosen: Matrix | None = None

    @property
    def count(self) -> int:
        """How many."""
        return self.of if self.chosen is None else len(self.chosen)


@dataclass(frozen=True)
class ReadyYear:
    """A file of messages whose index was proved. Rows are those of the year."""

    file: Path
    block_sessions: int
    index: ReadyIndex
    revisions: Revisions | None
    """What became known late, which is in no message."""
    proved: set[int] = field(default_factory=set)
    """Messages that were found to be what was written."""

    def message(self, number: int) -> bytes:
        """One of the messages. Raises OSError if it cannot be read, or is not what was written."""
        begin, end = self.index.begins[number : number + 2].tolist()
        with self.file.open("rb", buffering=0) as content:
            found = os.pread(content.fileno(), end - begin, begin)
        if number not in self.proved:
            if hashlib.sha256(found).digest() != self.index.hashes[number].tobytes():
                raise OSError(f"{self.file} is not what was written from byte {begin} on")
            self.proved.add(number)
        if len(found) < end - begin:
            raise OSError(f"{self.file} has become shorter")
        return found

    def number_of(self, rows: range) -> int | None:
        """Which message has just these rows, and all that is known of them; None if there is none."""
        number, before = divmod(rows.start, self.block_sessions)
        if before or rows.stop != min(rows.start + self.block_sessions, self.index.sizes.shape[1]):
            return None
        late = self.revisions
        return None if late is not None and ((late.rows >= rows.start) & (late.rows < rows.stop)).any() else number

    def messages(self, rows: range) -> Iterator[tuple[memoryview, range]]:
        """Messages in which some rows are, and which of the rows each has. Raises as `message`."""
        for number in range(rows.start // self.block_sessions, (rows.stop - 1) // self.block_sessions + 1):
            first = number * self.block_sessions
            yield memoryview(self.message(number)), range(max(first, rows.start), min(first + self.block_sessions, rows.stop))

    def rows(self, message: memoryview, place: int, rows: range, tickers: Tickers) -> tuple[Pieces, bool]:
        """Some rows of one of FIELDS out of the message that has them, zeros where there is nothing; and whether there is anything."""
        pieces, anything, row = Pieces(), False, rows.start
        for size, alike in groupby(self.index.sizes[place, rows.start : rows.stop].tolist()):
            count = len(list(alike))
            if size:
                start = int(self.index.starts[place, row])
                piece, has_value = _chosen(message[start : start + count * size], count, tickers)
                pieces.append(piece)
                anything |= has_value
            else:
                pieces.append(bytes(count * tickers.count))
            row += count
        return pieces, anything


def _chosen(rows: memoryview, count: int, tickers: Tickers) -> tuple[memoryview, bool]:
    """Some tickers of rows of the same size in which something has a value, and whether it is any of these."""
    if tickers.chosen is None:
        return rows, True
    # All values of a row have the same width.
    width = len(rows) // count // tickers.of
    found = np.frombuffer(rows, f"V{width}").reshape(count, tickers.of).take(tickers.chosen, axis=1).data.cast("B")
    # Zeros of more than one byte have only their topmost bits set: those that tell of another byte.
    return found, bool((np.frombuffer(found, np.uint8) & np.uint8(0x7F)).any())


def open_year(folder: Path, ready: ReadySet, year: int, sessions: int) -> ReadyYear:
    """A year of which READY.json tells, with so many sessions. Raises OSError if its index or late bars are not what was written."""
    name, late = ready_name(year), late_name(year)
    index = read_index(folder / name, ready.files_sha256[name], sessions, -(-sessions // ready.block_sessions))
    revisions = read_late(folder / late, ready.files_sha256[late]) if late in ready.files_sha256 else None
    return ReadyYear(folder / name, ready.block_sessions, index, revisions)
