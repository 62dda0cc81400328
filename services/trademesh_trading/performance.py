"""Figures of performance as their message."""

from __future__ import annotations

from trademesh.trading.v1.portfolio_service_pb2 import GetPerformanceResponse, PerformanceFlag
from trademesh_runs.account_history import AccountHistory


def performance_message(history: AccountHistory, as_of_sequence: int, risk_free_yield: float = 0.0) -> GetPerformanceResponse:
    """The figures so far."""
    figures = history.figures(risk_free_yield)
    found = GetPerformanceResponse(
        sessions=figures.sessions,
        undefined=figures.undefined,
        as_of_sequence=as_of_sequence,
        closing_trades=len(history.closing_trades),
        flags=[PerformanceFlag.Value(f"PERFORMANCE_FLAG_{flag}") for flag in figures.flags],
    )
    for name, value in figures.values.items():
        setattr(found, name, value)
    return found
