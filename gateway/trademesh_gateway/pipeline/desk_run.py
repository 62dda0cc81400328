"""The state that the desk carries from session to session: the account with its marks, orders in force, stops, and what it is compared with."""

from __future__ import annotations

import enum
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

from trademesh_gateway.agents.portfolio_manager import Bounds
from trademesh_gateway.agents.records import Book
from trademesh_gateway.market.point_in_time import PointInTimeView
from trademesh_gateway.pipeline.broker import Moment, SessionBar, SessionTimes, priced
from trademesh_gateway.pipeline.comparison import Comparison
from trademesh_gateway.pipeline.order_book import OrderBook
from trademesh_gateway.risk.gate import Limits
from trademesh_gateway.risk.stops import Stops
from trademesh_ledger.account import Account
from trademesh_ledger.corporate_actions import ActionEffect, CorporateAction, restate_marks
from trademesh_ledger.costs import CostModel
from trademesh_ledger.margin import MarginRules
from trademesh_ledger.portfolio import Portfolio

DECISION_LEAD_S = 1800
"""Decisions are made so long before the open."""


class FillPolicy(enum.IntEnum):
    """Which price an order gets; values are those of runtime.v1.FillPolicy."""

    NEXT_CLOSE = 1
    NEXT_OPEN = 2
    SAME_CLOSE = 3

    @property
    def moment(self) -> Moment:
        """When orders of a session are executed that name no other moment."""
        return Moment.OPEN if self is FillPolicy.NEXT_OPEN else Moment.CLOSE

    def decides_at(self, session: SessionTimes) -> int:
        """Nothing that became known after this instant (Unix seconds) is used for a session's decisions."""
        return session.close_unix_s if self is FillPolicy.SAME_CLOSE else session.open_unix_s - DECISION_LEAD_S


@dataclass(frozen=True)
class DeskRules:
    """What the configuration says about trading."""

    costs: CostModel
    margin: MarginRules
    limits: Limits
    resize_on_gap: bool
    bounds: Bounds
    agents: dict[str, frozenset[str]]
    """Enabled agents by id, with the skills that each may use."""
    approval_over_bp: int | None
    approval_ttl_s: int
    fill: FillPolicy = FillPolicy.NEXT_CLOSE
    participation_bp: int = 0
    """Most of a session's volume that fills of the run may be; 0 is no bound."""


@dataclass
class DeskRun:
    """The desk between two sessions."""

    tickers: tuple[str, ...]
    account: Account
    rules: DeskRules
    comparison: Comparison
    sessions_settled: int = 0
    fills: int = 0
    peak_nav_micros: int = 0
    orders: OrderBook = field(default_factory=OrderBook)
    closes_micros: dict[str, int] = field(default_factory=dict)
    """The last known close of each ticker, in shares of now."""
    _without_close: dict[str, int] = field(default_factory=dict)
    """How many sessions in a row each ticker has had no close; only of those that had none in the last."""
    stops: Stops = field(init=False)

    def __post_init__(self) -> None:
        initial = self.account.portfolio.initial_cash_micros
        self.stops = Stops(self.rules.limits.drawdown_stop_bp, initial)
        self.peak_nav_micros = max(self.peak_nav_micros, initial)

    @property
    def portfolio(self) -> Portfolio:
        """What the desk holds."""
        return self.account.portfolio

    def take_closes(self, closes: Sequence[int]) -> None:
        """A session has closed: by column, 0 where there is no close."""
        known = priced(self.tickers, closes)
        self.closes_micros.update(known)
        missing = [] if len(known) == len(self.tickers) else [ticker for ticker in self.tickers if ticker not in known]
        self._without_close = {ticker: self._without_close.get(ticker, 0) + 1 for ticker in missing}

    def stale(self, exactly: int = 0) -> list[str]:
        """Tickers that are held and had no close in the last session; or, for exactly so many in a row."""
        held = self.account.portfolio.positions
        return [ticker for ticker, count in self._without_close.items() if ticker in held and (not exactly or count == exactly)]

    def open_session(self, actions: Sequence[CorporateAction]) -> list[ActionEffect]:
        """What companies do on the morning of a session, to the account and to what it is compared with; what it did to the account."""
        self.open_comparison(actions)
        return self.account.open_session(actions)

    def open_comparison(self, actions: Sequence[CorporateAction]) -> None:
        """The same for a session whose account is known, to all but the account."""
        restate_marks(actions, self.closes_micros)
        self.comparison.open_session(actions)

    def compare(self, session: str, before: PointInTimeView, bar: SessionBar) -> list[tuple[str, int]]:
        """Settles the baselines at a close: they trade at the moment at which the desk does. `before` is what was known when it decided."""
        count = len(self.tickers)
        prices = bar.opens if self.rules.fill.moment is Moment.OPEN else bar.closes
        index_close = bar.closes[count] if len(bar.closes) > count else 0
        return self.comparison.settle(session, before, prices[:count] or [0] * count, bar.closes[:count], index_close)

    def book(self, last_closes: Sequence[int]) -> Book:
        """The account at the last known closes, splits of the morning counted in, as agents see it."""
        portfolio = self.account.portfolio
        positions = map(portfolio.positions.get, self.tickers)
        quantities = [0 if position is None else position.quantity for position in positions]
        prices = list(last_closes)
        if not all(prices):
            known = zip(self.tickers, last_closes, quantities, strict=True)
            prices = [close or self._last_price(ticker, held) for ticker, close, held in known]
        held: int = sum(map(operator.mul, quantities, prices))
        return Book(
            portfolio.cash_micros + held,
            self.stops.peak_micros,
            quantities,
            prices,
            self.stops.previous_nav_micros,
            self.stops.drawdown_stopped,
        )

    def _last_price(self, ticker: str, held: int) -> int:
        """Of a ticker without a close in the last session: what it was valued at if it is held, which may be the open of a session without a
        close, else its last close. A gateway that begins again knows no other."""
        return (self.account.marks_micros if held else self.closes_micros).get(ticker, 0)
