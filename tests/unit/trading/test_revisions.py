"""Bars that are told late, or told again: nobody sees a form before it was known, and none is lost."""

from __future__ import annotations

import tempfile
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademesh.trading.v1.market_data_pb2 import BarBlock
from trademesh.trading.v1.market_data_service_pb2 import StreamBarsResponse
from trademesh_trading import wire
from trademesh_trading.bar_rows import BarQuestion, BarRow, page_of_bars
from trademesh_trading.importing import ImportOrder, RowsRefused, import_set
from trademesh_trading.market_set import MarketSet
from trademesh_trading.set_files import load_set

# exchange-calendars uses what pandas 3 deprecates; no name of ours is involved.
pytestmark = pytest.mark.filterwarnings("ignore:Series.values returning:DeprecationWarning")

TODAY = date(2024, 12, 31)
SESSIONS = ("2023-12-28", "2023-12-29", "2024-01-02", "2024-01-03")
CLOSES = [int(datetime.fromisoformat(f"{session}T21:00:00Z").timestamp()) for session in SESSIONS]
HOUR_S = 3600
ALWAYS = 2**40

Told = tuple[str, str, int, int | None]
"""Ticker, session, close in cents, hours after the session's close; None: not said."""


def loaded(told: list[Told], folder: Path) -> MarketSet:
    lines = ["ticker,date,close,volume,known_at"]
    for ticker, session, cents, hours in told:
        known = "" if hours is None else datetime.fromtimestamp(close_of(session) + hours * HOUR_S, UTC).isoformat()
        lines.append(f"{ticker},{session},{cents / 100},{cents},{known}")
    folder.mkdir(exist_ok=True)
    (folder / "bars.csv").write_text("\n".join(lines))
    return load_set(Path(import_set(ImportOrder(folder, "mine", TODAY), folder / "sets").folder))


def close_of(session: str) -> int:
    return CLOSES[SESSIONS.index(session)]


def known_at(told: Told) -> int:
    return close_of(told[1]) + (told[3] or 0) * HOUR_S


def listed(data: MarketSet, as_of: int, size: int = 5000) -> list[BarRow]:
    """All bars known by then, by as many pages as it takes."""
    rows, columns = data.rows("", "", as_of), range(len(data.instruments))
    found, cell = list[BarRow](), 0
    while True:
        page, more = page_of_bars(BarQuestion(data, rows, columns, as_of), cell, size)
        found += page
        if more is None:
            return found
        cell = more


def streamed(data: MarketSet, as_of: int, at: int) -> dict[tuple[str, str], tuple[int, int]]:
    """Close and time of knowing of each bar as a reader sees it at `at` who asked with `as_of` and follows the contract of BarRevisions."""
    seen = dict[tuple[str, str], tuple[int, int]]()
    for row in data.rows("", "", as_of):
        block = block_of(data, range(row, row + 1), as_of)
        width, known = len(block.tickers), block.known_at_unix_s[0]
        if known <= at:
            seen |= {
                (block.session_dates[0], block.tickers[place]): (close, known) for place, close in enumerate(block.close_micros) if close
            }
        late = block.revisions
        assert list(late.known_at_unix_s) == sorted(late.known_at_unix_s)
        for when, place, close in zip(late.known_at_unix_s, late.rows, late.close_micros, strict=True):
            assert known < when <= as_of
            if when <= at:
                seen[(block.session_dates[place // width], block.tickers[place % width])] = (close, when)
    return seen


def block_of(data: MarketSet, rows: range, as_of: int) -> BarBlock:
    answer = wire.BlockResponses(data, range(len(data.instruments)), as_of).response(rows)
    return StreamBarsResponse.FromString(answer).block


def as_read(bars: list[BarRow]) -> dict[tuple[str, str], tuple[int, int]]:
    return {(bar.session, bar.ticker): (bar.close_micros, bar.known_unix_s) for bar in bars}


many_tellings = st.lists(
    st.tuples(st.sampled_from("AB"), st.sampled_from(SESSIONS), st.integers(1, 10**6), st.none() | st.integers(0, 140)),
    min_size=1,
    max_size=14,
    unique_by=lambda told: (told[0], known_at(told), told[1]),
)


@settings(max_examples=40, deadline=None)
@given(many_tellings, st.integers(-2, 240), st.integers(1, 7))
def test_an_answer_is_what_one_gets_from_only_the_records_known_by_then(told: list[Told], hours: int, size: int) -> None:
    as_of = CLOSES[0] + hours * HOUR_S
    by_then = [one for one in told if known_at(one) <= as_of]
    with tempfile.TemporaryDirectory() as name:
        data = loaded(told, Path(name) / "all")
        answer = listed(data, as_of, size)
        assert answer == (listed(loaded(by_then, Path(name) / "part"), ALWAYS) if by_then else [])
        for other in (as_of, ALWAYS):
            assert streamed(data, other, as_of) == as_read(answer)


@settings(max_examples=20, deadline=None)
@given(many_tellings)
def test_what_is_known_never_becomes_less_and_never_older(told: list[Told]) -> None:
    with tempfile.TemporaryDirectory() as name:
        data = loaded(told, Path(name) / "all")
        before = dict[tuple[str, str], tuple[int, int]]()
        for as_of in sorted({known_at(one) for one in told}):
            now = as_read(listed(data, as_of))
            assert all(place in now and now[place][1] >= known for place, (_, known) in before.items())
            before = now
        assert len(before) == len({one[:2] for one in told})


def test_a_revision_is_seen_only_from_its_known_time_on(tmp_path: Path) -> None:
    data = loaded([("A", SESSIONS[0], 1000, None), ("A", SESSIONS[0], 1100, 30)], tmp_path / "given")
    moment = CLOSES[0] + 30 * HOUR_S
    assert [as_read(listed(data, as_of)) for as_of in (CLOSES[0] - 1, CLOSES[0], moment - 1, moment)] == [
        {},
        {(SESSIONS[0], "A"): (10_000_000, CLOSES[0])},
        {(SESSIONS[0], "A"): (10_000_000, CLOSES[0])},
        {(SESSIONS[0], "A"): (11_000_000, moment)},
    ]


def test_a_revision_replaces_every_field_of_its_bar(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    rows = "2024-01-02,10,12,9,11,500,\n2024-01-02,,,,11.5,,2024-01-03T12:00:00Z\n"
    (given / "A.csv").write_text(f"date,open,high,low,close,volume,known_at\n{rows}")
    data = load_set(Path(import_set(ImportOrder(given, "mine", TODAY), tmp_path / "sets").folder))
    first, second = (listed(data, as_of)[0] for as_of in (CLOSES[2], ALWAYS))
    assert (first.open_micros, first.high_micros, first.low_micros, first.close_micros, first.volume_shares) == (
        *(10_000_000, 12_000_000, 9_000_000, 11_000_000),
        500,
    )
    assert (second.open_micros, second.high_micros, second.low_micros, second.volume_shares) == (None, None, None, None)
    assert second.close_micros == 11_500_000
    revised = block_of(data, range(1), ALWAYS).revisions
    assert (list(revised.close_micros), list(revised.open_micros)) == ([11_500_000], [])


def test_windows_of_any_rows_and_columns_hold_their_own_revisions(tmp_path: Path) -> None:
    told: list[Told] = [(ticker, session, 100 + place, None) for place, ticker in enumerate("ABC") for session in SESSIONS]
    told += [("B", SESSIONS[3], 900, 5), ("C", SESSIONS[0], 901, 200), ("A", SESSIONS[2], 902, 7)]
    data = loaded(told, tmp_path / "given")
    whole = data.window(range(4), [2, 0, 1])
    assert whole.revisions is not None
    assert whole.revisions.close_micros.tolist() == [9_020_000, 9_000_000, 9_010_000]
    assert list(zip(whole.revisions.rows, whole.revisions.columns, strict=True)) == [(2, 1), (3, 2), (0, 0)]
    part = data.window(range(2, 4), [1])
    assert part.revisions is not None
    assert list(zip(part.revisions.rows, part.revisions.columns, part.revisions.close_micros, strict=True)) == [(1, 0, 9_000_000)]


def test_a_set_without_revisions_has_none(tmp_path: Path) -> None:
    data = loaded([("A", session, 1000, None) for session in SESSIONS], tmp_path / "given")
    assert data.window(range(4), [0]).revisions is None
    assert not block_of(data, range(4), ALWAYS).HasField("revisions")
    assert np.array_equal(data.window(range(1, 3), [0]).close_micros, [[10_000_000], [10_000_000]])


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ("2024-01-02T20:59:59Z", "known_at is 2024-01-02T20:59:59Z, before the close of the session"),
        ("2024-01-03T12:00:00", "known_at is 2024-01-03T12:00:00, and does not say of which time zone: 2024-01-31T21:00:00Z does"),
        ("soon", "known_at is soon, and neither an instant like 2024-01-31T21:00:00Z nor a date like 2024-01-31"),
        ("2999-01-03", "known_at is 2999-01-03, and not between 1900-01-01 and today"),
    ],
)
def test_a_time_of_knowing_that_cannot_be_is_told(tmp_path: Path, known: str, said: str) -> None:
    (tmp_path / "A.csv").write_text(f"date,close,known_at\n2024-01-02,1,{known}\n")
    with pytest.raises(RowsRefused) as caught:
        import_set(ImportOrder(tmp_path / "A.csv", "mine", TODAY), tmp_path / "sets")
    assert [str(fault) for fault in caught.value.faults] == [f"A.csv: row 2: {said}"]


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ("2024-01-02", "2024-01-03T14:30:00Z"),  # the next open: that day itself was over at an hour that nobody tells
        ("2024-01-05", "2024-01-08T14:30:00Z"),
        ("2024-01-02T22:00:00.000001Z", "2024-01-02T22:00:01Z"),
        ("2024-01-02T17:30:00-05:00", "2024-01-02T22:30:00Z"),
    ],
)
def test_a_time_of_knowing_is_read_so_that_nothing_is_early(tmp_path: Path, known: str, expected: str) -> None:
    (tmp_path / "A.csv").write_text(f"date,close,known_at\n2024-01-02,1,{known}\n")
    data = load_set(Path(import_set(ImportOrder(tmp_path / "A.csv", "mine", TODAY), tmp_path / "sets").folder))
    (bar,) = listed(data, ALWAYS)
    assert bar.known_unix_s == int(datetime.fromisoformat(expected).timestamp())
