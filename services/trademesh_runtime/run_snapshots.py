"""What a run and its desk looked like: `state/*.json` of the present gateway, and `state/history/<generation>/` of those that have ended.
Derived files: the truth is in the registry and in the journal."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh.runtime.v1.runtime_pb2 import Run, RunState
from trademesh.runtime.v1.runtime_service_pb2 import RunSnapshotInfo
from trademesh_runs.layout import RunLayout

KEPT_SNAPSHOTS = 100


@dataclass(frozen=True)
class DeskOnDisk:
    """The desk as a gateway wrote it."""

    state: ServerState
    taken_at: Timestamp


def keep_snapshot(layout: RunLayout, generation: int) -> None:
    """Keeps the two states of a gateway that has ended, in one step; the oldest go. Raises OSError."""
    history = layout.state_history(generation).parent
    unfinished = history / f".{generation}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for path in (layout.runtime_state, layout.server_state):
        with suppress(FileNotFoundError):
            _same_content(path, unfinished / path.name)
    kept = layout.state_history(generation)
    shutil.rmtree(kept, ignore_errors=True)
    os.rename(unfinished, kept)
    for old in kept_generations(layout)[KEPT_SNAPSHOTS:]:
        shutil.rmtree(layout.state_history(old), ignore_errors=True)


def _same_content(path: Path, copy: Path) -> None:
    """A second name for a file that is only ever replaced keeps its content for nothing, however large it is."""
    try:
        os.link(path, copy)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(path, copy)


def kept_generations(layout: RunLayout) -> list[int]:
    """Gateways whose end is kept, newest first."""
    try:
        names = os.listdir(layout.state_history(0).parent)
    except OSError:
        return []
    return sorted((int(name) for name in names if name.isascii() and name.isdigit()), reverse=True)


def read_desk(folder: Path) -> DeskOnDisk | None:
    """The desk in `state/` or in a kept snapshot; None if no gateway has written it, or it cannot be read."""
    path = folder / "server_state.json"
    try:
        taken_at = _taken_at(path)
        state = json_format.Parse(path.read_text(encoding="utf-8"), ServerState(), ignore_unknown_fields=True)
    except (OSError, ValueError, json_format.ParseError):
        return None
    return DeskOnDisk(state, taken_at)


def read_run(folder: Path) -> Run | None:
    """The run in a kept snapshot; None if it is not there."""
    try:
        text = (folder / "runtime_state.json").read_text(encoding="utf-8")
        return json_format.Parse(text, Run(), ignore_unknown_fields=True)
    except (OSError, ValueError, json_format.ParseError):
        return None


def snapshots_of(layout: RunLayout, present: int, before: int | None, limit: int) -> tuple[list[RunSnapshotInfo], int | None]:
    """Snapshots that are kept, of the present gateway first and then of earlier ones, and the generation to go on from."""
    found = list[RunSnapshotInfo]()
    for generation in dict.fromkeys([present, *kept_generations(layout)]):
        if before is not None and generation >= before:
            continue
        info = describe(layout.state if generation == present else layout.state_history(generation), generation)
        if info is None:
            continue
        if len(found) == limit:
            return found, found[-1].generation
        found.append(info)
    return found, None


def describe(folder: Path, generation: int) -> RunSnapshotInfo | None:
    """What a snapshot is; None if there is none in the folder."""
    info = RunSnapshotInfo(generation=generation)
    files = [path for path in (folder / "runtime_state.json", folder / "server_state.json") if path.is_file()]
    if not files:
        return None
    with suppress(OSError, ValueError, AttributeError, TypeError):
        info.state = RunState.Value(json.loads((folder / "runtime_state.json").read_text(encoding="utf-8"))["state"])
    with suppress(OSError, ValueError, AttributeError, TypeError):
        record = json.loads((folder / "server_state.json").read_text(encoding="utf-8"))
        info.as_of_sequence = int(record.get("as_of_sequence", 0))
    with suppress(OSError):
        info.size_bytes = sum(path.stat().st_size for path in files)
        info.taken_at.CopyFrom(max((_taken_at(path) for path in files), key=lambda at: (at.seconds, at.nanos)))
    return info


def _taken_at(path: Path) -> Timestamp:
    at = Timestamp()
    at.FromNanoseconds(path.stat().st_mtime_ns)
    return at
