"""What a line of a user's file of news may say, and what is made of it. Files and folders are `importer.py`'s.

A line is a JSON object with `id`, `published_at` and `headline`, and if they are there `updated_at`, `tickers`, `body`, `url`, `source` and
`direction` (1 good, -1 bad, 0 neither, for who holds a ticker). Instants are RFC 3339 with their offset: what does not say when it became
known cannot be told as of an instant, and is refused. Lines with one id are versions of one item, each known from its `updated_at` on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from trademesh_news.imported_sets import ARTICLE
from trademesh_news.news_items import DirectionMethod, NewsRecord
from trademesh_news.words import tally

FIELDS = ("id", "published_at", "updated_at", "tickers", "headline", "body", "url", "source", "direction")
REQUIRED = ("id", "published_at", "headline")
LONGEST = {"id": 256, "headline": 500, "body": 20_000, "url": 2_000, "source": 200}
"""Characters."""
MOST_TICKERS = 100
LONGEST_TICKER = 32


@dataclass(frozen=True, order=True)
class Fault:
    """What is wrong with one line, counted from 1, or with the whole file if `row` is 0."""

    row: int
    message: str

    def __str__(self) -> str:
        return f"row {self.row}: {self.message}" if self.row else self.message


@dataclass
class Judged:
    """Versions, what is wrong with lines, and the keys that nothing is made of."""

    records: list[NewsRecord] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    ignored_keys: dict[str, None] = field(default_factory=dict)


def judge(lines: Iterable[bytes], now: datetime, known_already: Iterable[NewsRecord] = ()) -> Judged:
    """Judges every line, and how versions of an item go together, also with those of earlier imports. A version that is there already is
    left out.

    Args:
        now: later instants are faults.
    """
    judged = Judged()
    versions = {(record.news_id, record.known_unix_s): record for record in known_already}
    published = {record.news_id: record.published_unix_s for record in versions.values()}
    for row, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = _record(json.loads(line), now, judged)
        except ValueError as error:
            judged.faults.append(Fault(row, str(error) if isinstance(error, _WrongError) else "is not a line of JSON in UTF-8"))
            continue
        except RecursionError:
            judged.faults.append(Fault(row, "is nested too deeply"))
            continue
        same = versions.setdefault((record.news_id, record.known_unix_s), record)
        first = published.setdefault(record.news_id, record.published_unix_s)
        if same is not record and _content(same) != _content(record):
            judged.faults.append(
                Fault(row, f"{record.news_id} is told in two ways as of one second: a new version has an updated_at of its own")
            )
        elif first != record.published_unix_s:
            judged.faults.append(Fault(row, f"{record.news_id} has another published_at elsewhere: that of an item does not change"))
        elif same is record:
            judged.records.append(record)
    return judged


class _WrongError(ValueError):
    """What is wrong with a line."""


def _record(line: Any, now: datetime, judged: Judged) -> NewsRecord:
    if not isinstance(line, dict):
        raise _WrongError("is not a JSON object")
    missing = [name for name in REQUIRED if line.get(name) in (None, "")]
    if missing:
        undated = ": news without a date cannot be told as of an instant" if "published_at" in missing else ""
        raise _WrongError(f"has no {' and no '.join(missing)}{undated}")
    texts = {name: _text(line, name) for name in LONGEST}
    published = _instant(line, "published_at", now)
    known = published if line.get("updated_at") in (None, "") else _instant(line, "updated_at", now)
    if known < published:
        raise _WrongError("updated_at is before published_at")
    direction, method, figures = _direction(line, f"{texts['headline']}\n{texts['body']}")
    judged.ignored_keys |= dict.fromkeys(str(key) for key in line if key not in FIELDS)
    return NewsRecord(
        news_id=texts["id"],
        kind=ARTICLE,
        tickers=_tickers(line),
        session_date="",
        published_unix_s=published,
        known_unix_s=known,
        revision=0,
        headline=texts["headline"],
        direction=direction,
        method=method,
        figures=figures,
        body=texts["body"],
        url=texts["url"],
        publisher=texts["source"],
    )


def _text(line: dict[str, Any], name: str) -> str:
    value = line.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _WrongError(f"{name} is not a text")
    text = value.strip() if name in ("id", "body") else " ".join(value.split())
    if len(text) > LONGEST[name]:
        raise _WrongError(f"{name} has {len(text)} characters, and may have {LONGEST[name]}")
    if name in REQUIRED and not text:
        raise _WrongError(f"has no {name}")
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in text) or (name != "body" and not text.isprintable()):
        raise _WrongError(f"{name} has a character that is not to be printed")
    if name == "url" and text and not text.startswith(("https://", "http://")):
        raise _WrongError("url does not begin with https:// or http://")
    return text


def _instant(line: dict[str, Any], name: str, now: datetime) -> int:
    """Whole seconds since 1970, rounded up: nothing is known before it was."""
    value = line[name]
    try:
        instant = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise _WrongError(f"{name} {value!r} is not an instant such as 2008-09-15T13:30:00Z") from None
    if instant.tzinfo is None:
        raise _WrongError(f"{name} {value} does not say its offset from UTC, as 2008-09-15T13:30:00Z does")
    try:
        utc = instant.astimezone(UTC)
    except OverflowError:
        raise _WrongError(f"{name} {value} is out of range") from None
    if utc > now:
        raise _WrongError(f"{name} {value} is still to come")
    if utc.year < 1900:
        raise _WrongError(f"{name} {value} is before 1900")
    return math.ceil(utc.replace(microsecond=0).timestamp() + (utc.microsecond > 0))


def _tickers(line: dict[str, Any]) -> tuple[str, ...]:
    value = line.get("tickers")
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _WrongError("tickers is not a list of texts")
    found = tuple(dict.fromkeys(one.strip() for one in value))
    if len(found) > MOST_TICKERS:
        raise _WrongError(f"has {len(found)} tickers, and may have {MOST_TICKERS}")
    for one in found:
        if not 0 < len(one) <= LONGEST_TICKER or not one.isprintable() or " " in one:
            raise _WrongError(f"{one!r} is no ticker")
    return found


def _direction(line: dict[str, Any], text: str) -> tuple[int, DirectionMethod, dict[str, float]]:
    value = line.get("direction")
    if value is None:
        found = tally(text)
        return found.direction, DirectionMethod.WORDS, {"positive_words": found.positive, "negative_words": found.negative}
    if not isinstance(value, int) or isinstance(value, bool) or not -1 <= value <= 1:
        raise _WrongError("direction is not 1, 0 or -1")
    return value, DirectionMethod.STATED, {}


def _content(record: NewsRecord) -> tuple[object, ...]:
    """All that a line says of a version."""
    return (
        *(record.published_unix_s, record.known_unix_s, record.tickers, record.headline, record.body, record.url, record.publisher),
        *(record.direction, record.method),
    )
