"""The texts of a curve: the same as those that are made of whole messages, however often it is followed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from random_journals import SESSIONS, Session, drafts_of, write
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1.state_pb2 import EquityPoint, ServerState
from trademesh_runs.curve_texts import CurveTexts, close_milliseconds, point_json
from trademesh_runs.exports import export_files, server_state
from trademesh_runs.fold import Fold
from trademesh_runs.journal_memory import MemoryStore
from trademesh_runs.layout import RunLayout
from trademesh_runs.scoreboard import Scoreboard

TEXTS = st.text(max_size=8) | st.sampled_from(
    ["", 'a "quoted" \\ name', "line\nof\ttwo", "\x00\x7f", "Zürich 東京 \U0001f4c8", "</script>"]
)
MICROS = st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63)]) | st.integers(-(2**63), 2**63 - 1)
BASELINES = st.builds(events.Baseline, name=TEXTS, nav_micros=MICROS, note=TEXTS)
POINTS = st.builds(
    EquityPoint,
    session_date=TEXTS,
    nav_micros=MICROS,
    baselines=st.lists(BASELINES, max_size=4),
    sequence=st.sampled_from([0, 2**64 - 1]) | st.integers(0, 2**64 - 1),
)


def whole(message: ServerState) -> bytes:
    """The state as the library writes it."""
    return json_format.MessageToJson(message, indent=None, preserving_proto_field_name=True).encode() + b"\n"


@given(POINTS)
def test_a_point_is_written_as_the_library_writes_it(point: EquityPoint) -> None:
    assert point_json(point) == json_format.MessageToJson(point, indent=None, preserving_proto_field_name=True)


def test_every_field_of_a_point_is_written() -> None:
    fields = [[field.name for field in message.DESCRIPTOR.fields] for message in (EquityPoint, events.Baseline)]
    assert fields == [["session_date", "nav_micros", "baselines", "sequence"], ["name", "nav_micros", "note"]]


@pytest.mark.parametrize("points", [0, 1, 3])
@pytest.mark.parametrize("rest", [{}, {"run_id": "demo", "epoch": 1}, {"fills": 3, "peak_nav_micros": 5}, {"run_id": "demo", "fills": 3}])
def test_a_state_is_written_as_the_library_writes_it_with_the_curve_in_its_place(points: int, rest: dict[str, object]) -> None:
    equity = [EquityPoint(session_date=f"2008-01-0{day}", nav_micros=day) for day in range(1, points + 1)]
    state = ServerState(equity=equity, **rest)  # type: ignore[arg-type]  # of several fields
    assert server_state(state) == whole(state)


@settings(max_examples=25, deadline=None)
@given(sessions=SESSIONS, settle_last=st.booleans(), stops=st.lists(st.integers(0, 120), max_size=4))
def test_files_that_follow_a_run_are_those_that_are_made_of_its_state_alone(
    sessions: list[Session], settle_last: bool, stops: list[int]
) -> None:
    published = asyncio.run(write(MemoryStore(), drafts_of(sessions, settle_last=settle_last)))
    layout, fold, curve, board = RunLayout(Path("/nowhere"), "demo"), Fold("demo"), CurveTexts(), Scoreboard()
    for event in published:
        fold.apply(event)
        board.add(event.parse())
        if event.sequence in stops or event is published[-1]:
            state = fold.state()
            followed = export_files(layout, fold.state(curve=False), board, curve=curve.follow(fold.equity))
            assert followed == export_files(layout, state, board)
            assert followed["state/server_state.json"] == whole(state)


def test_a_curve_is_followed_up_to_a_point_and_goes_on_from_there() -> None:
    points = [EquityPoint(session_date=f"2008-01-0{day}", nav_micros=day) for day in range(1, 5)]
    curve = CurveTexts().follow(points, 2)
    assert (curve.count, [one["nav_micros"] for one in json.loads(b"[" + curve.points + b"]")]) == (2, ["1", "2"])
    assert bytes(curve.follow(points).points) == bytes(CurveTexts().follow(points).points)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_line_that_is_not_of_every_session_is_not_drawn(missing: int) -> None:
    points = [
        EquityPoint(
            session_date=f"2008-01-0{day + 1}",
            nav_micros=day,
            baselines=[
                events.Baseline(name="equal_weight", nav_micros=2_500_000 * day),
                events.Baseline(name="else" if day == missing else "momentum", nav_micros=1),
            ],
        )
        for day in range(3)
    ]
    chart = {key: json.loads(b"".join(pieces)) for key, pieces in CurveTexts().follow(points).chart(7_000_000).items()}
    assert (chart["momentum"], chart["baseline_vw"]) == ([], [])
    assert [one["v"] for one in chart["baseline"]] == [7.0, 0.0, 2.5, 5.0]
    assert [one["t"] for one in chart["baseline"]] == [
        close_milliseconds(day) for day in ("2007-12-31", "2008-01-01", "2008-01-02", "2008-01-03")
    ]


def test_a_line_with_two_values_of_a_session_is_not_drawn() -> None:
    twice = [events.Baseline(name="momentum", nav_micros=1)] * 2
    points = [EquityPoint(session_date=f"2008-01-0{day}", baselines=twice[: 3 - day]) for day in (1, 2)]
    assert list(CurveTexts().follow(points).chart(1)["momentum"]) == [b"[]"]
