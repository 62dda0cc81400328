"""What agent_service keeps: workspaces, agents, skills and approvals, as plain values.

No storage and no messages here: `registry.py` and `approvals.py` keep them, `wire.py` translates them.
"""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, TypeVar


class Role(enum.Enum):
    """What an agent does on the desk; values are those of common.v1.AgentRole."""

    FUNDAMENTALS_ANALYST = 1
    TECHNICAL_ANALYST = 2
    SENTIMENT_ANALYST = 3
    VALUATION_ANALYST = 4
    RISK_MANAGER = 5
    PORTFOLIO_MANAGER = 6


@dataclass(frozen=True)
class Workspace:
    """A desk at design time."""

    workspace_id: str
    description: str
    prompt: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Agent:
    """An agent of a workspace."""

    workspace: str
    agent_id: str
    role: Role
    skills: tuple[str, ...]
    profile: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Skill:
    """A skill of a workspace: a folder in the layout of agentskills.io."""

    workspace: str
    skill_id: str
    description: str
    instructions: str
    created_at: datetime
    updated_at: datetime

    @property
    def content_sha256(self) -> str:
        """Hash of what an agent would read."""
        text = json.dumps([self.skill_id, self.description, self.instructions])
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


Resource = Workspace | Agent | Skill
AnyResource = TypeVar("AnyResource", Workspace, Agent, Skill)


def etag_of(resource: Resource) -> str:
    """Version of a resource: changes whenever one of its fields does."""
    return hashlib.sha256(json.dumps(asdict(resource), default=str, sort_keys=True).encode()).hexdigest()[:16]


def changed(resource: AnyResource, values: dict[str, Any], now: datetime) -> AnyResource:
    """The resource with some fields replaced and its time of change set."""
    return replace(resource, **values, updated_at=now)


class ApprovalState(enum.Enum):
    """Where an approval stands; values are those of agent.v1.ApprovalState."""

    PENDING = 1
    APPROVED = 2
    DENIED = 3
    EXPIRED = 4


@dataclass(frozen=True)
class Approval:
    """A question put before people, and its answer."""

    approval_id: str
    run_id: str
    title: str
    subject_json: str
    state: ApprovalState
    decided_by: str
    reason: str
    requested_at: datetime
    expires_at: datetime
    settled_at: datetime | None

    @property
    def subject_sha256(self) -> str:
        """What a decision is bound to."""
        return hashlib.sha256(self.subject_json.encode()).hexdigest()
