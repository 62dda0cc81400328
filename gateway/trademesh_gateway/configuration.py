"""From the run's configuration to the desk's rules, and to the desk as it stands after the last settlement in the journal."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field

from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_gateway.market.bar_source import BarSource
from trademesh_gateway.pipeline.cycle import SessionTimes
from trademesh_gateway.pipeline.desk_run import DeskRules, DeskRun
from trademesh_gateway.pipeline.order_book import OrderBook
from trademesh_gateway.risk.limits import GroupLimit, Limits
from trademesh_ledger.costs import CostModel, Tick
from trademesh_ledger.margin import MarginRules
from trademesh_ledger.money import BASIS_POINTS
from trademesh_ledger.portfolio import Portfolio
from trademesh_runs.run_config import DEFAULT_VOLATILITY_POSITIONS


@dataclass(frozen=True)
class DeskStart:
    """The desk's account after the last settlement in the journal; all zero if there is none."""

    sessions_settled: int
    portfolio: Portfolio
    fills: int
    peak_nav_micros: int
    orders: OrderBook = field(default_factory=OrderBook)
    """Orders of people, in force for the session that comes."""


def rules_of(config: RunConfig) -> DeskRules:
    """The rules in a normalised configuration. Fractions become whole basis points here."""
    costs, margin = config.costs, config.margin
    return DeskRules(
        costs=CostModel(
            costs.fee_bp,
            costs.min_fee_micros,
            costs.slippage_bp,
            Tick.US_EQUITY if costs.tick == contract.TICK_RULE_US_EQUITY else Tick.NONE,
        ),
        margin=MarginRules(margin.enabled, margin.initial_bp, margin.allow_debit),
        limits=limits_of(config),
        resize_on_gap=config.risk.on_gap == contract.GAP_POLICY_RESIZE,
        position_limit=config.risk.position,
        agents={agent_id: frozenset(agent.skills) for agent_id, agent in config.agents.items() if agent.enabled},
        approval_over_bp=_basis_points(config.approvals.orders_over_nav) if config.approvals.HasField("orders_over_nav") else None,
        approval_ttl_s=config.approvals.ttl_s,
    )


def limits_of(config: RunConfig) -> Limits:
    """The limits in a normalised configuration, tickers as columns. One written before there was a limit has that limit off."""
    risk = config.risk
    columns = {ticker: column for column, ticker in enumerate(config.tickers)}

    def found(tickers: Iterable[str]) -> frozenset[int]:
        return frozenset(columns[ticker] for ticker in tickers if ticker in columns)

    return Limits(
        _basis_points(risk.position),
        _basis_points(risk.gross),
        _basis_points(risk.net),
        _basis_points(risk.drawdown_stop),
        shorts_allowed=config.margin.enabled,
        halted=risk.halted,
        halted_columns=found(risk.halted_tickers),
        not_borrowable=found(risk.not_borrowable),
        daily_loss_bp=_basis_points(risk.daily_loss),
        volatility_target_bp=_basis_points(risk.volatility_target),
        volatility_positions=risk.volatility_positions or DEFAULT_VOLATILITY_POSITIONS,
        groups=tuple(GroupLimit(name, found(group.tickers), _basis_points(group.limit)) for name, group in sorted(risk.groups.items())),
        concentration_bp=_basis_points(risk.concentration),
        order_size_bp=_basis_points(risk.order_size),
        turnover_bp=_basis_points(risk.turnover),
        orders_per_session=risk.orders,
        volume_bp=_basis_points(risk.volume_share),
        pro_rata=risk.sharing == contract.ROOM_SHARING_PRO_RATA,
    )


async def first_desk(config: RunConfig, rules: DeskRules, source: BarSource, sessions: list[SessionTimes], start: DeskStart) -> DeskRun:
    """The desk as the journal leaves it. The account comes from its fold; marks and baselines are computed again from the bars."""
    tickers = tuple(config.tickers)
    cash = config.capital.initial_cash_micros
    account = copy.deepcopy(start.portfolio) if start.sessions_settled else Portfolio(cash)
    desk = DeskRun(tickers, Portfolio(cash), rules, source.index_name, cash)
    for session in sessions[: start.sessions_settled]:
        await source.have(session)
        view = source.history.as_of(session.close_unix_s)
        if view.last_session() != session.date:
            continue
        closes = [int(close) for close in view.last_closes(1)[0]]
        before = source.history.as_of(session.close_unix_s - 1)
        desk.mark(session.date, before, closes[: len(tickers)], closes[len(tickers)] if len(closes) > len(tickers) else 0)
    desk.portfolio, desk.orders = account, start.orders
    desk.sessions_settled, desk.fills = start.sessions_settled, start.fills
    desk.peak_nav_micros = max(cash, start.peak_nav_micros)
    return desk


def _basis_points(fraction: float) -> int:
    """Rounded half to even."""
    return round(fraction * BASIS_POINTS)
