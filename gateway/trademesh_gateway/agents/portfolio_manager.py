"""The portfolio manager by rules: one decision for every ticker, sized so that each position carries a like risk. Other rules, which look at no
analyst, are in `example_managers.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from trademesh_gateway.agents.example_managers import monthly_equal_weight, sma_crossover
from trademesh_gateway.agents.indicators import clipped, volatility
from trademesh_gateway.agents.records import Book, Decision, Signals
from trademesh_gateway.market.point_in_time import Column, PointInTimeView

Manager = Callable[[PointInTimeView, Sequence[Signals], Book, int], list[Decision]]
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


def decide(view: PointInTimeView, signals: Sequence[Signals], book: Book, bounds: Bounds, session_number: int) -> list[Decision]:
    """Target weight = mean score x volatility target / (volatility x root of a typical number of positions), within the limits of the book.

    Trades on every fifth session, and between them only to leave a position whose score has turned.
    """
    score, weight = _mean_score(signals, len(view.tickers))
    level = volatility(view, 20)
    usable = (weight > 0) & (level > 0)
    size = VOLATILITY_TARGET / (np.where(usable, level, 1.0) * math.sqrt(TYPICAL_POSITIONS))
    wanted = np.where(usable, (score + LONG_TILT) * 2 * size, 0.0)
    targets = _fitted(clipped(wanted, -bounds.position, bounds.position), bounds)
    rebalances, nav = session_number % REBALANCE_SESSIONS == 1, book.nav_micros
    columns = zip(
        book.price_micros,
        book.quantity,
        usable.tolist(),
        score.tolist(),
        np.minimum(1.0, weight).tolist(),
        targets.tolist(),
        strict=True,
    )
    decisions = list[Decision]()
    for column, (price, held, known, own, confidence, target) in enumerate(columns):
        if not known or price == 0 or nav <= 0:
            decisions.append(Decision(column, 0, 0.0, own, book.weight(column)))
            continue
        if held * target < 0 and not rebalances:
            target = 0.0
        elif not rebalances or abs(target - held * price / nav) < NO_TRADE_BAND:
            decisions.append(Decision(column, 0, confidence, own, target))
            continue
        # Money stays whole: the weight becomes steps of a ten-thousandth before it meets it.
        steps = round(target * WEIGHT_STEPS)
        shares = abs(steps) * nav // (WEIGHT_STEPS * price)
        decisions.append(Decision(column, (shares if steps > 0 else -shares) - held, confidence, own, target))
    return decisions


def _fitted(targets: Column, bounds: Bounds) -> Column:
    """Targets scaled alike to what a book may be: what is bought to the cash, then both sides to the bound on their absolute sum, and of the
    signed sum the side that goes too far."""
    # Sums are exact before they are rounded: no order of adding decides what is bought.
    bought = math.fsum(targets[targets > 0])
    if bought > bounds.bought - CASH_RESERVE:
        targets = np.where(targets > 0, targets * ((bounds.bought - CASH_RESERVE) / bought), targets)
    gross = math.fsum(abs(targets))
    if gross > bounds.gross:
        targets = targets * (bounds.gross / gross)
    net = math.fsum(targets)
    if abs(net) > bounds.net:
        side = targets * net > 0
        too_far = math.fsum(abs(targets[side]))
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
