"""The registry of workspaces, agents and skills: what may be added, changed and removed, and by whose etag.

Storage is `documents.py`'s; a clock is given, so that tests own the time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic

from trademesh_agent.documents import DocumentDamagedError, WorkspaceFolders
from trademesh_agent.model import Agent, AnyResource, Resource, Role, Skill, Workspace, changed, etag_of
from trademesh_kernel.errors import AlreadyExists, EtagMismatch, FieldViolation, InvalidRequest, NotFound
from trademesh_kernel.logs import get_logger

Clock = Callable[[], datetime]

MUTABLE_FIELDS = {
    Workspace: frozenset({"description", "prompt"}),
    Agent: frozenset({"role", "skills", "profile"}),
    Skill: frozenset({"description", "instructions"}),
}
"""What an update mask may name."""


@dataclass(frozen=True)
class Listing(Generic[AnyResource]):
    """What there is, by name, and the names of what cannot be read."""

    items: list[AnyResource]
    damaged: list[str]


class Registry:
    """Adds, reads, changes and removes resources, one change at a time."""

    def __init__(self, folders: WorkspaceFolders, clock: Clock) -> None:
        self._folders = folders
        self._clock = clock
        self._lock = threading.RLock()
        self._log = get_logger("registry")

    # Workspaces

    def create_workspace(self, workspace_id: str, description: str, prompt: str) -> Workspace:
        """Adds a workspace.

        Raises:
            AlreadyExists: there is one of that name.
        """
        with self._lock:
            if self._folders.read_workspace(workspace_id) is not None:
                raise AlreadyExists("workspace", workspace_id)
            now = self._clock()
            value = Workspace(workspace_id, description, prompt, now, now)
            self._folders.write_workspace(value)
            return value

    def get_workspace(self, workspace_id: str) -> Workspace:
        """The workspace; raises NotFound."""
        with self._lock:
            value = self._folders.read_workspace(workspace_id)
        if value is None:
            raise NotFound("workspace", workspace_id)
        return value

    def list_workspaces(self) -> Listing[Workspace]:
        """All workspaces, by name."""
        with self._lock:
            return self._whole(self._folders.workspaces(), self.get_workspace)

    def update_workspace(self, workspace_id: str, values: dict[str, Any], etag: str) -> Workspace:
        """Changes a workspace; raises NotFound, EtagMismatch, InvalidRequest."""
        with self._lock:
            value = self._change(self.get_workspace(workspace_id), workspace_id, values, etag)
            self._folders.write_workspace(value)
            return value

    def delete_workspace(self, workspace_id: str, etag: str) -> None:
        """Removes a workspace with all that is in it; raises NotFound, EtagMismatch."""
        with self._lock:
            _check_etag(self.get_workspace(workspace_id), workspace_id, etag)
            self._folders.remove(self._folders.workspace_path(workspace_id))

    # Agents

    def create_agent(self, workspace: str, agent_id: str, role: Role, skills: tuple[str, ...], profile: str) -> Agent:
        """Adds an agent; raises NotFound for the workspace, AlreadyExists, InvalidRequest."""
        with self._lock:
            self.get_workspace(workspace)
            if self._folders.read_agent(workspace, agent_id) is not None:
                raise AlreadyExists("agent", f"{workspace}/{agent_id}")
            now = self._clock()
            value = Agent(workspace, agent_id, role, skills, profile, now, now)
            self._folders.write_agent(value)
            return value

    def get_agent(self, workspace: str, agent_id: str) -> Agent:
        """The agent; raises NotFound."""
        with self._lock:
            value = self._folders.read_agent(workspace, agent_id)
        if value is None:
            raise NotFound("agent", f"{workspace}/{agent_id}")
        return value

    def list_agents(self, workspace: str) -> Listing[Agent]:
        """Agents of a workspace, by name; raises NotFound for the workspace."""
        with self._lock:
            self.get_workspace(workspace)
            return self._whole(self._folders.agents(workspace), lambda agent_id: self.get_agent(workspace, agent_id))

    def update_agent(self, workspace: str, agent_id: str, values: dict[str, Any], etag: str) -> Agent:
        """Changes an agent; raises NotFound, EtagMismatch, InvalidRequest."""
        with self._lock:
            value = self._change(self.get_agent(workspace, agent_id), f"{workspace}/{agent_id}", values, etag)
            self._folders.write_agent(value)
            return value

    def delete_agent(self, workspace: str, agent_id: str, etag: str) -> None:
        """Removes an agent; raises NotFound, EtagMismatch."""
        with self._lock:
            _check_etag(self.get_agent(workspace, agent_id), f"{workspace}/{agent_id}", etag)
            self._folders.remove(self._folders.agent_path(workspace, agent_id))

    # Skills

    def create_skill(self, workspace: str, skill_id: str, description: str, instructions: str) -> Skill:
        """Adds a skill; raises NotFound for the workspace, AlreadyExists, InvalidRequest."""
        if skill_id.endswith("-") or "--" in skill_id:
            raise InvalidRequest([FieldViolation("skill_id", "hyphens stand singly, between letters or digits (agentskills.io)")])
        _check_description(description)
        with self._lock:
            self.get_workspace(workspace)
            if self._folders.read_skill(workspace, skill_id) is not None:
                raise AlreadyExists("skill", f"{workspace}/{skill_id}")
            now = self._clock()
            value = Skill(workspace, skill_id, description, instructions, now, now)
            self._folders.write_skill(value)
            return value

    def get_skill(self, workspace: str, skill_id: str) -> Skill:
        """The skill; raises NotFound."""
        with self._lock:
            value = self._folders.read_skill(workspace, skill_id)
        if value is None:
            raise NotFound("skill", f"{workspace}/{skill_id}")
        return value

    def list_skills(self, workspace: str) -> Listing[Skill]:
        """Skills of a workspace, by name; raises NotFound for the workspace."""
        with self._lock:
            self.get_workspace(workspace)
            return self._whole(self._folders.skills(workspace), lambda skill_id: self.get_skill(workspace, skill_id))

    def update_skill(self, workspace: str, skill_id: str, values: dict[str, Any], etag: str) -> Skill:
        """Changes a skill; raises NotFound, EtagMismatch, InvalidRequest."""
        if "description" in values:
            _check_description(values["description"])
        with self._lock:
            value = self._change(self.get_skill(workspace, skill_id), f"{workspace}/{skill_id}", values, etag)
            self._folders.write_skill(value)
            return value

    def delete_skill(self, workspace: str, skill_id: str, etag: str) -> None:
        """Removes a skill; raises NotFound, EtagMismatch."""
        with self._lock:
            _check_etag(self.get_skill(workspace, skill_id), f"{workspace}/{skill_id}", etag)
            self._folders.remove(self._folders.skill_path(workspace, skill_id))

    def _whole(self, names: Iterable[str], get: Callable[[str], AnyResource]) -> Listing[AnyResource]:
        """Those that can be read: one file that somebody has spoilt must not hide the others. To ask for it by name tells the fault."""
        found, damaged = list[AnyResource](), list[str]()
        for name in names:
            try:
                found.append(get(name))
            except DocumentDamagedError as error:
                self._log.warning("left out of a list", name=name, reason=error.message)
                damaged.append(name)
        return Listing(found, damaged)

    def _change(self, value: AnyResource, name: str, values: dict[str, Any], etag: str) -> AnyResource:
        _check_etag(value, name, etag)
        allowed = MUTABLE_FIELDS[type(value)]
        if not values:
            raise InvalidRequest([FieldViolation("update_mask", f"names nothing to change: it may name {', '.join(sorted(allowed))}")])
        unknown = sorted(set(values) - allowed)
        if unknown:
            hint = f"may name {', '.join(sorted(allowed))}"
            raise InvalidRequest([FieldViolation("update_mask", f"{path} cannot be changed; the mask {hint}") for path in unknown])
        return changed(value, values, self._clock())


def _check_description(description: str) -> None:
    if not description:
        raise InvalidRequest([FieldViolation("skill.description", "says what the skill does and when to use it; it is required")])


def _check_etag(value: Resource, name: str, etag: str) -> None:
    if etag and etag != etag_of(value):
        raise EtagMismatch(type(value).__name__.lower(), name, etag_of(value))
