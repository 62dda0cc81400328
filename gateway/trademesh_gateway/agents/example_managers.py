"""Two plain strategies as rules of the portfolio manager: what many backtesters show as their first example, so that ours can be compared with
them to the micro-dollar (`scripts/bench trading`). They look at no analyst; limits may be switched off for them.

    monthly-equal-weight   at each first session of a month, and at the first that is known at all: every ticker to the same weight, all
                           together 98 % of net asset value
    sma-crossover          per ticker, averages of 20 and 60 closes: buys for 4 % of the cash at the start when the short one is above the long
                           one, and sells all when it is below
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from trademesh_gateway.agents.records import Book, Decisions
from trademesh_gateway.market.point_in_time import Closes, PointInTimeView

INVESTED_PERCENT = 98
SLOT_PERCENT = 4
SHORT_WINDOW, LONG_WINDOW = 20, 60


def monthly_equal_weight(view: PointInTimeView, book: Book, session_number: int) -> Decisions:
    """Target shares = floor(floor(NAV x 98 / (100 n)) / price) for n tickers; the difference is ordered."""
    count = len(view.tickers)
    if view.last_session()[:7] == view.session_before_last()[:7] and session_number != 1:
        return _held(count, INVESTED_PERCENT / (100 * count))
    slot = book.nav_micros * INVESTED_PERCENT // (100 * count)
    deltas = [slot // price - held if price else 0 for price, held in zip(book.price_micros, book.quantity, strict=True)]
    return Decisions(deltas, [1.0] * count, [0.0] * count, [INVESTED_PERCENT / (100 * count)] * count)


@cache
def _held(count: int, target_weight: float) -> Decisions:
    """So many tickers held as they are, without an opinion."""
    nothing = [0.0] * count
    return Decisions([0] * count, nothing, nothing, [target_weight] * count)


def sma_crossover(view: PointInTimeView, book: Book, initial_cash_micros: int) -> Decisions:
    """Purchases of floor(slot / price) shares. Equal averages change nothing."""
    count = len(view.tickers)
    trend = view.windowed(f"trend {SHORT_WINDOW} {LONG_WINDOW}", LONG_WINDOW, _trend)
    if trend is None:
        return _held(count, 0.0)
    slot, score, deltas = initial_cash_micros * SLOT_PERCENT // 100, trend.tolist(), [0] * count
    for column, (sign, held, price) in enumerate(zip(score, book.quantity, book.price_micros, strict=True)):
        if sign > 0 and not held:
            deltas[column] = slot // price if price else 0
        elif sign < 0 and held > 0:
            deltas[column] = -held
    targets = [SLOT_PERCENT / 100 if held + delta else 0.0 for held, delta in zip(book.quantity, deltas, strict=True)]
    return Decisions(deltas, list(map(abs, score)), score, targets)


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
