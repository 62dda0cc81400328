"""The desk's stops as the journal leaves them: from the net asset values that it tells, and from when a person resumed the pipeline.

A resumption before events that were compacted is not known any more: a stop that it lifted then holds again until a person resumes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import itemgetter

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway.risk.stops import Stops
from trademesh_runs.fold import Fold
from trademesh_runs.journal import Draft, JournalReader

BY_A_PERSON = "ResumePipeline"
"""Reason of a state change that a person asked for; the disk's begin otherwise."""


def resumes(change: events.PipelineStateChanged) -> bool:
    """True if a person resumed the pipeline."""
    return change.state == events.PIPELINE_STATE_RUNNING and change.reason == BY_A_PERSON


def hear(stops: Stops, draft: Draft) -> None:
    """Tells the stops of an event as it is journaled."""
    if isinstance(draft.payload, events.PipelineStateChanged) and resumes(draft.payload):
        stops.resume()


def stops_after(reader: JournalReader, fold: Fold, drawdown_stop_bp: int, initial_cash_micros: int) -> Stops:
    """The stops after everything in a journal, whose fold is given."""
    stops = Stops(drawdown_stop_bp, initial_cash_micros)
    for point in fold.equity:
        stops.settle(point.nav_micros)
    if not stops.drawdown_stopped:
        return stops
    # What follows is read only where somebody may have lifted a stop.
    resumed = [one.sequence for one in reader.read_kind("pipeline_state_changed") if resumes(one.parse().pipeline_state_changed)]
    if not resumed:
        return stops
    stops = Stops(drawdown_stop_bp, initial_cash_micros)
    acts: list[tuple[int, Callable[[], None]]] = [(sequence, stops.resume) for sequence in resumed]
    acts += [(point.sequence, partial(stops.settle, point.nav_micros)) for point in fold.equity]
    acts += [(one.sequence, partial(stops.begin_session, one.parse().session_date)) for one in reader.read_kind("session_opened")]
    for _sequence, act in sorted(acts, key=itemgetter(0)):
        act()
    return stops
