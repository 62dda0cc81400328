"""Makes the ready rows of a set, when it is imported: what is in their files is told in `ready_files.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from itertools import accumulate
from pathlib import Path

import numpy as np

from trademesh_trading import wire
from trademesh_trading.bar_matrices import Bars, Flags, Matrix, Revisions
from trademesh_trading.market_set import MarketSet
from trademesh_trading.packed_columns import FIELDS, PackedBars, Pieces, packed, sessions_of_block
from trademesh_trading.ready_files import (
    ReadyIndex,
    ReadySet,
    file_sha256,
    index_bytes,
    late_name,
    read_ready_set,
    ready_name,
    write_ready_set,
)
from trademesh_trading.ready_years import open_year

MOST_LATE_BARS = 20_000
"""Of a year in which more bars became known late there are no ready rows: they would be the smaller part of what is sent, and late bars are
held in memory, a megabyte for so many."""


def write_ready_rows(folder: Path, data: MarketSet, years: Mapping[int, range]) -> None:
    """Writes the ready rows of a set into its folder, unless they are there and whole.

    Args:
        folder: the set's.
        data: the set, whose bars are read a year at a time.
        years: years of which there are bars, and the rows of each.

    Raises:
        DataAbsent: bars are damaged.
        OSError: a file cannot be written.
    """
    if _is_ready(folder, data.record.snapshot, years):
        return
    block_sessions, hashes = sessions_of_block(len(data.instruments)), dict[str, str]()
    for year, rows in years.items():
        bars = data.window(rows, range(len(data.instruments)))
        if bars.revisions is not None and len(bars.revisions.rows) > MOST_LATE_BARS:
            continue
        hashes[ready_name(year)] = _write_year(folder / ready_name(year), data, rows, bars, block_sessions)
        if bars.revisions is not None:
            hashes[late_name(year)] = _write_late(folder / late_name(year), bars.revisions)
    write_ready_set(folder, data.record.snapshot, ReadySet(block_sessions, hashes))


def _is_ready(folder: Path, snapshot: str, years: Mapping[int, range]) -> bool:
    ready = read_ready_set(folder, snapshot)
    try:
        for year, rows in years.items():
            if ready_name(year) in ready.files_sha256:
                found = open_year(folder, ready, year, len(rows))
                for number in range(len(found.index.hashes)):
                    found.message(number)
    except OSError:
        return False
    return bool(ready.block_sessions)


def _write_year(file: Path, data: MarketSet, rows: range, bars: Bars, block_sessions: int) -> str:
    """Writes the messages of a year, bars of some rows of the set, and returns the hash of their index."""
    responses = wire.BlockResponses(data, range(len(data.instruments)), 0)
    firsts = range(0, len(rows), block_sessions)
    starts, sizes = (np.zeros((len(FIELDS), len(rows)), np.int64) for _ in range(2))
    nothing = bytes(len(data.instruments))
    begins, hashes = [index_bytes(len(rows), len(firsts))], list[bytes]()
    unfinished = file.with_name(f".{file.name}")
    with unfinished.open("wb") as content:
        content.seek(begins[0])
        for first in firsts:
            few = range(first, min(first + block_sessions, len(rows)))
            rows_of_fields = {field: _rows(getattr(bars, field), few) for field in FIELDS}
            there = [field for field in FIELDS if field == FIELDS[0] or any(rows_of_fields[field])]
            pieces: dict[str, Pieces] = {field: [row or nothing for row in rows_of_fields[field]] for field in there}
            encoded = responses.encoded(rows[few.start : few.stop], PackedBars(pieces, None))
            for field in there:
                place = FIELDS.index(field)
                sizes[place, few.start : few.stop] = [len(row) for row in rows_of_fields[field]]
                starts[place, few.start : few.stop] = [*accumulate(map(len, pieces[field][:-1]), initial=encoded.begins[field])]
            message = b"".join(encoded.pieces)
            hashes.append(hashlib.sha256(message).digest())
            begins.append(begins[-1] + content.write(message))
        index = ReadyIndex(np.array(begins), np.frombuffer(b"".join(hashes), np.uint8), starts, sizes).encoded()
        content.seek(0)
        content.write(index)
    unfinished.replace(file)
    return hashlib.sha256(index).hexdigest()


def _rows(matrix: Matrix | Flags | None, rows: range) -> list[bytes]:
    """Some sessions of a field, each packed by itself; nothing where none of it has a value."""
    return [b"" if matrix is None or not matrix[row].any() else bytes(packed(matrix[row])) for row in rows]


def _write_late(file: Path, late: Revisions) -> str:
    """Writes bars that became known late, and returns the hash of their file."""
    unfinished = file.with_name(f".{file.name}")
    with unfinished.open("wb") as content:
        np.savez(content, **{field.name: getattr(late, field.name) for field in fields(Revisions)})
    unfinished.replace(file)
    return file_sha256(file)
