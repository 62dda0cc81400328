"""Reads news sets: items by the time at which they were published. Writes nothing and derives nothing."""

from __future__ import annotations

import bisect
import hashlib
import io
import json
import threading
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from trademesh_kernel.errors import DataAbsent

EMBEDDED_SETS = Path(__file__).parent / "data"

KIND_NAMES = {1: "LARGE_MOVE", 2: "NEW_HIGH", 3: "NEW_LOW", 4: "VOLATILITY_CHANGE"}
"""Numbers of news.v1.NewsKind."""

NOT_FIGURES = frozenset({"session", "ticker", "kind", "direction", "published_unix_s"})
"""Columns of a news table that are no numbers to tell."""


@dataclass(frozen=True, slots=True)
class NewsRecord:
    """One item. `figures` holds only the numbers that the item tells."""

    news_id: str
    kind: int
    ticker: str
    session_date: str
    published_unix_s: int
    direction: int
    figures: dict[str, float]

    @property
    def headline(self) -> str:
        """The item in one line, rendered from its figures."""
        figures = self.figures
        match KIND_NAMES[self.kind]:
            case "LARGE_MOVE":
                return f"{self.ticker} closes {figures['return']:+.1%}, {abs(figures['deviations']):.1f} times its usual daily move"
            case "NEW_HIGH":
                return f"{self.ticker} closes {figures['above_year_high']:.1%} above its highest close of the year before"
            case "NEW_LOW":
                return f"{self.ticker} closes {-figures['below_year_low']:.1%} below its lowest close of the year before"
            case _:
                way = "rises" if figures["volatility_change"] > 0 else "calms down"
                return f"{self.ticker}: volatility {way}, {figures['volatility_20']:.0%} a year over 20 sessions, {figures['volatility_250']:.0%} over 250"


@dataclass(frozen=True)
class NewsSet:
    """All items of a set, oldest first, and the instants by which they are searched."""

    items: tuple[NewsRecord, ...]
    published: tuple[int, ...]

    def span(self, after_unix_s: int | None, as_of_unix_s: int) -> range:
        """Places of the items published after one instant and known at another."""
        first = 0 if after_unix_s is None else bisect.bisect_right(self.published, after_unix_s)
        return range(first, max(first, bisect.bisect_right(self.published, as_of_unix_s)))


class NewsStore:
    """All news sets that can be read."""

    def __init__(self, root: Path = EMBEDDED_SETS) -> None:
        self._root = root
        self._loaded: dict[str, NewsSet] = {}
        self._loading = threading.Lock()

    def names(self) -> list[str]:
        """Names of all sets."""
        return sorted(folder.name for folder in self._root.iterdir() if (folder / "news.parquet").is_file())

    def get(self, name: str) -> NewsSet:
        """A set by its name; raises DataAbsent."""
        with self._loading:
            found = self._loaded.get(name)
            if found is None:
                if name not in self.names():
                    raise DataAbsent(f"there is no news for set {name}: there is for {', '.join(self.names())}", set=name, what="news")
                try:
                    found = self._loaded[name] = load_news(self._root / name)
                except (OSError, ValueError, KeyError) as error:
                    raise DataAbsent(f"the news of set {name} cannot be read: {error}", set=name, what="news") from error
            return found


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
    for row in table.iter_rows(named=True):
        figures = {name: float(row[name]) for name in names if row[name] is not None}
        session = row["session"].isoformat()
        news_id = f"{session}/{row['ticker']}/{KIND_NAMES[row['kind']].lower()}"
        items.append(NewsRecord(news_id, row["kind"], row["ticker"], session, row["published_unix_s"], row["direction"], figures))
    return NewsSet(tuple(items), tuple(item.published_unix_s for item in items))
