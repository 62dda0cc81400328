"""Every run as it is now, and which changed last: what a watch tells. A watcher is one number, the revision that it has seen, so that a
slow one costs nothing and misses nothing but states between two that it sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from trademesh.runtime.v1.runtime_pb2 import Run
from trademesh_runtime.registry import KEPT_DELETIONS, Deletion

CHECKPOINT_S = 5.0


@dataclass(frozen=True)
class Seen:
    """Everything up to this revision was told."""

    revision: int


@dataclass(frozen=True)
class Forgotten:
    """What changed since the revision asked for is not known any more: every run follows."""

    oldest_revision: int


News = Run | Deletion | Seen | Forgotten


class RunChanges:
    """The newest word on each run, those that changed last at the end; deleted runs as far as they are remembered."""

    def __init__(self) -> None:
        self._newest = dict[str, Run | Deletion]()
        self._deletions = 0
        self._moved = asyncio.Event()
        self._ended = False
        self.revision = 0
        """Of the last change."""
        self.forgotten = 0
        """Deletions up to this revision are not told any more."""

    def begin(self, runs: Iterable[Run], deletions: Iterable[Deletion], forgotten: int, revision: int) -> None:
        """Takes in what an earlier runtime_service knew; `revision` is above all that it told. A name may be of a run that was deleted
        and of one that came after it."""
        known: list[Run | Deletion] = [*runs, *deletions]
        for one in sorted(known, key=lambda one: one.revision):
            self._put(one)
        self.forgotten, self.revision = forgotten, revision

    def tell(self, news: Run | Deletion) -> None:
        """Takes in a change; a run is copied."""
        self._put(news)
        self._moved.set()
        self._moved = asyncio.Event()

    def _put(self, news: Run | Deletion) -> None:
        before = self._newest.pop(news.run_id, None)
        self._deletions -= isinstance(before, Deletion)
        if isinstance(news, Run):
            self._newest[news.run_id] = copy_of(news)
        else:
            self._newest[news.run_id] = news
            self._deletions += 1
        self.revision = max(self.revision, news.revision)
        if self._deletions > KEPT_DELETIONS:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        oldest = next(one for one in self._newest.values() if isinstance(one, Deletion))
        del self._newest[oldest.run_id]
        self._deletions -= 1
        self.forgotten = max(self.forgotten, oldest.revision)

    def end(self) -> None:
        """Ends every watch, and those to come at once."""
        self._ended = True
        self._moved.set()

    def was_deleted_after(self, run_id: str, revision: int) -> bool:
        """True if a watcher that has seen so much is to be told that the run is gone, or that it is too late to tell."""
        last = self._newest.get(run_id)
        return (isinstance(last, Deletion) and last.revision > revision) or self._is_too_old(revision)

    def _is_too_old(self, revision: int) -> bool:
        """A revision that was never given out here belongs to another registry: nothing is known of it either."""
        return revision < self.forgotten or revision > self.revision

    async def watch(self, run_id: str, after: int | None) -> AsyncIterator[News]:
        """Every run, or what changed after a revision, then each change; `Seen` after the first part and after five seconds without a word.
        Ends with `end`."""
        seen = 0 if after is None else after
        if after is not None and self._is_too_old(after):
            yield Forgotten(self.forgotten)
            seen, after = 0, None
        first = True
        while True:
            moved = self._moved
            head = self.revision
            told = 0
            for one in self._since(seen):
                if (not run_id or one.run_id == run_id) and (after is not None or isinstance(one, Run)):
                    yield one
                    told += 1
            seen, after = head, head
            if first or not told:
                yield Seen(head)
            first = False
            if self._ended:
                return
            await self._change(run_id, seen, moved)

    async def _change(self, run_id: str, seen: int, moved: asyncio.Event) -> None:
        """Returns when something changed that is watched, when nothing did for a while, or when all watches end."""
        try:
            async with asyncio.timeout(CHECKPOINT_S):
                while True:
                    await moved.wait()
                    moved = self._moved
                    if self._ended or not run_id or any(one.run_id == run_id for one in self._since(seen)):
                        return
        except TimeoutError:
            return

    def _since(self, revision: int) -> list[Run | Deletion]:
        """What changed after a revision, oldest change first."""
        found = list[Run | Deletion]()
        for one in reversed(self._newest.values()):
            if one.revision <= revision:
                break
            found.append(one)
        return found[::-1]


def copy_of(run: Run) -> Run:
    """A run that later changes do not reach."""
    same = Run()
    same.CopyFrom(run)
    return same
