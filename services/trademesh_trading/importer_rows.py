"""Judges rows of text, and turns them into the bars of a set: whole micro-dollars, sessions of an exchange, nothing made up.

Every rule adds its words to the rows that break it, so that a row is told all that is wrong with it at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

import polars as pl

from trademesh_trading.calendars import sessions_of_calendar
from trademesh_trading.importer_files import Fault

PRICES = ("open", "high", "low", "close")
HIGHEST_PRICE_DOLLARS = 1_000_000_000
HIGHEST_VOLUME = 10**15
EARLIEST = date(1900, 1, 1)
LONGEST_TICKER = 32

SUSPECT_RATIO = 2.5
COARSE_SHARE = 5e-4
TICKS_MICROS = (10_000, 1_000)
"""Grids on which prices usually lie: cents, and tenths of them."""

NO_ACTIONS = {"session": pl.Date, "ticker": pl.String, "split_new": pl.Int64, "split_old": pl.Int64, "dividend_micros": pl.Int64}


@dataclass(frozen=True)
class JudgedRows:
    """Bars in the form that `setwriter` writes, the calendar's sessions from the first to the last, and every fault.

    With a fault, bars and sessions are not to be used.
    """

    bars: pl.DataFrame
    sessions: pl.DataFrame
    faults: tuple[Fault, ...]


def judge(rows: pl.DataFrame, calendar: str, today: date) -> JudgedRows:
    """Reads every row of a table of `importer_files`; a date after today is a fault.

    Raises:
        ValueError: the calendar does not reach as far as the dates do.
    """
    table = rows.with_columns(_dates(rows["date"]))
    words = [_words_of_tickers(rows), _words_of_dates(table, today)]
    for field in PRICES:
        values, said = _numbers(rows[field], field, 6, HIGHEST_PRICE_DOLLARS * 10**6, at_least=1)
        table = table.with_columns(values.alias(f"{field}_micros"))
        words.append(said)
    volumes, said = _numbers(rows["volume"], "volume", 0, HIGHEST_VOLUME, at_least=0)
    table = table.with_columns(volumes.alias("volume_shares"))
    words.append(said)
    words.append(rows.select(pl.when(pl.col("close").is_null()).then(pl.lit("close is missing")))["literal"])
    words += [table.select(words_of.alias("words"))["words"] for words_of in _order_rules()]
    sessions = _sessions(table, calendar, today)
    known = pl.col("session").is_in(sessions["session"].implode())
    no_session = pl.col("session").cast(pl.String) + f" is not a session of {calendar}"
    words.append(table.select(pl.when(pl.col("session").is_between(EARLIEST, today) & ~known).then(no_session).alias("words"))["words"])
    words.append(_words_of_repeats(table))
    faults = _faults(rows, words)
    return JudgedRows(_with_quality(table), sessions, faults)


def _faults(rows: pl.DataFrame, words: list[pl.Series]) -> tuple[Fault, ...]:
    said = pl.DataFrame([series.alias(str(number)) for number, series in enumerate(words)])
    joined = said.select(pl.concat_str(pl.all(), separator="; ", ignore_nulls=True).alias("message"))["message"]
    bad = rows.select("file", "row").with_columns(joined).filter(pl.col("message") != "")
    return tuple(Fault(*values) for values in bad.iter_rows())


def _dates(texts: pl.Series) -> pl.Series:
    """ISO dates; a time of day behind one is passed over."""
    plain = texts.str.extract(r"^(\d{4}-\d{2}-\d{2})(?:[T ]\d{2}:\d{2}.*)?$", 1)
    return plain.str.to_date("%Y-%m-%d", strict=False).alias("session")


def _words_of_dates(table: pl.DataFrame, today: date) -> pl.Series:
    far = ~pl.col("session").is_between(EARLIEST, today)
    words = (
        pl.when(pl.col("date").is_null())
        .then(pl.lit("date is missing"))
        .when(pl.col("session").is_null())
        .then("date is " + pl.col("date") + ", and not a date like 2024-01-31")
        .when(far)
        .then("date is " + pl.col("date") + f", and not between {EARLIEST} and today")
    )
    return table.select(words.alias("words"))["words"]


def _words_of_tickers(rows: pl.DataFrame) -> pl.Series:
    words = (
        pl.when(pl.col("ticker").is_null())
        .then(pl.lit("ticker is missing"))
        .when(~pl.col("ticker").str.contains(rf"^[!-~]{{1,{LONGEST_TICKER}}}$"))
        .then("ticker is " + pl.col("ticker") + f", and not 1 to {LONGEST_TICKER} visible ASCII characters")
    )
    return rows.select(words.alias("words"))["words"]


def _order_rules() -> list[pl.Expr]:
    """Within a bar, low <= open, close <= high, as far as they are there."""
    rules = [(pl.col("high_micros") < pl.col("low_micros"), "high " + pl.col("high") + " is below low " + pl.col("low"))]
    for field in ("open", "close"):
        price = pl.col(f"{field}_micros")
        rules.append((price > pl.col("high_micros"), f"{field} " + pl.col(field) + " is above high " + pl.col("high")))
        rules.append((price < pl.col("low_micros"), f"{field} " + pl.col(field) + " is below low " + pl.col("low")))
    return [pl.when(broken).then(words) for broken, words in rules]


def _words_of_repeats(table: pl.DataFrame) -> pl.Series:
    """The first row of a ticker's date stands; each further one is told where that is."""
    first = {name: pl.col(name).first().over("ticker", "session") for name in ("file", "row")}
    again = pl.col("session").is_not_null() & pl.col("ticker").is_not_null() & (pl.int_range(pl.len()).over("ticker", "session") > 0)
    words = (
        pl.col("ticker")
        + " has "
        + pl.col("session").cast(pl.String)
        + " already, in "
        + first["file"]
        + " row "
        + first["row"].cast(pl.String)
    )
    return table.select(pl.when(again).then(words).alias("words"))["words"]


def _sessions(table: pl.DataFrame, calendar: str, today: date) -> pl.DataFrame:
    dates = table.filter(pl.col("session").is_between(EARLIEST, today))["session"]
    first, last = dates.min(), dates.max()
    if not isinstance(first, date) or not isinstance(last, date):
        return sessions_of_calendar(calendar, date(2020, 1, 2), date(2020, 1, 3)).clear()
    return sessions_of_calendar(calendar, first, last)


def _numbers(texts: pl.Series, field: str, decimals: int, highest: int, at_least: int) -> tuple[pl.Series, pl.Series]:
    """Texts as whole numbers of 10^-decimals, and words on those that are none; further digits are rounded half to even.

    Nearly all are plain digits and a point, and are read column by column; the rest, such as 1e-3, one by one.
    """
    plain = texts.str.contains(rf"^[0-9]{{1,10}}(\.[0-9]{{1,{decimals}}})?$" if decimals else r"^[0-9]{1,15}(\.0+)?$")
    whole = texts.str.extract(r"^([0-9]+)", 1).cast(pl.Int64, strict=False)
    part = texts.str.extract(r"\.([0-9]+)$", 1).fill_null("").str.pad_end(decimals, "0").cast(pl.Int64, strict=False) if decimals else 0
    numbers = (whole * 10**decimals + part).to_list()  # of what is not plain this is nonsense, and is replaced below
    words: list[str | None] = [None] * len(numbers)
    rest = (~plain).fill_null(False) | (plain & ((whole == 0) | (whole * 10**decimals >= highest))).fill_null(False)
    for place in rest.arg_true():
        numbers[place], words[place] = _number(texts[place], field, decimals, highest, at_least)
    return pl.Series(numbers, dtype=pl.Int64), pl.Series(words, dtype=pl.String)


def _number(text: str, field: str, decimals: int, highest: int, at_least: int) -> tuple[int | None, str | None]:
    try:
        value: Decimal | None = Decimal(text)
    except InvalidOperation:
        value = None
    if value is None or "_" in text or not text.isascii():
        return None, f"{field} is {text}, and not a number"
    if not value.is_finite():
        return None, f"{field} is {text}, and not finite"
    limit = highest // 10**decimals
    if value > limit:
        return None, f"{field} is {text}, and above {limit}"
    if value < 0 or (value == 0 and at_least):
        return None, f"{field} is {text}, and {'not above zero' if at_least else 'below zero'}"
    scaled = value.scaleb(decimals)
    number = int(scaled.to_integral_value(ROUND_HALF_EVEN))
    if decimals == 0 and number != scaled:
        return None, f"{field} is {text}, and not a whole number"
    if number < at_least:
        return None, f"{field} is {text}, and less than a micro-dollar"
    return number, None


def _with_quality(table: pl.DataFrame) -> pl.DataFrame:
    """Flags as those of the sets that come with the program.

    Bit 0 SUSPECT: a step to 2.5 times or less than 0.4 of the close before. Bit 1 COARSE_TICK: half a step of the grid on which all
    closes of the ticker up to then lie is over 5 basis points. A flag depends on nothing later.
    """
    close = pl.col("close_micros")
    step = close / close.shift(1).over("ticker", order_by="session")
    suspect = ((step >= SUSPECT_RATIO) | (step <= 1 / SUSPECT_RATIO)).fill_null(False)
    tick = pl.lit(1)
    for size in reversed(TICKS_MICROS):
        on_grid = (close % size == 0).cast(pl.Int8).cum_min().over("ticker", order_by="session") == 1
        tick = pl.when(on_grid).then(size).otherwise(tick)
    coarse = (close * COARSE_SHARE < tick / 2).fill_null(False)
    quality = (suspect.cast(pl.UInt8) + 2 * coarse.cast(pl.UInt8)).cast(pl.UInt8).alias("quality")
    columns = ["session", "ticker", *(f"{field}_micros" for field in PRICES), "volume_shares"]
    return table.select(*columns, quality)
