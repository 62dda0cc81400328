"""WorkspaceService, AgentService and SkillService: the registry by RPC.

Reading and writing folders takes a thread, so that the loop stays free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from trademesh.agent.v1 import agent_service_pb2 as agents
from trademesh.agent.v1 import agent_service_pb2_grpc, skill_service_pb2_grpc, workspace_service_pb2_grpc
from trademesh.agent.v1 import skill_service_pb2 as skills
from trademesh.agent.v1 import workspace_service_pb2 as workspaces
from trademesh_agent import wire
from trademesh_agent.model import AnyResource
from trademesh_agent.registry import Listing, Registry
from trademesh_agent.requests import RequestMemory
from trademesh_kernel.context import Context
from trademesh_kernel.paging import fitting, page_token, read_page_token

DEFAULT_PAGE_SIZE = 50

Listed = TypeVar("Listed", bound=Message)
Response = TypeVar("Response", bound=Message)


def page_of(
    request: Any, listing: Listing[AnyResource], name_of: Callable[[AnyResource], str], message_of: Callable[[AnyResource], Listed]
) -> tuple[Sequence[Listed], str, list[str]]:
    """One page of a list that is sorted by name, as messages; the token of the next; and, on the first page, what cannot be read.

    `request` has a page size and token. The token names the last of the page: what is added before it moves nothing.
    """
    position = read_page_token(request, request.page_token)
    after = str(position[0]) if position else ""
    rest = [item for item in listing.items if name_of(item) > after]
    page = fitting([message_of(item) for item in rest[: request.page_size or DEFAULT_PAGE_SIZE]], lambda message: message.ByteSize())
    token = page_token(request, [name_of(rest[len(page) - 1])]) if len(rest) > len(page) else ""
    return page, token, [] if position else listing.damaged


def once(memory: RequestMemory, request_id: str, request: Message, answer_type: type[Response], create: Callable[[], Response]) -> Response:
    """The answer given before for this request id, or a new one that is kept."""
    with memory.one_at_a_time:
        known = memory.recall(request_id, request)
        if known is not None:
            return answer_type.FromString(known)
        answer = create()
        memory.remember(request_id, request, answer)
        return answer


class WorkspaceServicer(workspace_service_pb2_grpc.WorkspaceServiceServicer):
    """Workspaces by RPC."""

    def __init__(self, registry: Registry, memory: RequestMemory) -> None:
        self._registry = registry
        self._memory = memory

    async def CreateWorkspace(self, request: workspaces.CreateWorkspaceRequest, context: Context) -> workspaces.CreateWorkspaceResponse:
        def create() -> workspaces.CreateWorkspaceResponse:
            value = self._registry.create_workspace(request.workspace_id, request.workspace.description, request.workspace.prompt)
            return workspaces.CreateWorkspaceResponse(workspace=wire.workspace_message(value))

        return await asyncio.to_thread(once, self._memory, request.request_id, request, workspaces.CreateWorkspaceResponse, create)

    async def GetWorkspace(self, request: workspaces.GetWorkspaceRequest, context: Context) -> workspaces.GetWorkspaceResponse:
        value = await asyncio.to_thread(self._registry.get_workspace, request.workspace_id)
        return workspaces.GetWorkspaceResponse(workspace=wire.workspace_message(value))

    async def ListWorkspaces(self, request: workspaces.ListWorkspacesRequest, context: Context) -> workspaces.ListWorkspacesResponse:
        listing = await asyncio.to_thread(self._registry.list_workspaces)
        page, token, damaged = page_of(request, listing, lambda value: value.workspace_id, wire.workspace_message)
        return workspaces.ListWorkspacesResponse(workspaces=page, next_page_token=token, damaged=damaged)

    async def UpdateWorkspace(self, request: workspaces.UpdateWorkspaceRequest, context: Context) -> workspaces.UpdateWorkspaceResponse:
        changes = wire.workspace_changes(request.workspace, list(request.update_mask.paths))
        value = await asyncio.to_thread(self._registry.update_workspace, request.workspace_id, changes, request.etag)
        return workspaces.UpdateWorkspaceResponse(workspace=wire.workspace_message(value))

    async def DeleteWorkspace(self, request: workspaces.DeleteWorkspaceRequest, context: Context) -> workspaces.DeleteWorkspaceResponse:
        await asyncio.to_thread(self._registry.delete_workspace, request.workspace_id, request.etag)
        return workspaces.DeleteWorkspaceResponse()


class AgentServicer(agent_service_pb2_grpc.AgentServiceServicer):
    """Agents by RPC."""

    def __init__(self, registry: Registry, memory: RequestMemory) -> None:
        self._registry = registry
        self._memory = memory

    async def CreateAgent(self, request: agents.CreateAgentRequest, context: Context) -> agents.CreateAgentResponse:
        def create() -> agents.CreateAgentResponse:
            given = request.agent
            value = self._registry.create_agent(
                request.workspace, request.agent_id, wire.role(given.role), tuple(given.skills), given.profile
            )
            return agents.CreateAgentResponse(agent=wire.agent_message(value))

        return await asyncio.to_thread(once, self._memory, request.request_id, request, agents.CreateAgentResponse, create)

    async def GetAgent(self, request: agents.GetAgentRequest, context: Context) -> agents.GetAgentResponse:
        value = await asyncio.to_thread(self._registry.get_agent, request.workspace, request.agent_id)
        return agents.GetAgentResponse(agent=wire.agent_message(value))

    async def ListAgents(self, request: agents.ListAgentsRequest, context: Context) -> agents.ListAgentsResponse:
        listing = await asyncio.to_thread(self._registry.list_agents, request.workspace)
        page, token, damaged = page_of(request, listing, lambda value: value.agent_id, wire.agent_message)
        return agents.ListAgentsResponse(agents=page, next_page_token=token, damaged=damaged)

    async def UpdateAgent(self, request: agents.UpdateAgentRequest, context: Context) -> agents.UpdateAgentResponse:
        changes = wire.agent_changes(request.agent, list(request.update_mask.paths))
        value = await asyncio.to_thread(self._registry.update_agent, request.workspace, request.agent_id, changes, request.etag)
        return agents.UpdateAgentResponse(agent=wire.agent_message(value))

    async def DeleteAgent(self, request: agents.DeleteAgentRequest, context: Context) -> agents.DeleteAgentResponse:
        await asyncio.to_thread(self._registry.delete_agent, request.workspace, request.agent_id, request.etag)
        return agents.DeleteAgentResponse()


class SkillServicer(skill_service_pb2_grpc.SkillServiceServicer):
    """Skills by RPC."""

    def __init__(self, registry: Registry, memory: RequestMemory) -> None:
        self._registry = registry
        self._memory = memory

    async def CreateSkill(self, request: skills.CreateSkillRequest, context: Context) -> skills.CreateSkillResponse:
        def create() -> skills.CreateSkillResponse:
            value = self._registry.create_skill(request.workspace, request.skill_id, request.skill.description, request.skill.instructions)
            return skills.CreateSkillResponse(skill=wire.skill_message(value))

        return await asyncio.to_thread(once, self._memory, request.request_id, request, skills.CreateSkillResponse, create)

    async def GetSkill(self, request: skills.GetSkillRequest, context: Context) -> skills.GetSkillResponse:
        value = await asyncio.to_thread(self._registry.get_skill, request.workspace, request.skill_id)
        return skills.GetSkillResponse(skill=wire.skill_message(value))

    async def ListSkills(self, request: skills.ListSkillsRequest, context: Context) -> skills.ListSkillsResponse:
        listing = await asyncio.to_thread(self._registry.list_skills, request.workspace)
        page, token, damaged = page_of(request, listing, lambda value: value.skill_id, wire.skill_message)
        return skills.ListSkillsResponse(skills=page, next_page_token=token, damaged=damaged)

    async def UpdateSkill(self, request: skills.UpdateSkillRequest, context: Context) -> skills.UpdateSkillResponse:
        changes = wire.skill_changes(request.skill, list(request.update_mask.paths))
        value = await asyncio.to_thread(self._registry.update_skill, request.workspace, request.skill_id, changes, request.etag)
        return skills.UpdateSkillResponse(skill=wire.skill_message(value))

    async def DeleteSkill(self, request: skills.DeleteSkillRequest, context: Context) -> skills.DeleteSkillResponse:
        await asyncio.to_thread(self._registry.delete_skill, request.workspace, request.skill_id, request.etag)
        return skills.DeleteSkillResponse()
