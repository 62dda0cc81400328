"""The portfolio manager by rules: one decision for every ticker, sized so that each position carries a like risk. Other rules, which look at no
analyst, are in `example_managers.py`."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np

from trademesh_gateway.agents.example_managers import monthly_equal_weight, sma_crossover
from trademesh_gateway.agents.indicators import Table, volatility_of
from trademesh_gateway.agents.records import AnySignals, Book, Decisions
from trademesh_gateway.market.point_in_time import Closes, PointInTimeView

Manager = Callable[[PointInTimeView, Sequence[AnySignals], Book, int], Decisions]
"""From what is known, what analysts say, the account and the session's number to a decision for every ticker."""

VOLATILITY_TARGET = 0.15
VOLATILITY_SESSIONS = 20
TYPICAL_POSITIONS = 10
LONG_TILT = 0.25
"""Added to every mean score: stocks have paid for being held."""
REBALANCE_SESSIONS = 5
NO_TRADE_BAND = 0.015
"""Weights that differ by less are left alone."""
CASH_RESERVE = 0.01
"""Of net asset value, not invested: for fees, and for prices that rise until the fill."""
WEIGHT_STEPS = 10_000


@dataclass(frozen=True)
class Bounds:
    """What a run lets a book be, as fractions of net asset value: one position, the sum of absolute ones, the sum of signed ones, and of those
    above zero, which only cash buys unless the account may be in debit. Who sizes within them asks for nothing that would be cut."""

    position: float
    gross: float
    net: float
    bought: float = 1.0


def manager_of(skills: Collection[str], bounds: Bounds, initial_cash_micros: int) -> Manager:
    """The rules that a portfolio manager with these skills follows."""
    if "monthly-equal-weight" in skills:
        return lambda view, _signals, book, number: monthly_equal_weight(view, book, number)
    if "sma-crossover" in skills:
        return lambda view, _signals, book, _number: sma_crossover(view, book, initial_cash_micros)
    return lambda view, signals, book, number: decide(view, signals, book, bounds, number)


def decide(view: PointInTimeView, signals: Sequence[AnySignals], book: Book, bounds: Bounds, session_number: int) -> Decisions:
    """Target weight = mean score x volatility target / (volatility x root of a typical number of positions), within the limits of the book.

    Trades on every fifth session, and between them only to leave a position whose score has turned.
    """
    count, nav = len(view.tickers), book.nav_micros
    scores, weights = _mean_score(signals, count)
    table = view.windowed(f"sizes {VOLATILITY_SESSIONS}", VOLATILITY_SESSIONS + 1, _sizes)
    sizes = [0.0] * count if table is None else table.tolist()
    usable = [weight > 0 and size > 0 for weight, size in zip(weights, sizes, strict=True)]
    wanted = [(score + LONG_TILT) * size if known else 0.0 for score, size, known in zip(scores, sizes, usable, strict=True)]
    targets, held = fitted(_within(wanted, bounds.position), bounds), book.weights()
    if session_number % REBALANCE_SESSIONS == 1:
        moved = [abs(target - weight) >= NO_TRADE_BAND for target, weight in zip(targets, held, strict=True)]
    else:
        moved = [target * weight < 0 for target, weight in zip(targets, held, strict=True)]
        if any(moved):
            targets = [0.0 if leaves else target for leaves, target in zip(moved, targets, strict=True)]
    confidence, deltas = _within(weights, 1.0), [0] * count
    if not (nav > 0 and all(usable) and all(book.price_micros)):
        for column, price in enumerate(book.price_micros):
            if not (usable[column] and price and nav > 0):
                confidence[column], targets[column], moved[column] = 0.0, held[column], False
    for column in compress(range(count), moved):
        # Money stays whole: the weight becomes steps of a ten-thousandth before it meets it.
        steps = round(targets[column] * WEIGHT_STEPS)
        shares = abs(steps) * nav // (WEIGHT_STEPS * book.price_micros[column])
        deltas[column] = (shares if steps > 0 else -shares) - book.quantity[column]
    return Decisions(deltas, confidence, scores, targets)


def _within(values: list[float], bound: float) -> list[float]:
    """Values, none farther from zero than a bound; a list of its own."""
    if max(values, default=0.0) <= bound and min(values, default=0.0) >= -bound:
        return values.copy()
    return [bound if value > bound else -bound if value < -bound else value for value in values]


def _sizes(closes: Closes) -> Table:
    """What a score of one is worth as a weight, by volatility; 0 where that is not known, or nothing moves."""
    level = volatility_of(closes, VOLATILITY_SESSIONS)
    moves = level > 0
    found: Table = np.where(moves, 2 * VOLATILITY_TARGET / (np.where(moves, level, 1.0) * math.sqrt(TYPICAL_POSITIONS)), 0.0)
    return found


def fitted(targets: list[float], bounds: Bounds) -> list[float]:
    """Targets scaled alike to what a book may be: what is bought to the cash, then both sides to the bound on their absolute sum, and of the
    signed sum the side that goes too far."""
    # Sums are exact before they are rounded: no order of adding decides what is bought.
    bought = math.fsum([target for target in targets if target > 0])
    room = max(0.0, bounds.bought - CASH_RESERVE)
    if bought > room:
        share = room / bought
        targets = [target * share if target > 0 else target for target in targets]
    gross = math.fsum(map(abs, targets))
    if gross > bounds.gross:
        share = bounds.gross / gross
        targets = [target * share for target in targets]
    net = math.fsum(targets)
    if abs(net) > bounds.net:
        too_far = math.fsum([abs(target) for target in targets if (target > 0) == (net > 0)])
        share = max(0.0, 1 - (abs(net) - bounds.net) / too_far)
        targets = [target * share if (target > 0) == (net > 0) else target for target in targets]
    return targets


def _mean_score(signals: Sequence[AnySignals], count: int) -> tuple[list[float], list[float]]:
    """The mean of scores, weighted by confidence, and the sum of those weights, by ticker; 0 where nobody says anything."""
    told = [one.leans() for one in signals if not one.abstained_because]
    if not told:
        return [0.0] * count, [0.0] * count
    weights, scores = told[0]
    for more_weights, more_scores in told[1:]:
        weights = list(map(operator.add, weights, more_weights))
        scores = list(map(operator.add, scores, more_scores))
    return [score / weight if weight > 0 else 0.0 for score, weight in zip(scores, weights, strict=True)], weights
