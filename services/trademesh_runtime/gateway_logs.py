"""The log files of gateways: the last lines, what is added, and a bound on their size.

A gateway writes to a file that it keeps open for appending, and would lose its words if it wrote to a pipe whose reader has gone. So the file
is cut by us: its end is copied beside it (`….log.1`, one such file), and the file itself begins anew.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from trademesh_kernel.atomic_files import replace_file
from trademesh_kernel.logs import get_logger

_BLOCK_BYTES = 65536
_LONGEST_TAIL_BYTES = 4 * 1024 * 1024
_LONGEST_LINE_BYTES = 16 * 1024
"""What a line has beyond it is left out, and a line that does not end is told in parts."""
_LINES_AT_ONCE = 100
POLL_S = 0.2


def earlier(path: Path) -> Path:
    """Where the end of what was cut off is kept."""
    return path.with_name(path.name + ".1")


def cut_log(path: Path, most_bytes: int, kept_bytes: int) -> int:
    """Cuts a log that is larger than it may be, and says so in it. What its writer adds between the copy and the cut is lost, and nothing else of the end.

    Returns:
        How many bytes were left out altogether; 0 if the log is small enough.
    """
    try:
        with path.open("r+b") as stream:
            size = stream.seek(0, os.SEEK_END)
            if size <= most_bytes:
                return 0
            stream.seek(size - kept_bytes)
            # The line that the end begins in the middle of is left out, too.
            kept = stream.read(kept_bytes).partition(b"\n")[2]
            replace_file(earlier(path), kept, durable=False)
            stream.truncate(0)
        with path.open("ab") as stream:
            stream.write(json.dumps({"event": "log_truncated", "left_out_bytes": size - len(kept)}).encode() + b"\n")
    except FileNotFoundError:
        return 0
    return size - len(kept)


def drop_log(path: Path) -> None:
    """Deletes a log, with what was cut off of it. Raises OSError."""
    for part in (path, earlier(path)):
        part.unlink(missing_ok=True)


async def keep_within(path: Path, most_bytes: int, interval_s: float) -> None:
    """Cuts a log whenever it has grown too large, and keeps the last quarter of so much. Never returns."""
    while True:
        try:
            left_out = await asyncio.to_thread(cut_log, path, most_bytes, most_bytes // 4)
        except OSError as error:
            get_logger("supervisor").error("a log cannot be cut", path=str(path), reason=str(error))
        else:
            if left_out:
                get_logger("supervisor").warning("log_truncated", path=str(path), left_out_bytes=left_out)
        await asyncio.sleep(interval_s)


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a log, without their ends; none if it is not there."""
    lines, rest, _place = _last(path, count)
    return [*lines, *_decoded([rest] if rest else [])][-count:] if count else []


def _last(path: Path, count: int) -> tuple[list[str], bytes, int]:
    """As `_tail`, with lines of the part that was cut off if the log has too few."""
    lines, rest, place = _tail(path, count)
    if len(lines) < count:
        before, unfinished, _place = _tail(earlier(path), count)
        # The writer may have been in the middle of a line when the log was cut: its two parts stay two lines.
        lines = [*before, *_decoded([unfinished] if unfinished else []), *lines][-count:]
    return lines, rest, place


def _tail(path: Path, count: int) -> tuple[list[str], bytes, int]:
    """The last whole lines, what follows them, and the place behind that."""
    try:
        with path.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            start, content = end, b""
            while start > 0 and content.count(b"\n") <= count and end - start < _LONGEST_TAIL_BYTES:
                start = max(0, start - _BLOCK_BYTES)
                stream.seek(start)
                content = stream.read(end - start)
    except OSError:
        return [], b"", 0
    *whole, rest = content.split(b"\n")
    return (_decoded(whole[-count:]) if count else []), rest[-_LONGEST_LINE_BYTES:], end


def _decoded(lines: list[bytes]) -> list[str]:
    return [line[:_LONGEST_LINE_BYTES].decode(errors="replace") for line in lines]


async def follow_lines(path: Path, count: int, follow: bool, lives: Callable[[], bool]) -> AsyncIterator[list[str]]:
    """The last lines, then what is added while the writer lives. A file that was cut short is read from its beginning."""
    lines, rest, place = await asyncio.to_thread(_last, path, count)
    for start in range(0, len(lines), _LINES_AT_ONCE):
        yield lines[start : start + _LINES_AT_ONCE]
    if not follow and rest:
        yield _decoded([rest])
    while follow:
        # Asked before the reading: what was written before the end is read after it.
        alive = lives()
        added, place = await asyncio.to_thread(_read_on, path, place)
        if added:
            *whole, rest = (rest + added).split(b"\n")
            if len(rest) > _LONGEST_LINE_BYTES:
                whole, rest = [*whole, rest], b""
            if whole:
                yield _decoded(whole)
        elif not alive:
            if rest:
                yield _decoded([rest])
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
