"""A run as tables for other programs: `equity`, `trades`, `figures`, `agents`, each as CSV or Parquet. Money is whole micro-dollars."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Sequence
from typing import Any, TypeAlias

from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh_cli.report_data import DESK, ReportData, drawdowns
from trademesh_ledger.scores import information_coefficient, wilson_interval
from trademesh_runs.scoreboard import AgentRecord

Table: TypeAlias = dict[str, list[Any]]
"""Columns of equal length by name."""


def report_tables(data: ReportData) -> dict[str, Table]:
    """Tables by name."""
    return {"equity": _equity(data), "trades": _trades(data), "figures": _figures(data), "agents": _agents(data)}


def _equity(data: ReportData) -> Table:
    history = data.history
    return {
        "session_date": history.sessions,
        "nav_micros": history.navs_micros,
        "gross_micros": history.gross_micros,
        "net_micros": history.net_micros,
        "drawdown": drawdowns(data.curves()[DESK])[1:],
        **{f"{name}_micros": navs for name, navs in history.baselines.items()},
    }


def _trades(data: ReportData) -> Table:
    names = ("order_id", "ticker", "quantity", "price_micros", "fee_micros", "realised_micros", "position_quantity", "cash_micros")
    return {
        "session_date": [trade.session_date for trade in data.trades],
        "side": [words.Side.Name(trade.fill.side).removeprefix("SIDE_") for trade in data.trades],
        **{name: [getattr(trade.fill, name) for trade in data.trades] for name in names},
    }


def _figures(data: ReportData) -> Table:
    figures = data.figures()
    names = sorted({*figures.values, *figures.undefined})
    return {
        "figure": names,
        "value": [None if name not in figures.values else float(figures.values[name]) for name in names],
        "undefined": [figures.undefined.get(name, "") for name in names],
    }


def _agents(data: ReportData) -> Table:
    rows = [_agent(agent_id, rank, record) for agent_id, rank, record in data.board.ranking()]
    return {name: [row[name] for row in rows] for name in _agent("", None, AgentRecord())}


def _agent(agent_id: str, rank: int | None, record: AgentRecord) -> dict[str, Any]:
    coefficient = information_coefficient(record.coefficients)
    row: dict[str, Any] = {"agent_id": agent_id, "rank": rank, "sessions_predicted": record.sessions_predicted}
    for name, count in (("all", record.all), ("bull", record.bull), ("bear", record.bear)):
        interval = wilson_interval(count.wins, count.known)
        row |= {f"{name}_predictions": count.predictions, f"{name}_wins": count.wins, f"{name}_unknown": count.unknown}
        row |= {f"{name}_rate": count.rate, f"{name}_low": interval and interval.low, f"{name}_high": interval and interval.high}
    row |= {"neutral": record.neutral, "brier": record.brier.mean, "ic_sessions": coefficient.sessions}
    return row | {"ic_mean": coefficient.mean, "ic_deviation": coefficient.deviation, "ic_t": coefficient.t}


def as_csv(table: Table) -> bytes:
    """A head and a line per row; absent values are empty, numbers as short as they can be without losing anything."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    return text.getvalue().encode()


def as_parquet(table: Table) -> bytes:
    """One row group, compressed.

    Raises:
        ModuleNotFoundError: polars is not installed, which comes with `trademesh[trading]`.
    """
    # Not in the extra of the command line: who writes no Parquet need not have it.
    pl = importlib.import_module("polars")
    schema = {name: _column_type(pl, name, values) for name, values in table.items()}
    content = io.BytesIO()
    pl.DataFrame(table, schema=schema).write_parquet(content)
    return content.getvalue()


def _column_type(pl: Any, name: str, values: Sequence[Any]) -> Any:
    """The same for every run: a column without a value has its type too."""
    if name in ("session_date", "side", "order_id", "ticker", "figure", "undefined", "agent_id"):
        return pl.String
    fractions = ("rate", "low", "high", "drawdown", "value", "brier", "ic_mean", "ic_deviation", "ic_t")
    return pl.Float64 if name in fractions or name.rpartition("_")[2] in fractions else pl.Int64
