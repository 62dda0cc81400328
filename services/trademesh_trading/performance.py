"""Figures of performance as their message, from a run's fills and settlements as they come. The formulas are the ledger's."""

from __future__ import annotations

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.trading.v1.portfolio_service_pb2 import GetPerformanceResponse, PerformanceFlag
from trademesh_ledger.metrics import (
    ClosingTrade,
    hit_rate,
    mean_exposure,
    performance,
    profit_factor,
    share_invested,
    turnover,
)
from trademesh_runs.scoreboard import closing_trade

TALLIED_KINDS = ("order_filled", "settled")
_NO_SESSION = "no session was settled"


class Tally:
    """Keeps of each event the few numbers that the figures need: a long run takes megabytes, not its whole journal."""

    def __init__(self) -> None:
        self._initial_cash_micros = 0
        self._closes_micros = list[int]()
        self._gross_micros = list[int]()
        self._net_micros = list[int]()
        self._trades = list[ClosingTrade]()
        self._traded_micros = 0

    def add(self, event: events.Event) -> None:
        """Takes in a fill or a settlement, oldest first; others are passed over."""
        kind = event.WhichOneof("payload")
        if kind == "order_filled":
            self._traded_micros += event.order_filled.quantity * event.order_filled.price_micros
            trade = closing_trade(event.order_filled)
            if trade is not None:
                self._trades.append(trade)
        elif kind == "settled":
            account = event.settled.portfolio
            self._initial_cash_micros = account.initial_cash_micros
            self._closes_micros.append(event.settled.nav_micros)
            values = [position.quantity * position.mark_micros for position in account.positions]
            self._gross_micros.append(sum(map(abs, values)))
            self._net_micros.append(sum(values))

    def message(self, as_of_sequence: int, risk_free_yield: float = 0.0) -> GetPerformanceResponse:
        """The figures so far."""
        values = [self._initial_cash_micros, *self._closes_micros]
        figures = performance(values, risk_free_yield)
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
            hit_rate=hit_rate(self._trades),
            profit_factor=profit_factor(self._trades),
            mean_gross_exposure=mean_exposure(self._gross_micros, self._closes_micros),
            mean_net_exposure=mean_exposure(self._net_micros, self._closes_micros),
            share_invested=share_invested(self._gross_micros),
            turnover=turnover(self._traded_micros, values),
            undefined=figures.undefined,
            as_of_sequence=as_of_sequence,
            closing_trades=len(self._trades),
            flags=[PerformanceFlag.Value(f"PERFORMANCE_FLAG_{flag}") for flag in figures.flags],
        )
        worthless = "the account was never worth anything at a close" if figures.sessions else _NO_SESSION
        for name, present, reason in (
            ("hit_rate", found.HasField("hit_rate"), "no trade was closed with a gain or a loss"),
            ("profit_factor", found.HasField("profit_factor"), "no trade was closed with a loss"),
            ("mean_gross_exposure", found.HasField("mean_gross_exposure"), worthless),
            ("mean_net_exposure", found.HasField("mean_net_exposure"), worthless),
            ("share_invested", found.HasField("share_invested"), _NO_SESSION),
            ("turnover", found.HasField("turnover"), worthless),
        ):
            if not present:
                found.undefined[name] = reason
        return found
