"""Skills of the technical analyst that have to be named: off by default, causal, silent with too little history, and leaning the right way."""

from __future__ import annotations

import numpy as np
import pytest

from real_closes import history, us20
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_gateway.agents.analysts import technical_analyst
from trademesh_gateway.agents.readings import READINGS, SEEN_SESSIONS, bollinger, macd, rsi, seen_prices, trend
from trademesh_gateway.agents.records import Signals
from trademesh_gateway.agents.series import averages, oscillators
from trademesh_gateway.agents.series.windows import Series, sma
from trademesh_runs.run_config import OTHER_SKILLS, faults_of, normalised

NEEDED = {"trend": 200, "macd": 34, "rsi": 15, "bollinger": 20}
"""Closes without which a skill has nothing to say."""


def closes(count: int) -> Series:
    return seen_prices(history(count).as_of(int(us20().close_unix_s[count - 1])))


def test_a_desk_that_names_no_skills_has_none_of_them() -> None:
    usual = normalised(RunConfig()).agents["technical_analyst"].skills
    assert not set(usual) & set(READINGS)


def test_a_configuration_may_name_every_one_and_no_other() -> None:
    config = RunConfig()
    config.agents["technical_analyst"].skills.extend(["momentum", *READINGS])
    assert faults_of(config) == []
    assert set(OTHER_SKILLS["technical_analyst"]) == set(READINGS)
    config.agents["technical_analyst"].skills.append("astrology")
    assert [fault.field for fault in faults_of(config)] == ["agents.technical_analyst.skills"]


@pytest.mark.parametrize("skill", READINGS)
def test_a_skill_has_a_value_from_the_session_on_that_its_indicator_has_one(skill: str) -> None:
    needed = NEEDED[skill]
    read, _ = READINGS[skill]
    for count, silent in ((0, True), (needed - 1, True), (needed, False)):
        _, figure, lean = read(seen_prices(history(400).as_of(int(us20().close_unix_s[count]) - 1)))
        assert (np.isnan(figure).all(), np.isnan(lean).all()) == (silent, silent)
    assert (np.abs(lean) <= 1).all()


def test_what_is_seen_is_all_that_has_weight_in_an_average() -> None:
    known = us20().close_micros[:3000, :20].astype(float)
    for read, whole in ((rsi, oscillators.rsi(known)), (macd, averages.macd(known).histogram / known)):
        np.testing.assert_allclose(read(known[-SEEN_SESSIONS:])[1], whole[-1], rtol=1e-5)
    np.testing.assert_allclose(trend(known[-SEEN_SESSIONS:])[1], (sma(known, 50) / sma(known, 200) - 1)[-1], rtol=1e-12)
    np.testing.assert_allclose(bollinger(known[-SEEN_SESSIONS:])[1], oscillators.bollinger(known).percent_b[-1], rtol=1e-9)


@pytest.mark.parametrize("count", [15, 34, 100, 249, 250])
def test_sums_by_weights_are_what_the_averages_give(count: int) -> None:
    seen = us20().close_micros[2000 : 2000 + count, :20].astype(float)
    seen[:, 3] = seen[0, 3]
    seen[count // 2, 5] = np.nan
    np.testing.assert_allclose(rsi(seen)[1], oscillators.rsi(seen)[-1], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(macd(seen)[1], (averages.macd(seen).histogram / seen)[-1], rtol=1e-9, atol=1e-9)


def test_trends_are_followed_and_stretches_are_faded() -> None:
    rising = np.geomspace(1e6, 3e6, SEEN_SESSIONS)[:, np.newaxis] ** 1.1
    assert trend(rising)[2][0] > 0
    assert macd(rising)[2][0] > 0
    assert rsi(rising)[2][0] == -1
    assert bollinger(rising)[2][0] < -0.5


def test_the_analyst_tells_the_figure_of_each_skill_that_it_used() -> None:
    view = history(400).as_of(int(us20().close_unix_s[399]))
    found = technical_analyst(view, frozenset(READINGS))
    assert isinstance(found, Signals)
    assert [tool for tool, _, _ in found.figures] == list(READINGS)
    assert not any(found.abstain)
    assert all(-1 <= score <= 1 for score in found.score)
    alone = technical_analyst(view, frozenset({"rsi"}))
    assert isinstance(alone, Signals)
    np.testing.assert_allclose(alone.score, rsi(seen_prices(view))[2])


@pytest.mark.parametrize("row", [14, 20, 34, 200, 252, 400])
def test_what_comes_later_changes_nothing_that_the_analyst_says(row: int) -> None:
    at = int(us20().close_unix_s[row]) - 1
    long = technical_analyst(history(420).as_of(at), frozenset(READINGS))
    short = technical_analyst(history(row).as_of(at), frozenset(READINGS))
    assert isinstance(long, Signals)
    assert isinstance(short, Signals)
    np.testing.assert_array_equal(long.score, short.score)
