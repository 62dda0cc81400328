"""Reads the news that come with the program: facts that were derived from recorded prices, their headlines rendered from their figures."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import polars as pl

from trademesh_news.news_items import DirectionMethod, NewsRecord, NewsSet

KIND_NAMES = {1: "LARGE_MOVE", 2: "NEW_HIGH", 3: "NEW_LOW", 4: "VOLATILITY_CHANGE"}
"""Numbers of news.v1.NewsKind."""

NOT_FIGURES = frozenset({"session", "ticker", "kind", "direction", "published_unix_s"})
"""Columns of a news table that are no numbers to tell."""


def derived_headline(kind: str, ticker: str, figures: dict[str, float]) -> str:
    """An item in one line."""
    match kind:
        case "LARGE_MOVE":
            return f"{ticker} closes {figures['return']:+.1%}, {abs(figures['deviations']):.1f} times its usual daily move"
        case "NEW_HIGH":
            return f"{ticker} closes {figures['above_year_high']:.1%} above its highest close of the year before"
        case "NEW_LOW":
            return f"{ticker} closes {-figures['below_year_low']:.1%} below its lowest close of the year before"
        case _:
            way = "rises" if figures["volatility_change"] > 0 else "calms down"
            return f"{ticker}: volatility {way}, {figures['volatility_20']:.0%} a year over 20 sessions, {figures['volatility_250']:.0%} over 250"


def load_news(folder: Path) -> NewsSet:
    """Reads one set into memory.

    Raises:
        ValueError, KeyError: the files are not those that were written.
        OSError: a file cannot be read.
    """
    content = (folder / "news.parquet").read_bytes()
    if hashlib.sha256(content).hexdigest() != json.loads((folder / "SOURCE.json").read_text(encoding="utf-8"))["file_sha256"]:
        raise ValueError(f"{folder / 'news.parquet'} is not the file that was written")
    items = list[NewsRecord]()
    table = pl.read_parquet(io.BytesIO(content))
    names = [name for name in table.columns if name not in NOT_FIGURES]
    for place, row in enumerate(table.iter_rows(named=True)):
        figures = {name: float(row[name]) for name in names if row[name] is not None}
        kind, session, published = KIND_NAMES[row["kind"]], row["session"].isoformat(), row["published_unix_s"]
        items.append(
            NewsRecord(
                news_id=f"{session}/{row['ticker']}/{kind.lower()}",
                kind=row["kind"],
                tickers=(row["ticker"],),
                session_date=session,
                published_unix_s=published,
                known_unix_s=published,
                revision=1,
                headline=derived_headline(kind, row["ticker"], figures),
                direction=row["direction"],
                method=DirectionMethod.FIGURES,
                figures=figures,
                ordinal=place,
            )
        )
    return NewsSet(items)
