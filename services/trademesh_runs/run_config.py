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

ROLE_SKILLS: dict[str, tuple[str, ...]] = {
    "fundamentals_analyst": (),
    "technical_analyst": ("mean-reversion", "momentum", "volatility"),
    "sentiment_analyst": ("news-flow",),
    "valuation_analyst": (),
    "risk_manager": ("headroom",),
    "portfolio_manager": ("risk-sizing",),
}
"""The built-in desk: agent ids, which are their roles' names, and the skills of each."""

ANALYSTS = tuple(name for name in ROLE_SKILLS if name.endswith("_analyst"))


def normalised(config: RunConfig) -> RunConfig:
    """The configuration with every default written out."""
    full = RunConfig()
    full.CopyFrom(config)
    full.schema_version = full.schema_version or 1
    full.mode = full.mode or contract.RUN_MODE_BACKTEST
    full.capital.initial_cash_micros = full.capital.initial_cash_micros or DEFAULT_INITIAL_CASH_MICROS
    full.capital.currency = full.capital.currency or "USD"
    full.data.set = full.data.set or "us20"
    full.execution.fill = full.execution.fill or contract.FILL_POLICY_NEXT_CLOSE
    full.costs.tick = full.costs.tick or contract.TICK_RULE_NONE
    full.risk.on_gap = full.risk.on_gap or contract.GAP_POLICY_RESIZE
    full.supervision.restart = full.supervision.restart or contract.RESTART_POLICY_ON_FAILURE
    optional_fields: tuple[tuple[Any, dict[str, Any]], ...] = (
        (full.margin, {"enabled": True, "initial_bp": 5000}),
        (full.costs, {"fee_bp": 1}),
        (full.risk, {"position": 0.2, "gross": 1.5, "net": 1.0, "drawdown_stop": 0.5}),
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
    return faults + _faults_of_agents(config)


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
        known = ROLE_SKILLS.get(agent_id)
        if known is None:
            faults.append(FieldViolation(f"agents.{agent_id}", f"is not on the built-in desk: {', '.join(ROLE_SKILLS)}"))
            continue
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
