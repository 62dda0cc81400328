"""The demo run, as it is started."""

from __future__ import annotations

from importlib import resources

from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_runs.bootstrap import read_bootstrap


def demo_config(*, pace_sessions_per_s: float) -> RunConfig:
    """The demo run."""
    text = resources.files("trademesh_cli").joinpath("demo", "BOOTSTRAP.md").read_text(encoding="utf-8")
    config = read_bootstrap(text)
    config.pipeline.pace_sessions_per_s = pace_sessions_per_s
    return config
