"""The fold: from events to the state at a sequence.

`replay_journal` takes every fill through the exact ledger and trusts no total that it reads. `fold_journal` gives the same state sooner:
it begins with the account that the newest settled event tells, and reads what the rest needs by kind. Both begin at the snapshot of a
journal that was compacted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1 import state_pb2 as state
from trademesh_kernel.errors import HistoryCompacted
from trademesh_ledger.corporate_actions import apply_actions
from trademesh_ledger.portfolio import Portfolio
from trademesh_runs.journal import KIND_NUMBERS, SETTLED, JournalReader, StoredEvent, all_events
from trademesh_runs.told_accounts import amounts_told, corporate_action_of, portfolio_of, positions_told

RECENT_FILLS = 100


class LedgerMismatchError(Exception):
    """An event says other than the ledger; `sequence` is the event's."""

    def __init__(self, sequence: int, what: str, said: object, computed: object) -> None:
        super().__init__(f"event {sequence}: {what} is {said}, the ledger has {computed}")
        self.sequence = sequence


class Fold:
    """The state of a run, event by event."""

    def __init__(self, run_id: str, epoch: int = 1) -> None:
        self.run_id = run_id
        self.epoch = epoch
        self.sequence = 0
        self.portfolio = Portfolio(0)
        self.marks: dict[str, int] = {}
        self.pipeline_state = events.PIPELINE_STATE_READY
        self.pipeline_reason = ""
        self.pace = 0.0
        self.session_date = ""
        self.phase = 0
        self.sessions_settled = 0
        self.sessions_total = 0
        self.nav_micros = 0
        self.peak_nav_micros = 0
        self.fills = 0
        self.baselines: Sequence[events.Baseline] = ()
        self._curve = state.ServerState()
        self.recent_fills: deque[tuple[str, events.OrderFilled]] = deque(maxlen=RECENT_FILLS)
        """With their sessions, newest first."""
        self.working_orders: dict[str, events.OrderSubmitted] = {}
        """Orders of people that are in force, oldest first."""

    @classmethod
    def at(cls, message: state.ServerState, epoch: int) -> Fold:
        """A fold that goes on from a state, which is that after a settled event: at any other it does not tell every mark."""
        fold = cls(message.run_id, epoch)
        fold.sequence = message.as_of_sequence
        pipeline = message.pipeline
        fold.pipeline_state, fold.pipeline_reason, fold.pace = pipeline.state, pipeline.reason, pipeline.pace_sessions_per_s
        fold.session_date, fold.phase = pipeline.session_date, pipeline.phase
        fold.sessions_settled, fold.sessions_total = pipeline.sessions_settled, pipeline.sessions_total
        fold.begin_with(message.portfolio)
        fold.nav_micros, fold.peak_nav_micros, fold.fills = message.nav_micros, message.peak_nav_micros, message.fills
        fold.baselines = message.baselines
        fold._curve.equity.extend(message.equity)
        fold.recent_fills.extend((fill.session_date or fill.order_id.partition("/")[0], fill) for fill in message.recent_fills)
        fold.working_orders = {working.order.order_id: working for working in message.working_orders}
        return fold

    @property
    def equity(self) -> Sequence[state.EquityPoint]:
        """The curve. It is kept in one message: as messages of their own its points take five times the room."""
        return self._curve.equity

    def _add_point(self, session_date: str, event: events.Settled, sequence: int) -> None:
        self._curve.equity.add(session_date=session_date, nav_micros=event.nav_micros, baselines=event.baselines, sequence=sequence)

    @property
    def began(self) -> bool:
        """True if the run began: its first event of the desk was taken in."""
        return self.sessions_total > 0

    def begin_with(self, account: events.PortfolioState) -> None:
        """Takes an account as it is told at a close."""
        self.portfolio = portfolio_of(account)
        self.marks = {position.ticker: position.mark_micros for position in account.positions}

    def apply(self, stored: StoredEvent, event: events.Event | None = None) -> None:
        """Takes in one event, which is the next; raises LedgerMismatchError. `event` is what it parses to, where that is at hand."""
        self.sequence = stored.sequence
        taken = _HANDLERS.get(stored.kind)
        if taken is not None:
            payload_of, handler = taken
            if event is None:
                event = stored.parse()
            if event.phase:
                self.session_date, self.phase = event.session_date, event.phase
            handler(self, payload_of(event))

    def apply_all(self, stored: Iterable[StoredEvent]) -> Fold:
        """Takes in many events."""
        for event in stored:
            self.apply(event)
        return self

    def _on_run_started(self, event: events.RunStarted) -> None:
        self.portfolio = Portfolio(event.initial_cash_micros)
        self.nav_micros = self.peak_nav_micros = event.initial_cash_micros
        self.sessions_total = event.sessions

    def _on_pipeline_state_changed(self, event: events.PipelineStateChanged) -> None:
        self.pipeline_state, self.pipeline_reason = event.state, event.reason

    def _on_pace_changed(self, event: events.PaceChanged) -> None:
        self.pace = event.sessions_per_s

    def _on_order_filled(self, event: events.OrderFilled) -> None:
        ticker, price_micros = event.ticker, event.price_micros
        delta = event.quantity if event.side == words.SIDE_LONG else -event.quantity
        effect = self.portfolio.apply_fill(ticker, delta, price_micros, event.fee_micros)
        self._compare("realised result", event.realised_micros, effect.realised_micros)
        self._compare("cash", event.cash_micros, self.portfolio.cash_micros)
        self._compare("position", event.position_quantity, self.portfolio.quantity(ticker))
        self.marks.setdefault(ticker, price_micros)
        self.fills += 1
        self.recent_fills.appendleft((self.session_date, event))
        if self.working_orders:
            self._executed(event)

    def _executed(self, event: events.OrderFilled) -> None:
        """An order was filled: it is out of force, or smaller."""
        working = self.working_orders.get(event.order_id)
        if working is None or not event.remaining_quantity:
            self._out_of_force(event.order_id)
            return
        rest = events.OrderSubmitted()
        rest.CopyFrom(working)
        rest.order.quantity = event.remaining_quantity
        self.working_orders[event.order_id] = rest

    def _on_corporate_actions_applied(self, event: events.CorporateActionsApplied) -> None:
        for said in event.actions:
            self._compare("shares before", said.quantity_before, self.portfolio.quantity(said.ticker))
            if not said.quantity_before:
                continue
            # What is held has the mark of the last settlement, as actions before this one have left it.
            self._compare("the last price", said.last_price_micros, self.marks.get(said.ticker))
            (effect,) = apply_actions(self.portfolio, [corporate_action_of(said)], self.marks)
            self._compare("shares after", said.quantity_after, effect.quantity_after)
            self._compare("what was paid", said.amount_micros, effect.cash_micros)
            self._compare("realised result", said.realised_micros, effect.realised_micros)
        self._compare("cash", event.cash_micros, self.portfolio.cash_micros)

    def _on_order_submitted(self, event: events.OrderSubmitted) -> None:
        self.working_orders[event.order.order_id] = event

    def _on_order_canceled(self, event: events.OrderCanceled | events.OrderExpired | events.OrderRejected) -> None:
        self._out_of_force(event.order_id)

    _on_order_expired = _on_order_rejected = _on_order_canceled

    def _on_cycle_failed(self, event: events.CycleFailed) -> None:
        for order_id in event.void_order_ids:
            self._out_of_force(order_id)

    def _out_of_force(self, order_id: str) -> None:
        self.working_orders.pop(order_id, None)

    def follow_order(self, stored: StoredEvent) -> None:
        """Takes in what one event says of orders in force, and nothing else."""
        payload_of, handler = _HANDLERS[stored.kind]
        payload = payload_of(stored.parse())
        if isinstance(payload, events.OrderFilled):
            self._executed(payload)
        else:
            handler(self, payload)

    def _on_settled(self, event: events.Settled) -> None:
        portfolio, told, nav_micros = self.portfolio, event.portfolio, event.nav_micros
        self.marks, as_held, worth_micros = positions_told(told.positions, portfolio.positions)
        for said in event.borrow:
            ticker = said.ticker
            charge = portfolio.charge_borrow(ticker, self.marks.get(ticker, 0), said.rate_bp, said.days)
            self._compare("borrow", said.charge_micros, charge)
        if not (as_held and amounts_told(told, portfolio)):
            self._compare("the account", told, portfolio_message(portfolio, self.marks))
        # The account is as it is told, and so is what its positions are worth.
        self._compare("net asset value", nav_micros, portfolio.cash_micros + worth_micros)
        self.nav_micros = nav_micros
        self.peak_nav_micros = max(self.peak_nav_micros, nav_micros)
        self.sessions_settled = event.session_number
        self.baselines = event.baselines
        self._add_point(self.session_date, event, self.sequence)

    def _on_session_opened(self, _event: events.SessionOpened) -> None:
        """The session and phase are taken from the envelope."""

    def _on_state_checkpoint(self, event: events.StateCheckpoint) -> None:
        self._compare("the checkpoint", event.portfolio, portfolio_message(self.portfolio, self.marks))

    def _compare(self, what: str, said: object, computed: object) -> None:
        if said != computed:
            raise LedgerMismatchError(self.sequence, what, said, computed)

    def pipeline(self) -> state.Pipeline:
        """Where the pipeline stands."""
        return state.Pipeline(
            run_id=self.run_id,
            state=self.pipeline_state,
            reason=self.pipeline_reason,
            sessions_settled=self.sessions_settled,
            sessions_total=self.sessions_total,
            session_date=self.session_date,
            phase=events.Phase.ValueType(self.phase),
            pace_sessions_per_s=self.pace,
            head_sequence=self.sequence,
        )

    def state(self, *, curve: bool = True) -> state.ServerState:
        """The state as its message; without the curve, which is most of it, for who follows that one by itself."""
        found = state.ServerState(
            run_id=self.run_id,
            epoch=self.epoch,
            as_of_sequence=self.sequence,
            pipeline=self.pipeline(),
            portfolio=portfolio_message(self.portfolio, self.marks),
            nav_micros=self.nav_micros,
            recent_fills=[_fill_of(session_date, fill) for session_date, fill in self.recent_fills],
            baselines=self.baselines,
            fills=self.fills,
            peak_nav_micros=self.peak_nav_micros,
            working_orders=self.working_orders.values(),
        )
        if curve:
            # In one piece: half the time that its points take one after the other.
            found.MergeFrom(self._curve)
        return found


_HANDLERS: dict[int, tuple[Callable[[events.Event], Any], Callable[[Fold, Any], None]]] = {
    number: (attrgetter(name), getattr(Fold, f"_on_{name}")) for name, number in KIND_NUMBERS.items() if hasattr(Fold, f"_on_{name}")
}
"""By kind: what takes the payload out of an event, and what takes it in."""
FOLDED_KINDS = frozenset(_HANDLERS)
"""Kinds that change the state."""
_ORDER_KINDS = frozenset(
    KIND_NUMBERS[name] for name in ("order_submitted", "order_canceled", "order_expired", "order_rejected", "order_filled", "cycle_failed")
)


def replay_journal(run_id: str, reader: JournalReader, through: int | None = None) -> Fold:
    """The state after the events up to a sequence, or all of them, proved by the ledger.

    Raises:
        LedgerMismatchError: an event says other than the ledger.
        HistoryCompacted: the sequence lies where events are gone.
    """
    return _go_on(beginning_of(run_id, reader, through), reader, through)


def fold_journal(run_id: str, reader: JournalReader, through: int | None = None) -> Fold:
    """The same as `replay_journal`, byte for byte, sooner: accounts are believed up to the last settled event before the sequence.

    Raises:
        LedgerMismatchError: an event after that one says other than the ledger.
        HistoryCompacted: the sequence lies where events are gone.
    """
    fold = beginning_of(run_id, reader, through)
    newest = reader.read_kind("settled", through, newest=1)
    if newest:
        _believe(fold, reader, newest[0].sequence)
    return _go_on(fold, reader, through)


def settled_fold(run_id: str, reader: JournalReader) -> Fold:
    """The state after the newest settled event: where a desk goes on. Without one it is the state before the run."""
    newest = reader.read_kind("settled", newest=1)
    if newest:
        return fold_journal(run_id, reader, newest[0].sequence)
    return beginning_of(run_id, reader)


def beginning_of(run_id: str, reader: JournalReader, through: int | None = None) -> Fold:
    """The state before the first event that is kept; raises HistoryCompacted if `through` lies before it."""
    head, snapshot = reader.head(), reader.snapshot()
    if snapshot is None:
        return Fold(run_id, head.epoch)
    if through is not None and through < snapshot.sequence:
        raise HistoryCompacted(through, snapshot.sequence)
    return Fold.at(state.ServerState.FromString(snapshot.state), head.epoch)


def _go_on(fold: Fold, reader: JournalReader, through: int | None) -> Fold:
    """Takes in what follows, up to a sequence; others than FOLDED_KINDS need not be read."""
    head = reader.head().sequence
    last = head if through is None else min(through, head)
    fold.apply_all(all_events(reader, fold.sequence, last, kinds=FOLDED_KINDS))
    fold.sequence = last
    return fold


def _believe(fold: Fold, reader: JournalReader, settled: int) -> None:
    """Brings a fold to a settled event by what that one tells, and what others told last."""
    beginning = fold.sequence
    for kind in ("run_started", "pipeline_state_changed", "pace_changed"):
        for stored in reader.read_kind(kind, settled, newest=1):
            fold.apply(stored)
    event = events.Event()
    for stored in all_events(reader, beginning, settled, kinds=(SETTLED,)):
        event.ParseFromString(stored.data)
        fold.peak_nav_micros = max(fold.peak_nav_micros, event.settled.nav_micros)
        fold._add_point(event.session_date, event.settled, stored.sequence)
    if fold.working_orders or reader.count("order_submitted", settled):
        for stored in all_events(reader, beginning, settled, kinds=_ORDER_KINDS):
            fold.follow_order(stored)
    fold.sequence = settled
    fold.session_date, fold.phase = event.session_date, event.phase
    fold.sessions_settled, fold.nav_micros = event.settled.session_number, event.settled.nav_micros
    fold.baselines = event.settled.baselines
    fold.begin_with(event.settled.portfolio)
    fold.fills += reader.count("order_filled", settled)
    for stored in reader.read_kind("order_filled", settled, newest=RECENT_FILLS):
        filled = stored.parse()
        fold.recent_fills.appendleft((filled.session_date, filled.order_filled))


def _fill_of(session_date: str, fill: events.OrderFilled) -> events.OrderFilled:
    found = events.OrderFilled()
    found.CopyFrom(fill)
    found.session_date = session_date
    return found


def equity_point(session_date: str, event: events.Settled, sequence: int) -> state.EquityPoint:
    """One point of the curve."""
    return state.EquityPoint(session_date=session_date, nav_micros=event.nav_micros, baselines=event.baselines, sequence=sequence)


def portfolio_message(portfolio: Portfolio, marks: dict[str, int]) -> events.PortfolioState:
    """An account as its message, positions by ticker."""
    message = events.PortfolioState(
        initial_cash_micros=portfolio.initial_cash_micros,
        cash_micros=portfolio.cash_micros,
        realised_micros=portfolio.realised_micros,
        fees_micros=portfolio.fees_micros,
        borrow_micros=portfolio.borrow_micros,
        dividends_micros=portfolio.dividends_micros,
    )
    add, positions = message.positions.add, portfolio.positions
    for ticker in sorted(positions):
        position = positions[ticker]
        add(ticker=ticker, quantity=position.quantity, cost_micros=position.cost_micros, mark_micros=marks.get(ticker))
    return message
