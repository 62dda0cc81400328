"""`python -m trademesh_agent`: runs agent_service until SIGTERM."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import ClassVar

from pydantic import Field

from trademesh.agent.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    approval_service_pb2,
    approval_service_pb2_grpc,
    skill_service_pb2,
    skill_service_pb2_grpc,
    workspace_service_pb2,
    workspace_service_pb2_grpc,
)
from trademesh_agent.approval_service import ApprovalHub, ApprovalServicer
from trademesh_agent.approvals import ApprovalBook
from trademesh_agent.control_database import ControlDatabase
from trademesh_agent.documents import WorkspaceFolders
from trademesh_agent.registry import Registry
from trademesh_agent.registry_services import AgentServicer, SkillServicer, WorkspaceServicer
from trademesh_agent.requests import RequestMemory
from trademesh_kernel.server import Assembly, registration, run_service
from trademesh_kernel.settings import ListenValidator, ServerSettings, load_settings


class AgentSettings(ListenValidator, ServerSettings):
    """Settings of agent_service."""

    service: ClassVar[str] = "agent"

    agent_listen: str = "127.0.0.1:8000"
    agent_metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port of the Prometheus counters on 127.0.0.1; 0 = off."""


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


async def assemble(settings: AgentSettings) -> Assembly:
    """The service's parts, inside the running loop."""
    database = ControlDatabase(settings.workspaces_dir / "agent_service.db")
    registry = Registry(WorkspaceFolders(settings.workspaces_dir), utc_now)
    memory = RequestMemory(database, utc_now)
    hub = ApprovalHub(asyncio.get_running_loop())
    book = ApprovalBook(database, utc_now, hub.publish)

    async def close_database() -> None:
        database.close()

    return Assembly(
        [
            registration(
                workspace_service_pb2_grpc.add_WorkspaceServiceServicer_to_server,
                WorkspaceServicer(registry, memory),
                workspace_service_pb2.DESCRIPTOR,
                "WorkspaceService",
            ),
            registration(
                agent_service_pb2_grpc.add_AgentServiceServicer_to_server,
                AgentServicer(registry, memory),
                agent_service_pb2.DESCRIPTOR,
                "AgentService",
            ),
            registration(
                skill_service_pb2_grpc.add_SkillServiceServicer_to_server,
                SkillServicer(registry, memory),
                skill_service_pb2.DESCRIPTOR,
                "SkillService",
            ),
            registration(
                approval_service_pb2_grpc.add_ApprovalServiceServicer_to_server,
                ApprovalServicer(book, hub),
                approval_service_pb2.DESCRIPTOR,
                "ApprovalService",
            ),
        ],
        drain_hooks=[hub.drain],
        closers=[close_database],
    )


def main() -> None:
    """Entry point."""
    settings = load_settings(AgentSettings)
    run_service("agent_service", settings, lambda: assemble(settings))


if __name__ == "__main__":
    main()
