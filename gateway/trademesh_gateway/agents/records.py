"""What agents return. Values are those of the contract (`gateway/v1/event.proto`), as plain records."""

from __future__ import annotations

import enum
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import compress
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from trademesh_gateway.market.point_in_time import Column


class Stance(enum.IntEnum):
    """Which way an analyst leans."""

    BULLISH = 1
    BEARISH = 2
    NEUTRAL = 3
    ABSTAIN = 4


_UP, _DOWN, _LEVEL, _ABSTAIN = (one.value for one in Stance)
_STANCES = np.array([_LEVEL, _UP, _DOWN])
"""By the sign of a score: 0, 1 and, from the end, -1."""


@dataclass(slots=True)
class Signals:
    """One analyst's view of a session: an entry per ticker. `abstained_because` is set if it abstains from all, and then nothing else is."""

    score: Sequence[float]
    confidence: Sequence[float]
    abstain: Sequence[bool]
    horizon_sessions: int
    figures: Sequence[tuple[str, str, Sequence[float]]] = ()
    """Tool, name and value of what it looked at."""
    abstained_because: str = ""
    _stances: list[int] = field(default_factory=list, repr=False, compare=False)
    """Made once: signals and predictions are told by them."""

    def stances(self) -> list[int]:
        """Which way the analyst leans in each ticker, as values of Stance; agrees with the sign of the score."""
        if not self._stances:
            self._stances = [_UP if score > 0 else _DOWN if score < 0 else _LEVEL for score in self.score]
            for column in compress(range(len(self.score)), self.abstain):
                self._stances[column] = _ABSTAIN
        return self._stances

    def weights(self) -> list[float]:
        """What it says weighs by ticker: its confidence, zero where it abstains."""
        found = list(self.confidence)
        for column in compress(range(len(found)), self.abstain):
            found[column] = 0.0
        return found

    def leans(self) -> tuple[list[float], list[float]]:
        """Its weights, and the score times them."""
        weights = self.weights()
        return weights, list(map(operator.mul, weights, self.score))


class TabledSignals(NamedTuple):
    """A view of a session that is a row of a table: what it comes to, and where to find the rest."""

    table: SignalTable
    place: int

    @property
    def abstained_because(self) -> str:
        """Never set: where it abstains from all a table has Signals that say so."""
        return ""

    def leans(self) -> tuple[list[float], list[float]]:
        """See `Signals.leans`."""
        return self.table.weight[self.place].tolist(), self.table.weighted_score[self.place].tolist()


AnySignals: TypeAlias = Signals | TabledSignals


def stances_of(score: Column, abstain: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Values of Stance by the sign of scores."""
    found: npt.NDArray[np.int64] = np.where(abstain, _ABSTAIN, _STANCES[np.sign(score).astype(np.intp)])
    return found


@cache
def abstention(because: str) -> Signals:
    """The signals of an analyst that has nothing to judge by."""
    return Signals((), (), (), 1, abstained_because=because)


class SignalTable:
    """An analyst's views of sessions in a row, which need nothing but what was known beforehand: arrays of sessions by tickers. Each row is the
    view of its session."""

    def __init__(
        self,
        score: Column,
        confidence: Column,
        abstain: npt.NDArray[np.bool_],
        horizon_sessions: int,
        figures: Sequence[tuple[str, str, Column]],
        silent_because: str,
    ) -> None:
        """`silent_because` is what is said of a session in which it abstains from all."""
        self.score = score
        self.confidence = confidence
        self.abstain = abstain
        self.horizon_sessions = horizon_sessions
        self.figures = figures
        self.weight = np.where(abstain, 0.0, confidence)
        self.weighted_score = self.weight * score
        self._silent = abstention(silent_because)
        self._is_silent: list[bool] = np.asarray(abstain.all(axis=1)).tolist()
        self.encoded: dict[str, Any] = {}
        """For whoever tells the views to others: what was made of all of them at once, by the kind of message."""

    def __len__(self) -> int:
        return len(self._is_silent)

    def __getitem__(self, place: int) -> AnySignals:
        return self._silent if self._is_silent[place] else TabledSignals(self, place)


@dataclass(eq=False, slots=True)
class Decisions:
    """What the portfolio manager wants: an entry per ticker."""

    deltas: Sequence[int]
    """Signed shares to trade, 0 to hold."""
    confidence: Sequence[float]
    score: Sequence[float]
    target_weight: Sequence[float]


class Book(NamedTuple):
    """The account as agents see it: before the session's orders, at the last known closes. Arrays have an entry per ticker."""

    nav_micros: int
    peak_nav_micros: int
    quantity: Sequence[int]
    price_micros: Sequence[int]
    previous_nav_micros: int = 0
    """Net asset value at the close before the last one; 0 if there is none."""
    drawdown_stopped: bool = False
    """True while a drawdown stop holds that no person has lifted."""

    def weights(self) -> list[float]:
        """Signed values of positions over net asset value; zeros if that is not above zero."""
        nav, values = self.nav_micros, map(operator.mul, self.quantity, self.price_micros)
        # Whole numbers are divided: each weight is rounded once.
        return [value / nav for value in values] if nav > 0 else [0.0] * len(self.quantity)
