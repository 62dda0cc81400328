"""What a watch of runs tells: every change, and what cannot be told is said."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademesh.runtime.v1.runtime_pb2 import Run
from trademesh_runtime import run_changes
from trademesh_runtime.registry import Deletion
from trademesh_runtime.run_changes import Forgotten, News, RunChanges, Seen


def run(run_id: str, revision: int) -> Run:
    return Run(run_id=run_id, revision=revision)


async def first_part(watch: AsyncIterator[News]) -> list[News]:
    """What a watch tells up to its first checkpoint."""
    found = list[News]()
    async for news in watch:
        found.append(news)
        if isinstance(news, Seen):
            return found
    raise AssertionError("the watch has ended")


def told(changes: RunChanges, after: int | None, run_id: str = "") -> list[News]:
    return asyncio.run(first_part(changes.watch(run_id, after)))


def test_a_watcher_who_comes_back_is_told_what_changed_and_what_is_gone() -> None:
    changes = RunChanges()
    changes.begin([run("a", 1), run("b", 2)], [], 0, 2)
    changes.tell(run("a", 3))
    changes.tell(Deletion("b", 4))
    assert told(changes, None) == [run("a", 3), Seen(4)]
    assert told(changes, 0) == [run("a", 3), Deletion("b", 4), Seen(4)]
    assert told(changes, 3) == [Deletion("b", 4), Seen(4)]
    assert told(changes, 4) == [Seen(4)]
    assert told(changes, 0, "b") == [Deletion("b", 4), Seen(4)]


def test_a_revision_that_is_too_old_or_from_elsewhere_is_answered_by_a_reset_and_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_changes, "KEPT_DELETIONS", 2)
    changes = RunChanges()
    changes.tell(run("a", 1))
    for revision in range(2, 6):
        changes.tell(Deletion(f"gone-{revision}", revision))
    assert changes.forgotten == 3
    for after in (2, 6):
        assert told(changes, after) == [Forgotten(3), run("a", 1), Seen(5)]
    assert told(changes, 3) == [Deletion("gone-4", 4), Deletion("gone-5", 5), Seen(5)]


@given(
    st.lists(st.tuples(st.sampled_from(["change", "delete"]), st.integers(0, 4)), min_size=1, max_size=40),
    st.integers(0, 2**32),
)
def test_whoever_watches_from_anywhere_knows_at_the_end_what_there_is(steps: list[tuple[str, int]], seed: int) -> None:
    chance = random.Random(seed)
    changes = RunChanges()
    truth = dict[str, int]()
    known, seen = dict[str, int](), None
    for revision, (what, number) in enumerate(steps, 1):
        run_id = f"r{number}"
        if what == "change":
            truth[run_id] = revision
            changes.tell(run(run_id, revision))
        elif run_id in truth:
            del truth[run_id]
            changes.tell(Deletion(run_id, revision))
        if chance.random() < 0.3 or revision == len(steps):
            for news in told(changes, seen):
                match news:
                    case Run():
                        assert known.get(news.run_id, 0) < news.revision
                        known[news.run_id] = news.revision
                    case Deletion():
                        known.pop(news.run_id, None)
                    case Forgotten():
                        known.clear()
                    case Seen():
                        seen = news.revision
    assert known == truth


async def test_a_watch_goes_on_with_each_change_and_says_so_while_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = RunChanges()
    watch = changes.watch("a", None)
    assert await anext(watch) == Seen(0)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    # Another run's change is none of this watcher's.
    changes.tell(run("b", 1))
    changes.tell(run("a", 2))
    assert await waiting == run("a", 2)
    monkeypatch.setattr(run_changes, "CHECKPOINT_S", 0.01)
    changes.tell(run("b", 3))
    assert await anext(watch) == Seen(3)
    changes.end()
    assert [news async for news in watch] == []
