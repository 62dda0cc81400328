"""Workspaces as folders that a person can read and edit: the files, and nothing about what is allowed.

    workspaces/<workspace>/workspace.json, PROMPT.md
    workspaces/<workspace>/agents/<agent_id>/agent.json, PROFILE.md
    workspaces/<workspace>/skills/<skill_id>/skill.json, SKILL.md

A folder exists wholly or not at all: it is written beside its place and renamed into it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from trademesh_agent.model import Agent, Role, Skill, Workspace
from trademesh_kernel.errors import StateConflict
from trademesh_kernel.front_matter import NoFrontMatterError, join_front_matter, split_front_matter


class DocumentDamagedError(StateConflict):
    """A file of the registry cannot be read; names it and says why."""

    def __init__(self, message: str) -> None:
        text = f"{message}: mend the file, or remove its folder"
        super().__init__(text, resource_type="file", name=message.partition(":")[0], state="DAMAGED")


class WorkspaceFolders:
    """Reads and writes the folders under one root."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def workspace_path(self, workspace: str) -> Path:
        """Folder of a workspace."""
        return self._root / workspace

    def agent_path(self, workspace: str, agent_id: str) -> Path:
        """Folder of an agent."""
        return self._root / workspace / "agents" / agent_id

    def skill_path(self, workspace: str, skill_id: str) -> Path:
        """Folder of a skill."""
        return self._root / workspace / "skills" / skill_id

    def read_workspace(self, workspace: str) -> Workspace | None:
        """The workspace, or None."""
        record = _read_record(self.workspace_path(workspace) / "workspace.json")
        if record is None:
            return None
        prompt = _read_text(self.workspace_path(workspace) / "PROMPT.md")
        with _damage_named(self.workspace_path(workspace) / "workspace.json"):
            return Workspace(workspace, str(record["description"]), prompt, *_times(record))

    def write_workspace(self, value: Workspace) -> None:
        """Adds or replaces a workspace; its agents and skills stay."""
        record = {"description": value.description, **_time_record(value)}
        _write_files(self.workspace_path(value.workspace_id), {"PROMPT.md": value.prompt, "workspace.json": _dump(record)})

    def read_agent(self, workspace: str, agent_id: str) -> Agent | None:
        """The agent, or None."""
        path = self.agent_path(workspace, agent_id)
        record = _read_record(path / "agent.json")
        if record is None:
            return None
        profile = _read_text(path / "PROFILE.md")
        with _damage_named(path / "agent.json"):
            skills = tuple(str(skill) for skill in record["skills"])
            return Agent(workspace, agent_id, Role[record["role"]], skills, profile, *_times(record))

    def write_agent(self, value: Agent) -> None:
        """Adds or replaces an agent."""
        record = {"role": value.role.name, "skills": list(value.skills), **_time_record(value)}
        _write_files(self.agent_path(value.workspace, value.agent_id), {"PROFILE.md": value.profile, "agent.json": _dump(record)})

    def read_skill(self, workspace: str, skill_id: str) -> Skill | None:
        """The skill, or None."""
        path = self.skill_path(workspace, skill_id)
        record = _read_record(path / "skill.json")
        if record is None:
            return None
        description, instructions = _parse_skill(path / "SKILL.md")
        with _damage_named(path / "skill.json"):
            return Skill(workspace, skill_id, description, instructions, *_times(record))

    def write_skill(self, value: Skill) -> None:
        """Adds or replaces a skill."""
        front = yaml.safe_dump({"name": value.skill_id, "description": value.description}, sort_keys=False, allow_unicode=True)
        text = join_front_matter(front, value.instructions)
        _write_files(self.skill_path(value.workspace, value.skill_id), {"SKILL.md": text, "skill.json": _dump(_time_record(value))})

    def workspaces(self) -> Iterator[str]:
        """Names of workspaces, in order."""
        return _folders(self._root, "workspace.json")

    def agents(self, workspace: str) -> Iterator[str]:
        """Ids of a workspace's agents, in order."""
        return _folders(self.workspace_path(workspace) / "agents", "agent.json")

    def skills(self, workspace: str) -> Iterator[str]:
        """Ids of a workspace's skills, in order."""
        return _folders(self.workspace_path(workspace) / "skills", "skill.json")

    def remove(self, path: Path) -> None:
        """Removes a folder: away in one step, then its content."""
        grave = Path(tempfile.mkdtemp(prefix=".removed-", dir=self._root))
        os.rename(path, grave / "content")
        shutil.rmtree(grave, ignore_errors=True)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """People edit these files: what is missing or of a wrong kind in one is told with its name."""
    try:
        yield
    except KeyError as error:
        raise DocumentDamagedError(f"{path}: {error} is missing, or no value of that name is known") from error
    except (TypeError, ValueError) as error:
        raise DocumentDamagedError(f"{path}: {error}") from error


def _folders(parent: Path, marker: str) -> Iterator[str]:
    if not parent.is_dir():
        return iter(())
    return iter(sorted(entry.name for entry in parent.iterdir() if (entry / marker).is_file()))


def _write_files(folder: Path, files: dict[str, str]) -> None:
    """Replaces each file atomically; the record comes last, since it is what makes the folder a resource."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        descriptor, temporary = tempfile.mkstemp(prefix=".", dir=folder)
        # Line ends stay as they were given: the etag is made of them.
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, folder / name)


def _dump(record: dict[str, Any]) -> str:
    return json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DocumentDamagedError(f"{path}: {error}") from error
    if not isinstance(record, dict):
        raise DocumentDamagedError(f"{path}: a JSON object is expected")
    return record


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except ValueError as error:
        raise DocumentDamagedError(f"{path}: {error}") from error


def _parse_skill(path: Path) -> tuple[str, str]:
    """Description and instructions of a SKILL.md."""
    text = _read_text(path)
    try:
        yaml_text, body = split_front_matter(text)
        front = yaml.safe_load(yaml_text)
    except (NoFrontMatterError, yaml.YAMLError) as error:
        raise DocumentDamagedError(f"{path}: {error}") from error
    if not isinstance(front, dict) or not isinstance(front.get("description"), str):
        raise DocumentDamagedError(f"{path}: front matter needs a description")
    return front["description"], body


def _times(record: dict[str, Any]) -> tuple[datetime, datetime]:
    return datetime.fromisoformat(record["created_at"]), datetime.fromisoformat(record["updated_at"])


def _time_record(value: Workspace | Agent | Skill) -> dict[str, str]:
    return {"created_at": value.created_at.isoformat(), "updated_at": value.updated_at.isoformat()}
