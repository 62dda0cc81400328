"""News that is derived from prices: facts with their numbers, and nothing else.

A derived item is a statement about closes up to its own session and is published half an hour after that session's close. All of them
are about returns, with splits and dividends counted in: a split is no fall, and a price that later dividends have lowered is not told
as if it had been paid. It is the input of `scripts/make-data`; news_service serves the result and derives nothing.
"""

from __future__ import annotations

import polars as pl

PUBLISHED_AFTER_CLOSE_S = 1800
YEAR_SESSIONS = 252
QUIET_SESSIONS = 21
"""A new high or low is news only if there was none in so many sessions before."""
LARGE_MOVE_DEVIATIONS = 3.5
VOLATILITY_STEP = 1.75

KINDS = {"LARGE_MOVE": 1, "NEW_HIGH": 2, "NEW_LOW": 3, "VOLATILITY_CHANGE": 4}
"""Numbers of news.v1.NewsKind."""

FIGURES = ("return", "deviations", "above_year_high", "below_year_low", "volatility_20", "volatility_250", "volatility_change")
"""Numbers that items tell. `above_year_high` and `below_year_low` are the close over the highest and lowest of the year before, less 1;
`volatility_change` is 1 where it rises to a high level and -1 where it leaves it."""


def derive_news(bars: pl.DataFrame, instruments: pl.DataFrame, actions: pl.DataFrame, sessions: pl.DataFrame) -> pl.DataFrame:
    """All items about the tradable instruments of a set.

    Args:
        bars, instruments, actions, sessions: as `setwriter.write_set` takes them.

    Returns:
        session, ticker, kind, direction (1 good, -1 bad, 0 neither, for a holder), published_unix_s, and the figures of `FIGURES`
        (null where an item has none of that name), by time, then ticker, then kind.
    """
    tradable = instruments.filter(pl.col("kind") != "INDEX")["ticker"]
    table = _levels(bars.filter(pl.col("ticker").is_in(tradable.implode())), actions)
    log_return = (pl.col("level").log() - pl.col("level").shift(1).log()).over("ticker", order_by="session")
    table = table.with_columns(log_return.alias("log_return"))
    # The deviation is that of the sessions before: a move is not measured against itself.
    before = pl.col("log_return").shift(1).rolling_std(60).over("ticker")
    table = table.with_columns(
        (pl.col("log_return").exp() - 1).alias("return"),
        (pl.col("log_return") / before).alias("deviations"),
        (pl.col("log_return").rolling_std(20).over("ticker") * YEAR_SESSIONS**0.5).alias("volatility_20"),
        (pl.col("log_return").rolling_std(250).over("ticker") * YEAR_SESSIONS**0.5).alias("volatility_250"),
        pl.col("level").shift(1).rolling_max(YEAR_SESSIONS).over("ticker").alias("high_before"),
        pl.col("level").shift(1).rolling_min(YEAR_SESSIONS).over("ticker").alias("low_before"),
    )
    agitated = (pl.col("volatility_20") > VOLATILITY_STEP * pl.col("volatility_250")).over("ticker")
    table = table.with_columns(
        agitated.alias("agitated"),
        pl.when(agitated).then(1.0).otherwise(-1.0).alias("volatility_change"),
        (pl.col("level") / pl.col("high_before") - 1).alias("above_year_high"),
        (pl.col("level") / pl.col("low_before") - 1).alias("below_year_low"),
    )
    items = pl.concat(
        [
            _items(
                table,
                "LARGE_MOVE",
                pl.col("deviations").is_finite() & (pl.col("deviations").abs() > LARGE_MOVE_DEVIATIONS),
                pl.col("return").sign(),
                ["return", "deviations"],
            ),
            _items(table, "NEW_HIGH", _after_quiet(pl.col("level") > pl.col("high_before")), pl.lit(1), ["above_year_high"]),
            _items(table, "NEW_LOW", _after_quiet(pl.col("level") < pl.col("low_before")), pl.lit(-1), ["below_year_low"]),
            _items(
                table,
                "VOLATILITY_CHANGE",
                pl.col("agitated") != pl.col("agitated").shift(1).over("ticker"),
                pl.lit(0),
                ["volatility_20", "volatility_250", "volatility_change"],
            ),
        ]
    )
    published = sessions.select("session", (pl.col("close_unix_s") + PUBLISHED_AFTER_CLOSE_S).alias("published_unix_s"))
    return items.join(published, on="session").sort("published_unix_s", "ticker", "kind")


def _levels(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """session, ticker and `level`: the close times all splits and reinvested dividends up to then. Nothing later is in it."""
    split = pl.when(pl.col("split_new").is_not_null()).then(pl.col("split_new") / pl.col("split_old")).otherwise(1.0)
    dividend = 1.0 + pl.col("dividend_micros").fill_null(0) / pl.col("close_micros")
    table = bars.join(actions, on=["session", "ticker"], how="left").sort("ticker", "session")
    factor = (split * dividend).cum_prod().over("ticker")
    return table.select("session", "ticker", (pl.col("close_micros") * factor).alias("level"))


def _after_quiet(condition: pl.Expr) -> pl.Expr:
    """True where the condition holds and did not in the sessions before."""
    recent = condition.fill_null(False).cast(pl.Int8).shift(1, fill_value=0).rolling_max(QUIET_SESSIONS, min_samples=1).over("ticker")
    return condition & (recent == 0)


def _items(table: pl.DataFrame, kind: str, condition: pl.Expr, direction: pl.Expr, figures: list[str]) -> pl.DataFrame:
    columns = [pl.col(name) if name in figures else pl.lit(None, pl.Float64).alias(name) for name in FIGURES]
    rows = table.filter(condition.fill_null(False))
    return rows.select(
        "session", "ticker", pl.lit(KINDS[kind], pl.Int8).alias("kind"), direction.cast(pl.Int8).alias("direction"), *columns
    )
