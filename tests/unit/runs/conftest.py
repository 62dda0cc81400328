"""Journals for tests, in every form that there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from trademesh_runs.journal import JournalStore
from trademesh_runs.journal_memory import MemoryStore
from trademesh_runs.journal_sqlite import SqliteStore


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> JournalStore:
    """An empty journal."""
    return SqliteStore(tmp_path / "j.db") if request.param == "sqlite" else MemoryStore()
