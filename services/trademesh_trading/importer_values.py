"""Columns of text as values: dates, tickers, whole numbers, times of knowing. Beside the values are words on those that are none.

Words are what a user is told of a row; a column of them is null where nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

import numpy as np
import numpy.typing as npt
import polars as pl

from trademesh_trading.calendars import sessions_of_calendar
from trademesh_trading.importer_files import Fault

EARLIEST = date(1900, 1, 1)
LONGEST_TICKER = 32
MARGIN_DAYS = 21
"""Days about those that are told of, in which there is a session before and a session after, whatever the exchange's holidays are."""


@dataclass(frozen=True)
class TradingDays:
    """Sessions of a calendar about all the days that files tell of."""

    calendar: str
    sessions: pl.DataFrame
    """session, open_unix_s, close_unix_s."""
    today: date
    """Later days are faults."""

    def _days(self) -> npt.NDArray[np.datetime64]:
        return self.sessions["session"].to_numpy().astype("datetime64[D]")

    def _at(self, column: str, rows: npt.NDArray[np.int64], asked: pl.Series) -> pl.Series:
        """Values of some rows, null where there is no such row, or nothing was asked."""
        if not self.sessions.height:
            return pl.Series([None] * len(asked), dtype=pl.Int64)
        values = self.sessions[column].to_numpy()[np.clip(rows, 0, self.sessions.height - 1)]
        there = (rows >= 0) & (rows < self.sessions.height) & asked.is_not_null().to_numpy()
        return pl.DataFrame({"value": values, "there": there}).select(pl.when("there").then("value").alias("at"))["at"]

    def closes(self, dates: pl.Series) -> pl.Series:
        """When the sessions of some dates close, in Unix seconds; null where a date is no session."""
        asked = pl.DataFrame({"session": dates})
        return asked.join(self.sessions, on="session", how="left", maintain_order="left")["close_unix_s"]

    def next_opens(self, dates: pl.Series) -> pl.Series:
        """The first opening after each day is over."""
        return self._at("open_unix_s", np.searchsorted(self._days(), _numpy_days(dates), side="right"), dates)

    def closes_before(self, dates: pl.Series) -> pl.Series:
        """The last close before each day begins."""
        return self._at("close_unix_s", np.searchsorted(self._days(), _numpy_days(dates), side="left") - 1, dates)


def _numpy_days(dates: pl.Series) -> npt.NDArray[np.datetime64]:
    return dates.fill_null(EARLIEST).to_numpy().astype("datetime64[D]")


def trading_days(calendar: str, columns: Sequence[pl.Series], today: date) -> TradingDays:
    """The calendar about all days of some columns of text, as far as they are days.

    Raises:
        ValueError: the calendar does not reach as far as they do.
    """
    days = [day for texts in columns for day in _bounds(dates_of(texts), today)]
    if not days:
        return TradingDays(calendar, sessions_of_calendar(calendar, date(2020, 1, 2), date(2020, 1, 3)).clear(), today)
    margin = timedelta(MARGIN_DAYS)
    try:
        return TradingDays(calendar, sessions_of_calendar(calendar, min(days) - margin, max(days) + margin), today)
    except ValueError:
        # A calendar that begins or ends with the data is enough for all but what needs a session before or after.
        return TradingDays(calendar, sessions_of_calendar(calendar, min(days), max(days)), today)


def _bounds(dates: pl.Series, today: date) -> list[date]:
    inside = dates.filter(dates.is_between(EARLIEST, today))
    return [day for day in (inside.min(), inside.max()) if isinstance(day, date)]


def faults_of(rows: pl.DataFrame, words: Sequence[pl.Series]) -> tuple[Fault, ...]:
    """Every row with words on it, with all of them."""
    said = pl.DataFrame([series.alias(str(number)) for number, series in enumerate(words)])
    joined = said.select(pl.concat_str(pl.all(), separator="; ", ignore_nulls=True).alias("message"))["message"]
    bad = rows.select("file", "row").with_columns(joined).filter(pl.col("message") != "")
    return tuple(Fault(*values) for values in bad.iter_rows())


def worded(table: pl.DataFrame, words: pl.Expr) -> pl.Series:
    """An expression of words as a column."""
    return table.select(words.alias("words"))["words"]


def missing(rows: pl.DataFrame, *columns: str) -> list[pl.Series]:
    """Words on what must be there and is not."""
    return [worded(rows, pl.when(pl.col(column).is_null()).then(pl.lit(f"{column} is missing"))) for column in columns]


def dates_of(texts: pl.Series) -> pl.Series:
    """ISO dates; a time of day behind one is passed over."""
    plain = texts.str.extract(r"^(\d{4}-\d{2}-\d{2})(?:[T ]\d{2}:\d{2}.*)?$", 1)
    return plain.str.to_date("%Y-%m-%d", strict=False)


def words_of_dates(rows: pl.DataFrame, column: str, today: date) -> pl.Series:
    """Words on what is no date between EARLIEST and today, or missing."""
    table = rows.select(column).with_columns(dates_of(rows[column]).alias("day"))
    far = ~pl.col("day").is_between(EARLIEST, today)
    words = (
        pl.when(pl.col(column).is_null())
        .then(pl.lit(f"{column} is missing"))
        .when(pl.col("day").is_null())
        .then(f"{column} is " + pl.col(column) + ", and not a date like 2024-01-31")
        .when(far)
        .then(f"{column} is " + pl.col(column) + f", and not between {EARLIEST} and today")
    )
    return worded(table, words)


def words_of_tickers(rows: pl.DataFrame) -> pl.Series:
    """Words on what is no ticker."""
    words = (
        pl.when(pl.col("ticker").is_null())
        .then(pl.lit("ticker is missing"))
        .when(~pl.col("ticker").str.contains(rf"^[!-~]{{1,{LONGEST_TICKER}}}$"))
        .then("ticker is " + pl.col("ticker") + f", and not 1 to {LONGEST_TICKER} visible ASCII characters")
    )
    return worded(rows, words)


def words_of_repeats(table: pl.DataFrame, key: Sequence[str], what: pl.Expr, *, where: pl.Expr | None = None) -> pl.Series:
    """The first row of a key stands; each further one is told where that is. Rows with a null in the key are left out."""
    counted = pl.all_horizontal(pl.col(list(key)).is_not_null())
    if where is not None:
        counted = counted & where
    numbered = table.with_row_index("number").filter(counted)
    first = {name: pl.col(name).first().over(key) for name in ("file", "row")}
    again = pl.int_range(pl.len()).over(key) > 0
    said = pl.col("ticker") + " has " + what + " already, in " + first["file"] + " row " + first["row"].cast(pl.String)
    words = numbered.select("number", pl.when(again).then(said).alias("words"))
    return table.with_row_index("number").select("number").join(words, on="number", how="left", maintain_order="left")["words"]


@dataclass(frozen=True)
class NumberRule:
    """Whole numbers of 10^-decimals, from `least` to `most`; `least` is 1, 0, or -most."""

    decimals: int
    least: int
    most: int


def numbers_of(texts: pl.Series, field: str, rule: NumberRule) -> tuple[pl.Series, pl.Series]:
    """Texts as whole numbers, and words on those that are none; further digits are rounded half to even.

    Nearly all are plain digits and a point, and are read column by column; the rest, such as 1e-3, one by one.
    """
    decimals = rule.decimals
    plain = texts.str.contains(rf"^[0-9]{{1,10}}(\.[0-9]{{1,{decimals}}})?$" if decimals else r"^[0-9]{1,15}(\.0+)?$")
    whole = texts.str.extract(r"^([0-9]+)", 1).cast(pl.Int64, strict=False)
    part = texts.str.extract(r"\.([0-9]+)$", 1).fill_null("").str.pad_end(decimals, "0").cast(pl.Int64, strict=False) if decimals else 0
    numbers = (whole * 10**decimals + part).to_list()  # of what is not plain this is nonsense, and is replaced below
    words: list[str | None] = [None] * len(numbers)
    rest = (~plain).fill_null(False) | (plain & ((whole == 0) | (whole >= rule.most // 10**decimals))).fill_null(False)
    for place in rest.arg_true():
        numbers[place], words[place] = _number(texts[place], field, rule)
    return pl.Series(numbers, dtype=pl.Int64), pl.Series(words, dtype=pl.String)


def _number(text: str, field: str, rule: NumberRule) -> tuple[int | None, str | None]:
    try:
        value: Decimal | None = Decimal(text)
    except InvalidOperation:
        value = None
    if value is None or "_" in text or not text.isascii():
        return None, f"{field} is {text}, and not a number"
    if not value.is_finite():
        return None, f"{field} is {text}, and not finite"
    limit = rule.most // 10**rule.decimals
    if value > limit:
        return None, f"{field} is {text}, and above {limit}"
    if rule.least < 0 and value < -limit:
        return None, f"{field} is {text}, and below {-limit}"
    if rule.least >= 0 and (value < 0 or (value == 0 and rule.least)):
        return None, f"{field} is {text}, and {'not above zero' if rule.least else 'below zero'}"
    scaled = value.scaleb(rule.decimals)
    number = int(scaled.to_integral_value(ROUND_HALF_EVEN))
    if rule.decimals == 0 and number != scaled:
        return None, f"{field} is {text}, and not a whole number"
    if number < rule.least:
        return None, f"{field} is {text}, and less than a micro-dollar"
    return number, None


def known_times(rows: pl.DataFrame, days: TradingDays, untold: pl.Series | None = None) -> tuple[pl.Series, pl.Series]:
    """From when on each row is known, in Unix seconds, as its column known_at tells: an instant, or a day, which is the next open after it.

    A fraction of a second is rounded up: nothing is known before it was. Where nothing is told it is that of `untold`. Words, and null, where
    it is neither.
    """
    texts = rows["known_at"].unique().drop_nulls()
    told = pl.DataFrame([(text, *_instant(text, days.today)) for text in texts], schema=_TOLD, orient="row")
    found = rows.select("known_at").join(told, on="known_at", how="left", maintain_order="left")
    opens = days.next_opens(found["day"])
    no_open = pl.Series(found["day"].is_not_null() & opens.is_null())
    words = worded(found.with_columns(no_open.alias("no_open")), _NO_OPEN)
    times = found["instant"].fill_null(opens)
    if untold is None:
        return times, words
    both = pl.DataFrame({"told": times, "untold": untold, "known_at": rows["known_at"]})
    return both.select(pl.when(pl.col("known_at").is_null()).then("untold").otherwise("told").alias("known"))["known"], words


_TOLD = {"known_at": pl.String, "instant": pl.Int64, "day": pl.Date, "said": pl.String}
_NO_OPEN = (
    pl.when(pl.col("said").is_not_null())
    .then("known_at is " + pl.col("known_at") + pl.col("said"))
    .when("no_open")
    .then("known_at is " + pl.col("known_at") + ", after which the calendar has no session")
)


def _instant(text: str, today: date) -> tuple[int | None, date | None, str | None]:
    """An instant in Unix seconds, or a day, or words."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None, None, ", and neither an instant like 2024-01-31T21:00:00Z nor a date like 2024-01-31"
    only_day = len(text) == len("2024-01-31")
    if not only_day and instant.tzinfo is None:
        return None, None, ", and does not say of which time zone: 2024-01-31T21:00:00Z does"
    utc = instant.replace(tzinfo=UTC) if only_day else instant.astimezone(UTC)
    if not EARLIEST <= utc.date() <= today:
        return None, None, f", and not between {EARLIEST} and today"
    if only_day:
        return None, utc.date(), None
    return -((_EPOCH - utc) // timedelta(seconds=1)), None, None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
