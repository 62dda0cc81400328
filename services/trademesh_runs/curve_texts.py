"""The curve of a run as text, as it stands in derived files. It only ever grows, so the text of a point is made once and kept: a file
costs what is new, however many years are behind it. The rest of the files is made by `exports.py`.

Writing a point by hand takes a tenth of what `json_format` takes, which goes through every field of the message by its description. The
text is the same, byte for byte (test_curve_texts.py); a field that is added to the messages is to be added here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from trademesh.gateway.v1.state_pb2 import EquityPoint

NEW_YORK = ZoneInfo("America/New_York")
LINES = {"baseline": "equal_weight", "baseline_vw": "market_cap_weighted", "momentum": "momentum"}
"""Baselines that dashboards draw, by their keys there."""
_CLOSE = time(16, 0)
_NEVER = -1
_quoted = json.JSONEncoder().encode
"""What `json.dumps` does, without looking through its options at every call."""


def dollars(micros: int) -> float:
    """Micro-dollars as dashboards show them."""
    return micros / 1_000_000


def close_milliseconds(session: str) -> int:
    """The regular close of a session, an ISO date, in milliseconds of Unix time."""
    return round(datetime.combine(date.fromisoformat(session), _CLOSE, NEW_YORK).timestamp() * 1000)


def point_json(point: EquityPoint) -> str:
    """A point as protobuf JSON: what is empty or 0 is left out, and numbers of 64 bits are strings."""
    return _point_json(point.session_date, point.nav_micros, _rows(point), point.sequence)


def _rows(point: EquityPoint) -> list[tuple[str, int, str]]:
    """Name, value and note of each baseline: to take a field out of a message is most of the work, so it is done once."""
    return [(one.name, one.nav_micros, one.note) for one in point.baselines]


def _point_json(session_date: str, nav_micros: int, baselines: list[tuple[str, int, str]], sequence: int) -> str:
    members = list[str]()
    if session_date:
        members.append(f'"session_date": {_quoted(session_date)}')
    if nav_micros:
        members.append(f'"nav_micros": "{nav_micros}"')
    if baselines:
        members.append(f'"baselines": [{", ".join([_baseline_json(*one) for one in baselines])}]')
    if sequence:
        members.append(f'"sequence": "{sequence}"')
    return f"{{{', '.join(members)}}}"


def _baseline_json(name: str, nav_micros: int, note: str) -> str:
    members = list[str]()
    if name:
        members.append(f'"name": {_quoted(name)}')
    if nav_micros:
        members.append(f'"nav_micros": "{nav_micros}"')
    if note:
        members.append(f'"note": {_quoted(note)}')
    return f"{{{', '.join(members)}}}"


class _Line:
    """One line of a dashboard's chart: a value per session."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.count = 0
        """Sessions that it has values of; _NEVER if it lacks one, or has two."""


class CurveTexts:
    """The texts of a curve, as far as it was followed."""

    def __init__(self) -> None:
        self.count = 0
        """Points that are in them."""
        self.points = bytearray()
        """The points as protobuf JSON, with commas between them."""
        self._first: EquityPoint | None = None
        self._equity = _Line()
        self._baselines = {baseline: _Line() for baseline in LINES.values()}

    def follow(self, points: Sequence[EquityPoint], count: int | None = None) -> CurveTexts:
        """Takes in what a curve has more, up to its first `count` points if said; those that were followed do not change."""
        for point in points[self.count : count]:
            self._add(point)
        return self

    def _add(self, point: EquityPoint) -> None:
        session_date, nav_micros, baselines = point.session_date, point.nav_micros, _rows(point)
        text = _point_json(session_date, nav_micros, baselines, point.sequence).encode()
        if self._first is None:
            self._first = point
            self.points += text
        else:
            self.points += b", " + text
        at = f',{{"t":{close_milliseconds(session_date)},"v":'
        self._draw(self._equity, at, nav_micros)
        for name, micros, _note in baselines:
            line = self._baselines.get(name)
            if line is not None:
                self._draw(line, at, micros)
        self.count += 1

    def _draw(self, line: _Line, at: str, micros: int) -> None:
        # Lines are drawn by index: one that is not of every session, as in journals of earlier versions, is none.
        if line.count == self.count:
            line.text += f"{at}{dollars(micros)!r}}}".encode()
            line.count += 1
        else:
            line.text.clear()
            line.count = _NEVER

    def chart(self, initial_cash_micros: int) -> dict[str, Sequence[bytes | bytearray]]:
        """The lines of a chart as compact JSON, in pieces, by their keys. All begin with the initial cash, on the day before the first."""
        lines = {"equity": self._equity} | {key: self._baselines[baseline] for key, baseline in LINES.items()}
        if self._first is None:
            return dict.fromkeys(lines, (b"[]",))
        eve = (date.fromisoformat(self._first.session_date) - timedelta(days=1)).isoformat()
        begin = b'[{"t":%d,"v":%r}' % (close_milliseconds(eve), dollars(initial_cash_micros))
        return {key: (begin, line.text, b"]") if line.count == self.count else (b"[]",) for key, line in lines.items()}

    def has_line(self, key: str) -> bool:
        """True if a line is drawn: it has a value of every session."""
        return self.count > 0 and self._baselines[LINES[key]].count == self.count

    def first_note(self, baseline: str) -> str:
        """What a baseline lacks, as the first session tells it."""
        return next((one.note for one in self._first.baselines if one.name == baseline), "") if self._first is not None else ""
