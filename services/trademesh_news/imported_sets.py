"""News that users imported, on the disk: a folder for each set, a file for each import, a line of JSON for each version of an item.

    <data_dir>/news/<set>/000001-<first 12 digits of the file's SHA-256>.jsonl

A file is never changed: what is imported later has a higher number. What may be in an import is `importer_rows.py`'s; it is carried out by
`importer.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trademesh_news.news_items import DirectionMethod, NewsRecord, NewsSet

ARTICLE = 5
"""Number of news.v1.NewsKind."""
HASH_DIGITS = 12
_FILE = re.compile(r"(\d{6})-([0-9a-f]{12})\.jsonl")


class ImportDamaged(Exception):
    """A file is not what was written."""


def import_files(folder: Path) -> list[Path]:
    """The files of a set, oldest first; what is not finished begins with a dot and is none."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _FILE.fullmatch(path.name))


def import_name(number: int, content: bytes) -> str:
    """Name of the file of an import."""
    return f"{number:06d}-{hashlib.sha256(content).hexdigest()[:HASH_DIGITS]}.jsonl"


def number_of(path: Path) -> int:
    """Number of an import, from the name of its file."""
    return int(path.name[:6])


def encoded(records: Iterable[NewsRecord]) -> bytes:
    """Versions as the lines of a file."""
    return b"".join(json.dumps(_line(record), ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for record in records)


def _line(record: NewsRecord) -> dict[str, Any]:
    return {
        "id": record.news_id,
        "published_unix_s": record.published_unix_s,
        "known_unix_s": record.known_unix_s,
        "tickers": list(record.tickers),
        "headline": record.headline,
        "body": record.body,
        "url": record.url,
        "publisher": record.publisher,
        "direction": record.direction,
        "method": record.method.name,
        "figures": record.figures,
    }


def read_imports(files: Sequence[Path]) -> NewsSet:
    """Reads the files of a set into memory.

    Raises:
        ImportDamaged: a file is not what was written.
        OSError: a file cannot be read.
    """
    records = list[NewsRecord]()
    for path in files:
        content = path.read_bytes()
        if import_name(number_of(path), content) != path.name:
            raise ImportDamaged(f"{path} is not the file that was written")
        try:
            records += [_record(json.loads(line), number_of(path)) for line in content.splitlines()]
        except (ValueError, KeyError, TypeError) as error:
            raise ImportDamaged(f"{path} is not what was written") from error
    return numbered(records)


def _record(line: dict[str, Any], arrival: int) -> NewsRecord:
    return NewsRecord(
        news_id=line["id"],
        kind=ARTICLE,
        tickers=tuple(line["tickers"]),
        session_date="",
        published_unix_s=line["published_unix_s"],
        known_unix_s=line["known_unix_s"],
        revision=0,
        headline=line["headline"],
        direction=line["direction"],
        method=DirectionMethod[line["method"]],
        figures=line["figures"],
        body=line["body"],
        url=line["url"],
        publisher=line["publisher"],
        arrival=arrival,
    )


def numbered(records: Iterable[NewsRecord]) -> NewsSet:
    """A set of versions, those of an item counted by when they became known."""
    counts, found = dict[str, int](), list[NewsRecord]()
    for record in sorted(records, key=lambda record: record.key):
        counts[record.news_id] = counts.get(record.news_id, 0) + 1
        found.append(replace(record, revision=counts[record.news_id]))
    return NewsSet(found)
