"""A figure of a benchmark: how it comes from interleaved rounds, and how it is shown. Pure: nothing is measured here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles

ROUNDS = 5
"""How often each pair is measured, in turn: the machine's speed drifts, a ratio within a round does not."""


@dataclass(frozen=True)
class Figure:
    """One row. `ratio` is value / limit; without a goal a figure is told, not judged."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    """What it is held against: the bare library in the same run, or what is asked for."""
    ratio: float | None = None
    goal: float | None = None
    """The smallest ratio that is good enough."""
    holds: bool | None = None


def against(name: str, unit: str, ours: Sequence[float], bare: Sequence[float], goal: float | None = None) -> Figure:
    """A figure from paired rounds: medians of both, and the median of the ratios pair by pair.

    Raises:
        ValueError: the rounds are not pairs, or there are none.
    """
    ratio = median(one / other for one, other in zip(ours, bare, strict=True))
    return Figure(name, median(ours), unit, median(bare), ratio, goal, None if goal is None else ratio >= goal)


def at_least(name: str, unit: str, ours: Sequence[float], wanted: float) -> Figure:
    """A figure that is to reach a number."""
    value = median(ours)
    return Figure(name, value, unit, wanted, value / wanted, 1.0, value >= wanted)


def at_most(name: str, unit: str, value: float, allowed: float) -> Figure:
    """A figure that is to stay within a number; its ratio is how much of the room is left."""
    ratio = allowed / value if value > 0 and allowed > 0 else None
    return Figure(name, value, unit, allowed, ratio, None if ratio is None else 1.0, value <= allowed)


def told(name: str, unit: str, value: float) -> Figure:
    """A figure that is not judged."""
    return Figure(name, value, unit)


def percentile(values: Sequence[float], percent: int) -> float:
    """A percentile, inclusive: of few values the high ones are the largest."""
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def interleaved(one: Callable[[], float], other: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Measures two things in turn, the first of each round changing; one round before that is not counted."""
    ones, others = list[float](), list[float]()
    for number in range(ROUNDS + 1):
        if number % 2:
            second, first = other(), one()
        else:
            first, second = one(), other()
        if number:
            ones.append(first)
            others.append(second)
    return ones, others


def table(figures: Sequence[Figure]) -> str:
    """Figures as text, a row each."""
    rows = [("figure", "value", "unit", "against", "ratio", "goal", "")]
    for figure in figures:
        verdict = "" if figure.holds is None else "holds" if figure.holds else "MISSED"
        rows.append(
            (figure.name, _number(figure.value), figure.unit, _number(figure.limit), _number(figure.ratio), _number(figure.goal), verdict)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = (1, 3, 4, 5)
    lines = (
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def as_json(figures: Sequence[Figure]) -> str:
    """Figures as a JSON list of {name, value, unit, limit, ratio, goal, holds}."""
    return json.dumps([asdict(figure) for figure in figures], indent=2) + "\n"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
