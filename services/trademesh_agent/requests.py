"""Answers of creating calls, kept for 24 hours by request id, so that a repeated call gets the same answer."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from google.protobuf.message import Message

from trademesh_agent.control_database import ControlDatabase
from trademesh_kernel.errors import RequestIdReused

KEPT_FOR = timedelta(hours=24)


class RequestMemory:
    """Remembers answers by request id."""

    def __init__(self, database: ControlDatabase, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self.one_at_a_time = threading.Lock()
        """Held from `recall` to `remember`: of two calls with one request id the second waits for the first one's answer."""

    def recall(self, request_id: str, request: Message) -> bytes | None:
        """The encoded answer given before, or None.

        Raises:
            RequestIdReused: the id was used with another body.
        """
        if not request_id:
            return None
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM requests WHERE kept_until_us < ?", (_micros(self._clock()),))
            row = connection.execute("SELECT digest, answer FROM requests WHERE request_id = ?", (request_id,)).fetchone()
        if row is None:
            return None
        if row[0] != _digest(request):
            raise RequestIdReused(request_id)
        return bytes(row[1])

    def remember(self, request_id: str, request: Message, answer: Message) -> None:
        """Keeps an answer; nothing is kept without a request id."""
        if not request_id:
            return
        row = (request_id, _digest(request), answer.SerializeToString(), _micros(self._clock() + KEPT_FOR))
        with self._database.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?)", row)


def _digest(request: Message) -> bytes:
    name = request.DESCRIPTOR.full_name.encode()
    return hashlib.sha256(name + b"\0" + request.SerializeToString(deterministic=True)).digest()


def _micros(instant: datetime) -> int:
    return round(instant.timestamp() * 1_000_000)
