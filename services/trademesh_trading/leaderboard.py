"""How good agents were, as the message of GetLeaderboard. What is counted is `trademesh_runs.scoreboard`'s, formulas are the ledger's."""

from __future__ import annotations

from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.trading.v1 import portfolio_service_pb2 as messages
from trademesh_ledger.scores import HitCount, InformationCoefficient, Interval, information_coefficient, wilson_interval
from trademesh_runs.scoreboard import AgentRecord, Scoreboard

SCORED_KINDS = ("run_started", "predictions", "signals", "settled")
_NO_PREDICTION = "no prediction of a rise or a fall has a known outcome"


def leaderboard_message(board: Scoreboard, as_of_sequence: int) -> messages.GetLeaderboardResponse:
    """The records so far, best first."""
    return messages.GetLeaderboardResponse(
        agents=[_agent(agent_id, rank, record) for agent_id, rank, record in board.ranking()],
        sessions=board.sessions,
        as_of_sequence=as_of_sequence,
    )


def _agent(agent_id: str, rank: int | None, record: AgentRecord) -> messages.AgentScore:
    coefficient = information_coefficient(record.coefficients)
    found = messages.AgentScore(
        agent_id=agent_id,
        role=role_of(agent_id),
        rank=rank,
        all=_hits(record.all),
        bull=_hits(record.bull),
        bear=_hits(record.bear),
        neutral=record.neutral,
        brier=record.brier.mean,
        information_coefficient=_coefficient(coefficient),
        sessions_predicted=record.sessions_predicted,
    )
    for name, absent, reason in (
        ("rank", rank is None, _NO_PREDICTION),
        ("all.rate", not found.all.HasField("rate"), _NO_PREDICTION),
        ("bull.rate", not found.bull.HasField("rate"), "no prediction of a rise has a known outcome"),
        ("bear.rate", not found.bear.HasField("rate"), "no prediction of a fall has a known outcome"),
        ("brier", not found.HasField("brier"), _NO_PREDICTION),
        *((f"information_coefficient.{name}", True, reason) for name, reason in coefficient.undefined.items()),
    ):
        if absent:
            found.undefined[name] = reason
    return found


def role_of(agent_id: str) -> words.AgentRole.ValueType:
    """The role of an agent whose id is its role's own name; unspecified for others."""
    value = words.AgentRole.DESCRIPTOR.values_by_name.get(f"AGENT_ROLE_{agent_id.upper()}")
    return words.AGENT_ROLE_UNSPECIFIED if value is None else words.AgentRole.ValueType(value.number)


def _hits(count: HitCount) -> messages.HitScore:
    return messages.HitScore(
        predictions=count.predictions,
        wins=count.wins,
        unknown=count.unknown,
        rate=count.rate,
        interval=_interval(wilson_interval(count.wins, count.known)),
    )


def _interval(found: Interval | None) -> messages.ConfidenceInterval | None:
    return None if found is None else messages.ConfidenceInterval(low=found.low, high=found.high)


def _coefficient(found: InformationCoefficient) -> messages.InformationCoefficientScore:
    return messages.InformationCoefficientScore(
        sessions=found.sessions, mean=found.mean, deviation=found.deviation, t=found.t, interval=_interval(found.interval)
    )
