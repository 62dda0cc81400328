"""Prices of a live feed in the journal: how a run on paper writes them down, and what it finds of earlier generations."""

from __future__ import annotations

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway.pipeline.broker import Moment, SessionTimes
from trademesh_gateway.pipeline.paper_broker import Observed, ObservedKey
from trademesh_runs.journal import Draft, JournalReader


def observed_prices(reader: JournalReader) -> dict[ObservedKey, Observed]:
    """All that is journaled, by session and moment."""
    found = dict[ObservedKey, Observed]()
    for stored in reader.read_kind("prices_observed"):
        event = stored.parse()
        told = event.prices_observed
        prices = Observed(list(told.price_micros), list(told.high_micros), list(told.low_micros))
        found[event.session_date, Moment(int(told.moment))] = prices
    return found


def observation(session: SessionTimes, moment: Moment, found: Observed) -> Draft:
    """The event that says which prices were found at a moment."""
    payload = events.PricesObserved(
        moment=events.SessionMoment.ValueType(moment), price_micros=found.prices, high_micros=found.highs, low_micros=found.lows
    )
    # Of no phase: the close is waited for in that of executions or in that of settlement, and is the same in both.
    return Draft("prices_observed", payload, session.date, item=moment.name)
