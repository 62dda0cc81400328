"""`team_dashboard/leaderboard.json`, and what `stats.json` has beside the account: views on the scoreboard, with the keys of dashboards."""

from __future__ import annotations

from typing import Any

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_ledger.scores import HitCount
from trademesh_runs.scoreboard import AgentRecord, Outcome, Scoreboard

_TEAM = ("portfolio_manager", "risk_manager")
"""Roles that predict nothing: they come first, and have no rank."""
_AVATARS = {
    "portfolio_manager": "pm",
    "risk_manager": "risk",
    "sentiment_analyst": "sentiment",
    "technical_analyst": "technical",
    "fundamentals_analyst": "fundamentals",
    "valuation_analyst": "valuation",
}
_SIGNALS: dict[int, str] = {events.DIRECTION_UP: "bull", events.DIRECTION_DOWN: "bear", events.DIRECTION_NEUTRAL: "neutral"}
_RULES: dict[str, Any] = {"modelName": "rules", "modelProvider": "local"}
"""Every brain that there is."""


def leaderboard(board: Scoreboard) -> list[dict[str, Any]]:
    """A row per agent: the team's roles, then analysts by rank, then those without a known outcome."""
    rows = [_row(agent_id, rank, record) for agent_id, rank, record in board.ranking()]
    team = {agent_id: place for place, agent_id in enumerate(_TEAM)}
    return sorted(rows, key=lambda row: team.get(row["agentId"], len(team)))


def team_stats(board: Scoreboard) -> dict[str, Any]:
    """Share of closing trades that gained, and predictions of all agents whose outcome is known; zeros where there are none."""
    decided = board.gains + board.losses
    bull, bear = HitCount(), HitCount()
    for record in board.agents.values():
        bull, bear = bull.add(record.bull), bear.add(record.bear)
    return {
        "winRate": board.gains / decided if decided else 0.0,
        "bullBear": {"bull": {"n": bull.known, "win": bull.wins}, "bear": {"n": bear.known, "win": bear.wins}},
    }


def _row(agent_id: str, rank: int | None, record: AgentRecord) -> dict[str, Any]:
    name = agent_id.replace("_", " ").title()
    return {
        "agentId": agent_id,
        "name": name,
        "role": name,
        "avatar": _AVATARS.get(agent_id, agent_id),
        "rank": None if agent_id in _TEAM else rank or 0,
        "winRate": record.all.rate,
        "bull": _counts(record.bull),
        "bear": _counts(record.bear),
        "logs": [],
        "signals": [_signal(outcome) for outcome in record.newest_outcomes()],
        **_RULES,
    }


def _counts(count: HitCount) -> dict[str, int]:
    return {"n": count.predictions, "win": count.wins, "unknown": count.unknown}


def _signal(outcome: Outcome) -> dict[str, Any]:
    unknown = None if outcome.direction == events.DIRECTION_NEUTRAL else "unknown"
    return {
        "ticker": outcome.ticker,
        "signal": _SIGNALS[outcome.direction],
        "date": outcome.session_date,
        "is_correct": unknown if outcome.right is None else outcome.right,
        "real_return": outcome.real_return,
    }
