"""Figures of performance as their message, from a run's state and its fills. The formulas are the ledger's."""

from __future__ import annotations

from collections.abc import Sequence

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh.trading.v1.portfolio_service_pb2 import GetPerformanceResponse
from trademesh_ledger.metrics import ClosingTrade, hit_rate, mean_gross_exposure, performance, profit_factor, turnover

_CLOSING = (events.LEG_KIND_SELL, events.LEG_KIND_COVER)


def performance_message(state: ServerState, fills: Sequence[events.OrderFilled], gross_micros: Sequence[int]) -> GetPerformanceResponse:
    """`fills` and `gross_micros` (sum of absolute positions at each close) are those up to the state's sequence."""
    closes = [point.nav_micros for point in state.equity]
    values = [state.portfolio.initial_cash_micros, *closes]
    figures = performance(values)
    trades = closing_trades(fills)
    found = GetPerformanceResponse(
        sessions=figures.sessions,
        total_return=figures.total_return,
        cagr=figures.cagr,
        annualised_volatility=figures.annualised_volatility,
        sharpe=figures.sharpe,
        sortino=figures.sortino,
        max_drawdown=figures.max_drawdown,
        max_drawdown_sessions=figures.max_drawdown_sessions,
        calmar=figures.calmar,
        hit_rate=hit_rate(trades),
        profit_factor=profit_factor(trades),
        mean_gross_exposure=mean_gross_exposure(gross_micros, closes),
        turnover=turnover(sum(fill.quantity * fill.price_micros for fill in fills), values),
        undefined=figures.undefined,
        as_of_sequence=state.as_of_sequence,
    )
    for name, reason in (
        ("hit_rate", "no trade was closed with a gain or a loss"),
        ("profit_factor", "no trade was closed with a loss"),
        ("mean_gross_exposure", "no session was settled"),
        ("turnover", "no session was settled"),
        ("max_drawdown_sessions", "no session was settled"),
    ):
        if not found.HasField(name):  # type: ignore[arg-type]  # names of optional fields, checked by the tests
            found.undefined[name] = reason
    return found


def closing_trades(fills: Sequence[events.OrderFilled]) -> list[ClosingTrade]:
    """The parts of fills that closed positions, each with its share of the order's fee, in whole micro-dollars rounded down."""
    trades = list[ClosingTrade]()
    for fill in fills:
        closed = sum(leg.quantity for leg in fill.legs if leg.kind in _CLOSING)
        if closed:
            trades.append(ClosingTrade(fill.realised_micros, fill.fee_micros * closed // fill.quantity))
    return trades
