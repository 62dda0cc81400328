"""How good predictions were: hit rates with intervals, ranks, information coefficient, Brier score. Over outcomes, wherever they come
from: which price a prediction is measured by is the caller's to say.

A prediction is of one direction. It was right if the price went there; a price that stood still is wrong; without a price it is unknown,
and left out of every rate. Neutral predictions claim nothing and are counted apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trademesh_ledger.metrics import SMALLEST_DEVIATION

Z_95 = 1.96
"""Quantile of the normal distribution that 95 % intervals take, to two digits, as is the custom."""
FEWEST_TICKERS = 5
FEWEST_SESSIONS_OF_AN_INTERVAL = 3


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float


@dataclass
class HitCount:
    """Predictions of one direction."""

    predictions: int = 0
    wins: int = 0
    unknown: int = 0

    @property
    def known(self) -> int:
        """Those whose outcome is known."""
        return self.predictions - self.unknown

    @property
    def rate(self) -> float | None:
        """Wins among the known; None without any."""
        return self.wins / self.known if self.known else None

    def add(self, other: HitCount) -> HitCount:
        """Both together."""
        return HitCount(self.predictions + other.predictions, self.wins + other.wins, self.unknown + other.unknown)


def went_right(rise: bool, before_micros: int, after_micros: int) -> bool | None:
    """Whether a price went the way that was said; standing still is wrong. None without both prices, which are then 0."""
    if not before_micros or not after_micros:
        return None
    return after_micros > before_micros if rise else after_micros < before_micros


def wilson_interval(wins: int, known: int) -> Interval | None:
    """Where a rate lies of which a sample was seen (Wilson 1927); None without a sample."""
    if not known:
        return None
    rate, square = wins / known, Z_95 * Z_95
    centre = rate + square / (2 * known)
    width = Z_95 * math.sqrt(rate * (1 - rate) / known + square / (4 * known * known))
    scale = 1 + square / known
    # Of none and of all the bounds are 0 and 1 exactly; rounding must not push them over.
    low = 0.0 if wins == 0 else (centre - width) / scale
    return Interval(low, 1.0 if wins == known else (centre + width) / scale)


def ranks(scores: Mapping[str, HitCount]) -> dict[str, int | None]:
    """Place of each agent from 1: by the lower bound of its rate, then by how many outcomes are known, then by id. None: none is known."""
    bounds = {agent_id: wilson_interval(score.wins, score.known) for agent_id, score in scores.items()}
    known = [(-bound.low, -scores[agent_id].known, agent_id) for agent_id, bound in bounds.items() if bound is not None]
    found: dict[str, int | None] = {agent_id: place for place, (_, _, agent_id) in enumerate(sorted(known), 1)}
    return found | {agent_id: None for agent_id in scores if agent_id not in found}


def ranks_of_values(values: Sequence[float]) -> list[float]:
    """Rank of each value from 1; equal values share the mean of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found, begin = [0.0] * len(values), 0
    while begin < len(order):
        end, value = begin + 1, values[order[begin]]
        while end < len(order) and values[order[end]] == value:
            end += 1
        shared = (begin + 1 + end) / 2
        for place in order[begin:end]:
            found[place] = shared
        begin = end
    return found


def rank_correlation(scores: Sequence[float], returns: Sequence[float]) -> float | None:
    """Correlation of ranks, ties averaged (Spearman 1904); None below five pairs, or where one side does not vary.

    With scores of tickers and what they returned it is the information coefficient of a session (Grinold and Kahn 2000).
    """
    count = len(scores)
    if count < FEWEST_TICKERS:
        return None
    ours, theirs = ranks_of_values(scores), ranks_of_values(returns)
    mean = (count + 1) / 2
    products = math.fsum((a - mean) * (b - mean) for a, b in zip(ours, theirs, strict=True))
    squares = math.fsum((a - mean) ** 2 for a in ours) * math.fsum((b - mean) ** 2 for b in theirs)
    # Ranks are halves of whole numbers: a side that does not vary gives zero exactly.
    return max(-1.0, min(1.0, products / math.sqrt(squares))) if squares else None


@dataclass
class InformationCoefficient:
    """Information coefficients of sessions, summed up; `undefined` says why a figure is None."""

    sessions: int
    mean: float | None = None
    deviation: float | None = None
    t: float | None = None
    interval: Interval | None = None
    undefined: dict[str, str] = field(default_factory=dict)


def information_coefficient(by_session: Sequence[float]) -> InformationCoefficient:
    """Mean, standard deviation (n - 1), t = mean/sd sqrt(n), and the interval of the mean (Grinold and Kahn 2000; Student 1908)."""
    count = len(by_session)
    found = InformationCoefficient(count)
    if not count:
        reason = f"no session had scores and returns of {FEWEST_TICKERS} tickers that vary"
        found.undefined = dict.fromkeys(("mean", "deviation", "t", "interval"), reason)
        return found
    found.mean = math.fsum(by_session) / count
    if count < 2:
        found.undefined = dict.fromkeys(("deviation", "t", "interval"), "needs two sessions")
        return found
    mean = found.mean
    found.deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in by_session) / (count - 1))
    if found.deviation < SMALLEST_DEVIATION:
        found.undefined = dict.fromkeys(("t", "interval"), "it does not vary from session to session")
        return found
    error = found.deviation / math.sqrt(count)
    found.t = found.mean / error
    if count < FEWEST_SESSIONS_OF_AN_INTERVAL:
        found.undefined["interval"] = f"needs {FEWEST_SESSIONS_OF_AN_INTERVAL} sessions"
        return found
    width = student_quantile(count - 1) * error
    found.interval = Interval(mean - width, mean + width)
    return found


def student_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's distribution, to 1 % from two degrees of freedom on and to 0.03 % from four on.

    The expansion in powers of 1/degrees of Abramowitz and Stegun (1964), 26.7.5.
    """
    z = 1.959963984540054
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    found: float = z + sum(term / degrees**power for power, term in enumerate(terms, 1))
    return found


@dataclass
class BrierScore:
    """Mean squared distance of probabilities from what happened: 0 is perfect, a coin has 0.25 (Brier 1950)."""

    predictions: int = 0
    squares: float = 0.0

    def add(self, probability: float, right: bool) -> None:
        """Takes in a probability that a prediction is right, and whether it was."""
        self.predictions += 1
        self.squares += (probability - right) ** 2

    @property
    def mean(self) -> float | None:
        """The score; None without a prediction."""
        return self.squares / self.predictions if self.predictions else None
