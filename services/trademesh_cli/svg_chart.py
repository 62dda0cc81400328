"""Line charts as SVG for a page that loads nothing: lines over sessions, with a grid, labels and a legend. Colours are the page's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 960, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 12, 12, 26
_MOST_POINTS = 900
_GRID_LINES = 5
_DATE_LABELS = 8


@dataclass(frozen=True)
class Line:
    """A value per date; NaN where there is none."""

    name: str
    values: Sequence[float]


def line_chart(
    title: str, dates: Sequence[str], lines: Sequence[Line], label: Callable[[float], str], *, log: bool = False, from_zero: bool = False
) -> str:
    """An SVG element.

    Args:
        label: a value as the text beside its grid line.
        log: equal distances are equal ratios; for values that are all above zero, else it is not done.
        from_zero: zero is on the scale.
    """
    finite = [value for line in lines for value in line.values if math.isfinite(value)]
    if not dates or not finite:
        return "<p>No session is settled yet.</p>"
    log = log and min(finite) > 0
    scale = math.log if log else float
    low, high = min(finite), max(finite)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    bottom, top = scale(low), scale(high)
    if top - bottom < 1e-12:
        bottom, top = bottom - 0.5, top + 0.5
    width, height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def x(place: int) -> float:
        return _LEFT + (width * place / (len(dates) - 1) if len(dates) > 1 else width / 2)

    def y(value: float) -> float:
        return _TOP + height * (top - value) / (top - bottom)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(title)}</title>']
    for place in range(_GRID_LINES):
        value = bottom + (top - bottom) * place / (_GRID_LINES - 1)
        shown = label(math.exp(value) if log else value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{escape(shown)}</text>')
    shown_dates = min(_DATE_LABELS, len(dates))
    for number in range(shown_dates):
        place = round(number * (len(dates) - 1) / max(1, shown_dates - 1))
        anchor = "start" if number == 0 else "end" if number == shown_dates - 1 else "middle"
        parts.append(f'<text x="{x(place):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{escape(dates[place][:7])}</text>')
    for number, line in enumerate(lines):
        points = " ".join(f"{x(place):.1f},{y(scale(line.values[place])):.1f}" for place in shown_places(line.values))
        parts.append(f'<polyline class="line line-{number}" points="{points}"/>')
    legend = "".join(f'<li><span class="key key-{number}"></span>{escape(line.name)}</li>' for number, line in enumerate(lines))
    return "".join([*parts, "</svg>", f'<ul class="legend">{legend}</ul>' if len(lines) > 1 else ""])


def shown_places(values: Sequence[float]) -> list[int]:
    """Places that are drawn: all of a few, else the lowest and the highest of each stretch, so that no peak or trough is lost."""
    places = [place for place, value in enumerate(values) if math.isfinite(value)]
    if len(places) <= _MOST_POINTS:
        return places
    stretch = math.ceil(2 * len(places) / _MOST_POINTS)
    found = {places[0], places[-1]}
    for begin in range(0, len(places), stretch):
        part = places[begin : begin + stretch]
        found |= {min(part, key=values.__getitem__), max(part, key=values.__getitem__)}
    return sorted(found)
