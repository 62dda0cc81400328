"""From the run's configuration to the desk's rules, and to the desk as it stands after the last settlement in the journal."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_gateway.agents.portfolio_manager import Bounds
from trademesh_gateway.market.bar_source import BarSource
from trademesh_gateway.market.point_in_time import MarketHistory
from trademesh_gateway.pipeline.broker import BarBroker, Moment, SessionTimes
from trademesh_gateway.pipeline.comparison import Comparison
from trademesh_gateway.pipeline.desk_run import DeskRules, DeskRun, FillPolicy
from trademesh_gateway.pipeline.order_book import OrderBook
from trademesh_gateway.risk.limits import GroupLimit, Limits
from trademesh_ledger.account import Account
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
    marks_micros: Mapping[str, int] = field(default_factory=dict)
    """Prices at which positions were valued there."""
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
            costs.borrow_bp,
        ),
        margin=MarginRules(
            margin.enabled,
            margin.initial_bp,
            margin.allow_debit,
            margin.maintenance_long_bp,
            margin.maintenance_short_bp,
            # A configuration of before there was a maintenance margin goes on without one.
            maintained=margin.HasField("maintenance_long_bp"),
        ),
        limits=limits_of(config),
        resize_on_gap=config.risk.on_gap == contract.GAP_POLICY_RESIZE,
        bounds=Bounds(config.risk.position, config.risk.gross, config.risk.net, config.risk.gross if margin.allow_debit else 1.0),
        agents={agent_id: frozenset(agent.skills) for agent_id, agent in config.agents.items() if agent.enabled},
        approval_over_bp=_basis_points(config.approvals.orders_over_nav) if config.approvals.HasField("orders_over_nav") else None,
        approval_ttl_s=config.approvals.ttl_s,
        fill=FillPolicy(config.execution.fill or FillPolicy.NEXT_CLOSE),
        participation_bp=_participation_bp(config.execution.participation),
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


async def first_desk(config: RunConfig, rules: DeskRules, source: BarSource, sessions: Sequence[SessionTimes], start: DeskStart) -> DeskRun:
    """The desk as the journal leaves it. The account comes from its fold with its marks; closes and baselines are computed again from the bars."""
    tickers = tuple(config.tickers)
    shares = await source.shares_outstanding(tickers, rules.fill.decides_at(sessions[0]), sessions[0].date)
    desk = desk_at(rules, tickers, config.capital.initial_cash_micros, source.index_name, start, shares)
    for session in sessions[: start.sessions_settled]:
        await source.have(session)
        take_in_settled(desk, source.history, session)
        source.history.forget_before(session.date)
    return desk


def desk_at(
    rules: DeskRules,
    tickers: tuple[str, ...],
    initial_cash_micros: int,
    index_name: str,
    start: DeskStart | None = None,
    shares_outstanding: Sequence[int] = (),
) -> DeskRun:
    """A desk before its first session, or with the account that a journal left; its closes and baselines are those of before the first."""
    if start is None or not start.sessions_settled:
        start = DeskStart(0, Portfolio(initial_cash_micros), 0, 0, orders=OrderBook() if start is None else start.orders)
    account = Account(copy.deepcopy(start.portfolio), rules.costs, rules.margin)
    account.marks_micros.update(start.marks_micros)
    account.recall()
    comparison = Comparison(initial_cash_micros, tickers, rules.costs, index_name, shares_outstanding)
    return DeskRun(tickers, account, rules, comparison, start.sessions_settled, start.fills, start.peak_nav_micros, start.orders)


def take_in_settled(desk: DeskRun, history: MarketHistory, session: SessionTimes) -> None:
    """Closes and baselines of a session that the journal has settled: what bars tell of them is not journaled."""
    desk.open_comparison(history.actions_on(session.date, desk.tickers))
    bar = BarBroker(history).bar(session, Moment.CLOSE)
    desk.take_closes(bar.closes[: len(desk.tickers)])
    before = history.as_of(desk.rules.fill.decides_at(session), session.date)
    desk.compare(session.date, before.of_first(len(desk.tickers)), bar)


def _participation_bp(fraction: float) -> int:
    """A share that rounds to nothing is the least there is: 0 would be no bound."""
    return _basis_points(fraction) or int(fraction > 0)


def _basis_points(fraction: float) -> int:
    """Rounded half to even."""
    return round(fraction * BASIS_POINTS)
