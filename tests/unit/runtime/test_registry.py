"""The registry's file: older ones are brought up to date, newer ones refused, and what was accepted is known to the next process."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from trademesh.runtime.v1 import runtime_pb2
from trademesh.runtime.v1 import runtime_service_pb2 as messages
from trademesh_kernel.errors import RequestIdReused
from trademesh_runtime import registry as module
from trademesh_runtime.registry import KEPT_ATTEMPTS, Deletion, Recalled, Registry, Wish, WishKind
from trademesh_runtime.registry_schema import SCHEMA_VERSION

ID = "5f4e4a3e-0b1c-4a53-9f60-1e7d3c2b1a00"

VERSION_1 = """
CREATE TABLE runs (run_id TEXT PRIMARY KEY, position INTEGER NOT NULL UNIQUE, run BLOB NOT NULL);
CREATE TABLE attempts (
    run_id TEXT NOT NULL, generation INTEGER NOT NULL, started_at REAL NOT NULL, ended_at REAL, cause TEXT,
    PRIMARY KEY (run_id, generation)
);
CREATE TABLE requests (request_id TEXT PRIMARY KEY, digest BLOB NOT NULL, answer BLOB NOT NULL, kept_until REAL NOT NULL);
CREATE TABLE revisions (revision INTEGER NOT NULL);
INSERT INTO revisions VALUES (20000);
INSERT INTO attempts VALUES ('old', 1, 1000.5, 1001.5, 'exit 1: fell');
PRAGMA user_version = 1;
"""


def run(run_id: str, revision: int = 0, head: int = 0) -> runtime_pb2.Run:
    return runtime_pb2.Run(run_id=run_id, revision=revision, progress=runtime_pb2.RunProgress(head_sequence=head))


def test_a_registry_of_the_first_version_is_brought_up_to_date_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    request = messages.StartRunRequest(request_id=ID)
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1)
    connection.execute("INSERT INTO runs VALUES ('old', 1, ?)", (run("old").SerializeToString(),))
    connection.execute("INSERT INTO requests VALUES (?, ?, ?, 1e12)", (ID, module._digest(request), b"answer"))
    connection.commit()
    connection.close()
    for _ in range(2):
        registry = Registry(path)
        (attempt,) = registry.attempts("old")
        assert (attempt.generation, attempt.cause, attempt.HasField("code")) == (1, "exit 1: fell", False)
        assert attempt.ended_at.ToMilliseconds() == 1_001_500
        assert registry.recall(request) == Recalled(b"answer")
        assert registry.reserve_revisions(1) > 20000
        assert registry.newest_first() == [(1, run("old"))]
        registry.close()


def test_a_registry_of_a_newer_version_is_refused_with_both_versions_named(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "registry.db")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(SystemExit, match=f"version {SCHEMA_VERSION + 1}.*knows {SCHEMA_VERSION}"):
        Registry(tmp_path / "registry.db")


def test_what_was_asked_of_a_run_and_by_which_request_is_known_after_a_restart(tmp_path: Path) -> None:
    stop = messages.StopRunRequest(run_id="a", reason="asked", request_id=ID)
    registry = Registry(tmp_path / "registry.db")
    registry.save(run("a"))
    assert registry.recall(stop) is None
    registry.wish(Wish("a", WishKind.STOP, "asked", 3), stop)
    registry.close()
    registry = Registry(tmp_path / "registry.db")
    assert registry.wishes() == {"a": Wish("a", WishKind.STOP, "asked", 3)}
    assert registry.recall(stop) == Recalled(None)
    # The same bytes are another request if another method is called.
    for other in (
        messages.StopRunRequest(run_id="b", reason="asked", request_id=ID),
        messages.RestartRunRequest(run_id="a", reason="asked", request_id=ID),
    ):
        with pytest.raises(RequestIdReused):
            registry.recall(other)
    registry.answer(stop, messages.StopRunResponse(run=run("a")))
    assert registry.recall(stop) == Recalled(messages.StopRunResponse(run=run("a")).SerializeToString())
    empty = messages.DeleteRunRequest(run_id="a", request_id=ID[::-1])
    registry.answer(empty, messages.DeleteRunResponse())
    assert registry.recall(empty) == Recalled(b"")
    registry.close()


def test_answers_are_kept_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The clock is moved by hand: nobody waits a day.
    now = [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    registry = Registry(tmp_path / "registry.db")
    request = messages.StopRunRequest(run_id="a", request_id=ID)
    registry.answer(request, messages.StopRunResponse())
    now[0] += 24 * 3600 - 1
    assert registry.recall(request) == Recalled(b"")
    now[0] += 2
    assert registry.recall(request) is None
    registry.close()


def test_progress_of_an_earlier_moment_never_replaces_a_later_word(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.db")
    registry.save(run("a", 5, 50))
    registry.save_progress([run("a", 7, 70), run("nobody", 7, 70)])
    registry.save_progress([run("a", 6, 60)])
    assert registry.get("a") == run("a", 5, 70)
    assert registry.get("nobody") is None
    # A change of state tells the progress too, and is later.
    registry.save(run("a", 8, 80))
    assert registry.get("a") == run("a", 8, 80)
    registry.close()


def test_of_a_deleted_run_only_its_deletion_is_left_and_of_those_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_DELETIONS", 2)
    registry = Registry(tmp_path / "registry.db")
    for number in range(1, 5):
        name = f"r{number}"
        registry.save(run(name, number, 1))
        registry.attempt_begins(name, 1)
        registry.save_progress([run(name, number + 1, 2)])
        registry.wish(Wish(name, WishKind.DELETE, "", 1))
        registry.delete(name, 10 * number)
        assert (registry.get(name), registry.attempts(name), registry.wishes()) == (None, [], {})
    assert registry.deletions() == [Deletion("r3", 30), Deletion("r4", 40)]
    assert registry.forgotten() == 20
    registry.close()


def test_a_run_keeps_its_newest_hundred_attempts_with_how_they_ended(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.db")
    for generation in range(1, KEPT_ATTEMPTS + 6):
        registry.attempt_begins("a", generation)
        registry.attempt_ends("a", generation, "words", None, 9) if generation % 2 else registry.attempt_ends("a", generation, "words", 1)
    registry.attempt_begins("a", KEPT_ATTEMPTS + 6)
    attempts = registry.attempts("a")
    assert [attempt.generation for attempt in attempts] == list(range(KEPT_ATTEMPTS + 6, 6, -1))
    assert not attempts[0].HasField("ended_at")
    assert (attempts[1].signal, attempts[1].HasField("code"), attempts[2].code) == (9, False, 1)
    registry.close()
