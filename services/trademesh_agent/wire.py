"""Translates between agent_service's values and its messages."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.agent.v1 import agent_pb2, approval_service_pb2, skill_pb2, workspace_pb2
from trademesh.common.v1 import vocabulary_pb2
from trademesh_agent.model import Agent, Approval, ApprovalState, Role, Skill, Workspace, etag_of
from trademesh_kernel.errors import FieldViolation, InvalidRequest


def workspace_message(value: Workspace) -> workspace_pb2.Workspace:
    """A workspace as its message."""
    return workspace_pb2.Workspace(
        workspace_id=value.workspace_id,
        description=value.description,
        prompt=value.prompt,
        etag=etag_of(value),
        created_at=timestamp(value.created_at),
        updated_at=timestamp(value.updated_at),
    )


def agent_message(value: Agent) -> agent_pb2.Agent:
    """An agent as its message."""
    return agent_pb2.Agent(
        workspace=value.workspace,
        agent_id=value.agent_id,
        role=vocabulary_pb2.AgentRole.ValueType(value.role.value),
        skills=value.skills,
        profile=value.profile,
        etag=etag_of(value),
        created_at=timestamp(value.created_at),
        updated_at=timestamp(value.updated_at),
    )


def skill_message(value: Skill) -> skill_pb2.Skill:
    """A skill as its message."""
    return skill_pb2.Skill(
        workspace=value.workspace,
        skill_id=value.skill_id,
        description=value.description,
        instructions=value.instructions,
        content_sha256=value.content_sha256,
        etag=etag_of(value),
        created_at=timestamp(value.created_at),
        updated_at=timestamp(value.updated_at),
    )


def approval_message(value: Approval) -> approval_service_pb2.Approval:
    """An approval as its message."""
    return approval_service_pb2.Approval(
        approval_id=value.approval_id,
        run_id=value.run_id,
        title=value.title,
        subject_json=value.subject_json,
        subject_sha256=value.subject_sha256,
        state=approval_service_pb2.ApprovalState.ValueType(value.state.value),
        decided_by=value.decided_by,
        reason=value.reason,
        requested_at=timestamp(value.requested_at),
        expires_at=timestamp(value.expires_at),
        settled_at=None if value.settled_at is None else timestamp(value.settled_at),
    )


def approval_state(number: int) -> ApprovalState | None:
    """The state that a filter asks for; None asks for all."""
    return ApprovalState(number) if number else None


def role(number: int) -> Role:
    """The role of an agent that is added or changed; raises InvalidRequest if none is said."""
    if not number:
        raise InvalidRequest([FieldViolation("agent.role", "says what the agent does on the desk; it is required")])
    return Role(number)


def workspace_changes(message: workspace_pb2.Workspace, paths: list[str]) -> dict[str, Any]:
    """The values that an update mask names."""
    return {path: getattr(message, path, None) for path in paths}


def agent_changes(message: agent_pb2.Agent, paths: list[str]) -> dict[str, Any]:
    """The values that an update mask names."""
    values = dict[str, Any]()
    for path in paths:
        if path == "role":
            values[path] = role(message.role)
        elif path == "skills":
            values[path] = tuple(message.skills)
        else:
            values[path] = getattr(message, path, None)
    return values


def skill_changes(message: skill_pb2.Skill, paths: list[str]) -> dict[str, Any]:
    """The values that an update mask names."""
    return {path: getattr(message, path, None) for path in paths}


def timestamp(instant: datetime) -> Timestamp:
    """An instant as its message."""
    message = Timestamp()
    message.FromDatetime(instant)
    return message
