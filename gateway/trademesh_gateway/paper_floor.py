"""What mode PAPER adds to the loop of sessions: it waits for the next decision, trades at live prices, and says when none arrive.

Whoever waits here can be paused, drained and stopped, and time that is waited is no time that the cycle works. How prices are found is
`pipeline/paper_broker.py`'s, where they come from `market/live_prices.py`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh.trading.v1 import market_data_service_pb2 as data
from trademesh_gateway.market.bar_source import BarSource
from trademesh_gateway.market.clock import Clock, WallClock
from trademesh_gateway.market.live_prices import LivePrices
from trademesh_gateway.market.paper_market import PaperMarket
from trademesh_gateway.observed_prices import observation
from trademesh_gateway.pipeline.broker import Moment, SessionTimes
from trademesh_gateway.pipeline.controller import Controller
from trademesh_gateway.pipeline.cycle import ApprovalAnswer, ApprovalQuestion, Ask, ClosesKnown, Emit
from trademesh_gateway.pipeline.paper_broker import Observed, ObservedKey, PaperBroker, Patience
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.health import Readiness
from trademesh_runs.journal import Draft

COMMIT_DELAY_S = 0.002
"""What is journaled is acted on: it is durable at once, not with the next thousand."""

LOST_AFTER_S = 10.0
"""A feed that has told nothing for so long is said to be lost: connections that are made again at once are no news."""

_CONDITION = "live quotes"


class Writer(Protocol):
    """What is needed of the journal's writer."""

    def append(self, draft: Draft) -> bool:
        """Takes an event in."""

    async def flush(self) -> None:
        """Waits until everything is on disk."""


@dataclass(frozen=True)
class PaperParts:
    """What a test replaces."""

    clock: Clock = field(default_factory=WallClock)
    patience: Patience = field(default_factory=Patience)
    lost_after_s: float = LOST_AFTER_S


class PaperFloor:
    """Sessions to come, by the clock of the wall (a Floor)."""

    def __init__(
        self,
        config: RunConfig,
        trading: ServiceClient,
        news: ServiceClient,
        writer: Writer,
        controller: Controller,
        readiness: Readiness,
        observed: Mapping[ObservedKey, Observed],
        quoted: ClosesKnown,
        parts: PaperParts,
    ) -> None:
        """
        Args:
            observed: prices that earlier generations have journaled.
            quoted: is told live quotes, for readers of the feed.
        """
        self._config = config
        self._trading = trading
        self._news = news
        self._writer = writer
        self._controller = controller
        self._readiness = readiness
        self._observed = dict(observed)
        self._quoted = quoted
        self._parts = parts
        self._session: SessionTimes | None = None
        """The one that is waited for, or in hand."""
        self._lost_since_s: float | None = None
        self._market: BarSource | None = None
        self._broker: PaperBroker | None = None
        self._prices = LivePrices(trading, list(config.tickers), self._quote)

    def source(self) -> PaperMarket:
        """The market of the run up to now."""
        span = self._config.sessions
        sessions = data.ListSessionsRequest(calendar=span.calendar, start=span.start, end=span.end)
        return PaperMarket(self._trading, self._news, self._config.data.set, sessions, self._observed, self._parts.clock)

    def broker(self, source: BarSource) -> PaperBroker:
        """Listens to quotes from now on; returns who trades at them."""
        self._market = source
        self._prices.start()
        columns = len(self._config.tickers)
        self._broker = PaperBroker(
            self._prices,
            self._parts.clock,
            self._stand_by,
            self._observe,
            self._observed,
            columns=columns,
            other_columns=len(source.history.tickers) - columns,
            patience=self._parts.patience,
        )
        return self._broker

    async def until_decision(self, session: SessionTimes) -> None:
        """Waits until half an hour before the open. Raises as that of Floor."""
        self._session, broker = session, self._broker
        while broker is not None and not broker.is_time(session, Moment.DECISION):
            # Nobody misses quotes at night.
            await self._readiness.hold(_CONDITION)
            await self._controller.wait(self._parts.patience.poll_s)

    def asking(self, ask: Ask) -> Ask:
        """Asks people, but not for longer than their answer could be acted on."""

        async def ask_in_time(question: ApprovalQuestion, emit: Emit) -> ApprovalAnswer:
            session = self._session
            if session is not None:
                at_open = self._config.execution.fill == contract.FILL_POLICY_NEXT_OPEN
                left_s = (session.open_unix_s if at_open else session.close_unix_s) - self._parts.clock.now_unix_s()
                question = replace(question, ttl_s=max(1, min(question.ttl_s, int(left_s))))
            return await ask(question, emit)

        return ask_in_time

    async def close(self) -> None:
        """Listens no more."""
        await self._prices.close()
        await self._readiness.hold(_CONDITION)

    async def _stand_by(self, within_s: float) -> None:
        """Waits for a moment of the session in hand. Raises Interrupted when the pipeline is to stand."""
        await self._say_whether_lost()
        with self._controller.clock.standing():
            await self._controller.give_way(within_s)

    async def _say_whether_lost(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if not self._prices.lost:
            self._lost_since_s = None
            await self._readiness.hold(_CONDITION)
            return
        self._lost_since_s = now_s if self._lost_since_s is None else self._lost_since_s
        if now_s - self._lost_since_s >= self._parts.lost_after_s:
            await self._readiness.fail(_CONDITION, self._prices.lost)

    async def _observe(self, session: SessionTimes, moment: Moment, found: Observed) -> None:
        """Journals prices, and all that came before: orders, limits and approvals are durable before anything is filled at these."""
        self._writer.append(observation(session, moment, found))
        with self._controller.clock.standing():
            await self._writer.flush()
        self._observed[session.date, moment] = found
        if moment is Moment.CLOSE and isinstance(self._market, PaperMarket):
            self._market.add_session(session, self._observed[session.date, Moment.OPEN], found)

    def _quote(self, unix_s: int, prices: Mapping[str, int]) -> None:
        if self._session is not None:
            self._quoted(self._session.date, unix_s, prices)
