"""A desk whose journal is in memory: it can die after any event and be opened again, as a gateway opens it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from made_up_bars import Stage, real_stage
from real_closes import CASH, no_one, run_phase
from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_gateway import wire
from trademesh_gateway.configuration import desk_at, rules_of, take_in_settled
from trademesh_gateway.opening import fold_run
from trademesh_gateway.pipeline.broker import BarBroker, Broker
from trademesh_gateway.pipeline.cycle import PHASES, Ask, Cycle, OpenSession
from trademesh_gateway.stop_history import stops_after
from trademesh_runs.fold import fold_journal, replay_journal
from trademesh_runs.journal import Draft, Encoder, StoredEvent
from trademesh_runs.journal_memory import MemoryStore
from trademesh_runs.run_config import normalised

PREPARE, GATE, APPROVAL, EXECUTION, SETTLEMENT = 1, 6, 7, 8, 9


def config_of(
    fill: contract.FillPolicy.ValueType = contract.FILL_POLICY_NEXT_CLOSE, *, manager: str = "", free: bool = True, **costs: int
) -> RunConfig:
    """A configuration; `free` binds orders by nothing but cash and margin."""
    config = RunConfig()
    config.execution.fill = fill
    config.costs.fee_bp = costs.get("fee_bp", 0)
    config.costs.borrow_bp = costs.get("borrow_bp", 0)
    config.costs.slippage_bp = costs.get("slippage_bp", 0)
    if manager:
        config.agents["portfolio_manager"].skills.append(manager)
    if free:
        config.risk.position, config.risk.gross, config.risk.net, config.risk.drawdown_stop = 10, 10, 10, 0
    return config


@dataclass
class Desk:
    """The desk of a run; `journal` is what an earlier gateway has written."""

    config: RunConfig = field(default_factory=RunConfig)
    stage: Stage = field(default_factory=real_stage)
    journal: Sequence[StoredEvent] = ()
    cash_micros: int = CASH
    broker: Broker | None = None
    """Who is asked for prices; left out: all recorded bars are there."""
    ask: Ask = no_one
    """Who is asked about orders."""

    def __post_init__(self) -> None:
        self.config = normalised(self.config)
        self.config.tickers[:] = self.stage.tickers
        self.store = MemoryStore()
        self.store.events.extend(self.journal)
        self.encoder = Encoder("demo", 1)
        self.known = {stored.parse().event_id for stored in self.journal}
        started = events.RunStarted(
            initial_cash_micros=self.cash_micros,
            sessions=self.stage.sessions,
            tickers=self.stage.tickers,
            decides_at_fill_price=self.config.execution.fill == contract.FILL_POLICY_SAME_CLOSE,
        )
        self.append(Draft("run_started", started))
        self.open()

    def append(self, draft: Draft) -> bool:
        """As the journal does: what it has already is left out."""
        event_id = self.encoder.event_id(draft)
        if event_id in self.known:
            return False
        self.known.add(event_id)
        self.store.events.append(self.encoder.encode(draft, len(self.store.events) + 1, event_id))
        return True

    def open(self) -> None:
        """What a gateway does that begins with this journal."""
        opened = fold_run("demo", self.store.reader())
        start = opened.desk_start
        self.desk = desk_at(rules_of(self.config), self.stage.tickers, self.cash_micros, self.stage.index_name, start)
        for number in range(1, start.sessions_settled + 1):
            take_in_settled(self.desk, self.stage.history, self.stage.times(number))
        self.desk.stops = stops_after(self.store.reader(), opened.fold, self.desk.rules.limits.drawdown_stop_bp, self.cash_micros)
        self.earlier: OpenSession = opened.open_session

    def cycle(self) -> Cycle:
        """The next session."""
        number, market = self.desk.sessions_settled + 1, self.stage.history
        times = self.stage.times(number)
        return Cycle(self.desk, market, self.broker or BarBroker(market), times, number, self.append, self.ask, earlier=self.earlier)

    def run(self, through: int = SETTLEMENT, cycle: Cycle | None = None, after: int = 0) -> Cycle:
        """Runs phases of a session."""
        found = cycle or self.cycle()

        async def phases() -> None:
            for phase in PHASES:
                if after < phase <= through and not found.is_void(phase):
                    await run_phase(found, phase)

        asyncio.run(phases())
        return found

    def submit(self, name: str, ticker: str, delta: int, **fields: Any) -> events.OrderSubmitted:
        """A person's order, as the order desk journals it."""
        kind = events.ORDER_TYPE_MARKET
        if "limit_price_micros" in fields:
            kind = events.ORDER_TYPE_LIMIT
        elif "stop_price_micros" in fields:
            kind = events.ORDER_TYPE_STOP
        order = events.Order(order_id=name, ticker=ticker, side=wire.side_of(delta), quantity=abs(delta), type=kind, **fields)
        submitted = events.OrderSubmitted(order=order, from_session=self.desk.orders.next_session)
        self.append(Draft("order_submitted", submitted, item=name))
        self.desk.orders.add(wire.working_order_of(submitted))
        return submitted

    def cancel(self, order_id: str) -> None:
        """A person's cancellation, as the order desk journals it."""
        ticker = self.desk.orders.ticker_of(order_id)
        assert ticker is not None
        how_far = self.desk.orders.cancel(order_id)
        canceled = events.OrderCanceled(
            order_id=order_id,
            ticker=ticker,
            gated_in_session=how_far.gated_in_session,
            executed_in_session=how_far.executed_in_session,
        )
        self.append(Draft("order_canceled", canceled, item=order_id))

    def told(self, kind: str) -> list[Any]:
        """Payloads of a kind in the journal."""
        parsed = (stored.parse() for stored in self.store.events)
        return [getattr(event, kind) for event in parsed if event.WhichOneof("payload") == kind]

    def fills(self) -> dict[str, int]:
        """Signed shares by order."""
        found = dict[str, int]()
        for one in self.told("order_filled"):
            found[one.order_id] = found.get(one.order_id, 0) + (one.quantity if one.side == words.SIDE_LONG else -one.quantity)
        return found

    def in_force(self) -> list[str]:
        """Orders in force as both folds tell it, and the desk's own book."""
        replayed = replay_journal("demo", self.store.reader()).state()
        assert replayed.working_orders == fold_journal("demo", self.store.reader()).state().working_orders
        left = [(one.order.order_id, one.order.quantity) for one in replayed.working_orders]
        assert left == [(one.order_id, abs(one.delta)) for one in self.desk.orders.working]
        return [order_id for order_id, _ in left]
