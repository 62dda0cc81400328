"""What a new gateway is told. How it travels is its launcher's; the gateway's side of it is `trademesh_gateway/launch.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trademesh.runtime.v1.runtime_pb2 import Run
from trademesh_runs.layout import RunLayout
from trademesh_runtime.policy import Timers


@dataclass(frozen=True)
class Targets:
    """Where gateways find the other services, and where they bind."""

    trading: str
    news: str
    agent: str
    bind: str
    advertise: str


def ticket_of(run: Run, layout: RunLayout, nonce: str, targets: Targets, timers: Timers) -> dict[str, Any]:
    """The ticket of a run's newest generation."""
    return {
        "run_id": run.run_id,
        "runs_dir": str(layout.runs_dir.absolute()),
        "generation": run.generation,
        "nonce": nonce,
        "run_nonce": f"{run.created_at.seconds}.{run.created_at.nanos:09}",
        "lease_s": timers.lease_s,
        "orphan_s": timers.orphan_s,
        "watermark_sequence": run.progress.head_sequence,
        "watermark_epoch": run.progress.epoch,
        "trading_target": targets.trading,
        "news_target": targets.news,
        "agent_target": targets.agent,
        "bind": targets.bind,
        "advertise": targets.advertise,
    }
