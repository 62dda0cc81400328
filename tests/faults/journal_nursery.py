"""Writers of journals that are there to be killed: a process that has imported everything forks one for each line on its stdin.

    python journal_nursery.py   <- "PATH GENERATION\n"   -> "pid N\n", then from the writer "LAST_SEQUENCE\n" after every commit

A writer appends events as fast as its disk takes them, in groups of many sizes, until it is killed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_runs.journal import Draft, StoredEvent
from trademesh_runs.journal_sqlite import SqliteWriter


async def write_until_killed(path: Path, generation: int) -> None:
    """Never returns."""

    def tell(group: Sequence[StoredEvent]) -> None:
        os.write(1, b"%d\n" % group[-1].sequence)

    writer = SqliteWriter(path, "demo", generation, tell)
    number = 0
    while True:
        for _ in range(1 + number * 7 % 200):
            number += 1
            note = events.PipelineStateChanged(reason=f"event {number} " + "x" * 200)
            writer.append(Draft("pipeline_state_changed", note, item=f"{generation}/{number}"))
        await writer.flush()


def main() -> None:
    """Forks a writer for every line."""
    for line in sys.stdin:
        path, generation = line.split()
        pid = os.fork()
        if pid == 0:
            asyncio.run(write_until_killed(Path(path), int(generation)))
        os.write(1, b"pid %d\n" % pid)
        os.waitpid(pid, 0)
        os.write(1, b"gone\n")


if __name__ == "__main__":
    main()
