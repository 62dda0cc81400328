"""BOOTSTRAP.md and the typed configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_runs.bootstrap import BootstrapError, read_bootstrap, read_bootstrap_file, write_bootstrap
from trademesh_runs.run_config import LIMITS_OFF_BY_DEFAULT, config_sha256, faults_of, normalised

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\0\x85\u2028\u2029"), max_size=40)


@st.composite
def configurations(draw: st.DrawFn) -> RunConfig:
    """Configurations with fields of every kind set or left out."""
    config = RunConfig(
        run_id=draw(st.sampled_from(["", "demo", "0", "1990-01-02", "true"])),
        tickers=draw(st.lists(st.sampled_from(["AAPL", "ON", "NO", "1", "T", "null"]), unique=True)),
        mode=draw(st.sampled_from([contract.RUN_MODE_UNSPECIFIED, contract.RUN_MODE_BACKTEST])),
        prompt=draw(TEXT),
    )
    config.capital.initial_cash_micros = draw(st.integers(0, 10**18))
    config.sessions.start = draw(st.sampled_from(["", "1990-01-02"]))
    if draw(st.booleans()):
        config.margin.enabled = draw(st.booleans())
    if draw(st.booleans()):
        config.risk.position = draw(st.floats(0, 100, allow_nan=False))
    if draw(st.booleans()):
        config.risk.halted = True
        config.risk.halted_tickers.extend(draw(st.sets(st.sampled_from(["AAPL", "ON"]))))
        config.risk.orders = draw(st.integers(0, 100))
    for name in draw(st.sets(st.sampled_from(["tech", "null", "1"]))):
        config.risk.groups[name].tickers.append("AAPL")
        if draw(st.booleans()):
            config.risk.groups[name].limit = draw(st.floats(0, 100, allow_nan=False))
    if draw(st.booleans()):
        config.supervision.linger_s = draw(st.integers(0, 100))
    for agent_id in draw(st.sets(st.sampled_from(["technical_analyst", "risk_manager"]))):
        config.agents[agent_id].enabled = draw(st.booleans())
        config.agents[agent_id].skills.extend(draw(st.sets(st.sampled_from(["momentum", "volatility"]))))
    return config


@given(configurations())
def test_what_is_written_is_read_again(config: RunConfig) -> None:
    again = read_bootstrap(write_bootstrap(config))
    # A part with nothing in it may be written or left out; what it says is the same.
    assert normalised(again) == normalised(config)
    assert again.prompt == config.prompt


@given(configurations())
def test_defaults_do_not_change_when_they_are_filled_in_again(config: RunConfig) -> None:
    once = normalised(config)
    assert normalised(once) == once
    assert not faults_of(once) or faults_of(config)


@pytest.mark.parametrize(
    ("front", "place"),
    [
        ("mode: backtest\ntypo: 1", "typo"),
        ("costs: {fee_bps: 1}", "costs.fee_bps"),
        ("execution: {fill: next_week}", "execution.fill"),
        ("capital: {initial_cash_micros: lots}", "capital.initial_cash_micros"),
        ("margin: {enabled: 1}", "margin.enabled"),
        ("sessions: 7", "sessions"),
        ("mode: [unclosed", "line 3, column 1"),
    ],
)
def test_a_fault_is_named_by_its_place(front: str, place: str) -> None:
    with pytest.raises(BootstrapError) as caught:
        read_bootstrap(f"---\n{front}\n---\nbody")
    assert [violation.field for violation in caught.value.violations] == [place]


@pytest.mark.parametrize(
    ("front", "told"),
    [
        ("mode: backtest\nrisk:\n  gross: much", "risk.gross: a number is expected (line 4, column 3)"),
        ("sessions: {start: 2007-13-45}", "line 2, column 19: month must be in 1..12"),
        ("mode: backtest\nrun_id: a\x01b", "line 3, column 10: the character 1 is not allowed"),
        ("mode: " + "[" * 3000, "line 2, column 1: is nested too deeply"),
        ("7", "front matter: a mapping is expected (line 2, column 1)"),
        ("risk: &a {gross: *a}", "risk.gross: a number is expected (line 2, column 11)"),
        ("tickers: [&a [*a]]", "tickers: text is expected (line 2, column 1)"),
    ],
)
def test_every_fault_has_a_line_and_a_column(front: str, told: str) -> None:
    with pytest.raises(BootstrapError) as caught:
        read_bootstrap(f"---\n{front}\n---\nbody")
    assert str(caught.value) == told


def test_a_file_that_is_no_text_is_a_fault_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "BOOTSTRAP.md"
    path.write_bytes("---\nrun_id: caf\u00e9\n---\n".encode("latin-1"))
    with pytest.raises(BootstrapError, match="line 2, column 12: is not UTF-8"):
        read_bootstrap_file(path)


def test_all_faults_are_told_at_once() -> None:
    config = RunConfig(run_id="NO")
    config.sessions.start, config.sessions.end = "2001-02-30", "1999-01-01"
    config.agents["portfolio_manager"].enabled = False
    config.agents["oracle"].enabled = True
    assert {fault.field for fault in faults_of(config)} >= {
        "run_id",
        "sessions.start",
        "sessions.end",
        "agents.portfolio_manager.enabled",
        "agents.oracle",
    }


def test_tickers_of_limits_must_be_traded_by_the_run_once_its_tickers_are_known() -> None:
    config = read_bootstrap(
        '---\nrisk: {halted_tickers: [AAPL, APPL], not_borrowable: [T], groups: {tech: {tickers: [MSFT, MSTF]}, "": {tickers: [AAPL]}}}\n---\n'
    )
    assert {fault.field for fault in faults_of(config)} == {"risk.groups."}
    config.tickers.extend(["AAPL", "MSFT"])
    assert {fault.field: fault.description for fault in faults_of(config)} == {
        "risk.halted_tickers": "APPL is not one of the run's tickers",
        "risk.not_borrowable": "T is not one of the run's tickers",
        "risk.groups.tech.tickers": "MSTF is not one of the run's tickers",
        "risk.groups.": "a name has 1 to 64 characters",
    }


def test_a_group_has_a_limit_and_limits_that_are_not_set_are_off() -> None:
    risk = normalised(read_bootstrap("---\nrisk: {groups: {tech: {tickers: [AAPL]}}}\n---\n")).risk
    assert risk.groups["tech"].limit == 0.4
    assert [getattr(risk, name) for name in LIMITS_OFF_BY_DEFAULT] == [0] * len(LIMITS_OFF_BY_DEFAULT)
    assert (risk.position, risk.gross, risk.net, risk.drawdown_stop, risk.halted) == (0.2, 1.5, 1.0, 0.5, False)


def test_faults_in_groups_have_a_place() -> None:
    with pytest.raises(BootstrapError) as caught:
        read_bootstrap("---\nrisk:\n  groups:\n    tech: {tickers: [AAPL], limt: 1}\n    oil: 3\n---\n")
    assert [(one.field, one.description.rpartition("(")[2]) for one in caught.value.violations] == [
        ("risk.groups.tech.limt", "line 4, column 29)"),
        ("risk.groups.oil", "line 5, column 5)"),
    ]


def test_pace_and_name_do_not_enter_the_hash_of_a_configuration() -> None:
    one, other = normalised(RunConfig(run_id="one")), normalised(RunConfig(run_id="other"))
    other.pipeline.pace_sessions_per_s = 3
    assert config_sha256(one) == config_sha256(other)
    other.costs.fee_bp = 7
    assert config_sha256(one) != config_sha256(other)
