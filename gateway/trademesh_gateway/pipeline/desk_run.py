"""The state that the desk carries from session to session: the account, marks, peak, and what the same money would be worth elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from trademesh_gateway.agents.records import Book
from trademesh_gateway.market.point_in_time import PointInTimeView
from trademesh_gateway.pipeline.order_book import OrderBook
from trademesh_gateway.risk.gate import Limits
from trademesh_gateway.risk.stops import Stops
from trademesh_ledger.baselines import MOMENTUM_CLOSES, Holding, Momentum, equal_weight
from trademesh_ledger.costs import CostModel
from trademesh_ledger.margin import MarginRules
from trademesh_ledger.money import divide_half_even
from trademesh_ledger.portfolio import Portfolio


@dataclass(frozen=True)
class DeskRules:
    """What the configuration says about trading."""

    costs: CostModel
    margin: MarginRules
    limits: Limits
    resize_on_gap: bool
    position_limit: float
    agents: dict[str, frozenset[str]]
    """Enabled agents by id, with the skills that each may use."""
    approval_over_bp: int | None
    approval_ttl_s: int


@dataclass
class DeskRun:
    """The desk between two sessions."""

    tickers: tuple[str, ...]
    portfolio: Portfolio
    rules: DeskRules
    index_name: str
    peak_nav_micros: int
    sessions_settled: int = 0
    fills: int = 0
    marks: dict[str, int] = field(default_factory=dict)
    first_index_close: int = 0
    index_mark: int = 0
    orders: OrderBook = field(default_factory=OrderBook)
    stops: Stops = field(init=False)

    def __post_init__(self) -> None:
        initial, costs = self.portfolio.initial_cash_micros, self.rules.costs
        self.stops = Stops(self.rules.limits.drawdown_stop_bp, initial)
        self._equal_weight: Holding = equal_weight(initial, self.tickers, costs)
        self._momentum = Momentum(initial, self.tickers, costs)

    def book(self, last_closes: Sequence[int]) -> Book:
        """The account at the last known closes, as agents see it."""
        prices = {ticker: close for ticker, close in zip(self.tickers, last_closes, strict=True) if close}
        marks = {**self.marks, **prices}
        return Book(
            self.portfolio.net_asset_value(marks) if self.portfolio.positions else self.portfolio.cash_micros,
            self.stops.peak_micros,
            [self.portfolio.quantity(ticker) for ticker in self.tickers],
            [marks.get(ticker, 0) for ticker in self.tickers],
            self.stops.previous_nav_micros,
            self.stops.drawdown_stopped,
        )

    def mark(self, session: str, before: PointInTimeView, closes: Sequence[int], index_close: int) -> tuple[int, list[tuple[str, int]]]:
        """Takes in the closes of a session; `before` is what was known until then. Returns net asset value, and that of each baseline."""
        for ticker, close in zip(self.tickers, closes, strict=True):
            if close:
                self.marks[ticker] = close
        nav = self.portfolio.net_asset_value(self.marks)
        self.peak_nav_micros = max(self.peak_nav_micros, nav)
        marks = [self.marks.get(ticker, 0) for ticker in self.tickers]
        known = before.last_closes(MOMENTUM_CLOSES)[:, : len(marks)].tolist() if self._momentum.is_due(session) else []
        baselines = [
            ("equal_weight", self._equal_weight.settle(closes, marks)),
            ("momentum", self._momentum.settle(session, closes, known, marks)),
        ]
        self.index_mark = index_close or self.index_mark
        self.first_index_close = self.first_index_close or self.index_mark
        if self.first_index_close:
            index = divide_half_even(self.portfolio.initial_cash_micros * self.index_mark, self.first_index_close)
            baselines.append((f"index:{self.index_name}", index))
        self.stops.settle(nav)
        return nav, baselines
