"""Records of a set that are told of once, and sometimes told again: financial statements and insider trades.

Each has a time from which it is known and a key; records with the same key are forms of one thing, and the last that is known stands.
Tables are read from their files as they are asked for, and not kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypeAlias

import polars as pl

Condition: TypeAlias = pl.Expr
"""What a record must fulfil to be asked for, besides being known."""

STATEMENT_LINES = (
    *("revenue", "cost_of_revenue", "operating_income", "interest_expense", "net_income", "depreciation"),
    *("operating_cash_flow", "capital_expenditure", "dividends_paid"),
    *("cash", "receivables", "inventory", "current_assets", "total_assets", "current_liabilities", "total_debt", "equity"),
    "earnings_per_share",
)
"""Lines of a financial statement in money."""

STATEMENT_FIELDS = (*(f"{line}_micros" for line in STATEMENT_LINES), "shares_outstanding")
"""The columns of the table `fundamentals` that hold what was filed: null where the source lacks it."""


@dataclass(frozen=True)
class TableForm:
    """How a kind of table is laid out; every one has the columns ticker and known_unix_s."""

    key: tuple[str, ...]
    """Columns that say which thing a record is about."""
    order: tuple[str, ...]
    """Columns by which answers are ordered; with the key and the time they leave no two records equal."""


FORMS: Mapping[str, TableForm] = {
    "fundamentals": TableForm(
        ("ticker", "fiscal_period_end", "period_months"), ("fiscal_period_end", "ticker", "period_months", "known_unix_s")
    ),
    "insider_trades": TableForm(("ticker", "trade_key"), ("known_unix_s", "ticker", "transaction_date", "trade_key")),
}
"""`trade_key` is the name of a trade, or a number of the importer's where the source gives it none."""


@dataclass(frozen=True)
class KnownTable:
    """One table of a set, on the disk."""

    form: TableForm
    file: Path

    def known(self, tickers: Collection[str], within: Sequence[Condition], as_of_unix_s: int, *, all_revisions: bool) -> pl.DataFrame:
        """What was known by then, in the form's order.

        Args:
            tickers: whose records; none named: all.
            within: further conditions, all of which must hold. They tell things apart, or bound from below when a form became known; a condition
                that an older form of a thing fulfils, and its newest does not, would bring the older one back.
            all_revisions: every form that was known, and not only the newest of each thing.
        """
        known = pl.scan_parquet(self.file, glob=False, hive_partitioning=False).filter(pl.col("known_unix_s") <= as_of_unix_s)
        if tickers:
            known = known.filter(pl.col("ticker").is_in(sorted(tickers)))
        for condition in within:
            known = known.filter(condition)
        if not all_revisions:
            known = known.sort("known_unix_s").unique(self.form.key, keep="last", maintain_order=True)
        return known.sort(self.form.order).collect()


def ended_within(start: str, end: str) -> list[Condition]:
    """Condition on statements: the last day of their period, ISO dates, empty ones are open ends."""
    day = pl.col("fiscal_period_end")
    first = [day >= date.fromisoformat(start)] if start else []
    return [*first, day <= date.fromisoformat(end)] if end else first


def known_after(unix_s: int) -> Condition:
    """Condition on any table: known later than that."""
    return pl.col("known_unix_s") > unix_s
