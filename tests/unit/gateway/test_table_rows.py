"""Rows of many sessions that are encoded at once are, byte for byte, what messages of each session alone give."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway import table_rows, wire
from trademesh_gateway.agents.records import Signals, SignalTable, TabledSignals

MOST_SESSIONS, MOST_TICKERS = 7, 6
TICKERS = st.lists(st.text(min_size=1, max_size=32), min_size=1, max_size=MOST_TICKERS, unique=True)
SCORES = st.one_of(st.sampled_from([0.0, -0.0, 1e-9, -1e-9, 1.0, -1.0]), st.floats(-1, 1))
CONFIDENCES = st.one_of(st.sampled_from([0.0, 1.0, 1e-9]), st.floats(0, 1))
FIGURES = st.one_of(st.just(math.nan), st.floats(allow_nan=True, allow_infinity=True))


@st.composite
def tables(draw: st.DrawFn) -> tuple[tuple[str, ...], SignalTable]:
    tickers = tuple(draw(TICKERS))
    shape = (draw(st.integers(1, MOST_SESSIONS)), len(tickers))

    def values(of: st.SearchStrategy[float]) -> npt.NDArray[np.float64]:
        return draw(arrays.arrays(np.float64, shape, elements=of))

    abstain = draw(arrays.arrays(np.bool_, shape))
    figures = [(f"tool {place}", f"figure {place}", values(FIGURES)) for place in range(draw(st.integers(0, 3)))]
    score = np.where(abstain, 0.0, values(SCORES))
    table = SignalTable(score, values(CONFIDENCES), abstain, draw(st.integers(0, 300)), figures, "nothing is known")
    return tickers, table


def alone(one: TabledSignals) -> Signals:
    """The same, of no table."""
    table, place = one
    figures = [(tool, name, values[place].tolist()) for tool, name, values in table.figures]
    columns = table.score[place].tolist(), table.confidence[place].tolist(), table.abstain[place].tolist()
    return Signals(*columns, table.horizon_sessions, figures)


@settings(deadline=None)
@given(tables(), st.integers(1, MOST_SESSIONS * MOST_TICKERS))
def test_signals_and_predictions_of_a_table_are_those_of_each_session_alone(
    drawn: tuple[tuple[str, ...], SignalTable], rows_at_once: int
) -> None:
    tickers, table = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_rows, "ROWS_AT_ONCE", rows_at_once)
        for place in reversed(range(len(table))):
            one = table[place]
            if isinstance(one, TabledSignals):
                assert wire.signals(tickers, one) == wire.signals(tickers, alone(one))
                assert wire.predictions(tickers, one) == wire.predictions(tickers, alone(one))
                assert one.leans() == alone(one).leans()
            else:
                assert one.abstained_because
                assert table.abstain[place].all()


@settings(deadline=None)
@given(tables())
def test_what_is_encoded_is_what_a_message_of_it_gives_back(drawn: tuple[tuple[str, ...], SignalTable]) -> None:
    tickers, table = drawn
    for place in range(len(table)):
        one = table[place]
        data = wire.signals(tickers, one).SerializeToString()
        assert events.Signals.FromString(data).SerializeToString() == data
        if not one.abstained_because:
            data = wire.predictions(tickers, one).SerializeToString()
            assert events.Predictions.FromString(data).SerializeToString() == data


def test_a_session_is_said_as_an_analyst_sees_it() -> None:
    score, confidence = np.array([[0.25, 0.0, 0.0]]), np.array([[0.5, 0.125, 0.9]])
    table = SignalTable(score, confidence, np.array([[False, False, True]]), 21, [("t", "f", np.array([[1.0, 2.0, 3.0]]))], "nothing")
    told = events.Signals.FromString(wire.signals(("A", "B", "C"), table[0]).SerializeToString())
    bullish, neutral, abstains = events.STANCE_BULLISH, events.STANCE_NEUTRAL, events.STANCE_ABSTAIN
    assert [(one.ticker, one.stance, one.score, one.confidence) for one in told.signals] == [
        ("A", bullish, 0.25, 0.5),
        ("B", neutral, 0.0, 0.125),
        ("C", abstains, 0.0, 0.0),
    ]
    assert [one.note for one in told.signals] == ["", "", "not enough history"]
    assert [one.horizon_sessions for one in told.signals] == [21, 21, 21]
    assert [(one.tool, one.name, list(one.values)) for one in told.figures] == [("t", "f", [1.0, 2.0, 3.0])]
    predicted = events.Predictions.FromString(wire.predictions(("A", "B", "C"), table[0]).SerializeToString())
    assert [(one.ticker, one.direction, one.confidence) for one in predicted.predictions] == [
        ("A", events.DIRECTION_UP, 0.5625),
        ("B", events.DIRECTION_NEUTRAL, 0.0),
    ]


def test_a_session_in_which_all_are_abstained_from_says_why() -> None:
    nothing = np.zeros((1, 2))
    table = SignalTable(nothing, nothing, np.ones((1, 2), bool), 21, [], "nothing is known")
    assert table[0].abstained_because == "nothing is known"
    assert (
        wire.signals(("A", "B"), table[0]).SerializeToString() == events.Signals(abstained_because="nothing is known").SerializeToString()
    )
