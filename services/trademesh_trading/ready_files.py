"""The files of ready rows, which are a year's bars as StreamBars sends them: `ready_writing.py` writes them, `ready_years.py` reads them.

Besides each `bars-<year>.parquet`, which stays the truth and is all that a set needs, there is `ready-<year>.bin`: an index, then one whole
StreamBarsResponse after the other, each with all tickers of as many successive sessions as a message takes; the year's last has fewer. In a
message each row of a field is packed by itself, so that rows can be taken out of it. Bars that became known late are not in it; if there are
any, they are in `late-<year>.npz`. READY.json, written last, tells of which set the files are, and the hashes of indexes and late bars; an
index has the hash of each message, so that each is proved by itself before anything of it is sent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trademesh_trading.bar_matrices import Revisions
from trademesh_trading.packed_columns import FIELDS

LAYOUT = "whole messages, 2"
"""What another version wrote is of another layout, and is not read."""
READY_FILE = "READY.json"

_HASH_BYTES = 32
_NUMBER_BYTES = 8


@dataclass(frozen=True)
class ReadySet:
    """What READY.json says."""

    block_sessions: int
    """Sessions of a message; 0: nothing is ready."""
    files_sha256: Mapping[str, str]
    """By the names of files: of messages the hash of their index, of late bars that of the file."""


NOTHING_READY = ReadySet(0, {})


@dataclass(frozen=True)
class ReadyIndex:
    """Where the messages of a year and the rows in them are; arrays are int64, but for hashes."""

    begins: npt.NDArray[np.int64]
    """Where each message begins in the file, and where the last ends."""
    hashes: npt.NDArray[np.uint8]
    """SHA-256 of each message, a row each."""
    starts: npt.NDArray[np.int64]
    """Where in its message each session's row begins: a row for each of FIELDS, a column per session."""
    sizes: npt.NDArray[np.int64]
    """Bytes of these rows, 0 where nothing in a row has a value. Such a row may be there, with zeros, or its field may not."""

    def encoded(self) -> bytes:
        """As it stands at the beginning of its file."""
        numbers = (part.astype("<i8").tobytes() for part in (self.begins, self.starts, self.sizes))
        return b"".join((*numbers, self.hashes.tobytes()))


def index_bytes(sessions: int, messages: int) -> int:
    """The length of an index."""
    return _NUMBER_BYTES * (messages + 1 + 2 * len(FIELDS) * sessions) + _HASH_BYTES * messages


def read_index(file: Path, sha256: str, sessions: int, messages: int) -> ReadyIndex:
    """The index of a file. Raises OSError if it cannot be read, or is not the one that was written."""
    with file.open("rb") as content:
        index = content.read(index_bytes(sessions, messages))
    if hashlib.sha256(index).hexdigest() != sha256:
        raise OSError(f"{file} does not begin with the index that was written")
    numbers = np.frombuffer(index, "<i8", messages + 1 + 2 * len(FIELDS) * sessions).astype(np.int64, copy=False)
    starts, sizes = numbers[messages + 1 :].reshape(2, len(FIELDS), sessions)
    return ReadyIndex(
        numbers[: messages + 1], np.frombuffer(index, np.uint8)[numbers.nbytes :].reshape(messages, _HASH_BYTES), starts, sizes
    )


def read_ready_set(folder: Path, snapshot: str) -> ReadySet:
    """What READY.json says; nothing, if it says nothing that is understood, or of another set."""
    try:
        said = json.loads((folder / READY_FILE).read_text(encoding="utf-8"))
        if (said["layout"], said["snapshot"]) != (LAYOUT, snapshot) or said["block_sessions"] < 1:
            return NOTHING_READY
        return ReadySet(int(said["block_sessions"]), dict(said["files_sha256"]))
    except (OSError, ValueError, KeyError, TypeError):
        return NOTHING_READY


def write_ready_set(folder: Path, snapshot: str, ready: ReadySet) -> None:
    """Writes READY.json. Raises OSError."""
    said = {"layout": LAYOUT, "snapshot": snapshot, "block_sessions": ready.block_sessions, "files_sha256": dict(ready.files_sha256)}
    unfinished = folder / f".{READY_FILE}"
    unfinished.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(folder / READY_FILE)


def ready_name(year: int) -> str:
    """Name of a year's messages."""
    return f"ready-{year:04}.bin"


def late_name(year: int) -> str:
    """Name of a year's bars that became known late."""
    return f"late-{year:04}.npz"


def read_late(file: Path, sha256: str) -> Revisions:
    """Late bars of a year. Raises OSError if the file cannot be read, or is not the one that was written."""
    if file_sha256(file) != sha256:
        raise OSError(f"{file} is not the file that was written")
    with np.load(file, allow_pickle=False) as saved:
        return Revisions(*(saved[field.name] for field in fields(Revisions)))


def file_sha256(file: Path) -> str:
    """Hash of a file. Raises OSError."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
