"""Judges rows of prices, and turns them into the bars of a set: whole micro-dollars, sessions of an exchange, nothing made up.

Every rule adds its words to the rows that break it, so that a row is told all that is wrong with it at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from trademesh_trading.importer_files import Fault
from trademesh_trading.importer_values import (
    EARLIEST,
    NumberRule,
    TradingDays,
    dates_of,
    faults_of,
    known_times,
    missing,
    numbers_of,
    worded,
    words_of_dates,
    words_of_repeats,
    words_of_tickers,
)

PRICES = ("open", "high", "low", "close")
PRICE_RULE = NumberRule(decimals=6, least=1, most=1_000_000_000 * 10**6)
VOLUME_RULE = NumberRule(decimals=0, least=0, most=10**15)

SUSPECT_RATIO = 2.5
COARSE_SHARE = 5e-4
TICKS_MICROS = (10_000, 1_000)
"""Grids on which prices usually lie: cents, and tenths of them."""

BAR_COLUMNS = ("session", "ticker", *(f"{field}_micros" for field in PRICES), "volume_shares", "quality", "known_unix_s")


@dataclass(frozen=True)
class JudgedRows:
    """A table in the form in which a set keeps it, but for its tickers, which are names still; and every fault.

    With a fault, the table is not to be used.
    """

    table: pl.DataFrame
    faults: tuple[Fault, ...]


def judge_bars(rows: pl.DataFrame, days: TradingDays) -> JudgedRows:
    """Reads every row of prices. A bar may be told several times, if each time has its own known_at, none before the session's close."""
    session = dates_of(rows["date"]).alias("session")
    close_unix_s = days.closes(session)
    known, words_of_known = known_times(rows, days, close_unix_s)
    table = rows.with_columns(session, close_unix_s.alias("close_unix_s"), known.alias("known_unix_s"))
    words = [words_of_tickers(rows), words_of_dates(rows, "date", days.today)]
    for field in PRICES:
        values, said = numbers_of(rows[field], field, PRICE_RULE)
        table = table.with_columns(values.alias(f"{field}_micros"))
        words.append(said)
    volumes, said = numbers_of(rows["volume"], "volume", VOLUME_RULE)
    table = table.with_columns(volumes.alias("volume_shares"))
    words += [said, *missing(rows, "close"), *(worded(table, rule) for rule in _order_rules())]
    words += [worded(table, _no_session(days)), words_of_known, worded(table, _TOO_EARLY)]
    words.append(words_of_repeats(table, ("ticker", "session", "known_unix_s"), pl.col("session").cast(pl.String)))
    faults = faults_of(rows, words)
    return JudgedRows(table.clear() if faults else _with_quality(table).select(BAR_COLUMNS), faults)


def _no_session(days: TradingDays) -> pl.Expr:
    no_session = pl.col("session").is_between(EARLIEST, days.today) & pl.col("close_unix_s").is_null()
    return pl.when(no_session).then(pl.col("session").cast(pl.String) + f" is not a session of {days.calendar}")


_TOO_EARLY = pl.when(pl.col("known_unix_s") < pl.col("close_unix_s")).then(
    "known_at is " + pl.col("known_at") + ", before the close of the session"
)


def _order_rules() -> list[pl.Expr]:
    """Within a bar, low <= open, close <= high, as far as they are there."""
    rules = [(pl.col("high_micros") < pl.col("low_micros"), "high " + pl.col("high") + " is below low " + pl.col("low"))]
    for field in ("open", "close"):
        price = pl.col(f"{field}_micros")
        rules.append((price > pl.col("high_micros"), f"{field} " + pl.col(field) + " is above high " + pl.col("high")))
        rules.append((price < pl.col("low_micros"), f"{field} " + pl.col(field) + " is below low " + pl.col("low")))
    return [pl.when(broken).then(words) for broken, words in rules]


def _with_quality(table: pl.DataFrame) -> pl.DataFrame:
    """Flags as those of the sets that come with the program.

    Bit 0 SUSPECT: a step to 2.5 times or less than 0.4 of the close before. Bit 1 COARSE_TICK: half a step of the grid on which all
    closes of the ticker up to then lie is over 5 basis points. A flag depends on nothing later: closes before are those that were known at
    the close of their sessions, whatever was said of them afterwards.
    """
    close = pl.col("close_micros")
    on_grid = [(close % size == 0).alias(f"on_{size}") for size in TICKS_MICROS]
    in_time = table.filter(pl.col("known_unix_s") == pl.col("close_unix_s")).sort("session").select("ticker", "session", close, *on_grid)
    before = in_time.select(
        "ticker",
        "session",
        close.alias("close_before"),
        *(pl.col(f"on_{size}").cum_min().over("ticker", order_by="session").alias(f"before_{size}") for size in TICKS_MICROS),
    )
    judged = table.sort("session").join_asof(before, on="session", by="ticker", allow_exact_matches=False, check_sortedness=False)
    step = close / pl.col("close_before")
    suspect = ((step >= SUSPECT_RATIO) | (step <= 1 / SUSPECT_RATIO)).fill_null(False)
    tick = pl.lit(1)
    for size in reversed(TICKS_MICROS):
        tick = pl.when((close % size == 0) & pl.col(f"before_{size}").fill_null(True)).then(size).otherwise(tick)
    coarse = (close * COARSE_SHARE < tick / 2).fill_null(False)
    return judged.with_columns((suspect.cast(pl.UInt8) + 2 * coarse.cast(pl.UInt8)).cast(pl.UInt8).alias("quality"))
