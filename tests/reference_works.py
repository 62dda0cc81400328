"""The two reference works of the peers' comparison, as a strategy over the pure core: no journal, no RPC, no agents.

Data: closes of the 20 stocks of `us20`. $1,000,000, fee 1 bp, whole shares, t counts sessions from 0.

    A   at t = 0 and at each first session of a month: target of each of n tickers = floor(floor(NAV x 98 / 100 n) / close(t)); the
        difference is ordered, sales first, else in the order of the data.
    B   SMA20 > SMA60 and no position: floor($40,000 / close(t)) shares are bought; SMA20 < SMA60 and a position: it is sold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from trademesh_ledger.account import Account
from trademesh_ledger.costs import CostModel
from trademesh_ledger.execution import Execution, Fill
from trademesh_ledger.margin import MarginRules
from trademesh_ledger.portfolio import Portfolio
from trademesh_trading.set_files import load_set
from trademesh_trading.store import EMBEDDED_SETS

CASH_MICROS = 1_000_000_000_000
SLOT_MICROS = 40_000_000_000
STOCKS = 20

Orders = list[tuple[str, int]]


@dataclass(frozen=True)
class Market:
    """What the works trade: micro-dollars, a row per session."""

    tickers: tuple[str, ...]
    sessions: tuple[str, ...]
    closes_micros: list[list[int]]
    trend: list[list[int]]
    """Sign of SMA20 - SMA60 by row and ticker, from integer sums; 0 where there are no 60 closes."""


@dataclass(frozen=True)
class Outcome:
    """Figures of a work."""

    nav_micros: int
    fills: int
    fees_micros: int
    cash_micros: int


@cache
def market() -> Market:
    """The embedded set."""
    data = load_set(EMBEDDED_SETS / "us20")
    closes = data.close_micros[:, :STOCKS]
    tickers = tuple(instrument.ticker for instrument in data.instruments[:STOCKS])
    return Market(tickers, data.sessions, closes.tolist(), trend_of(closes).tolist())


def trend_of(closes_micros: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Sign of SMA20 - SMA60 from sums of integers; each row sees itself and what came before."""
    sums = np.concatenate([np.zeros((1, closes_micros.shape[1]), np.int64), closes_micros.cumsum(axis=0)])
    trend = np.zeros(closes_micros.shape, np.int64)
    trend[59:] = np.sign((sums[60:] - sums[40:-20]) * 3 - (sums[60:] - sums[:-60]))
    return trend


def orders_of_a(account: Account, found: Market, row: int) -> Orders:
    """Back to equal weights, once a month."""
    if row and found.sessions[row][:7] == found.sessions[row - 1][:7]:
        return []
    slot = account.portfolio.net_asset_value(account.marks_micros) * 98 // (100 * len(found.tickers))
    prices = zip(found.tickers, found.closes_micros[row], strict=True)
    orders = [(ticker, slot // price - account.portfolio.quantity(ticker)) for ticker, price in prices]
    return [order for order in orders if order[1] < 0] + [order for order in orders if order[1] > 0]


def orders_of_b(account: Account, found: Market, row: int) -> Orders:
    """With the trend, or out."""
    positions, orders = account.portfolio.positions, Orders()
    for ticker, trend, price in zip(found.tickers, found.trend[row], found.closes_micros[row], strict=True):
        if trend > 0 and ticker not in positions:
            orders.append((ticker, SLOT_MICROS // price))
        elif trend < 0 and ticker in positions:
            orders.append((ticker, -positions[ticker].quantity))
    return orders


def run(orders_of: Callable[[Account, Market, int], Orders], found: Market, *, same_close: bool) -> Outcome:
    """Runs a work over all sessions; orders of session t are filled at its close, or at that of t + 1. A rejection is an error."""
    fills = 0
    account = Account(Portfolio(CASH_MICROS), CostModel(fee_bp=1), MarginRules())
    pending, nav = Orders(), CASH_MICROS

    def fill(execution: Execution, orders: Orders) -> int:
        results = [execution.execute(ticker, delta, account.marks_micros[ticker]) for ticker, delta in orders]
        assert all(isinstance(result, Fill) for result in results), results
        return len(results)

    for row, closes in enumerate(found.closes_micros):
        prices = dict(zip(found.tickers, closes, strict=True))
        execution = account.execution(prices)
        fills += fill(execution, pending)
        pending = orders_of(account, found, row)
        if same_close:
            fills += fill(execution, pending)
            pending = []
        nav = account.settle(prices, 1).nav_micros
    return Outcome(nav, fills, account.portfolio.fees_micros, account.portfolio.cash_micros)


WORKS = {"A": orders_of_a, "B": orders_of_b}
