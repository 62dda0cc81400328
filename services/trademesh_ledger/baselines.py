"""What the same money would be worth in other hands: baselines that trade by a rule that anyone can follow.

They begin on the same session with the same cash, pay the same fees and slippage in the same ledger, and buy whole shares. A session in
which they do not trade costs a multiplication for each ticker. Columns are tickers; prices are micro-dollars, 0 where there is none.

On prices as traded they get their dividends, splits and delistings like the desk (`take_actions`); dividends stay cash until they next trade.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

from trademesh_ledger.corporate_actions import CorporateAction, apply_actions
from trademesh_ledger.costs import CostModel
from trademesh_ledger.money import BASIS_POINTS
from trademesh_ledger.portfolio import Portfolio

SHARES_NOT_KNOWN = "the numbers of shares are not known"
MOMENTUM_INTERVALS = 20
MOMENTUM_CLOSES = MOMENTUM_INTERVALS + 1
"""So many closes before a session tell its momentum."""


class Baseline:
    """An account that a rule trades. Rules derive from it."""

    def __init__(self, initial_cash_micros: int, tickers: Sequence[str], costs: CostModel) -> None:
        self._tickers = tuple(tickers)
        self._costs = costs
        self.portfolio = Portfolio(initial_cash_micros)
        self._shares = [0] * len(tickers)

    def net_asset_value(self, marks: Sequence[int]) -> int:
        """Cash and shares at their marks."""
        held: int = sum(map(operator.mul, self._shares, marks))
        return self.portfolio.cash_micros + held

    def take_actions(self, actions: Sequence[CorporateAction], marks: Sequence[int]) -> None:
        """What companies do on the morning of an ex-date, before the session is settled; `marks` are the closes before, by column."""
        known = {ticker: mark for ticker, mark in zip(self._tickers, marks, strict=True) if mark}
        apply_actions(self.portfolio, actions, known)
        self._shares = [self.portfolio.quantity(ticker) for ticker in self._tickers]

    def _trade(self, column: int, delta: int, price: int) -> None:
        """Fills at a price that has its slippage already."""
        self.portfolio.apply_fill(self._tickers[column], delta, price, self._costs.fee(delta, price))
        self._shares[column] += delta

    def _affordable(self, amount: int, price: int, parts: int = 1) -> int:
        """Whole shares that one of so many parts of an amount buys with their fee: floor(part 10_000 / (price (10_000 + fee_bp))), and fewer
        if the least fee asks for it."""
        by_rate = amount * BASIS_POINTS // (parts * price * (BASIS_POINTS + self._costs.fee_bp))
        return max(0, min(by_rate, (amount // parts - self._costs.min_fee_micros) // price))


class Holding(Baseline):
    """Buys a part of the cash in each ticker at its first price, and holds. Until then the part waits as cash."""

    def __init__(self, initial_cash_micros: int, tickers: Sequence[str], costs: CostModel, weights: Sequence[int]) -> None:
        """`weights` are in any unit; what a ticker gets is its weight over the sum of all."""
        super().__init__(initial_cash_micros, tickers, costs)
        self._weights = sum(weights)
        self._waiting = {column: initial_cash_micros * weight for column, weight in enumerate(weights) if weight}

    def settle(self, prices: Sequence[int], marks: Sequence[int]) -> int:
        """Net asset value after a session: `prices` are what fills begin with, `marks` the last known closes."""
        if self._waiting:
            for column, amount in list(self._waiting.items()):
                if prices[column]:
                    del self._waiting[column]
                    price = self._costs.fill_price(prices[column], 1)
                    shares = self._affordable(amount, price, self._weights)
                    if shares:
                        self._trade(column, shares, price)
        return self.net_asset_value(marks)


def equal_weight(initial_cash_micros: int, tickers: Sequence[str], costs: CostModel) -> Holding:
    """The same part of the cash in each ticker."""
    return Holding(initial_cash_micros, tickers, costs, [1] * len(tickers))


def market_cap_weighted(
    initial_cash_micros: int, tickers: Sequence[str], costs: CostModel, shares_outstanding: Sequence[int], closes: Sequence[int]
) -> tuple[Holding | None, str]:
    """Parts like the values of the companies: filed shares times the close that was known at the first decision.

    A ticker without either has no part, and is named in the second value. None with a reason there if no ticker has both.
    """
    values = [shares * close for shares, close in zip(shares_outstanding, closes, strict=True)]
    missing = [ticker for ticker, value in zip(tickers, values, strict=True) if not value]
    if len(missing) == len(tickers):
        return None, SHARES_NOT_KNOWN
    reason = f"without {', '.join(missing)}, whose value is not known" if missing else ""
    return Holding(initial_cash_micros, tickers, costs, values), reason


class Momentum(Baseline):
    """Holds the half of the tickers that rose most over the last 20 intervals, in equal parts, long only (Jegadeesh and Titman 1993).

    Trades on the first session, and on the first of each month; if none has a price then, on the next that has.
    """

    def __init__(self, initial_cash_micros: int, tickers: Sequence[str], costs: CostModel) -> None:
        super().__init__(initial_cash_micros, tickers, costs)
        self._month = ""
        self._most = (len(tickers) + 1) // 2

    def is_due(self, session_date: str) -> bool:
        """True if it trades on this session (ISO date), and so needs what was known before it."""
        return session_date[:7] != self._month

    def settle(self, session_date: str, prices: Sequence[int], known: Sequence[Sequence[int]], marks: Sequence[int]) -> int:
        """Net asset value after a session. `known` are the last 21 closes before it, oldest first, fewer if there are no more; it is read
        only on sessions that are due. Others as for `Holding.settle`."""
        if session_date[:7] != self._month and any(prices):
            self._month = session_date[:7]
            chosen = self._strongest(known[0], known[-1]) if len(known) == MOMENTUM_CLOSES else []
            self._rebalance(chosen, prices, marks)
        return self.net_asset_value(marks)

    def _strongest(self, earlier: Sequence[int], later: Sequence[int]) -> list[int]:
        """Columns of the largest rises, ties by ticker. One without both closes has no rank."""
        rises = [
            (-new / old, ticker, column)
            for column, (old, new, ticker) in enumerate(zip(earlier, later, self._tickers, strict=True))
            if old and new
        ]
        return [column for _, _, column in sorted(rises)[: self._most]]

    def _rebalance(self, chosen: Sequence[int], prices: Sequence[int], marks: Sequence[int]) -> None:
        """Sells first, then buys, each in the order of columns. What has no price stays as it is."""
        targets = [0] * len(self._shares)
        value = self.net_asset_value(marks)
        for column in chosen:
            if prices[column]:
                targets[column] = self._affordable(value, self._costs.fill_price(prices[column], 1), len(chosen))
        deltas = [(column, target - self._shares[column]) for column, target in enumerate(targets) if prices[column]]
        for column, delta in deltas:
            if delta < 0:
                self._trade(column, delta, self._costs.fill_price(prices[column], delta))
        for column, delta in deltas:
            if delta > 0:
                # The fees of the sales come out of the last purchases.
                price = self._costs.fill_price(prices[column], delta)
                delta = min(delta, self._affordable(self.portfolio.cash_micros, price))
                if delta:
                    self._trade(column, delta, price)
