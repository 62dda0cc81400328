"""Prices of a live feed in the journal: how a run on paper writes them down, and what it finds of earlier generations."""

from __future__ import annotations

from collections.abc import Sequence

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway.pipeline.broker import Moment, SessionTimes
from trademesh_gateway.pipeline.paper_broker import ObservedKey
from trademesh_runs.journal import Draft, JournalReader


def observed_prices(reader: JournalReader) -> dict[ObservedKey, list[int]]:
    """All that is journaled, by session and moment: micro-dollars by ticker."""
    found = dict[ObservedKey, list[int]]()
    for stored in reader.read_kind("prices_observed"):
        event = stored.parse()
        found[event.session_date, Moment(int(event.prices_observed.moment))] = list(event.prices_observed.price_micros)
    return found


def observation(session: SessionTimes, moment: Moment, prices: Sequence[int]) -> Draft:
    """The event that says which prices were found at a moment."""
    payload = events.PricesObserved(moment=events.SessionMoment.ValueType(moment), price_micros=prices)
    # Of no phase: the close is waited for in that of executions or in that of settlement, and is the same in both.
    return Draft("prices_observed", payload, session.date, item=moment.name)
