"""The cycle of one session, phase by phase. Each phase reads the point-in-time view of its own moment and returns drafts of events.

    PREPARE ANALYSIS RISK PREDICTION DECISION GATE APPROVAL EXECUTION SETTLEMENT

Everything before EXECUTION sees what was known half an hour before the open, EXECUTION the price that its orders get, SETTLEMENT the close
(`execution.fill: same_close` decides at the close instead). No phase reads a clock: the broker says when a moment has come. So a session that
is done again comes out the same.

A cycle can be given up before EXECUTION, and is then settled without its orders. What the journal already holds of a session that is done
again binds: one that was given up is given up again, and one whose execution had begun is not given up any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway import wire
from trademesh_gateway.agents.analysts import ANALYSTS
from trademesh_gateway.agents.indicators import volatility
from trademesh_gateway.agents.portfolio_manager import manager_of
from trademesh_gateway.agents.records import AnySignals, Book, Decisions
from trademesh_gateway.market.point_in_time import MarketHistory, PointInTimeView
from trademesh_gateway.pipeline.broker import Broker, Moment, SessionTimes, priced
from trademesh_gateway.pipeline.desk_run import DeskRun, FillPolicy
from trademesh_gateway.pipeline.execution import Expired, Expiry, Filled, Outcome, Rejected, SessionExecution, executables
from trademesh_gateway.pipeline.order_book import SessionOrder
from trademesh_gateway.risk.gate import Gated, apply_limits
from trademesh_gateway.risk.limits import UNKNOWN_MARKET, Limit
from trademesh_gateway.risk.market import market_of
from trademesh_gateway.risk_notes import risk_notes
from trademesh_ledger.corporate_actions import Delisting, Split
from trademesh_ledger.money import BASIS_POINTS
from trademesh_runs.journal import Draft

CHECKPOINT_SESSIONS = 250


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
    executed_orders: frozenset[str] = frozenset()
    """Ids of the orders that were filled in it, or rejected or expired at its execution."""


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
        broker: Broker,
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
        self._broker = broker
        self._count = len(desk.tickers)
        self._decision_unix_s = desk.rules.fill.decides_at(session)
        self._fill_moment = desk.rules.fill.moment
        self._decides_at = Moment.CLOSE if desk.rules.fill is FillPolicy.SAME_CLOSE else Moment.DECISION
        self._market = UNKNOWN_MARKET
        """What the limits need to know of the tickers beside the book, as of the decision."""
        self._signals: dict[str, AnySignals] = {}
        self._book: Book | None = None
        self._decisions: Decisions | None = None
        self._gated: list[tuple[SessionOrder, Gated]] = []
        self._execution_in_hand: tuple[SessionExecution, list[Moment]] | None = None
        """And the moments that are still to come: who waits for one may be interrupted, and is then asked to go on."""
        self._answers: dict[str, ApprovalAnswer] = {}
        """What people said of orders, by their ids."""
        self._closes_known = closes_known
        self._earlier = earlier if earlier is not None and earlier.date == session.date else OpenSession()
        self._given_up_in = self._earlier.given_up_in

    def is_void(self, phase: int) -> bool:
        """True for a phase that is left out since the cycle was given up. A margin call is answered in any case: who is slow is not spared."""
        if self._given_up_in is None or (phase == events.PHASE_EXECUTION and self._desk.account.call is not None):
            return False
        return max(self._given_up_in, events.PHASE_ANALYSIS) <= phase < events.PHASE_SETTLEMENT

    def may_be_given_up(self, phase: int) -> bool:
        """True as long as no order has been executed. What companies did in the morning is done in any case."""
        return events.PHASE_PREPARE < phase < events.PHASE_EXECUTION and not self._earlier.executed_orders

    def give_up(self, phase: int, reason: str) -> None:
        """Makes all orders void; SETTLEMENT is all that follows, and before it what a margin call closes."""
        self._given_up_in = phase
        orders = [order for order, gated in self._gated if gated.allowed] if self._gated else self._desk_orders()
        denied = {order_id for order_id, answer in self._answers.items() if not answer.approved}
        # A person's order that lasts is for the next session then.
        void = [order.order_id for order in orders if order.working is None and order.order_id not in denied]
        void += [order.order_id for order in self._desk.orders.close() if order.order_id not in denied]
        self._draft(phase, "cycle_failed", events.CycleFailed(phase=events.Phase.ValueType(phase), reason=reason, void_order_ids=void))

    def run(self, phase: int) -> Awaitable[None] | None:
        """Runs one phase. It is done when this returns None; else what is returned is to be awaited."""
        if events.PHASE_PREPARE < phase < events.PHASE_EXECUTION and self._is_too_late():
            self.give_up(phase, "the moment at which its orders are filled had passed before they were decided")
            return None
        return PHASES[phase](self)

    def _is_too_late(self) -> bool:
        """True if nobody may decide any more. What earlier generations have put before the limits was decided in time."""
        over = self._broker.is_over(self._session, self._fill_moment)
        return over and not self._earlier.gated and not self._earlier.executed_orders

    def _draft(self, phase: int, kind: str, payload: wire.Payload, agent_id: str = "", item: str = "") -> None:
        self._emit(Draft(kind, payload, self._session.date, phase, agent_id, item))

    def _desk_orders(self) -> list[SessionOrder]:
        """What the portfolio manager decided; nothing before it has."""
        if self._decisions is None or not any(self._decisions.deltas):
            return []
        date, tickers = self._session.date, self._desk.tickers
        wanted = enumerate(self._decisions.deltas)
        return [SessionOrder(wire.order_id(date, tickers[column]), column, delta) for column, delta in wanted if delta]

    def _prepare(self) -> Awaitable[None] | None:
        return self._when(self._decides_at, self._open)

    def _when(self, moment: Moment, act: Callable[[], None]) -> Awaitable[None] | None:
        """Acts at once if a moment has come; else what is returned is to be awaited."""
        if not self._broker.is_time(self._session, moment):
            return self._in_time(moment, act)
        act()
        return None

    async def _in_time(self, moment: Moment, act: Callable[[], None]) -> None:
        await self._broker.until(self._session, moment)
        act()

    def _open(self) -> None:
        desk, session = self._desk, self._session
        self._view: PointInTimeView = self._history.as_of(self._decision_unix_s, session.date).of_first(self._count)
        closed = self._earlier.gated or self._given_up_in is not None
        desk.orders.begin(self._number, gated_before=closed, executed_before=self._earlier.executed_orders)
        desk.stops.begin_session(session.date)
        self._draft(1, "session_opened", wire.session_opened(self._number, self._decision_unix_s))
        self._apply_actions()
        last = self._view.last_closes(1)
        self._book = desk.book(last[0].tolist() if len(last) else [0] * self._count)
        self._market = market_of(self._view, desk.rules.limits)

    def _apply_actions(self) -> None:
        """What companies do on the morning of the session: to the account, to baselines, and to orders of before."""
        actions = self._history.actions_on(self._session.date, self._desk.tickers)
        if not actions:
            return
        effects = self._desk.open_session(actions)
        applied = wire.corporate_actions_applied(actions, effects, self._desk.portfolio.cash_micros)
        self._draft(1, "corporate_actions_applied", applied)
        for kind, reason in ((Split, Expiry.SPLIT), (Delisting, Expiry.DELISTED)):
            changed = {action.ticker for action in actions if isinstance(action, kind)}
            for order in self._desk.orders.end_all(changed):
                expired = Expired(order.order_id, order.ticker, abs(order.delta), reason)
                self._draft(1, "order_expired", wire.order_expired(expired), item=order.order_id)

    def _analysis(self) -> None:
        for agent_id, analyst in ANALYSTS.items():
            skills = self._desk.rules.agents.get(agent_id)
            if skills is not None:
                signals = self._signals[agent_id] = analyst(self._view, skills)
                self._draft(2, "signals", wire.signals(self._desk.tickers, signals), agent_id)

    def _risk(self) -> None:
        if "risk_manager" in self._desk.rules.agents:
            levels = volatility(self._view, 20).tolist()
            notes = risk_notes(self._desk.tickers, self._the_book(), self._desk.rules.limits, levels, self._market)
            self._draft(3, "risk_notes", notes, "risk_manager")

    def _prediction(self) -> None:
        for agent_id, signals in self._signals.items():
            if not signals.abstained_because:
                self._draft(4, "predictions", wire.predictions(self._desk.tickers, signals), agent_id)

    def _decision(self) -> None:
        rules, initial = self._desk.rules, self._desk.portfolio.initial_cash_micros
        manager = manager_of(rules.agents["portfolio_manager"], rules.bounds, initial)
        decided = self._decisions = manager(self._view, list(self._signals.values()), self._the_book(), self._number)
        self._draft(5, "decisions", wire.decisions(self._desk.tickers, decided), "portfolio_manager")

    def _gate(self) -> None:
        own = self._desk_orders()
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
                self._reject(6, order.order_id, order.column, gated.limit, abs(gated.requested))

    def _orders_of_people(self) -> list[SessionOrder]:
        book, column_of = self._the_book(), self._desk.tickers.index
        within_session = self._desk.rules.fill is FillPolicy.NEXT_OPEN
        due = self._desk.orders.due(lambda ticker: book.price_micros[column_of(ticker)], within_session=within_session)
        return [SessionOrder(order.order_id, column_of(order.ticker), order.delta, order) for order in due]

    def _approval(self) -> Awaitable[None] | None:
        over_bp = self._desk.rules.approval_over_bp
        return None if over_bp is None else self._ask_people(over_bp)

    async def _ask_people(self, over_bp: int) -> None:
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

    def _execution(self) -> Awaitable[None] | None:
        if self._execution_in_hand is None:
            gated_orders = self._gated if self._given_up_in is None else []
            passed = [(order, gated.allowed) for order, gated in gated_orders if gated.allowed]
            begun = SessionExecution(self._desk, executables(passed, self._the_book().quantity))
            self._execution_in_hand = (begun, begun.moments)
        execution, moments = self._execution_in_hand
        if not moments or self._broker.is_time(self._session, moments[-1]):
            self._desk.orders.begin_execution()
            for moment in moments:
                self._execute(execution, moment)
            self._end_execution()
            return None
        return self._execute_in_time(execution, moments)

    async def _execute_in_time(self, execution: SessionExecution, moments: list[Moment]) -> None:
        """By the clock: what works within the session is executed at its close, and can be canceled until then."""
        while moments:
            await self._broker.until(self._session, moments[0])
            if len(moments) == 1:
                self._desk.orders.begin_execution()
            self._execute(execution, moments.pop(0))
        self._end_execution()

    def _execute(self, execution: SessionExecution, moment: Moment) -> None:
        bar = self._broker.bar(self._session, moment)
        for outcome in execution.at(moment, bar):
            self._tell(outcome)

    def _end_execution(self) -> None:
        for left in self._desk.orders.close():
            self._tell(Expired(left.order_id, left.ticker, abs(left.delta)))

    def _tell(self, outcome: Outcome) -> None:
        match outcome:
            case Filled():
                name = outcome.order_id or wire.forced_order_id(self._session.date, outcome.fill.ticker)
                self._draft(8, "order_filled", wire.order_filled(name, outcome), item=name)
            case Rejected():
                # An order may be cut by a margin call and then by the ledger: each has its own event.
                item = f"{outcome.order_id} margin call" if outcome.limit == Limit.MARGIN_CALL else outcome.order_id
                self._reject(8, outcome.order_id, outcome.column, outcome.limit, outcome.quantity, item)
            case Expired():
                self._draft(8, "order_expired", wire.order_expired(outcome), item=outcome.order_id)

    def _reject(self, phase: int, order_id: str, column: int, limit: int, quantity: int, item: str = "") -> None:
        rejected = wire.order_rejected(order_id, self._desk.tickers[column], limit, quantity)
        self._draft(phase, "order_rejected", rejected, item=item or order_id)

    def _settlement(self) -> Awaitable[None] | None:
        return self._when(Moment.CLOSE, self._settle)

    def _settle(self) -> None:
        desk, session = self._desk, self._session
        if self._given_up_in is not None:
            # An earlier gateway may have given it up: what it made void is out of force here, too.
            desk.orders.close()
        bar = self._broker.bar(session, Moment.CLOSE)
        closes = bar.closes[: self._count]
        known = priced(self._history.tickers, bar.closes)
        desk.take_closes(closes)
        settlement = desk.account.settle(known, session.days_to_next)
        baselines = desk.compare(session.date, self._view, bar)
        desk.stops.settle(settlement.nav_micros)
        desk.peak_nav_micros = max(desk.peak_nav_micros, settlement.nav_micros)
        desk.sessions_settled = self._number
        desk.orders.settle()
        self._closes_known(session.date, session.close_unix_s, known)
        if settlement.margin_call is not None:
            # Before what settles the session: a session that is settled is not done again.
            self._draft(9, "margin_called", wire.margin_called(settlement.margin_call))
        settled = wire.settled(self._number, settlement, desk.account, session.days_to_next, baselines)
        settled.close_micros.extend(closes)
        settled.stale_tickers.extend(desk.stale())
        if self._number == 1:
            wire.note_baseline(settled, "market_cap_weighted", desk.comparison.market_cap_note)
            before = self._history.as_of(session.open_unix_s - 1, session.date)
            settled.earlier_close_micros.extend(before.last_closes(1)[:, : self._count].ravel().tolist())
        self._draft(9, "settled", settled)
        if self._number % CHECKPOINT_SESSIONS == 0:
            payload = wire.checkpoint(desk.account, self._number, desk.fills, desk.peak_nav_micros, baselines)
            self._emit(Draft("state_checkpoint", payload, item=str(self._number)))

    def _the_book(self) -> Book:
        if self._book is None:
            raise RuntimeError("PREPARE comes first")
        return self._book


PHASES: dict[int, Callable[[Cycle], Awaitable[None] | None]] = {
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
