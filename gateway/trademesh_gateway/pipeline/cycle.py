"""The cycle of one session, phase by phase. Each phase reads the point-in-time view of its own moment and returns drafts of events.

    PREPARE ANALYSIS RISK PREDICTION DECISION GATE APPROVAL EXECUTION SETTLEMENT

Everything before EXECUTION sees what was known half an hour before the open; EXECUTION and SETTLEMENT see the session's close
(`execution.fill: next_close`). No phase reads a clock, so a session that is done again comes out the same.

A cycle can be given up before EXECUTION, and is then settled without its orders. What the journal already holds of a session that is done
again binds: one that was given up is given up again, and one whose execution had begun is not given up any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import numpy as np

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway import wire
from trademesh_gateway.agents.analysts import ANALYSTS
from trademesh_gateway.agents.indicators import volatility
from trademesh_gateway.agents.portfolio_manager import decide
from trademesh_gateway.agents.records import Book, Decision, Signals
from trademesh_gateway.market.point_in_time import MarketHistory, PointInTimeView
from trademesh_gateway.pipeline.desk_run import DeskRun
from trademesh_gateway.pipeline.order_book import SessionOrder
from trademesh_gateway.risk.gate import Gated, apply_limits
from trademesh_gateway.risk.limits import UNKNOWN_MARKET
from trademesh_gateway.risk.market import market_of
from trademesh_ledger.margin import largest_fill, refusal_of
from trademesh_ledger.money import BASIS_POINTS
from trademesh_runs.journal import Draft

DECISION_LEAD_S = 1800
CHECKPOINT_SESSIONS = 250


@dataclass(frozen=True, slots=True)
class SessionTimes:
    """A session of the exchange."""

    date: str
    open_unix_s: int
    close_unix_s: int


@dataclass(frozen=True, slots=True)
class ApprovalAnswer:
    """What came of asking a person."""

    approval_id: str
    approved: bool
    decided_by: str
    reason: str
    expired: bool


@dataclass(frozen=True, slots=True)
class ApprovalQuestion:
    """An order that policy puts before a person."""

    session: str
    order_id: str
    ticker: str
    side: int
    quantity: int
    price_micros: int
    ttl_s: int


@dataclass(frozen=True, slots=True)
class OpenSession:
    """What the journal holds already of a session that is not settled."""

    date: str = ""
    given_up_in: int | None = None
    """The phase in which it was given up."""
    gated: bool = False
    """True if limits were applied in it."""
    executed: bool = False
    """True if an order of it was filled, or rejected at its fill."""


Emit = Callable[[Draft], object]
Ask = Callable[[ApprovalQuestion, Emit], Awaitable[ApprovalAnswer]]
ClosesKnown = Callable[[str, int, Mapping[str, int]], None]
"""Is told a session's closes when they are known: its date, its close (Unix seconds), and micro-dollars by ticker."""


def nobody_quotes(_session: str, _close_unix_s: int, _closes: Mapping[str, int]) -> None:
    """For where nobody is told closes."""


class Cycle:
    """One session in progress. Phases are called in the order of `PHASES`."""

    def __init__(
        self,
        desk: DeskRun,
        history: MarketHistory,
        session: SessionTimes,
        number: int,
        emit: Emit,
        ask: Ask,
        *,
        earlier: OpenSession | None = None,
        closes_known: ClosesKnown = nobody_quotes,
    ) -> None:
        """`history` has the run's tickers first and then, if the set has an index, that index. `earlier` is what was journaled of a session
        that is done again; what it tells of another one is nothing to us."""
        self._desk = desk
        self._session = session
        self._number = number
        self._emit = emit
        self._ask = ask
        self._history = history
        self._view: PointInTimeView = history.as_of(session.open_unix_s - DECISION_LEAD_S)
        self._count = len(desk.tickers)
        self._narrow = _TickersOnly(self._view, self._count)
        self._market = UNKNOWN_MARKET
        """What the limits need to know of the tickers beside the book, as of the decision."""
        self._signals: dict[str, Signals] = {}
        self._book: Book | None = None
        self._decisions: list[Decision] = []
        self._gated: list[tuple[SessionOrder, Gated]] = []
        self._answers: dict[str, ApprovalAnswer] = {}
        """What people said of orders, by their ids."""
        self._closes_known = closes_known
        ours = earlier is not None and earlier.date == session.date
        self._given_up_in = earlier.given_up_in if ours and earlier is not None else None
        self._executed = ours and earlier is not None and earlier.executed
        self._gated_before = ours and earlier is not None and earlier.gated

    def is_void(self, phase: int) -> bool:
        """True for a phase that is left out since the cycle was given up."""
        return self._given_up_in is not None and self._given_up_in <= phase < events.PHASE_SETTLEMENT

    def may_be_given_up(self, phase: int) -> bool:
        """True as long as no order has been executed."""
        return phase < events.PHASE_EXECUTION and not self._executed

    def give_up(self, phase: int, reason: str) -> None:
        """Makes all orders void; SETTLEMENT is all that follows."""
        self._given_up_in = phase
        if self._gated:
            orders = [order for order, gated in self._gated if gated.allowed]
        else:
            orders = [self._desk_order(one) for one in self._decisions if one.delta]
        denied = {order_id for order_id, answer in self._answers.items() if not answer.approved}
        # A person's order that lasts is for the next session then.
        void = [order.order_id for order in orders if order.working is None and order.order_id not in denied]
        void += [order.order_id for order in self._desk.orders.close() if order.order_id not in denied]
        self._draft(phase, "cycle_failed", events.CycleFailed(phase=events.Phase.ValueType(phase), reason=reason, void_order_ids=void))

    async def run(self, phase: int) -> None:
        """Runs one phase."""
        await PHASES[phase](self)

    def _draft(self, phase: int, kind: str, payload: wire.Payload, agent_id: str = "", item: str = "") -> None:
        self._emit(Draft(kind, payload, self._session.date, phase, agent_id, item))

    def _desk_order(self, decision: Decision) -> SessionOrder:
        order_id = wire.order_id(self._session.date, self._desk.tickers[decision.column])
        return SessionOrder(order_id, decision.column, decision.delta)

    async def _prepare(self) -> None:
        self._desk.orders.begin(self._number, gated_before=self._gated_before)
        last = self._view.last_closes(1)
        closes = [int(close) for close in last[0][: self._count]] if len(last) else [0] * self._count
        self._desk.stops.begin_session(self._session.date)
        self._book = self._desk.book(closes)
        self._market = market_of(self._narrow, self._desk.rules.limits)
        self._draft(1, "session_opened", wire.session_opened(self._number, self._view.as_of_unix_s))

    async def _analysis(self) -> None:
        for agent_id, analyst in ANALYSTS.items():
            skills = self._desk.rules.agents.get(agent_id)
            if skills is not None:
                signals = self._signals[agent_id] = analyst(self._narrow, skills)
                self._draft(2, "signals", wire.signals(self._desk.tickers, signals), agent_id)

    async def _risk(self) -> None:
        if "risk_manager" in self._desk.rules.agents:
            level = volatility(self._narrow, 20)
            notes = wire.risk_notes(self._desk.tickers, self._the_book(), self._desk.rules.limits, level, self._market)
            self._draft(3, "risk_notes", notes, "risk_manager")

    async def _prediction(self) -> None:
        for agent_id, signals in self._signals.items():
            if not signals.abstained_because:
                self._draft(4, "predictions", wire.predictions(self._desk.tickers, signals), agent_id)

    async def _decision(self) -> None:
        limit = self._desk.rules.position_limit
        self._decisions = decide(self._narrow, list(self._signals.values()), self._the_book(), limit, self._number)
        self._draft(5, "decisions", wire.decisions(self._desk.tickers, self._decisions), "portfolio_manager")

    async def _gate(self) -> None:
        own = [self._desk_order(decision) for decision in self._decisions if decision.delta]
        of_people = self._orders_of_people()
        orders = of_people + own
        if not orders:
            return
        self._desk.orders.also_gated({order.order_id: self._desk.tickers[order.column] for order in own})
        wanted = [(order.column, order.delta) for order in orders]
        # What room there is goes to people first.
        results = apply_limits(wanted, self._the_book(), self._desk.rules.limits, self._market, preferred=len(of_people))
        self._gated = [(orders[gated.place], gated) for gated in results]
        self._draft(6, "orders_gated", wire.orders_gated(self._desk.tickers, self._gated))
        for order, gated in self._gated:
            if order.working is not None and not gated.allowed:
                self._desk.orders.end(order.order_id)
                self._reject(6, order, gated.limit, abs(gated.requested))

    def _orders_of_people(self) -> list[SessionOrder]:
        book, column_of = self._the_book(), self._desk.tickers.index
        due = self._desk.orders.due(lambda ticker: book.price_micros[column_of(ticker)])
        return [SessionOrder(order.order_id, column_of(order.ticker), order.delta, order) for order in due]

    async def _approval(self) -> None:
        over_bp = self._desk.rules.approval_over_bp
        if over_bp is None:
            return
        passed = list[tuple[SessionOrder, Gated]]()
        # The phase may be interrupted while a person thinks, and is then done again: what was answered stays answered.
        for order, gated in self._gated:
            if self._desk.orders.is_canceled(order.order_id):
                continue
            price = self._the_book().price_micros[order.column]
            if abs(gated.allowed) * price * BASIS_POINTS <= over_bp * self._the_book().nav_micros or not gated.allowed:
                passed.append((order, gated))
                continue
            ticker = self._desk.tickers[order.column]
            side, ttl_s = (1 if gated.allowed > 0 else 2), self._desk.rules.approval_ttl_s
            answer = self._answers.get(order.order_id)
            if answer is None:
                question = ApprovalQuestion(self._session.date, order.order_id, ticker, side, abs(gated.allowed), price, ttl_s)
                answer = self._answers[order.order_id] = await self._ask(question, self._emit)
                self._draft(7, "approval_resolved", wire.approval_resolved(answer, order.order_id), item=order.order_id)
                if not answer.approved:
                    self._desk.orders.end(order.order_id)
                    rejection = wire.approval_rejection(order.order_id, ticker, answer, abs(gated.allowed))
                    self._draft(7, "order_rejected", rejection, item=order.order_id)
            if answer.approved:
                passed.append((order, gated))
        self._gated = passed

    async def _execution(self) -> None:
        closes = self._closes_of_session()
        marks = {**self._desk.marks, **{ticker: close for ticker, close in zip(self._desk.tickers, closes, strict=False) if close}}
        self._desk.orders.begin_execution()
        for order, gated in self._gated:
            if gated.allowed and not self._desk.orders.is_canceled(order.order_id):
                self._execute(order, gated.allowed, closes[order.column], marks)
        for left in self._desk.orders.close():
            self._draft(8, "order_expired", wire.order_expired(left), item=left.order_id)

    def _execute(self, order: SessionOrder, delta: int, close: int, marks: dict[str, int]) -> None:
        """Fills an order as far as cash and margin reach, at the session's close; 0 is none."""
        rules, account, ticker = self._desk.rules, self._desk.portfolio, self._desk.tickers[order.column]
        if not close:
            if order.working is None:
                self._reject(8, order, wire.NO_PRICE, abs(delta))
            return
        price = rules.costs.fill_price(close, delta)
        if order.working is not None and not order.working.accepts(price):
            return
        self._desk.orders.end(order.order_id)
        refusal = refusal_of(account, ticker, delta, price, rules.costs, rules.margin, marks)
        if refusal is not None:
            part = largest_fill(account, ticker, delta, price, rules.costs, rules.margin, marks) if rules.resize_on_gap else 0
            self._reject(8, order, refusal.value, abs(delta - part))
            delta = part
        if delta:
            fee = rules.costs.fee(delta, price)
            effect = account.apply_fill(ticker, delta, price, fee)
            self._desk.fills += 1
            filled = wire.order_filled(order.order_id, ticker, delta, price, fee, effect, account)
            self._draft(8, "order_filled", filled, item=order.order_id)

    def _reject(self, phase: int, order: SessionOrder, limit: int, quantity: int) -> None:
        rejected = wire.order_rejected(order.order_id, self._desk.tickers[order.column], limit, quantity)
        self._draft(phase, "order_rejected", rejected, item=order.order_id)

    async def _settlement(self) -> None:
        if self._given_up_in is not None:
            # An earlier gateway may have given it up: what it made void is out of force here, too.
            self._desk.orders.close()
        closes = self._closes_of_session()
        index_close = closes[self._count] if len(closes) > self._count else 0
        before = self._history.as_of(self._session.close_unix_s - 1)
        nav, baselines = self._desk.mark(self._session.date, before, closes[: self._count], index_close)
        known = {ticker: close for ticker, close in zip(self._history.tickers, closes, strict=True) if close}
        self._closes_known(self._session.date, self._session.close_unix_s, known)
        self._desk.sessions_settled = self._number
        settled = wire.settled(self._number, nav, self._desk.portfolio, self._desk.marks, baselines)
        settled.close_micros.extend(closes[: self._count])
        if self._number == 1:
            settled.earlier_close_micros.extend(before.last_closes(1)[:, : self._count].ravel().tolist())
        self._draft(9, "settled", settled)
        if self._number % CHECKPOINT_SESSIONS == 0:
            desk = self._desk
            payload = wire.checkpoint(desk.portfolio, desk.marks, self._number, desk.fills, desk.peak_nav_micros, baselines)
            self._emit(Draft("state_checkpoint", payload, item=str(self._number)))

    def _the_book(self) -> Book:
        if self._book is None:
            raise RuntimeError("PREPARE comes first")
        return self._book

    def _closes_of_session(self) -> list[int]:
        """Closes of this very session, 0 where there is none. Asked for only once the session has closed."""
        view = self._history.as_of(self._session.close_unix_s)
        if view.last_session() != self._session.date:
            return [0] * len(self._history.tickers)
        return [int(close) for close in view.last_closes(1)[0]]


class _TickersOnly(PointInTimeView):
    """The view without the index, which agents do not trade."""

    __slots__ = ("_columns",)

    def __init__(self, view: PointInTimeView, columns: int) -> None:
        super().__init__(view._history, view.as_of_unix_s)
        self._columns = columns

    @property
    def tickers(self) -> tuple[str, ...]:
        """The tickers that the desk trades."""
        return self._history.tickers[: self._columns]

    def last_closes(self, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """Closes of the last sessions, of those tickers."""
        return super().last_closes(count)[:, : self._columns]


PHASES: dict[int, Callable[[Cycle], Awaitable[None]]] = {
    1: Cycle._prepare,
    2: Cycle._analysis,
    3: Cycle._risk,
    4: Cycle._prediction,
    5: Cycle._decision,
    6: Cycle._gate,
    7: Cycle._approval,
    8: Cycle._execution,
    9: Cycle._settlement,
}
"""By number of gateway.v1.Phase, in order."""
