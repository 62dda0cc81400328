"""What agents know of their own work when a person asks: the newest of each kind in the journal, as the records that `agents/answers.py`
speaks from. Nothing is kept here, so a gateway that was started again knows the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway import wire
from trademesh_gateway.agents.answers import percent
from trademesh_gateway.agents.records import Stance
from trademesh_gateway.agents.work import AnalystWork, Choice, Fate, Headroom, ManagerWork, Passage, RiskWork, View
from trademesh_runs.journal import KIND_NUMBERS, JournalReader

_OUTCOMES = frozenset(
    KIND_NUMBERS[kind] for kind in ("orders_gated", "approval_resolved", "order_canceled", "order_rejected", "order_filled", "cycle_failed")
)
_MOST_OUTCOMES = 100_000
"""More than the orders of any session."""
_UNITS = {
    events.LIMIT_UNIT_FRACTION_OF_NAV: "of net asset value",
    events.LIMIT_UNIT_FRACTION_OF_PEAK: "below the peak",
    events.LIMIT_UNIT_FRACTION_OF_PREVIOUS_NAV: "lost in a session",
    events.LIMIT_UNIT_SUM_OF_SQUARED_WEIGHTS: "as the sum of squared weights",
    events.LIMIT_UNIT_FRACTION_OF_VOLUME: "of the usual volume",
    events.LIMIT_UNIT_ORDERS: "orders",
}
"""In words, behind a figure."""


@dataclass(frozen=True)
class Known:
    """The newest work of agents, as far as there is any, and up to where the journal was compacted."""

    analysts: dict[str, AnalystWork] = field(default_factory=dict)
    risk: RiskWork | None = None
    manager: ManagerWork | None = None
    compacted_through: int = 0


def recall(reader: JournalReader, analysts: Collection[str]) -> Known:
    """Reads it, of these analysts and the two managers."""
    return Known(_analysts(reader, analysts), _risk(reader), _manager(reader), reader.head().compacted_through)


def _analysts(reader: JournalReader, wanted: Collection[str]) -> dict[str, AnalystWork]:
    found = dict[str, AnalystWork]()
    # Each analyst journals once a session, in a fixed order: of twice as many, the newest of each is among them.
    for stored in reversed(reader.read_kind("signals", newest=2 * len(wanted))):
        if stored.agent_id in wanted and stored.agent_id not in found:
            event = stored.parse()
            found[stored.agent_id] = AnalystWork(event.session_date, _views(event.signals), event.signals.abstained_because)
    return found


def _views(message: events.Signals) -> dict[str, View]:
    return {
        one.ticker: View(
            Stance(one.stance),
            one.score,
            one.confidence,
            one.horizon_sessions,
            one.note,
            tuple((column.name, column.values[place]) for column in message.figures if math.isfinite(column.values[place])),
        )
        for place, one in enumerate(message.signals)
    }


def _risk(reader: JournalReader) -> RiskWork | None:
    for stored in reader.read_kind("risk_notes", newest=1):
        event = stored.parse()
        notes = event.risk_notes
        headroom = {
            note.ticker: Headroom(
                note.max_buy_shares,
                note.max_sell_shares,
                note.volatility if note.HasField("volatility") else None,
                _limit(note.limit),
                note.severity in (events.SEVERITY_WARN, events.SEVERITY_BLOCK),
            )
            for note in notes.notes
        }
        return RiskWork(event.session_date, notes.nav_micros, notes.gross, notes.net, notes.drawdown, headroom)
    return None


def _manager(reader: JournalReader) -> ManagerWork | None:
    for stored in reader.read_kind("decisions", newest=1):
        event = stored.parse()
        settled = reader.read_kind("settled", newest=1)
        is_settled = bool(settled) and settled[0].sequence > stored.sequence
        outcomes = _outcomes(reader, event.session_date, stored.sequence, settled[0].sequence if is_settled else None)
        choices = {one.ticker: outcomes.choice(one) for one in event.decisions.decisions}
        return ManagerWork(event.session_date, choices, is_settled, outcomes.given_up_because)
    return None


def _outcomes(reader: JournalReader, session: str, after: int, through: int | None) -> _Outcomes:
    """What followed a session's decisions, up to its settlement if there is one."""
    found = _Outcomes(session)
    for stored in reader.read(after, _MOST_OUTCOMES, through, _OUTCOMES):
        found.take(stored.parse())
    return found


class _Outcomes:
    """What became of a session's orders, by name: one that a person submitted is not the portfolio manager's."""

    def __init__(self, session: str) -> None:
        self.given_up_because = ""
        self._session = session
        self._passages = dict[str, Passage]()
        self._fates = dict[str, Fate]()

    def take(self, event: events.Event) -> None:
        """Takes in an event, in the journal's order."""
        match event.WhichOneof("payload"):
            case "orders_gated":
                for result in event.orders_gated.results:
                    self._passages[result.order.order_id] = _passage(result)
            case "approval_resolved":
                resolved = event.approval_resolved
                what = "approved" if resolved.approved else "refused"
                said = f"{what} by {resolved.decided_by}" if resolved.decided_by else "nobody decided on it in time"
                self._fate(resolved.order_id).sayings.append(said + (f" ({resolved.reason})" if resolved.reason else ""))
            case "order_canceled":
                self._fate(event.order_canceled.order_id).sayings.append(f"taken back by {event.order_canceled.canceled_by}")
            case "order_rejected":
                rejected = event.order_rejected
                self._fate(rejected.order_id).sayings.append(f"{rejected.quantity:,} were not filled: {_limit(rejected.reason)}")
            case "order_filled":
                filled, fate = event.order_filled, self._fate(event.order_filled.order_id)
                fate.filled, fate.price_micros, fate.position = fate.filled + filled.quantity, filled.price_micros, filled.position_quantity
            case "cycle_failed":
                self.given_up_because = event.cycle_failed.reason

    def _fate(self, order_id: str) -> Fate:
        return self._fates.setdefault(order_id, Fate())

    def choice(self, one: events.Decision) -> Choice:
        """A decision with what became of it."""
        order_id = wire.order_id(self._session, one.ticker)
        delta = one.quantity if one.action == words.ACTION_LONG else -one.quantity
        return Choice(delta, one.score, one.confidence, one.target_weight, self._passages.get(order_id), self._fate(order_id))


def _passage(result: events.GateResult) -> Passage:
    return Passage(
        result.requested_quantity,
        result.order.quantity,
        _limit(result.limit) + (f" of {result.group}" if result.group else ""),
        _figure(result.limit_value, result.unit) if result.HasField("limit_value") else "",
        _figure(result.figure, result.unit) if result.HasField("figure") else "",
        _UNITS.get(result.unit, ""),
    )


def _figure(value: float, unit: events.LimitUnit.ValueType) -> str:
    """What is held against a limit, as it is read."""
    if unit == events.LIMIT_UNIT_ORDERS:
        return f"{value:.0f}"
    return f"{value:.2f}" if unit == events.LIMIT_UNIT_SUM_OF_SQUARED_WEIGHTS else percent(value)


def _limit(code: events.LimitCode.ValueType) -> str:
    """A limit in words; empty if it is none."""
    return events.LimitCode.Name(code).removeprefix("LIMIT_CODE_").replace("_", " ").lower() if code else ""
