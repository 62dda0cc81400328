"""Approvals: each is decided exactly once, the first decision wins, and silence is a no.

Expiry is a fact of the clock, not of a timer: an approval that is read after its time is expired, whether or not anything
ran in between. Watchers are told by a callback; streams are `approval_service.py`'s.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from trademesh_agent.control_database import ControlDatabase
from trademesh_agent.model import Approval, ApprovalState
from trademesh_kernel.errors import ApprovalSettled, FieldViolation, InvalidRequest, NotFound, RequestIdReused
from trademesh_kernel.paging import fitting

_COLUMNS = "approval_id, run_id, title, subject_json, state, decided_by, reason, requested_at_us, expires_at_us, settled_at_us"


class ApprovalBook:
    """Keeps approvals in the database and settles them."""

    def __init__(self, database: ControlDatabase, clock: Callable[[], datetime], changed: Callable[[Approval], None]) -> None:
        """`changed` is called after each commit that adds or settles an approval."""
        self._database = database
        self._clock = clock
        self._changed = changed

    def request(self, approval_id: str, run_id: str, title: str, subject_json: str, ttl: timedelta) -> Approval:
        """Adds an approval, or returns the one that was asked for before with the same subject.

        Raises:
            RequestIdReused: the id belongs to another run or subject.
        """
        self.expire_overdue()
        now = self._clock()
        with self._database.transaction() as connection:
            known = _find(connection, approval_id)
            if known is None:
                connection.execute(
                    "INSERT INTO approvals (approval_id, run_id, title, subject_json, state, requested_at_us, expires_at_us)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (approval_id, run_id, title, subject_json, ApprovalState.PENDING.value, _micros(now), _micros(now + ttl)),
                )
                added = _find(connection, approval_id)
        if known is not None:
            if (known.run_id, known.subject_json) != (run_id, subject_json):
                raise RequestIdReused(approval_id)
            return known
        assert added is not None
        self._changed(added)
        return added

    def get(self, approval_id: str) -> Approval:
        """The approval; raises NotFound."""
        self.expire_overdue()
        with self._database.transaction() as connection:
            found = _find(connection, approval_id)
        if found is None:
            raise NotFound("approval", approval_id)
        return found

    def page(self, run_id: str, state: ApprovalState | None, before_position: int | None, limit: int) -> tuple[list[Approval], int | None]:
        """Approvals, newest first, and the position to go on from (None on the last page)."""
        self.expire_overdue()
        conditions, values = ["1"], list[object]()
        for column, operator, value in (
            ("run_id", "=", run_id or None),
            ("state", "=", state.value if state else None),
            ("position", "<", before_position),
        ):
            if value is not None:
                conditions.append(f"{column} {operator} ?")
                values.append(value)
        query = f"SELECT {_COLUMNS}, position FROM approvals WHERE {' AND '.join(conditions)} ORDER BY position DESC LIMIT ?"
        with self._database.transaction() as connection:
            rows = connection.execute(query, (*values, limit + 1)).fetchall()
        page = fitting(rows[:limit], lambda row: len(row[3].encode()))
        return [_approval(row) for row in page], (page[-1][-1] if len(rows) > len(page) else None)

    def decide(self, approval_id: str, approve: bool, decided_by: str, reason: str, subject_sha256: str) -> Approval:
        """Settles a pending approval. Repeating one's own decision returns it.

        Raises:
            NotFound: there is none of that name.
            InvalidRequest: the subject that was read is not the approval's.
            ApprovalSettled: it was decided otherwise, by someone else, or has expired.
        """
        self.expire_overdue()
        wanted = ApprovalState.APPROVED if approve else ApprovalState.DENIED
        with self._database.transaction() as connection:
            found = _find(connection, approval_id)
            if found is None:
                raise NotFound("approval", approval_id)
            if subject_sha256 != found.subject_sha256:
                text = f"is not the subject's hash ({found.subject_sha256}): read the approval again"
                raise InvalidRequest([FieldViolation("subject_sha256", text)])
            if found.state is not ApprovalState.PENDING:
                if (found.state, found.decided_by) == (wanted, decided_by):
                    return found
                raise ApprovalSettled(approval_id, found.state.name, found.decided_by)
            connection.execute(
                "UPDATE approvals SET state = ?, decided_by = ?, reason = ?, settled_at_us = ? WHERE approval_id = ?",
                (wanted.value, decided_by, reason, _micros(self._clock()), approval_id),
            )
            settled = _find(connection, approval_id)
        assert settled is not None
        self._changed(settled)
        return settled

    def expire_overdue(self) -> None:
        """Marks what nobody answered in time."""
        now_us = _micros(self._clock())
        with self._database.transaction() as connection:
            rows = connection.execute(
                "UPDATE approvals SET state = ?, settled_at_us = expires_at_us WHERE state = ? AND expires_at_us <= ?"
                f" RETURNING {_COLUMNS}",
                (ApprovalState.EXPIRED.value, ApprovalState.PENDING.value, now_us),
            ).fetchall()
        for row in rows:
            self._changed(_approval(row))

    def next_expiry(self) -> datetime | None:
        """When the next pending approval expires."""
        with self._database.transaction() as connection:
            row = connection.execute("SELECT min(expires_at_us) FROM approvals WHERE state = ?", (ApprovalState.PENDING.value,)).fetchone()
        return None if row[0] is None else _instant(row[0])


def _find(connection: sqlite3.Connection, approval_id: str) -> Approval | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM approvals WHERE approval_id = ?", (approval_id,)).fetchone()
    return None if row is None else _approval(row)


def _approval(row: tuple[object, ...]) -> Approval:
    approval_id, run_id, title, subject, state, decided_by, reason, requested, expires, settled = row[:10]
    return Approval(
        str(approval_id),
        str(run_id),
        str(title),
        str(subject),
        ApprovalState(state),
        str(decided_by),
        str(reason),
        _instant(requested),
        _instant(expires),
        None if settled is None else _instant(settled),
    )


def _micros(instant: datetime) -> int:
    return round(instant.timestamp() * 1_000_000)


def _instant(micros: object) -> datetime:
    assert isinstance(micros, int)
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=micros)
