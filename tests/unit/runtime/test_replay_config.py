"""The configuration of a replay: what the original decided stays, what the replay says is its own, and everything else is a fault."""

from __future__ import annotations

from typing import Any

import pytest

from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1 import runtime_pb2 as wire
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_runs.bootstrap import read_bootstrap, write_bootstrap
from trademesh_runs.run_config import faults_of, normalised
from trademesh_runtime.replay_config import replay_config


def original(
    state: wire.RunState.ValueType = wire.RUN_STATE_SUCCEEDED, mode: contract.RunMode.ValueType = contract.RUN_MODE_BACKTEST
) -> wire.Run:
    config = RunConfig(run_id="first", mode=mode, tickers=["KO", "PEP"], prompt="Be careful.")
    config.risk.position = 0.1
    config.pipeline.pace_sessions_per_s = 20
    config.supervision.restart = contract.RESTART_POLICY_NEVER
    return wire.Run(run_id="first", state=state, config=normalised(config))


def asked(**fields: Any) -> RunConfig:
    return RunConfig(**{"mode": contract.RUN_MODE_REPLAY, "replay_of": "first"} | fields)


def test_what_decided_the_original_is_the_replays_too_and_how_it_is_driven_is_its_own() -> None:
    given = asked(run_id="again")
    given.pipeline.pace_sessions_per_s = 2
    given.pipeline.autostart = False
    config, faults = replay_config(given, original())
    assert faults == []
    assert (list(config.tickers), config.risk.position, config.prompt) == (["KO", "PEP"], 0.1, "Be careful.")
    assert (config.run_id, config.mode, config.replay_of) == ("again", contract.RUN_MODE_REPLAY, "first")
    assert (config.pipeline.pace_sessions_per_s, config.pipeline.autostart) == (2, False)
    assert config.supervision.restart == contract.RESTART_POLICY_ON_FAILURE
    assert read_bootstrap(write_bootstrap(config)) == config


@pytest.mark.parametrize("mode", [contract.RUN_MODE_BACKTEST, contract.RUN_MODE_MOCK, contract.RUN_MODE_PAPER])
def test_a_run_of_any_mode_can_be_shown_again_and_so_can_a_replay(mode: contract.RunMode.ValueType) -> None:
    config, faults = replay_config(asked(), original(mode=mode))
    assert faults == []
    again = wire.Run(run_id="again", state=wire.RUN_STATE_SUCCEEDED, config=config)
    assert replay_config(asked(replay_of="again"), again)[1] == []


@pytest.mark.parametrize("state", [wire.RUN_STATE_RUNNING, wire.RUN_STATE_BACKOFF, wire.RUN_STATE_PENDING])
def test_a_run_that_has_not_ended_cannot_be_shown_yet(state: wire.RunState.ValueType) -> None:
    (fault,) = replay_config(asked(), original(state))[1]
    assert fault.field == "replay_of"
    assert "it can be shown again once it has ended" in fault.description


def test_a_run_that_is_not_there_cannot_be_shown() -> None:
    (fault,) = replay_config(asked(), None)[1]
    assert (fault.field, fault.description) == ("replay_of", "there is no run first")
    (fault,) = replay_config(asked(replay_of=""), None)[1]
    assert fault.field == "replay_of"


def test_what_the_original_decides_is_not_to_be_said_again() -> None:
    given = asked(tickers=["KO"], prompt="Be bold.")
    given.risk.position = 0.2
    assert [fault.field for fault in replay_config(given, original())[1]] == ["tickers", "risk", "prompt"]


def test_only_a_replay_names_a_run() -> None:
    assert [fault.field for fault in faults_of(normalised(RunConfig(replay_of="first")))] == ["replay_of"]
    assert [fault.field for fault in faults_of(normalised(RunConfig(mode=contract.RUN_MODE_REPLAY)))] == ["replay_of"]
    assert "replay_of" in [fault.field for fault in faults_of(normalised(asked(replay_of="NO RUN")))]
