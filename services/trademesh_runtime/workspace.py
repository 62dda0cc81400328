"""The agents that a run begins with: those of a workspace, fetched from agent_service by RPC, or the built-in desk."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from trademesh.agent.v1 import (
    agent_pb2,
    agent_service_pb2,
    agent_service_pb2_grpc,
    skill_service_pb2,
    skill_service_pb2_grpc,
    workspace_service_pb2,
    workspace_service_pb2_grpc,
)
from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.front_matter import join_front_matter
from trademesh_runs.run_config import ROLE_SKILLS

_PROFILES = {
    "fundamentals_analyst": "Reads statements filed by the decision time. Abstains where there are none.",
    "technical_analyst": "Reads closes up to the session before: momentum over a year, mean reversion within a month, volatility.",
    "sentiment_analyst": "Reads news published by the decision time and weighs the newest most.",
    "valuation_analyst": "Compares prices with what statements say a share is worth. Abstains where there are none.",
    "risk_manager": "Computes exposure, volatility and headroom from the ledger, and warns or blocks.",
    "portfolio_manager": "Decides once for every ticker, sized so that each position carries a like risk.",
}


class WorkspaceDamagedError(Exception):
    """Something of a workspace cannot be read; says what."""


@dataclass(frozen=True)
class AgentFiles:
    """The files of one agent, by path below its folder."""

    agent_id: str
    files: dict[str, str]

    def sha256(self) -> str:
        """Hash of all files."""
        digest = hashlib.sha256()
        for name in sorted(self.files):
            digest.update(f"{name}\0{self.files[name]}\0".encode())
        return digest.hexdigest()


def built_in_desk() -> list[AgentFiles]:
    """The six agents that come with the program."""
    return [
        AgentFiles(
            agent_id,
            {"PROFILE.md": _PROFILES[agent_id] + "\n"} | {f"skills/active/{skill}/SKILL.md": _skill(skill, "") for skill in skills},
        )
        for agent_id, skills in ROLE_SKILLS.items()
    ]


async def desk_of_workspace(agent: ServiceClient, config: RunConfig) -> list[AgentFiles]:
    """Takes a workspace's agents into the configuration, and returns their files.

    An agent of a workspace works by the rules of its role; agent ids are then those roles' names.

    Raises:
        DependencyUnavailable: agent_service does not answer.
        RemoteError: there is no such workspace.
        WorkspaceDamagedError: an agent or a skill of it cannot be read. A desk is never begun without it.
    """
    workspaces = agent.stub(workspace_service_pb2_grpc.WorkspaceServiceStub)
    found = await agent.call(workspaces.GetWorkspace, workspace_service_pb2.GetWorkspaceRequest(workspace_id=config.workspace))
    config.prompt = config.prompt or found.workspace.prompt
    skills = agent.stub(skill_service_pb2_grpc.SkillServiceStub)
    texts = dict[str, str]()
    skills_request = skill_service_pb2.ListSkillsRequest(workspace=config.workspace, page_size=500)
    async for skill_page in _pages(agent, skills.ListSkills, skills_request):
        _refuse_damaged("skill", skill_page.damaged)
        texts |= {skill.skill_id: _skill(skill.skill_id, skill.description, skill.instructions) for skill in skill_page.skills}
    agents = agent.stub(agent_service_pb2_grpc.AgentServiceStub)
    agents_request = agent_service_pb2.ListAgentsRequest(workspace=config.workspace, page_size=500)
    members = list[agent_pb2.Agent]()
    async for agent_page in _pages(agent, agents.ListAgents, agents_request):
        _refuse_damaged("agent", agent_page.damaged)
        members += agent_page.agents
    desk = list[AgentFiles]()
    for member in members:
        role = words.AgentRole.Name(member.role).removeprefix("AGENT_ROLE_").lower()
        options = config.agents[role]
        options.role = member.role
        if not options.HasField("enabled"):
            options.enabled = True
        if not options.skills:
            options.skills.extend(skill for skill in member.skills or ROLE_SKILLS[role])
        files = {"PROFILE.md": member.profile or _PROFILES[role] + "\n"}
        for skill in options.skills:
            files[f"skills/active/{skill}/SKILL.md"] = texts.get(skill, _skill(skill, ""))
        desk.append(AgentFiles(role, files))
    return desk


def _refuse_damaged(kind: str, names: Sequence[str]) -> None:
    if names:
        raise WorkspaceDamagedError(f"{kind} {', '.join(names)} cannot be read: mend the files, or remove them")


async def _pages(client: ServiceClient, method: Any, request: Any) -> AsyncIterator[Any]:
    """Every page of a list."""
    while True:
        page = await client.call(method, request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _skill(name: str, description: str, instructions: str = "") -> str:
    front = {"name": name, "description": description or f"Built-in rule {name}."}
    return join_front_matter(yaml.safe_dump(front, sort_keys=False, allow_unicode=True), instructions)
