"""Defaults of a run configuration, and everything that can be wrong with one without asking another service."""

from __future__ import annotations

import hashlib
from typing import Any

from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_kernel.errors import FieldViolation
from trademesh_kernel.validation import is_date, violations_of

DEFAULT_INITIAL_CASH_MICROS = 1_000_000_000_000
DEFAULT_CYCLE_DEADLINE_S = 300
DEFAULT_BORROW_BP = 25
"""The mean over the market by value (D'Avolio 2002, "The market for borrowing stock")."""
DEFAULT_MOCK_SEED = 7
MOCK_SETS = "mock-"
"""How the names of made-up sets begin."""
DEFAULT_GROUP_LIMIT = 0.4
DEFAULT_VOLATILITY_POSITIONS = 10
LONGEST_GROUP_NAME = 64

LIMITS_OFF_BY_DEFAULT = ("daily_loss", "volatility_target", "concentration", "order_size", "turnover", "orders", "volume_share")

ROLE_SKILLS: dict[str, tuple[str, ...]] = {
    "fundamentals_analyst": (),
    "technical_analyst": ("mean-reversion", "momentum", "volatility"),
    "sentiment_analyst": ("news-flow",),
    "valuation_analyst": (),
    "risk_manager": ("headroom",),
    "portfolio_manager": ("risk-sizing",),
}
"""The built-in desk: agent ids, which are their roles' names, and the skills of each."""

OTHER_SKILLS: dict[str, tuple[str, ...]] = {
    "technical_analyst": ("bollinger", "macd", "rsi", "trend"),
    "portfolio_manager": ("monthly-equal-weight", "sma-crossover"),
}
"""Skills that an agent has only where a configuration names them."""

ANALYSTS = tuple(name for name in ROLE_SKILLS if name.endswith("_analyst"))


def normalised(config: RunConfig) -> RunConfig:
    """The configuration with every default written out."""
    full = RunConfig()
    full.CopyFrom(config)
    full.schema_version = full.schema_version or 1
    full.mode = full.mode or contract.RUN_MODE_BACKTEST
    full.capital.initial_cash_micros = full.capital.initial_cash_micros or DEFAULT_INITIAL_CASH_MICROS
    full.capital.currency = full.capital.currency or "USD"
    if full.mode == contract.RUN_MODE_MOCK:
        full.data.seed = full.data.seed or DEFAULT_MOCK_SEED
        full.data.set = full.data.set or f"{MOCK_SETS}20@{full.data.seed}"
    full.data.set = full.data.set or "us20"
    full.costs.tick = full.costs.tick or contract.TICK_RULE_NONE
    full.risk.on_gap = full.risk.on_gap or contract.GAP_POLICY_RESIZE
    full.risk.sharing = full.risk.sharing or contract.ROOM_SHARING_PRO_RATA
    full.supervision.restart = full.supervision.restart or contract.RESTART_POLICY_ON_FAILURE
    optional_fields: tuple[tuple[Any, dict[str, Any]], ...] = (
        (full.margin, {"enabled": True, "initial_bp": 5000, "maintenance_long_bp": 2500, "maintenance_short_bp": 3000}),
        (full.execution, {"participation": 0}),
        (full.costs, {"fee_bp": 1, "borrow_bp": DEFAULT_BORROW_BP}),
        (full.risk, {"position": 0.2, "gross": 1.5, "net": 1.0, "drawdown_stop": 0.5}),
        (full.risk, dict.fromkeys(LIMITS_OFF_BY_DEFAULT, 0)),
        (full.risk, {"volatility_positions": DEFAULT_VOLATILITY_POSITIONS}),
        *((group, {"limit": DEFAULT_GROUP_LIMIT}) for group in full.risk.groups.values()),
        (full.pipeline, {"autostart": True, "cycle_deadline_s": DEFAULT_CYCLE_DEADLINE_S}),
        (full.approvals, {"ttl_s": 900}),
    )
    for part, defaults in optional_fields:
        for name, value in defaults.items():
            if not part.HasField(name):
                setattr(part, name, value)
    if not full.workspace:
        for agent_id, skills in ROLE_SKILLS.items():
            agent = full.agents[agent_id]
            if not agent.HasField("enabled"):
                agent.enabled = True
            agent.role = agent.role or words.AgentRole.Value(f"AGENT_ROLE_{agent_id.upper()}")
            if not agent.skills:
                agent.skills.extend(skills)
    return full


def faults_of(config: RunConfig) -> list[FieldViolation]:
    """Every fault at once, by path; empty if there is none. What a data set holds is not checked here."""
    faults = violations_of(config)
    for name in ("start", "end"):
        text = getattr(config.sessions, name)
        if text and not is_date(text):
            faults.append(FieldViolation(f"sessions.{name}", f"{text} is not a date"))
    if config.sessions.start and config.sessions.end and config.sessions.start > config.sessions.end:
        faults.append(FieldViolation("sessions.end", "is before sessions.start"))
    return faults + _faults_of_mode(config) + faults_of_limits(config) + _faults_of_agents(config)


def _faults_of_mode(config: RunConfig) -> list[FieldViolation]:
    """Made-up prices are for mode MOCK, so that no result of theirs is taken for one of a market's; and what mode PAPER cannot do. A replay has
    the prices and the mode that its original had."""
    if config.mode == contract.RUN_MODE_REPLAY:
        return [] if config.replay_of else [FieldViolation("replay_of", "names the run that mode replay shows again")]
    if config.replay_of:
        return [FieldViolation("replay_of", "is for mode replay")]
    made_up, mock = config.data.set.startswith(MOCK_SETS), config.mode == contract.RUN_MODE_MOCK
    if made_up and not mock:
        return [FieldViolation("data.set", f"the prices of {config.data.set} are made up: say `mode: mock`")]
    if mock and not made_up:
        return [FieldViolation("data.set", f"mode mock makes its prices up: leave `data.set` out, or name one like {MOCK_SETS}20@7")]
    return _faults_of_paper(config) if config.mode == contract.RUN_MODE_PAPER else []


def _faults_of_paper(config: RunConfig) -> list[FieldViolation]:
    faults = list[FieldViolation]()
    if config.execution.fill == contract.FILL_POLICY_SAME_CLOSE:
        faults.append(FieldViolation("execution.fill", "nobody can decide on a close and be filled at it: use next_open or next_close"))
    if config.execution.participation:
        faults.append(FieldViolation("execution.participation", "a session's volume is not known in mode paper: leave it out"))
    if config.pipeline.pace_sessions_per_s:
        faults.append(FieldViolation("pipeline.pace_sessions_per_s", "mode paper goes by the clock: leave it out"))
    return faults


def faults_of_limits(config: RunConfig) -> list[FieldViolation]:
    """Tickers of limits that are not the run's: a limit that silently binds nothing is worse than none. A configuration that names no tickers
    has no such fault before those of its data set are filled in."""
    risk, traded = config.risk, frozenset(config.tickers)
    named = [("risk.halted_tickers", risk.halted_tickers), ("risk.not_borrowable", risk.not_borrowable)]
    named += [(f"risk.groups.{name}.tickers", group.tickers) for name, group in risk.groups.items()]
    faults = [
        FieldViolation(path, f"{ticker} is not one of the run's tickers")
        for path, tickers in named
        for ticker in tickers
        if traded and ticker not in traded
    ]
    wrong = [name for name in risk.groups if not 0 < len(name) <= LONGEST_GROUP_NAME]
    return faults + [FieldViolation(f"risk.groups.{name}", f"a name has 1 to {LONGEST_GROUP_NAME} characters") for name in wrong]


def _faults_of_agents(config: RunConfig) -> list[FieldViolation]:
    faults = list[FieldViolation]()
    disabled = {agent_id for agent_id, agent in config.agents.items() if agent.HasField("enabled") and not agent.enabled}
    if "portfolio_manager" in disabled:
        faults.append(FieldViolation("agents.portfolio_manager.enabled", "the portfolio manager cannot be left out"))
    if not config.workspace and disabled.issuperset(ANALYSTS):
        faults.append(FieldViolation("agents", "one analyst must stay"))
    if config.workspace:
        return faults
    for agent_id, agent in config.agents.items():
        if agent_id not in ROLE_SKILLS:
            faults.append(FieldViolation(f"agents.{agent_id}", f"is not on the built-in desk: {', '.join(ROLE_SKILLS)}"))
            continue
        known = ROLE_SKILLS[agent_id] + OTHER_SKILLS.get(agent_id, ())
        for skill in agent.skills:
            if skill not in known:
                faults.append(FieldViolation(f"agents.{agent_id}.skills", f"{skill} is not one of {', '.join(known) or 'none'}"))
    return faults


def config_sha256(config: RunConfig) -> str:
    """Hash of what decides the outcome of a run: its id, pace and supervision are left out."""
    same = RunConfig()
    same.CopyFrom(config)
    for name in ("run_id", "pipeline", "supervision"):
        same.ClearField(name)
    return hashlib.sha256(same.SerializeToString(deterministic=True)).hexdigest()
