"""What a report tells of a run, read from its journal alone. How it looks is `report_page.py`'s, tables for other programs `report_tables.py`'s."""

from __future__ import annotations

from dataclasses import dataclass, field

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_ledger.metrics import Performance, performance
from trademesh_runs.account_history import HISTORY_KINDS, AccountHistory, Figures
from trademesh_runs.journal import KIND_NUMBERS, JournalReader, all_events
from trademesh_runs.scoreboard import KINDS, SIGNALS, Scoreboard

DESK = "desk"


@dataclass(frozen=True)
class Trade:
    """A fill, and the session that it was in."""

    session_date: str
    fill: events.OrderFilled


@dataclass
class ReportData:
    """A run up to a sequence."""

    run_id: str
    as_of_sequence: int
    started: events.RunStarted
    history: AccountHistory
    board: Scoreboard
    trades: list[Trade] = field(default_factory=list)
    compacted_through: int = 0
    """Events up to this one are gone: what is told begins behind it."""

    def curves(self) -> dict[str, list[int]]:
        """Net asset values by name, the desk's first, each beginning with the cash at the start."""
        initial = self.history.initial_cash_micros
        found = {DESK: [initial, *self.history.navs_micros]}
        return found | {name: [initial, *navs] for name, navs in self.history.baselines.items()}

    def figures(self) -> Figures:
        """The desk's figures."""
        return self.history.figures()

    def figures_of_baselines(self) -> dict[str, Performance]:
        """Figures over the curve of each baseline."""
        return {name: performance(curve) for name, curve in self.curves().items() if name != DESK}


def read_report(run_id: str, reader: JournalReader) -> ReportData:
    """Reads a journal to its end."""
    head = reader.head()
    data = ReportData(run_id, head.sequence, events.RunStarted(), AccountHistory(), Scoreboard(), compacted_through=head.compacted_through)
    data.board.whole = not head.compacted_through
    kinds = {KIND_NUMBERS[name] for name in HISTORY_KINDS} | KINDS | {SIGNALS}
    for stored in all_events(reader, 0, head.sequence, kinds=kinds):
        event = stored.parse()
        data.history.add(event)
        if data.board.whole:
            data.board.add(event)
        if event.HasField("order_filled"):
            data.trades.append(Trade(event.session_date, event.order_filled))
        elif event.HasField("run_started"):
            data.started = event.run_started
    return data


def drawdowns(curve: list[int]) -> list[float]:
    """How far each value lies below the highest so far, as a fraction that is not above zero."""
    found, peak = list[float](), 0
    for value in curve:
        peak = max(peak, value)
        found.append(value / peak - 1 if peak > 0 else 0.0)
    return found


def monthly_returns(sessions: list[str], curve: list[int]) -> dict[str, float]:
    """What each month returned, by `YYYY-MM`; each `YYYY` the whole year. The curve begins a session earlier. A month that began without a
    value above zero has none."""
    found = dict[str, float]()
    for length in (7, 4):
        begin = curve[0]
        for place, session in enumerate(sessions):
            last = place + 1 == len(sessions) or sessions[place + 1][:length] != session[:length]
            if last:
                if begin > 0:
                    found[session[:length]] = curve[place + 1] / begin - 1
                begin = curve[place + 1]
    return found
