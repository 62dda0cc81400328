"""What agents return. Values are those of the contract (`gateway/v1/event.proto`), as plain records."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Stance(enum.IntEnum):
    """Which way an analyst leans."""

    BULLISH = 1
    BEARISH = 2
    NEUTRAL = 3
    ABSTAIN = 4


_STANCES = np.array([Stance.NEUTRAL.value, Stance.BULLISH.value, Stance.BEARISH.value])
"""By the sign of a score: 0, 1 and, from the end, -1."""


@dataclass(slots=True)
class Signals:
    """One analyst's view: an array entry per ticker. `abstained_because` is set if it abstains from all, and then nothing else is."""

    score: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]
    abstain: npt.NDArray[np.bool_]
    horizon_sessions: int
    figures: list[tuple[str, str, npt.NDArray[np.float64]]] = field(default_factory=list)
    abstained_because: str = ""
    _stances: list[Any] = field(default_factory=list, repr=False, compare=False)
    """Made once: signals and predictions are told by them."""

    def stances(self) -> list[Any]:
        """Which way the analyst leans in each ticker, as values of Stance; agrees with the sign of the score."""
        if not self._stances:
            self._stances = np.where(self.abstain, Stance.ABSTAIN.value, _STANCES[np.sign(self.score).astype(np.intp)]).tolist()
        return self._stances


def abstention(because: str) -> Signals:
    """The signals of an analyst that has nothing to judge by."""
    empty = np.zeros(0)
    return Signals(empty, empty, np.zeros(0, bool), 1, abstained_because=because)


class Decision(NamedTuple):
    """What the portfolio manager wants for one ticker: signed shares to trade, 0 to hold."""

    column: int
    delta: int
    confidence: float
    score: float
    target_weight: float


@dataclass(frozen=True, slots=True)
class Book:
    """The account as agents see it: before the session's orders, at the last known closes. Arrays have an entry per ticker."""

    nav_micros: int
    peak_nav_micros: int
    quantity: Sequence[int]
    price_micros: Sequence[int]
    previous_nav_micros: int = 0
    """Net asset value at the close before the last one; 0 if there is none."""
    drawdown_stopped: bool = False
    """True while a drawdown stop holds that no person has lifted."""

    def weight(self, column: int) -> float:
        """Signed value of a position over net asset value."""
        return self.quantity[column] * self.price_micros[column] / self.nav_micros if self.nav_micros > 0 else 0.0
