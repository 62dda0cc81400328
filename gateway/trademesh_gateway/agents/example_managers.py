"""Two plain strategies as rules of the portfolio manager: what many backtesters show as their first example, so that ours can be compared with
them to the micro-dollar (`scripts/bench trading`). They look at no analyst; limits may be switched off for them.

    monthly-equal-weight   at each first session of a month, and at the first that is known at all: every ticker to the same weight, all
                           together 98 % of net asset value
    sma-crossover          per ticker, averages of 20 and 60 closes: buys for 4 % of the cash at the start when the short one is above the long
                           one, and sells all when it is below
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trademesh_gateway.agents.records import Book, Decision
from trademesh_gateway.market.point_in_time import Closes, PointInTimeView

INVESTED_PERCENT = 98
SLOT_PERCENT = 4
SHORT_WINDOW, LONG_WINDOW = 20, 60


def monthly_equal_weight(view: PointInTimeView, book: Book, session_number: int) -> list[Decision]:
    """Target shares = floor(floor(NAV x 98 / (100 n)) / price) for n tickers; the difference is ordered."""
    count = len(view.tickers)
    due = view.last_session()[:7] != view.session_before_last()[:7] or session_number == 1
    slot = book.nav_micros * INVESTED_PERCENT // (100 * count) if due else 0
    weight = INVESTED_PERCENT / (100 * count)
    return [
        Decision(column, slot // price - held if due and price else 0, 1.0 if due else 0.0, 0.0, weight)
        for column, (price, held) in enumerate(zip(book.price_micros, book.quantity, strict=True))
    ]


def sma_crossover(view: PointInTimeView, book: Book, initial_cash_micros: int) -> list[Decision]:
    """Purchases of floor(slot / price) shares. Equal averages change nothing."""
    trend = view.windowed(f"trend {SHORT_WINDOW} {LONG_WINDOW}", LONG_WINDOW, _trend)
    if trend is None:
        return [Decision(column, 0, 0.0, 0.0, 0.0) for column in range(len(view.tickers))]
    slot = initial_cash_micros * SLOT_PERCENT // 100
    decisions = list[Decision]()
    for column, (sign, price, held) in enumerate(zip(trend.tolist(), book.price_micros, book.quantity, strict=True)):
        delta = slot // price if sign > 0 and held == 0 and price else -held if sign < 0 and held > 0 else 0
        decisions.append(Decision(column, delta, abs(sign), sign, SLOT_PERCENT / 100 if held + delta else 0.0))
    return decisions


def _trend(closes: Closes) -> npt.NDArray[np.float64]:
    """Sign of the short average less the long one, from sums of whole micro-dollars: no rounding decides. 0 where a close is missing."""
    width = (1, closes.shape[1])
    sums = np.concatenate([np.zeros(width, np.int64), closes.cumsum(axis=0)])
    missing = np.concatenate([np.zeros(width, np.int64), (closes == 0).cumsum(axis=0)])
    long = sums[LONG_WINDOW:] - sums[:-LONG_WINDOW]
    short = sums[LONG_WINDOW:] - sums[LONG_WINDOW - SHORT_WINDOW : len(sums) - SHORT_WINDOW]
    sign = np.sign(short * LONG_WINDOW - long * SHORT_WINDOW)
    result: npt.NDArray[np.float64] = np.where(missing[LONG_WINDOW:] > missing[:-LONG_WINDOW], 0, sign).astype(np.float64)
    return result
