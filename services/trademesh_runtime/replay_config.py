"""The configuration of a run that shows another one again: all that decided what the other did, and how the replay itself is driven."""

from __future__ import annotations

from typing import Any

from trademesh.runtime.v1 import runtime_pb2 as wire
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_kernel.errors import FieldViolation
from trademesh_runs.run_config import faults_of, normalised
from trademesh_runtime import policy
from trademesh_runtime.policy import State

OWN = frozenset({"schema_version", "run_id", "mode", "pipeline", "supervision", "replay_of"})
"""What a replay says itself."""


def replay_config(given: RunConfig, original: wire.Run | None) -> tuple[RunConfig, list[FieldViolation]]:
    """The configuration of a replay, and all its faults. `original` is the run that it names, if there is one."""
    config = normalised(given)
    faults = [
        FieldViolation(field.name, "is decided by the run that is shown again")
        for field, _value in given.ListFields()
        if field.name not in OWN
    ]
    if original is None:
        missing = [FieldViolation("replay_of", f"there is no run {given.replay_of}")] if given.replay_of else []
        return config, faults + missing + faults_of(config)
    if State(int(original.state)) not in policy.TERMINAL:
        state = State(int(original.state)).name
        faults.append(FieldViolation("replay_of", f"run {given.replay_of} is {state}: it can be shown again once it has ended"))
    shown, own = RunConfig(), RunConfig()
    shown.CopyFrom(original.config)
    own.CopyFrom(config)
    for field in RunConfig.DESCRIPTOR.fields:
        part: Any = shown if field.name in OWN else own
        part.ClearField(field.name)
    shown.MergeFrom(own)
    return shown, faults + faults_of(shown)
