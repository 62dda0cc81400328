"""What agents did in a session, as it is recalled when somebody asks about it. Mappings have a ticker's entry in the run's order; limits are in
words. While they work, agents use `records.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trademesh_gateway.agents.records import Stance


@dataclass(frozen=True, slots=True)
class View:
    """An analyst's signal in one ticker, and the figures behind it by name."""

    stance: Stance
    score: float
    confidence: float
    horizon_sessions: int
    note: str = ""
    figures: tuple[tuple[str, float], ...] = ()

    @property
    def conviction(self) -> float:
        """How far times how sure."""
        return abs(self.score) * self.confidence


@dataclass(frozen=True, slots=True)
class AnalystWork:
    """An analyst's signals of a session: by ticker in the run's order, or why it abstained from all."""

    session: str
    views: Mapping[str, View]
    abstained_because: str = ""


@dataclass(frozen=True, slots=True)
class Headroom:
    """The risk manager's note on one ticker. `bound_by` is a limit in words, empty if none binds; `warned` if the note warns or blocks."""

    most_to_add: int
    most_to_take_away: int
    volatility: float | None = None
    bound_by: str = ""
    warned: bool = False


@dataclass(frozen=True, slots=True)
class RiskWork:
    """The risk manager's notes of a session: the book as fractions of its net asset value, and headroom by ticker in the run's order."""

    session: str
    nav_micros: int
    gross: float
    net: float
    drawdown: float
    headroom: Mapping[str, Headroom]


@dataclass(frozen=True, slots=True)
class Passage:
    """What the limits made of an order: shares asked for and let pass, and the limit that made the difference. `bound` is the limit's value and
    `figure` what was held against it, as they are read, and `unit` what both are counted in; empty if they are not told."""

    requested: int
    allowed: int
    limit: str = ""
    bound: str = ""
    figure: str = ""
    unit: str = ""


@dataclass(slots=True)
class Fate:
    """What became of an order after the limits."""

    sayings: list[str] = field(default_factory=list)
    """What people and the exchange said, in words, in their order."""
    filled: int = 0
    price_micros: int = 0
    """Of the newest fill."""
    position: int = 0
    """After the newest fill."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The portfolio manager's decision on one ticker: signed shares, 0 to hold, and what became of them."""

    delta: int
    score: float
    confidence: float
    target_weight: float
    passage: Passage | None = None
    fate: Fate = field(default_factory=Fate)


@dataclass(frozen=True, slots=True)
class ManagerWork:
    """The portfolio manager's decisions of a session, by ticker in the run's order."""

    session: str
    choices: Mapping[str, Choice]
    settled: bool
    given_up_because: str = ""
    """Why the session's cycle was given up before its orders were executed."""
