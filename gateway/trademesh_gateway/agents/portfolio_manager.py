"""The portfolio manager by rules: one decision for every ticker, sized so that each position carries a like risk. Other rules, which look at no
analyst, are in `example_managers.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from trademesh_gateway.agents.example_managers import monthly_equal_weight, sma_crossover
from trademesh_gateway.agents.indicators import clipped, volatility
from trademesh_gateway.agents.records import Book, Decisions, Signals
from trademesh_gateway.market.point_in_time import Column, PointInTimeView

Manager = Callable[[PointInTimeView, Sequence[Signals], Book, int], Decisions]
"""From what is known, what analysts say, the account and the session's number to a decision for every ticker."""

VOLATILITY_TARGET = 0.15
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


def decide(view: PointInTimeView, signals: Sequence[Signals], book: Book, bounds: Bounds, session_number: int) -> Decisions:
    """Target weight = mean score x volatility target / (volatility x root of a typical number of positions), within the limits of the book.

    Trades on every fifth session, and between them only to leave a position whose score has turned.
    """
    count, nav = len(view.tickers), book.nav_micros
    score, weight = _mean_score(signals, count)
    level = volatility(view, 20)
    usable = (weight > 0) & (level > 0)
    size = VOLATILITY_TARGET / (np.where(usable, level, 1.0) * math.sqrt(TYPICAL_POSITIONS))
    wanted = np.where(usable, (score + LONG_TILT) * 2 * size, 0.0)
    targets = _fitted(clipped(wanted, -bounds.position, bounds.position), bounds)
    held, confidence = book.weights(), np.minimum(1.0, weight)
    usable &= np.array(book.price_micros, bool) & (nav > 0)
    if session_number % REBALANCE_SESSIONS == 1:
        moved = usable & (abs(targets - held) >= NO_TRADE_BAND)
    else:
        moved = usable & (held * targets < 0)
        targets = np.where(moved, 0.0, targets)
    if not usable.all():
        confidence, targets = np.where(usable, confidence, 0.0), np.where(usable, targets, held)
    deltas = [0] * count
    for column in moved.nonzero()[0].tolist():
        # Money stays whole: the weight becomes steps of a ten-thousandth before it meets it.
        steps = round(float(targets[column]) * WEIGHT_STEPS)
        shares = abs(steps) * nav // (WEIGHT_STEPS * book.price_micros[column])
        deltas[column] = (shares if steps > 0 else -shares) - book.quantity[column]
    return Decisions(deltas, confidence, score, targets)


def _fitted(targets: Column, bounds: Bounds) -> Column:
    """Targets scaled alike to what a book may be: what is bought to the cash, then both sides to the bound on their absolute sum, and of the
    signed sum the side that goes too far."""
    # Sums are exact before they are rounded: no order of adding decides what is bought.
    told = targets.tolist()
    bought = math.fsum([target for target in told if target > 0])
    if bought > bounds.bought - CASH_RESERVE:
        targets = np.where(targets > 0, targets * ((bounds.bought - CASH_RESERVE) / bought), targets)
        told = targets.tolist()
    gross = math.fsum(map(abs, told))
    if gross > bounds.gross:
        targets = targets * (bounds.gross / gross)
        told = targets.tolist()
    net = math.fsum(told)
    if abs(net) > bounds.net:
        side = targets * net > 0
        too_far = math.fsum(abs(targets[side]).tolist())
        targets = np.where(side, targets * max(0.0, 1 - (abs(net) - bounds.net) / too_far), targets)
    return targets


def _mean_score(signals: Sequence[Signals], count: int) -> tuple[Column, Column]:
    """The mean of scores, weighted by confidence, and the sum of those weights, by ticker; 0 where nobody says anything."""
    score, weight = np.zeros(count), np.zeros(count)
    for one in signals:
        if not one.abstained_because:
            confidence, lean = one.leans()
            score += lean
            weight += confidence
    return np.where(weight > 0, score / np.where(weight > 0, weight, 1.0), 0.0), weight
