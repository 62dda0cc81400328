"""The folder of a run as runtime_service makes and removes it: durable when it is acknowledged, and never half there. What a gateway
writes into it is not here."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path

from google.protobuf import json_format

from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh.runtime.v1.runtime_pb2 import RunManifest
from trademesh_kernel.atomic_files import replace_file, sync_folder
from trademesh_kernel.errors import DiskLow, NotFound
from trademesh_runs.bootstrap import write_bootstrap
from trademesh_runs.layout import RunLayout
from trademesh_runs.run_config import config_sha256
from trademesh_runtime.workspace import AgentFiles

CODE_VERSION = "0.1.0"
TRASH = ".trash-"
"""Begins the names of folders of deleted runs. No run is named so."""


def check_room(runs_dir: Path, least_free_bytes: int) -> None:
    """Raises DiskLow if the disk has too little room for one more run."""
    free_bytes = shutil.disk_usage(runs_dir).free
    if free_bytes < least_free_bytes:
        raise DiskLow(free_bytes, least_free_bytes)


def write_folder(layout: RunLayout, config: RunConfig, agents: list[AgentFiles]) -> None:
    """Writes what a gateway begins with; survives power loss once it returns."""
    layout.make_folders()
    for agent in agents:
        for name, content in agent.files.items():
            path = layout.agent(agent.agent_id) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content.encode())
    text = write_bootstrap(config)
    manifest = {
        "run_id": config.run_id,
        "code_version": CODE_VERSION,
        "config_sha256": config_sha256(config),
        "bootstrap_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "data": {"set": config.data.set, "snapshot": config.data.snapshot},
        "agents": {agent.agent_id: agent.sha256() for agent in agents},
    }
    replace_file(layout.manifest, (json.dumps(manifest, indent=2) + "\n").encode())
    replace_file(layout.bootstrap, text.encode())
    # A new folder is an entry of the one that it is in.
    for folder, inner, _files in os.walk(layout.root):
        if inner:
            sync_folder(Path(folder))
    sync_folder(layout.runs_dir)


def read_manifest(layout: RunLayout) -> RunManifest:
    """The manifest as it was written; raises NotFound if there is none that can be read."""
    try:
        return json_format.Parse(layout.manifest.read_text(encoding="utf-8"), RunManifest(), ignore_unknown_fields=True)
    except (OSError, ValueError, json_format.ParseError):
        raise NotFound("manifest of run", layout.run_id) from None


def put_away(layout: RunLayout) -> None:
    """Takes a run's folder out of sight in one step that survives power loss; `sweep` then frees its room. A folder that is not there any
    more was put away before."""
    trash = layout.runs_dir / f"{TRASH}{layout.run_id}-{secrets.token_hex(4)}"
    try:
        os.rename(layout.root, trash)
    except FileNotFoundError:
        return
    sync_folder(layout.runs_dir)


def sweep(runs_dir: Path) -> None:
    """Deletes the folders that were put away, also by an earlier runtime_service. What cannot be deleted is tried again another time."""
    for trash in runs_dir.glob(f"{TRASH}*"):
        shutil.rmtree(trash, ignore_errors=True)
