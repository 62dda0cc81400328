"""How right agents were, from the events of a run as they come: predictions meet the closes of their session when it is settled.

Settled events tell every close, so the journal alone is enough, and what is told of a finished run is what was told while it lived. The
formulas are the ledger's; messages for clients and files for dashboards are made by who asks.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_ledger.metrics import ClosingTrade, closing_fee
from trademesh_ledger.money import divide_half_even
from trademesh_ledger.scores import BrierScore, HitCount, rank_correlation, ranks, went_right
from trademesh_runs.journal import KIND_NUMBERS, JournalReader, StoredEvent, all_events

RECENT_OUTCOMES = 100
_COUNTED = ("run_started", "corporate_actions_applied", "predictions", "order_filled", "settled")
KINDS = frozenset(KIND_NUMBERS[name] for name in _COUNTED)
"""What hits are counted from; `signals` beside them for information coefficients."""
SIGNALS = KIND_NUMBERS["signals"]

_UP, _DOWN = events.DIRECTION_UP, events.DIRECTION_DOWN
_CLOSING = (events.LEG_KIND_SELL, events.LEG_KIND_COVER)
_Columns = dict[str, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one prediction. Closes are 0 where there is none."""

    session_date: str
    ticker: str
    direction: int
    earlier_close_micros: int
    close_micros: int

    @property
    def right(self) -> bool | None:
        """Whether the price went there; None without both closes, and for neutral predictions."""
        if self.direction not in (_UP, _DOWN):
            return None
        return went_right(self.direction == _UP, self.earlier_close_micros, self.close_micros)

    @property
    def real_return(self) -> float | None:
        """What the price did, a fraction; None without both closes."""
        known = self.earlier_close_micros and self.close_micros
        return self.close_micros / self.earlier_close_micros - 1 if known else None


class _Closes(NamedTuple):
    """The closes of a settled session, and those before."""

    columns: _Columns
    earlier: Sequence[int]
    closes: Sequence[int]

    def of(self, ticker: str) -> tuple[int, int]:
        """Before and after; 0 where there is none, both of a ticker that is not the run's."""
        column = self.columns.get(ticker)
        return (0, 0) if column is None else (self.earlier[column], self.closes[column])

    def went(self) -> dict[str, int]:
        """The direction that each ticker took that has both closes; 0 if it stood still."""
        return {
            ticker: _UP if after > before else _DOWN if after < before else 0
            for ticker, before, after in zip(self.columns, self.earlier, self.closes, strict=False)
            if before and after
        }


class _Settled(NamedTuple):
    """Predictions of a settled session, with what they are measured by."""

    session_date: str
    rows: Sequence[events.Prediction]
    closes: _Closes

    def outcomes(self) -> Iterator[Outcome]:
        """What came of each, the last first."""
        for row in reversed(self.rows):
            yield Outcome(self.session_date, row.ticker, row.direction, *self.closes.of(row.ticker))


class _Said(NamedTuple):
    """What agents said in a session."""

    session_date: str
    predictions: dict[str, Sequence[events.Prediction]]
    signals: dict[str, Sequence[events.Signal]]


@dataclass
class AgentRecord:
    """What an agent's predictions came to."""

    bull: HitCount = field(default_factory=HitCount)
    bear: HitCount = field(default_factory=HitCount)
    neutral: int = 0
    sessions_predicted: int = 0
    brier: BrierScore = field(default_factory=BrierScore)
    coefficients: list[float] = field(default_factory=list)
    """Information coefficient of each session that has one."""
    _recent: deque[_Settled] = field(default_factory=deque)
    """The newest sessions, as many as have the outcomes that are kept."""
    _recent_rows: int = 0

    @property
    def all(self) -> HitCount:
        """Both directions together."""
        return self.bull.add(self.bear)

    def score(self, session: str, rows: Sequence[events.Prediction], closes: _Closes, went: Mapping[str, int]) -> None:
        """Takes in the predictions of a settled session; `went` is that of the closes.

        What `went_right` and `BrierScore.add` do, written out: a run of decades has hundreds of thousands of rows, and their calls are most of
        the work (test_scoreboard.py holds this against them).
        """
        self.sessions_predicted += 1
        self._keep(_Settled(session, rows, closes))
        bull, bear, brier = self.bull, self.bear, self.brier
        neutral, scored, squares = 0, brier.predictions, brier.squares
        # A slice of a message's rows is there in three quarters of the time that going through them takes.
        for row in rows[:]:
            direction = row.direction
            if direction == _UP:
                count = bull
            elif direction == _DOWN:
                count = bear
            else:
                neutral += 1
                continue
            count.predictions += 1
            taken = went.get(row.ticker)
            if taken is None:
                count.unknown += 1
                continue
            scored += 1
            if taken == direction:
                count.wins += 1
                squares += (row.confidence - 1) ** 2
            else:
                squares += row.confidence**2
        brier.predictions, brier.squares = scored, squares
        self.neutral += neutral

    def copy(self) -> AgentRecord:
        """A record of its own with the same content."""
        return replace(
            self,
            bull=replace(self.bull),
            bear=replace(self.bear),
            brier=replace(self.brier),
            coefficients=self.coefficients[:],
            _recent=self._recent.copy(),
        )

    def _keep(self, settled: _Settled) -> None:
        self._recent.append(settled)
        self._recent_rows += len(settled.rows)
        while self._recent_rows - len(self._recent[0].rows) >= RECENT_OUTCOMES:
            self._recent_rows -= len(self._recent.popleft().rows)

    def newest_outcomes(self) -> list[Outcome]:
        """The newest outcomes, newest first."""
        return list(islice((outcome for settled in reversed(self._recent) for outcome in settled.outcomes()), RECENT_OUTCOMES))


class Scoreboard:
    """The records of a run's agents up to a sequence."""

    def __init__(self) -> None:
        self.sequence = 0
        self.agents: dict[str, AgentRecord] = {}
        self.sessions = 0
        self.closing_trades = 0
        self.gains = 0
        """Closing trades with a gain after their fee."""
        self.losses = 0
        self.whole = True
        """False if events that count were compacted before they were seen: nothing is counted any more."""
        self._columns: _Columns = {}
        self._earlier: Sequence[int] = ()
        self._waits = False
        """True if what is predicted is what follows the session's close: predictions wait for the next one."""
        self._predictions: dict[str, Sequence[events.Prediction]] = {}
        self._signals: dict[str, Sequence[events.Signal]] = {}
        self._waiting = _Said("", {}, {})

    def catch_up(self, reader: JournalReader, through: int, *, coefficients: bool = False) -> Scoreboard:
        """Takes in what a journal has more, up to a sequence; with signals, which are most of it, only for information coefficients."""
        if reader.head().compacted_through > self.sequence:
            self.whole = False
            return self
        kinds = KINDS | {SIGNALS} if coefficients else KINDS
        if through > self.sequence:
            self.add_all(all_events(reader, self.sequence, through, kinds=kinds), through)
        return self

    def add_all(self, stored: Iterable[StoredEvent], through: int) -> None:
        """Takes in events that follow, up to a sequence; nothing if earlier ones are missing."""
        if self.whole:
            for event in stored:
                self.add(event.parse(), event.kind)
            self.sequence = through

    def add(self, event: events.Event, kind: int | None = None) -> None:
        """Takes in one event, which is not before others; kinds that do not count are passed over. `kind` is its number, where that is known."""
        if kind is None:
            kind = KIND_NUMBERS.get(event.WhichOneof("payload") or "")
        handler = _HANDLERS.get(kind)
        if handler is not None:
            handler(self, event)
            self.sequence = event.sequence

    def _on_predictions(self, event: events.Event) -> None:
        self._predictions[event.agent_id] = event.predictions.predictions

    def _on_signals(self, event: events.Event) -> None:
        self._signals[event.agent_id] = event.signals.signals

    def _on_run_started(self, event: events.Event) -> None:
        started = event.run_started
        self._columns = {ticker: column for column, ticker in enumerate(started.tickers)}
        self.agents = {agent_id: AgentRecord() for agent_id in started.agent_ids}
        self._waits = started.decides_at_fill_price

    def _on_corporate_actions_applied(self, event: events.Event) -> None:
        self._earlier = self._restated(event.corporate_actions_applied)

    def _on_order_filled(self, event: events.Event) -> None:
        trade = closing_trade(event.order_filled)
        if trade is not None:
            result = trade.realised_micros - trade.fee_micros
            self.closing_trades += 1
            self.gains += result > 0
            self.losses += result < 0

    def _on_settled(self, event: events.Event) -> None:
        self.sessions += 1
        settled, columns = event.settled, self._columns
        after: Sequence[int] = settled.close_micros[:] or [0] * len(columns)
        closes = _Closes(columns, settled.earlier_close_micros[:] or self._earlier or [0] * len(after), after)
        said = _Said(event.session_date, self._predictions, self._signals)
        if self._waits:
            said, self._waiting = self._waiting, said
        went = closes.went() if said.predictions else {}
        for agent_id, predictions in said.predictions.items():
            self._record(agent_id).score(said.session_date, predictions, closes, went)
        for agent_id, signals in said.signals.items():
            coefficient = _coefficient(signals, closes)
            if coefficient is not None:
                self._record(agent_id).coefficients.append(coefficient)
        self._earlier = after
        self._predictions, self._signals = {}, {}

    def _record(self, agent_id: str) -> AgentRecord:
        found = self.agents.get(agent_id)
        if found is None:
            found = self.agents[agent_id] = AgentRecord()
        return found

    def _restated(self, applied: events.CorporateActionsApplied) -> list[int]:
        """The closes before, in shares of after the morning's splits."""
        earlier = list(self._earlier)
        for action in applied.actions:
            column = self._columns.get(action.ticker)
            if action.WhichOneof("action") == "split" and column is not None and earlier:
                earlier[column] = divide_half_even(earlier[column] * action.split.old, action.split.new)
        return earlier

    def copy(self) -> Scoreboard:
        """A board of its own with the same content: what is said in the session in hand is shared, messages do not change."""
        same = copy.copy(self)
        same.agents = {agent_id: record.copy() for agent_id, record in self.agents.items()}
        same._predictions, same._signals = self._predictions.copy(), self._signals.copy()
        return same

    def ranking(self) -> list[tuple[str, int | None, AgentRecord]]:
        """Agents with their ranks: best first, then those that have none, by id."""
        places = ranks({agent_id: record.all for agent_id, record in self.agents.items()})
        order = sorted(self.agents, key=lambda agent_id: (places[agent_id] is None, places[agent_id] or 0, agent_id))
        return [(agent_id, places[agent_id], self.agents[agent_id]) for agent_id in order]


_HANDLERS: dict[int | None, Callable[[Scoreboard, events.Event], None]] = {
    KIND_NUMBERS[kind]: getattr(Scoreboard, f"_on_{kind}") for kind in (*_COUNTED, "signals")
}


def _coefficient(signals: Sequence[events.Signal], closes: _Closes) -> float | None:
    scores, returns = list[float](), list[float]()
    for signal in signals:
        before, after = closes.of(signal.ticker)
        if before and after and signal.stance != events.STANCE_ABSTAIN:
            scores.append(signal.score)
            returns.append(after / before)
    return rank_correlation(scores, returns)


def closing_trade(fill: events.OrderFilled) -> ClosingTrade | None:
    """The part of a fill that closed a position, with its share of the order's fee; None if none did."""
    closed = sum([leg.quantity for leg in fill.legs[:] if leg.kind in _CLOSING])
    return ClosingTrade(fill.realised_micros, closing_fee(fill.fee_micros, closed, fill.quantity)) if closed else None
