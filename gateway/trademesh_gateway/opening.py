"""What a gateway finds in its run's journal when it begins: the state now for readers, and the desk's account after the last settlement,
from which the session in hand is done again. One fold gives both. It is done in a thread: signals are heard meanwhile.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway.configuration import DeskStart
from trademesh_gateway.pipeline.cycle import OpenSession
from trademesh_runs.fold import Fold, beginning_of, replay_journal
from trademesh_runs.journal import KIND_NUMBERS, JournalReader, StoredEvent, all_events

TELL_S = 5.0
"""So often a supervisor hears that a long fold goes on."""


@dataclass(frozen=True)
class Opened:
    """A journal at the start of a generation."""

    fold: Fold
    desk_start: DeskStart
    open_session: OpenSession
    began: bool
    """True if the journal tells the run's beginning."""


async def open_run(run_id: str, reader: JournalReader, tell: Callable[..., None]) -> Opened:
    """Folds a journal; raises LedgerMismatchError. `tell` hears of progress."""
    folding = asyncio.create_task(asyncio.to_thread(fold_run, run_id, reader), name="fold")
    while not folding.done():
        await asyncio.wait({folding}, timeout=TELL_S)
        if not folding.done():
            tell("progress", what="folds the journal")
    return folding.result()


def fold_run(run_id: str, reader: JournalReader) -> Opened:
    """Folds a journal; raises LedgerMismatchError."""
    settled = reader.read_kind("settled", newest=1)
    settled_through = settled[0].sequence if settled else 0
    fold = replay_journal(run_id, reader, settled_through) if settled else beginning_of(run_id, reader)
    start = DeskStart(fold.sessions_settled, copy.deepcopy(fold.portfolio), fold.fills, fold.peak_nav_micros)
    rest = list(all_events(reader, settled_through))
    fold.apply_all(rest)
    return Opened(fold, start, open_session(rest), fold.began)


def open_session(after_settlement: list[StoredEvent]) -> OpenSession:
    """What the events after the last settlement tell of a session that is not settled."""
    date, given_up_in, executed = "", None, False
    of_interest = {KIND_NUMBERS[kind] for kind in ("session_opened", "cycle_failed", "order_filled", "order_rejected")}
    for stored in after_settlement:
        if stored.kind not in of_interest:
            continue
        event = stored.parse()
        date = event.session_date
        if stored.kind == KIND_NUMBERS["cycle_failed"]:
            given_up_in = int(event.cycle_failed.phase)
        executed = executed or event.phase == events.PHASE_EXECUTION
    return OpenSession(date, given_up_in, executed)
