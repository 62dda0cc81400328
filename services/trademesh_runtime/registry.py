"""`runs/registry.db`: the runs, their gateways, what was asked of them, and answers that are kept for repeated requests. What is
acknowledged survives power loss. The tables are in `registry_schema.py`."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from google.protobuf.message import Message

from trademesh.runtime.v1.runtime_pb2 import GatewayAttempt, Run, RunProgress
from trademesh_kernel.errors import RequestIdReused
from trademesh_runtime.registry_schema import bring_up_to_date

KEPT_REQUESTS_S = 24 * 3600
KEPT_ATTEMPTS = 100
KEPT_DELETIONS = 10_000
"""Of so many deleted runs a watcher that comes back can be told; of older ones only that it has to begin anew."""
REVISIONS_AT_ONCE = 10_000

_SAVE = (
    "INSERT INTO runs (run_id, position, run) VALUES (?, (SELECT coalesce(max(position), 0) + 1 FROM runs), ?)"
    " ON CONFLICT (run_id) DO UPDATE SET run = excluded.run"
)
_RUNS = "SELECT position, run, progress.revision, progress FROM runs LEFT JOIN progress USING (run_id)"


class WishKind(StrEnum):
    """What may be asked of a run."""

    STOP = "stop"
    RESTART = "restart"
    DELETE = "delete"


@dataclass(frozen=True)
class Wish:
    """What was asked of a run last: kept before it is done, so that a runtime_service that was killed meanwhile goes on with it."""

    run_id: str
    kind: WishKind
    reason: str
    generation: int
    """The run's newest when it was asked; a restart is done once there is a later one."""


@dataclass(frozen=True)
class Deletion:
    """A run that is no more."""

    run_id: str
    revision: int


@dataclass(frozen=True)
class Recalled:
    """A request that was accepted before."""

    answer: bytes | None
    """None: it is in hand, or was when an earlier runtime_service ended."""


class Registry:
    """The rows, behind one lock."""

    def __init__(self, path: Path) -> None:
        """Opens the file; ends the process with a word why if it is of a newer version.

        Raises:
            sqlite3.DatabaseError: the file is damaged; the message names it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        self._lock = threading.Lock()
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            # Found now, and not by whoever asks for the row that is on the damaged page.
            (found,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            found = str(error)
        if found != "ok":
            self._connection.close()
            raise sqlite3.DatabaseError(f"{path}: {' '.join(found.split())}")
        bring_up_to_date(self._connection, path)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    # Runs

    def save(self, run: Run) -> None:
        """Adds or replaces a run."""
        with self._lock:
            self._connection.execute(_SAVE, (run.run_id, run.SerializeToString()))

    def save_progress(self, runs: Iterable[Run]) -> None:
        """Keeps how far runs are, all in one transaction. An older word never replaces a newer one, whoever comes last."""
        rows = [(run.run_id, run.revision, run.progress.SerializeToString()) for run in runs]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO progress SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM runs WHERE run_id = ?1) ON CONFLICT (run_id)"
                " DO UPDATE SET revision = excluded.revision, progress = excluded.progress WHERE excluded.revision > revision",
                rows,
            )

    def get(self, run_id: str) -> Run | None:
        """A run, or None."""
        with self._lock:
            row = self._connection.execute(f"{_RUNS} WHERE run_id = ?", (run_id,)).fetchone()
        return None if row is None else _run_of(*row)[1]

    def newest_first(self) -> list[tuple[int, Run]]:
        """All runs with their positions, newest first."""
        with self._lock:
            rows = self._connection.execute(f"{_RUNS} ORDER BY position DESC").fetchall()
        return [_run_of(*row) for row in rows]

    def delete(self, run_id: str, revision: int) -> None:
        """Forgets a run, and keeps that it is gone."""
        with self._transaction() as connection:
            for table in ("runs", "attempts", "progress", "wishes"):
                connection.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))
            connection.execute("INSERT INTO deleted VALUES (?, ?)", (revision, run_id))
            oldest = "SELECT revision FROM deleted ORDER BY revision DESC LIMIT 1 OFFSET ?"
            row = connection.execute(oldest, (KEPT_DELETIONS,)).fetchone()
            if row is not None:
                connection.execute("DELETE FROM deleted WHERE revision <= ?", row)
                connection.execute("UPDATE revisions SET forgotten = ?", row)

    def deletions(self) -> list[Deletion]:
        """Runs that are no more, as far as they are remembered, in order."""
        with self._lock:
            rows = self._connection.execute("SELECT run_id, revision FROM deleted ORDER BY revision").fetchall()
        return [Deletion(*row) for row in rows]

    def forgotten(self) -> int:
        """The newest revision whose deletion is no longer known; 0: all are."""
        with self._lock:
            return int(self._connection.execute("SELECT forgotten FROM revisions").fetchone()[0])

    def reserve_revisions(self, count: int) -> int:
        """The first of so many numbers that are higher than any given out before."""
        with self._lock:
            row = self._connection.execute("UPDATE revisions SET revision = revision + ? RETURNING revision", (count,)).fetchone()
            return int(row[0]) - count + 1

    # Attempts

    def attempt_begins(self, run_id: str, generation: int) -> None:
        """Says that a generation is about to be started: durable before the process is."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO attempts (run_id, generation, started_at) VALUES (?, ?, ?)", (run_id, generation, time.time())
            )
            connection.execute("DELETE FROM attempts WHERE run_id = ? AND generation <= ?", (run_id, generation - KEPT_ATTEMPTS))

    def is_open(self, run_id: str, generation: int) -> bool:
        """True if a generation was to be started, and has not been seen to end."""
        query = "SELECT ended_at IS NULL FROM attempts WHERE run_id = ? AND generation = ?"
        with self._lock:
            row = self._connection.execute(query, (run_id, generation)).fetchone()
        return row is not None and bool(row[0])

    def began_within(self, run_id: str, generation: int, seconds: float) -> bool:
        """True if a generation was started so short a time ago."""
        query = "SELECT started_at FROM attempts WHERE run_id = ? AND generation = ?"
        with self._lock:
            row = self._connection.execute(query, (run_id, generation)).fetchone()
        return row is not None and abs(time.time() - row[0]) < seconds

    def attempt_ends(self, run_id: str, generation: int, cause: str, code: int | None = None, signal: int | None = None) -> None:
        """Says how a generation ended; neither code nor signal: nobody knows."""
        row = (time.time(), cause, code, signal, run_id, generation)
        with self._lock:
            self._connection.execute(
                "UPDATE attempts SET ended_at = ?, cause = ?, code = ?, signal = ? WHERE run_id = ? AND generation = ?", row
            )

    def attempts(self, run_id: str) -> list[GatewayAttempt]:
        """The gateways of a run, newest first."""
        query = (
            "SELECT generation, started_at, ended_at, code, signal, cause FROM attempts WHERE run_id = ? ORDER BY generation DESC LIMIT ?"
        )
        with self._lock:
            rows = self._connection.execute(query, (run_id, KEPT_ATTEMPTS)).fetchall()
        found = list[GatewayAttempt]()
        for generation, started_at, ended_at, code, signal, cause in rows:
            attempt = GatewayAttempt(generation=generation, code=code, signal=signal, cause=cause)
            attempt.started_at.FromMicroseconds(round(started_at * 1e6))
            if ended_at is not None:
                attempt.ended_at.FromMicroseconds(round(ended_at * 1e6))
            found.append(attempt)
        return found

    # What was asked

    def accept(self, run: Run, request: Message, answer: Message) -> None:
        """Adds a run, and with it, wholly or not at all, the answer that a repeated request gets."""
        with self._transaction() as connection:
            connection.execute(_SAVE, (run.run_id, run.SerializeToString()))
            _keep_request(connection, request, answer)

    def wish(self, wish: Wish, request: Message | None = None) -> None:
        """Keeps what is asked of a run in place of what was asked before, and that this request was accepted."""
        with self._transaction() as connection:
            row = (wish.run_id, wish.kind.value, wish.reason, wish.generation)
            connection.execute("INSERT OR REPLACE INTO wishes VALUES (?, ?, ?, ?)", row)
            if request is not None:
                _keep_request(connection, request, None)

    def withdraw(self, run_id: str, request: Message) -> None:
        """Forgets what was asked of a run last, and that this request was accepted: it could not be done."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM wishes WHERE run_id = ?", (run_id,))
            connection.execute("DELETE FROM requests WHERE request_id = ?", (_request_id(request),))

    def wishes(self) -> dict[str, Wish]:
        """What was asked of each run last, if anything was."""
        with self._lock:
            rows = self._connection.execute("SELECT run_id, kind, reason, generation FROM wishes").fetchall()
        return {run_id: Wish(run_id, WishKind(kind), reason, generation) for run_id, kind, reason, generation in rows}

    def answer(self, request: Message, answer: Message) -> None:
        """Keeps the answer that a repeated request gets."""
        with self._transaction() as connection:
            _keep_request(connection, request, answer)

    def recall(self, request: Message) -> Recalled | None:
        """What is known of a request that came before; None: it is new, or has no id. Raises RequestIdReused."""
        request_id = _request_id(request)
        if not request_id:
            return None
        query = "SELECT method, digest, answer, answered FROM requests WHERE request_id = ? AND kept_until >= ?"
        with self._lock:
            row = self._connection.execute(query, (request_id, time.time())).fetchone()
        if row is None:
            return None
        method, digest, answer, answered = row
        if (method, digest) != (request.DESCRIPTOR.full_name, _digest(request)):
            raise RequestIdReused(request_id)
        return Recalled(bytes(answer) if answered else None)

    def close(self) -> None:
        """Closes the database."""
        with self._lock:
            self._connection.close()


class Revisions:
    """Numbers of changes, each higher than any before, also across restarts; the disk is asked once in ten thousand."""

    def __init__(self, registry: Registry) -> None:
        """Reserves the first numbers; raises sqlite3.Error."""
        self._registry = registry
        self._next = registry.reserve_revisions(REVISIONS_AT_ONCE)
        self._reserved_to = self._next + REVISIONS_AT_ONCE

    def next(self) -> int:
        """The next number. A disk that cannot be written does not stop it: it is asked long before numbers run out."""
        if self._next >= self._reserved_to - REVISIONS_AT_ONCE // 2:
            with suppress(sqlite3.Error):
                self._reserved_to = self._registry.reserve_revisions(REVISIONS_AT_ONCE) + REVISIONS_AT_ONCE
        number = self._next
        self._next += 1
        return number


def _run_of(position: int, stored: bytes, revision: int | None, progress: bytes | None) -> tuple[int, Run]:
    """A run with the newest word on how far it is."""
    run = Run.FromString(stored)
    if revision is not None and progress is not None and revision > run.revision:
        run.progress.CopyFrom(RunProgress.FromString(progress))
    return position, run


def _keep_request(connection: sqlite3.Connection, request: Message, answer: Message | None) -> None:
    request_id = _request_id(request)
    if not request_id:
        return
    connection.execute("DELETE FROM requests WHERE kept_until < ?", (time.time(),))
    encoded = b"" if answer is None else answer.SerializeToString()
    row = (request_id, _digest(request), encoded, time.time() + KEPT_REQUESTS_S, request.DESCRIPTOR.full_name, answer is not None)
    connection.execute(
        "INSERT OR REPLACE INTO requests (request_id, digest, answer, kept_until, method, answered) VALUES (?, ?, ?, ?, ?, ?)", row
    )


def _request_id(request: Message) -> str:
    return str(getattr(request, "request_id", ""))


def _digest(request: Message) -> bytes:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
