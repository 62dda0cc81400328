"""What a gateway finds in its run's journal when it begins: the state now for readers, and the desk's account after the last settlement,
from which the session in hand is done again. One fold gives both. It is done in a thread: signals are heard meanwhile.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway import wire
from trademesh_gateway.configuration import DeskStart
from trademesh_gateway.pipeline.cycle import OpenSession
from trademesh_gateway.pipeline.order_book import Cancellation, OrderBook
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
    settled_sessions, portfolio, fills, peak = fold.sessions_settled, copy.deepcopy(fold.portfolio), fold.fills, fold.peak_nav_micros
    working, marks = list(fold.working_orders.values()), dict(fold.marks)
    rest = list(all_events(reader, settled_through))
    fold.apply_all(rest)
    found = open_session(rest)
    orders = order_book(settled_sessions, working, rest, found) if found.given_up_in is None else now_in_force(settled_sessions, fold)
    return Opened(fold, DeskStart(settled_sessions, portfolio, fills, peak, marks, orders), found, fold.began)


def order_book(
    settled_sessions: int, working: list[events.OrderSubmitted], after_settlement: list[StoredEvent], found: OpenSession
) -> OrderBook:
    """Orders in force for a session that is done again: as after the last settlement, with what people did since."""
    submitted, canceled = list(working), dict[str, Cancellation]()
    for stored in after_settlement:
        if stored.kind == KIND_NUMBERS["order_submitted"]:
            submitted.append(stored.parse().order_submitted)
        elif stored.kind == KIND_NUMBERS["order_canceled"]:
            event = stored.parse().order_canceled
            canceled[event.order_id] = Cancellation(event.gated_in_session, event.executed_in_session)
    book = OrderBook(settled_sessions, map(wire.working_order_of, submitted), canceled)
    if found.gated:
        # What people do before the cycle begins again is after the limits of its session, too.
        book.begin(settled_sessions + 1, gated_before=True, executed_before=found.executed_orders)
    return book


def now_in_force(settled_sessions: int, fold: Fold) -> OrderBook:
    """Orders in force where the session in hand was given up: nothing of it is done again, and what comes now is for the next one."""
    book = OrderBook(settled_sessions, map(wire.working_order_of, fold.working_orders.values()))
    book.begin(settled_sessions + 1, gated_before=True)
    return book


def open_session(after_settlement: list[StoredEvent]) -> OpenSession:
    """What the events after the last settlement tell of a session that is not settled."""
    date, given_up_in, gated, executed = "", None, False, set[str]()
    kinds = ("session_opened", "cycle_failed", "orders_gated", "order_filled", "order_rejected", "order_expired")
    of_interest = {KIND_NUMBERS[kind]: kind for kind in kinds}
    for stored in after_settlement:
        if stored.kind not in of_interest:
            continue
        event = stored.parse()
        date = event.session_date
        if stored.kind == KIND_NUMBERS["cycle_failed"]:
            given_up_in = int(event.cycle_failed.phase)
        gated = gated or event.phase >= events.PHASE_GATE
        if event.phase == events.PHASE_EXECUTION:
            executed.add(getattr(event, of_interest[stored.kind]).order_id)
    return OpenSession(date, given_up_in, gated, frozenset(executed))
