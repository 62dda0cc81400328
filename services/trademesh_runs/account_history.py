"""What a run's figures are made of, session by session, from its fills and settlements as they come. The formulas are the ledger's.

Of each event only the few numbers are kept that figures need: a long run takes megabytes, not its whole journal.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from trademesh.gateway.v1 import event_pb2 as events
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

HISTORY_KINDS = ("order_filled", "settled")
_NO_SESSION = "no session was settled"


@dataclass
class Figures:
    """Figures of a run by name, as fields of GetPerformanceResponse. One that is undefined is only in `undefined`, with the reason."""

    sessions: int
    values: dict[str, float] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


class AccountHistory:
    """Lists have an entry per settled session; amounts are micro-dollars at its close."""

    def __init__(self) -> None:
        self.initial_cash_micros = 0
        self.sessions = list[str]()
        self.navs_micros = list[int]()
        self.gross_micros = list[int]()
        self.net_micros = list[int]()
        self.baselines: dict[str, list[int]] = {}
        """Values by the baseline's name; only of those that every session so far tells."""
        self.closing_trades = list[ClosingTrade]()
        self.traded_micros = 0

    def add(self, event: events.Event) -> None:
        """Takes in a fill or a settlement, oldest first; others are passed over."""
        kind = event.WhichOneof("payload")
        if kind == "order_filled":
            self.traded_micros += event.order_filled.quantity * event.order_filled.price_micros
            trade = closing_trade(event.order_filled)
            if trade is not None:
                self.closing_trades.append(trade)
        elif kind == "settled":
            self._settle(event.session_date, event.settled)

    def _settle(self, session: str, settled: events.Settled) -> None:
        account = settled.portfolio
        values = [position.quantity * position.mark_micros for position in account.positions]
        self.initial_cash_micros = account.initial_cash_micros
        self.sessions.append(session)
        self.navs_micros.append(settled.nav_micros)
        self.gross_micros.append(sum(map(abs, values)))
        self.net_micros.append(sum(values))
        told = {one.name: one.nav_micros for one in settled.baselines}
        if len(self.sessions) == 1:
            self.baselines = {name: list[int]() for name in told}
        for name in [name for name in self.baselines if name not in told]:
            del self.baselines[name]
        for name, navs in self.baselines.items():
            navs.append(told[name])

    def figures(self, risk_free_yield: float = 0.0) -> Figures:
        """All figures; the yield is a year's."""
        curve = [self.initial_cash_micros, *self.navs_micros]
        found = asdict(performance(curve, risk_free_yield))
        worthless = "the account was never worth anything at a close" if self.sessions else _NO_SESSION
        beside = {
            "hit_rate": (hit_rate(self.closing_trades), "no trade was closed with a gain or a loss"),
            "profit_factor": (profit_factor(self.closing_trades), "no trade was closed with a loss"),
            "mean_gross_exposure": (mean_exposure(self.gross_micros, self.navs_micros), worthless),
            "mean_net_exposure": (mean_exposure(self.net_micros, self.navs_micros), worthless),
            "share_invested": (share_invested(self.gross_micros), _NO_SESSION),
            "turnover": (turnover(self.traded_micros, curve), worthless),
        }
        figures = Figures(found.pop("sessions"), undefined=found.pop("undefined"), flags=found.pop("flags"))
        figures.undefined |= {name: reason for name, (value, reason) in beside.items() if value is None}
        both = found | {name: value for name, (value, _) in beside.items()}
        figures.values = {name: value for name, value in both.items() if value is not None}
        return figures
