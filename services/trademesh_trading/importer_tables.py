"""Judges rows of corporate actions, financial statements and insider trades. Prices are `importer_rows.py`'s.

What these tables tell of must be a ticker that has prices. Where only the day of a filing is told, it is known at the next open after it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import polars as pl

from trademesh_trading.importer_files import CORPORATE_ACTIONS, FUNDAMENTALS, INSIDER_TRADES
from trademesh_trading.importer_rows import PRICE_RULE, VOLUME_RULE, JudgedRows
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
from trademesh_trading.known_tables import STATEMENT_FIELDS, STATEMENT_LINES

COUNT_RULE = NumberRule(decimals=0, least=1, most=10**12)
LAST_PRICE_RULE = NumberRule(decimals=6, least=0, most=PRICE_RULE.most)
MONEY_RULE = NumberRule(decimals=6, least=-9_000_000_000_000 * 10**6, most=9_000_000_000_000 * 10**6)

PERIOD_MONTHS = {
    **dict.fromkeys(("quarter", "q1", "q2", "q3", "q4"), 3),
    **dict.fromkeys(("half_year", "h1", "h2"), 6),
    **dict.fromkeys(("year", "fy"), 12),
}
TRADE_CODES = ("P", "S")

ACTION_COLUMNS = ("session", "ticker", "split_new", "split_old", "dividend_micros", "delisting_micros", "known_unix_s")
STATEMENT_COLUMNS = ("ticker", "fiscal_period_end", "period_months", "known_unix_s", *STATEMENT_FIELDS)
TRADE_COLUMNS = (
    *("ticker", "trade_key", "trade_id", "transaction_date", "code", "shares", "price_micros", "insider", "role"),
    "known_unix_s",
)


def judge_actions(rows: pl.DataFrame, days: TradingDays, tickers: Collection[str]) -> JudgedRows:
    """Corporate actions. Where known_at is not told, an action is known from the close of the session before its ex-date."""
    session = dates_of(rows["ex_date"]).alias("session")
    known, words_of_known = known_times(rows, days, days.closes_before(session))
    table = rows.with_columns(session, known.alias("known_unix_s"), days.closes(session).alias("close_unix_s"))
    words = [words_of_tickers(rows), _unpriced(rows, tickers), words_of_dates(rows, "ex_date", days.today), words_of_known]
    for field, column, rule in (
        ("dividend", "dividend_micros", PRICE_RULE),
        ("split_new", "split_new", COUNT_RULE),
        ("split_old", "split_old", COUNT_RULE),
        ("last_price", "delisting_micros", LAST_PRICE_RULE),
    ):
        values, said = numbers_of(rows[field], field, rule)
        table = table.with_columns(values.alias(column))
        words.append(said)
    nothing = pl.all_horizontal(pl.col("dividend", "split_new", "split_old", "last_price").is_null())
    half = pl.col("split_new").is_null() != pl.col("split_old").is_null()
    no_session = pl.col("session").is_between(EARLIEST, days.today) & pl.col("close_unix_s").is_null()
    words += [
        worded(rows, pl.when(nothing).then(pl.lit("tells no dividend, no split and no last_price"))),
        worded(rows, pl.when(half).then(pl.lit("split_new and split_old go together"))),
        worded(table, pl.when(no_session).then("ex_date " + pl.col("session").cast(pl.String) + f" is not a session of {days.calendar}")),
    ]
    for kind, column in (("a dividend", "dividend_micros"), ("a split", "split_new"), ("a delisting", "delisting_micros")):
        what = pl.lit(f"{kind} of ") + pl.col("session").cast(pl.String)
        words.append(words_of_repeats(table, ("ticker", "session", "known_unix_s"), what, where=pl.col(column).is_not_null()))
    faults = faults_of(rows, words)
    return JudgedRows(_sorted(table, ACTION_COLUMNS), faults)


def judge_fundamentals(rows: pl.DataFrame, days: TradingDays, tickers: Collection[str]) -> JudgedRows:
    """Financial statements. The same period told again, with another known_at, is a restatement."""
    end = dates_of(rows["fiscal_period_end"])
    period = rows["period"].str.to_lowercase()
    months = period.replace_strict(PERIOD_MONTHS, default=None, return_dtype=pl.Int64)
    known, words_of_known = known_times(rows, days)
    table = rows.with_columns(end, months.alias("period_months"), known.alias("known_unix_s"))
    words = [words_of_tickers(rows), _unpriced(rows, tickers), words_of_dates(rows, "fiscal_period_end", days.today)]
    words += [
        *missing(rows, "period", "known_at"),
        words_of_known,
        worded(table, _WRONG_PERIOD),
        worded(table, _before("fiscal_period_end")),
    ]
    for line in STATEMENT_LINES:
        values, said = numbers_of(rows[line], line, MONEY_RULE)
        table = table.with_columns(values.alias(f"{line}_micros"))
        words.append(said)
    values, said = numbers_of(rows["shares_outstanding"], "shares_outstanding", VOLUME_RULE)
    table = table.with_columns(values.alias("shares_outstanding"))
    nothing = pl.all_horizontal(pl.col(*STATEMENT_LINES, "shares_outstanding").is_null())
    words += [said, worded(rows, pl.when(nothing).then(pl.lit("tells no line of a statement")))]
    what = pl.col("period").str.to_lowercase() + " " + pl.col("fiscal_period_end").cast(pl.String) + " of that known_at"
    words.append(words_of_repeats(table, ("ticker", "fiscal_period_end", "period_months", "known_unix_s"), what))
    return JudgedRows(_sorted(table, STATEMENT_COLUMNS), faults_of(rows, words))


def judge_insider_trades(rows: pl.DataFrame, days: TradingDays, tickers: Collection[str]) -> JudgedRows:
    """Insider trades on the open market. One with the trade_id of another, and another known_at, amends it."""
    day = dates_of(rows["transaction_date"])
    known, words_of_known = known_times(rows, days)
    shares, words_of_shares = numbers_of(rows["shares"], "shares", COUNT_RULE)
    price, words_of_price = numbers_of(rows["price"], "price", LAST_PRICE_RULE)
    code = rows["code"].str.to_uppercase()
    table = rows.with_columns(day, known.alias("known_unix_s"), shares.alias("shares"), price.alias("price_micros"), code)
    words = [words_of_tickers(rows), _unpriced(rows, tickers), words_of_dates(rows, "transaction_date", days.today), words_of_known]
    words += [*missing(rows, "code", "shares", "known_at"), words_of_shares, words_of_price]
    words += [worded(rows.with_columns(code), _WRONG_CODE), worded(table, _before("transaction_date"))]
    what = "trade " + pl.col("trade_id") + pl.lit(" of that known_at")
    words.append(words_of_repeats(table, ("ticker", "trade_id", "known_unix_s"), what))
    faults = faults_of(rows, words)
    return JudgedRows(_sorted(_with_trade_keys(table), TRADE_COLUMNS), faults)


def _with_trade_keys(table: pl.DataFrame) -> pl.DataFrame:
    """A trade without a name is a thing of its own: it is numbered, by what it says, so that files may come in any order."""
    named = table.filter(pl.col("trade_id").is_not_null()).with_columns(("=" + pl.col("trade_id")).alias("trade_key"))
    rest = [column for column in TRADE_COLUMNS if column != "trade_key"]
    nameless = table.filter(pl.col("trade_id").is_null()).sort(rest, nulls_last=True)
    number = pl.int_range(pl.len()).over("ticker").cast(pl.String).str.zfill(9)
    return pl.concat([named, nameless.with_columns(("#" + number).alias("trade_key"))])


def _unpriced(rows: pl.DataFrame, tickers: Collection[str]) -> pl.Series:
    unpriced = pl.col("ticker").is_not_null() & ~pl.col("ticker").is_in(sorted(tickers))
    return worded(rows, pl.when(unpriced).then(pl.col("ticker") + " has no prices among the files"))


def _before(column: str) -> pl.Expr:
    """Words on what would have been known before it was."""
    begins = pl.col(column).cast(pl.Datetime("us")).dt.epoch("s")
    return pl.when(pl.col("known_unix_s") < begins).then("known_at is " + pl.col("known_at") + f", before {column}")


_WRONG_PERIOD = pl.when(pl.col("period").is_not_null() & pl.col("period_months").is_null()).then(
    "period is " + pl.col("period") + f", and not one of {', '.join(PERIOD_MONTHS)}"
)
_WRONG_CODE = pl.when(~pl.col("code").is_in(TRADE_CODES)).then(
    "code is " + pl.col("code") + ", and neither P nor S: only trades on the open market are taken"
)


def _sorted(table: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """In the order of its columns, so that the hash does not depend on the order of files."""
    return table.select(columns).sort(columns, nulls_last=True)


Judge = Callable[[pl.DataFrame, TradingDays, Collection[str]], JudgedRows]

JUDGES: dict[str, Judge] = {
    CORPORATE_ACTIONS.name: judge_actions,
    FUNDAMENTALS.name: judge_fundamentals,
    INSIDER_TRADES.name: judge_insider_trades,
}
"""By the name of a form; prices are not among them."""
