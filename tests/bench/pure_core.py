"""The pure core, without journal and RPC: strategy, checks, fills, marks, margin, on works A and B; and how its time grows with tickers."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from bench.figures import ROUNDS, Figure, at_least, at_most
from reference_works import WORKS, Market, market, run, trend_of

WANTED_TICKER_DAYS_PER_S = 300_000
FEW, MANY, GROWTH_SESSIONS = 20, 2_000, 252


def core_figures() -> list[Figure]:
    """Rates of both works, the slower of their fill policies; time per ticker-day with 2,000 tickers against 20."""
    figures = list[Figure]()
    days = len(market().sessions) * len(market().tickers)
    for work, orders_of in WORKS.items():
        rates = [
            days
            / max(cpu_seconds(lambda same=same, orders_of=orders_of: run(orders_of, market(), same_close=same)) for same in (True, False))
            for _ in range(ROUNDS)
        ]
        figures.append(at_least(f"pure core on work {work}", "ticker-days/CPU s", rates, WANTED_TICKER_DAYS_PER_S))
    few, many = synthetic(FEW, GROWTH_SESSIONS * 20), synthetic(MANY, GROWTH_SESSIONS)
    each = [
        cpu_seconds(lambda one=one: run(WORKS["A"], one, same_close=True)) / (len(one.sessions) * len(one.tickers)) for one in (few, many)
    ]
    return [*figures, at_most(f"time per ticker-day, {MANY:,} synthetic tickers against {FEW}", "times", each[1] / each[0], 1.25)]


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def synthetic(tickers: int, sessions: int) -> Market:
    """A seeded random walk of made-up tickers: says nothing about returns."""
    steps = np.random.Generator(np.random.PCG64(7)).normal(0.0, 0.01, (sessions, tickers))
    closes = np.rint(50_000_000 * np.exp(steps.cumsum(axis=0))).astype(np.int64)
    dates = np.datetime64("1990-01-01") + np.arange(sessions)
    return Market(tuple(f"T{number:04}" for number in range(tickers)), tuple(map(str, dates)), closes.tolist(), trend_of(closes).tolist())
