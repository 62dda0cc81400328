"""The state that the desk carries from session to session: the account, marks, peak, and what the same money would be worth elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from trademesh_gateway.agents.records import Book
from trademesh_gateway.pipeline.order_book import OrderBook
from trademesh_gateway.risk.gate import Limits
from trademesh_gateway.risk.stops import Stops
from trademesh_ledger.costs import CostModel
from trademesh_ledger.margin import MarginRules
from trademesh_ledger.money import BASIS_POINTS, divide_half_even
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


class EqualWeight:
    """Buys one share of the money in each ticker at its first close, and holds (the `equal_weight` baseline). Pays the desk's fees."""

    def __init__(self, initial_cash_micros: int, tickers: int, costs: CostModel) -> None:
        self._cash = initial_cash_micros
        self._part = initial_cash_micros // tickers
        self._costs = costs
        self._quantity: list[int | None] = [None] * tickers

    def settle(self, closes: Sequence[int], marks: Sequence[int]) -> int:
        """Net asset value at a close; `closes` are 0 where a ticker has none, `marks` the last known ones."""
        value = 0
        for column, close in enumerate(closes):
            if self._quantity[column] is None and close:
                shares = self._part * BASIS_POINTS // (close * (BASIS_POINTS + self._costs.fee_bp))
                self._quantity[column] = shares
                if shares:
                    self._cash -= shares * close + self._costs.fee(shares, close)
            value += (self._quantity[column] or 0) * marks[column]
        return self._cash + value


@dataclass
class DeskRun:
    """The desk between two sessions."""

    tickers: tuple[str, ...]
    portfolio: Portfolio
    rules: DeskRules
    equal_weight: EqualWeight
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
        self.stops = Stops(self.rules.limits.drawdown_stop_bp, self.portfolio.initial_cash_micros)

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

    def mark(self, closes: Sequence[int], index_close: int) -> tuple[int, int, int | None]:
        """Takes in the closes of a session. Returns net asset value, the equal-weight baseline, and the index's (None without an index)."""
        for ticker, close in zip(self.tickers, closes, strict=True):
            if close:
                self.marks[ticker] = close
        self.index_mark = index_close or self.index_mark
        self.first_index_close = self.first_index_close or self.index_mark
        nav = self.portfolio.net_asset_value(self.marks)
        equal = self.equal_weight.settle(closes, [self.marks.get(ticker, 0) for ticker in self.tickers])
        initial = self.portfolio.initial_cash_micros
        index = divide_half_even(initial * self.index_mark, self.first_index_close) if self.first_index_close else None
        self.peak_nav_micros = max(self.peak_nav_micros, nav)
        self.stops.settle(nav)
        return nav, equal, index
