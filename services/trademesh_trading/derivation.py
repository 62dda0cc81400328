"""News that is derived from prices: facts with their numbers, and nothing else.

A derived item is a statement about closes up to its own session and is published half an hour after that session's close. It is the
input of `scripts/make-data`; news_service serves the result and derives nothing.
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


def derive_news(bars: pl.DataFrame, instruments: pl.DataFrame, sessions: pl.DataFrame) -> pl.DataFrame:
    """All items about the tradable instruments of a set.

    Returns:
        session, ticker, kind, direction (1 good, -1 bad, 0 neither, for a holder), published_unix_s, and the figures
        return, deviations, close_micros, volatility_20, volatility_250 (null where an item has none of that name),
        by time, then ticker, then kind.
    """
    tradable = instruments.filter(pl.col("kind") != "INDEX")["ticker"]
    log_return = (pl.col("close_micros").log() - pl.col("close_micros").shift(1).log()).over("ticker", order_by="session")
    table = bars.filter(pl.col("ticker").is_in(tradable.implode())).sort("ticker", "session").select("session", "ticker", "close_micros")
    table = table.with_columns(log_return.alias("log_return"))
    # The deviation is that of the sessions before: a move is not measured against itself.
    before = pl.col("log_return").shift(1).rolling_std(60).over("ticker")
    table = table.with_columns(
        (pl.col("log_return").exp() - 1).alias("return"),
        (pl.col("log_return") / before).alias("deviations"),
        (pl.col("log_return").rolling_std(20).over("ticker") * YEAR_SESSIONS**0.5).alias("volatility_20"),
        (pl.col("log_return").rolling_std(250).over("ticker") * YEAR_SESSIONS**0.5).alias("volatility_250"),
        pl.col("close_micros").shift(1).rolling_max(YEAR_SESSIONS).over("ticker").alias("high_before"),
        pl.col("close_micros").shift(1).rolling_min(YEAR_SESSIONS).over("ticker").alias("low_before"),
    )
    agitated = (pl.col("volatility_20") > VOLATILITY_STEP * pl.col("volatility_250")).over("ticker")
    table = table.with_columns(agitated.alias("agitated"))
    items = pl.concat(
        [
            _items(
                table,
                "LARGE_MOVE",
                pl.col("deviations").is_finite() & (pl.col("deviations").abs() > LARGE_MOVE_DEVIATIONS),
                pl.col("return").sign(),
                ["return", "deviations"],
            ),
            _items(table, "NEW_HIGH", _after_quiet(pl.col("close_micros") > pl.col("high_before")), pl.lit(1), ["close_micros"]),
            _items(table, "NEW_LOW", _after_quiet(pl.col("close_micros") < pl.col("low_before")), pl.lit(-1), ["close_micros"]),
            _items(
                table,
                "VOLATILITY_CHANGE",
                pl.col("agitated") != pl.col("agitated").shift(1).over("ticker"),
                pl.lit(0),
                ["volatility_20", "volatility_250"],
            ),
        ]
    )
    published = sessions.select("session", (pl.col("close_unix_s") + PUBLISHED_AFTER_CLOSE_S).alias("published_unix_s"))
    return items.join(published, on="session").sort("published_unix_s", "ticker", "kind")


def _after_quiet(condition: pl.Expr) -> pl.Expr:
    """True where the condition holds and did not in the sessions before."""
    recent = condition.fill_null(False).cast(pl.Int8).shift(1, fill_value=0).rolling_max(QUIET_SESSIONS, min_samples=1).over("ticker")
    return condition & (recent == 0)


def _items(table: pl.DataFrame, kind: str, condition: pl.Expr, direction: pl.Expr, figures: list[str]) -> pl.DataFrame:
    all_figures = {
        "return": pl.Float64,
        "deviations": pl.Float64,
        "close_micros": pl.Int64,
        "volatility_20": pl.Float64,
        "volatility_250": pl.Float64,
    }
    columns = [pl.col(name) if name in figures else pl.lit(None, dtype).alias(name) for name, dtype in all_figures.items()]
    rows = table.filter(condition.fill_null(False))
    return rows.select(
        "session", "ticker", pl.lit(KINDS[kind], pl.Int8).alias("kind"), direction.cast(pl.Int8).alias("direction"), *columns
    )
