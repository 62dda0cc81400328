"""Reading the log files of gateways: the last lines, and what is added."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

_BLOCK_BYTES = 65536
_LONGEST_TAIL_BYTES = 4 * 1024 * 1024
POLL_S = 0.2


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a file, without their ends; none if it is not there."""
    return _tail(path, count)[0]


def _tail(path: Path, count: int) -> tuple[list[str], int]:
    """The last lines and the place behind them."""
    try:
        with path.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            start, content = end, b""
            while start > 0 and content.count(b"\n") <= count and end - start < _LONGEST_TAIL_BYTES:
                start = max(0, start - _BLOCK_BYTES)
                stream.seek(start)
                content = stream.read(end - start)
    except OSError:
        return [], 0
    lines = content.decode(errors="replace").splitlines()
    return (lines[-count:] if count else []), end


async def follow_lines(path: Path, count: int, follow: bool, lives: Callable[[], bool]) -> AsyncIterator[list[str]]:
    """The last lines, then what is added while the writer lives. A file that was cut short is read from its beginning."""
    lines, place = await asyncio.to_thread(_tail, path, count)
    if lines:
        yield lines
    rest = b""
    while follow:
        # Asked before the reading: what was written before the end is read after it.
        alive = lives()
        added, place = await asyncio.to_thread(_read_on, path, place)
        if added:
            *whole, rest = (rest + added).split(b"\n")
            if whole:
                yield [line.decode(errors="replace") for line in whole]
        elif not alive:
            return
        else:
            await asyncio.sleep(POLL_S)


def _read_on(path: Path, place: int) -> tuple[bytes, int]:
    try:
        with path.open("rb") as stream:
            if stream.seek(0, os.SEEK_END) < place:
                place = 0
            stream.seek(place)
            added = stream.read(_BLOCK_BYTES)
            return added, place + len(added)
    except OSError:
        return b"", place
