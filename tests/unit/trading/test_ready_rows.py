"""What was made ready when a set was imported: it says what Parquet says, and nothing depends on its being there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from trademesh.trading.v1.market_data_pb2 import BarBlock
from trademesh.trading.v1.market_data_service_pb2 import StreamBarsResponse
from trademesh_trading import ready_rows, ready_writing, wire
from trademesh_trading.bar_matrices import Bars
from trademesh_trading.importing import ImportedSet, ImportOrder, import_set
from trademesh_trading.market_set import MarketSet
from trademesh_trading.ready_files import READY_FILE
from trademesh_trading.set_files import load_set
from trademesh_trading.year_pages import PagedSet

# exchange-calendars uses what pandas 3 deprecates; no name of ours is involved.
pytestmark = pytest.mark.filterwarnings("ignore:Series.values returning:DeprecationWarning")

ALWAYS = 2**40
VERSION_1 = "rows of packed columns, 1"
LATER = 1_704_500_000
"""An instant at which some of what came late is known."""

# Missing bars, fields that only some bars, sessions or years have, a coarse price, bars that came late and were told again in another year.
ROWS = """ticker,date,open,high,low,close,volume,known_at
A,2022-12-29,,,,100.5,,
A,2022-12-30,,,,101,0,
C,2022-12-30,,,,7,,
A,2023-12-28,100,102,99.5,101,5000,
B,2023-12-28,,,,2000000.25,1,
A,2023-12-29,101,103,100,102,6000,
C,2023-12-29,,,,8.25,,2024-01-05T12:00:00Z
A,2024-01-02,,,,103,7000,
B,2024-01-02,,,,2100000,,
A,2024-01-02,102,104,101,103.5,7100,2024-01-10T12:00:00Z
B,2024-01-03,,,,2100001,,
B,2024-01-03,,,,2100002,9,2024-01-04T12:00:00Z
"""


class Closed:
    """Where nobody may read bars."""

    def read_year(self, year: int, columns: Sequence[int]) -> Bars:
        raise AssertionError(f"{year} was read")


@pytest.fixture(scope="module", params=[256, 100, 2], ids="messages of {} sessions".format)
def imported(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[ImportedSet]:
    """A set in whose messages are so many sessions: a year at once, or as in sets of many tickers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ready_writing, "sessions_of_block", lambda _: request.param)
        yield an_import(tmp_path_factory.mktemp("ready"))


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a set that a test may change. In its messages are two sessions."""
    monkeypatch.setattr(ready_writing, "sessions_of_block", lambda _: 2)
    return Path(an_import(tmp_path).folder)


def an_import(folder: Path) -> ImportedSet:
    (folder / "bars.csv").write_text(ROWS)
    return import_set(ImportOrder(folder / "bars.csv", "mine", date(2024, 12, 31)), folder / "sets")


def ready_only(folder: Path) -> PagedSet:
    """The set, as one that may not read Parquet."""
    data = load_set(folder)
    assert isinstance(data, PagedSet)
    return replace(data, reader=Closed())


def parquet_only(folder: Path) -> PagedSet:
    data = load_set(folder)
    assert isinstance(data, PagedSet)
    return replace(data, ready=None)


def block(data: MarketSet, rows: range, columns: Sequence[int] = range(3), as_of: int = ALWAYS) -> BarBlock:
    return StreamBarsResponse.FromString(wire.BlockResponses(data, columns, as_of).response(rows)).block


def whole(data: MarketSet) -> BarBlock:
    return block(data, range(len(data.sessions)))


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from([ALWAYS, LATER]), st.permutations(range(3)), st.integers(1, 3))
def test_any_stretch_of_sessions_and_any_tickers_are_what_parquet_says(
    imported: ImportedSet, data: st.DataObject, as_of: int, order: list[int], tickers: int
) -> None:
    ready, plain = ready_only(Path(imported.folder)), parquet_only(Path(imported.folder))
    interesting = [ready.sessions.index(session) for session in ("2022-12-30", "2023-12-28", "2023-12-29", "2024-01-02")]
    first = data.draw(st.one_of(st.sampled_from(interesting), st.integers(0, len(ready.sessions) - 1)))
    last = data.draw(st.one_of(st.integers(first + 1, min(first + 4, len(ready.sessions))), st.integers(first + 1, len(ready.sessions))))
    columns = order[:tickers]
    assert block(ready, range(first, last), columns, as_of) == block(plain, range(first, last), columns, as_of)


def test_every_single_session_is_what_parquet_says(imported: ImportedSet) -> None:
    ready, plain = ready_only(Path(imported.folder)), parquet_only(Path(imported.folder))
    for row in range(len(ready.sessions)):
        assert block(ready, range(row, row + 1)) == block(plain, range(row, row + 1))


def test_a_message_that_is_ready_is_sent_as_it_stands_in_its_file(fresh: Path) -> None:
    data, content = ready_only(fresh), (fresh / "ready-2023.bin").read_bytes()
    first, columns = data.years[2023].start, range(3)
    for rows in (range(row, row + 2) for row in range(first, first + 10, 2)):
        message = data.message(rows, columns)
        assert message is not None
        assert message in content
        assert StreamBarsResponse.FromString(message).block == block(parquet_only(fresh), rows)
        assert wire.BlockResponses(data, columns, ALWAYS).response(rows) == message
        assert data.message(rows, [0, 1, 2]) == message


def test_a_message_is_ready_for_just_its_sessions_and_for_all_tickers_in_their_order(fresh: Path) -> None:
    data = ready_only(fresh)
    first = data.years[2023].start
    across_years = range(first - 1, first + 1)
    for rows in (range(first + 1, first + 3), range(first, first + 1), range(first, first + 4), across_years):
        assert data.message(rows, range(3)) is None
    for columns in ([0, 1], [1, 0, 2], [0, 0, 0]):
        assert data.message(range(first, first + 2), columns) is None


@given(st.data(), st.one_of(st.integers(1, 12), st.integers(1, 2048)))
def test_a_stream_is_cut_into_successive_parts_none_of_which_is_longer_than_wanted(
    imported: ImportedSet, data: st.DataObject, sessions: int
) -> None:
    ready = ready_only(Path(imported.folder))
    first = data.draw(st.integers(0, len(ready.sessions)))
    rows = range(first, data.draw(st.integers(first, len(ready.sessions))))
    parts = list(ready.parts(rows, sessions))
    assert [row for part in parts for row in part] == list(rows)
    assert all(1 <= len(part) <= sessions for part in parts)


def test_a_stream_of_all_is_cut_where_its_messages_are_which_have_no_bar_that_became_known_late(fresh: Path) -> None:
    data = ready_only(fresh)
    parts = list(data.parts(range(len(data.sessions)), 2))
    assert len(parts) == sum(-(-len(rows) // 2) for rows in data.years.values())
    unready = [session for part in parts if data.message(part, range(3)) is None for session in data.sessions[part.start : part.stop]]
    assert unready == ["2023-12-28", "2023-12-29", "2024-01-02", "2024-01-03"]


def test_few_of_many_tickers_come_from_parquet(imported: ImportedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready_rows, "LEAST_SHARE", 2)
    rows = range(5)
    assert block(load_set(Path(imported.folder)), rows, [1]) == block(parquet_only(Path(imported.folder)), rows, [1])
    block(ready_only(Path(imported.folder)), rows, [2, 1])
    with pytest.raises(AssertionError, match="was read"):
        block(ready_only(Path(imported.folder)), rows, [1])


def flipped(file: Path, place: int) -> None:
    """Changes one bit of a file."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        "a message",
        "an index",
        "no index",
        "gone",
        "late bars",
        "late bars gone",
        "of version 1",
        "of another set",
        "no blocks",
        "unreadable",
    ],
)
def test_where_ready_rows_are_not_what_was_written_parquet_is_read(fresh: Path, damage: str) -> None:
    expected = whole(parquet_only(fresh))
    said = json.loads((fresh / READY_FILE).read_text())
    if damage == "a message":
        flipped(fresh / "ready-2023.bin", -1)
    elif damage == "an index":
        flipped(fresh / "ready-2023.bin", 0)
    elif damage == "no index":
        (fresh / "ready-2023.bin").write_bytes(b"")
    elif damage == "gone":
        (fresh / "ready-2023.bin").unlink()
    elif damage == "late bars":
        flipped(fresh / "late-2023.npz", 100)
    elif damage == "late bars gone":
        (fresh / "late-2023.npz").unlink()
    elif damage == "unreadable":
        (fresh / READY_FILE).write_text("{")
    elif damage == "of version 1":
        # What was written before messages were whole.
        said = {"layout": VERSION_1, "snapshot": said["snapshot"], "files_sha256": said["files_sha256"]}
        (fresh / READY_FILE).write_text(json.dumps(said))
    else:
        said |= {"block_sessions": 0} if damage == "no blocks" else {"snapshot": "sha256:0"}
        (fresh / READY_FILE).write_text(json.dumps(said))
    assert whole(load_set(fresh)) == expected
    with pytest.raises(AssertionError, match="was read"):
        whole(ready_only(fresh))


@pytest.mark.parametrize("readable", [True, False])
def test_that_nothing_is_ready_is_said_once(fresh: Path, readable: bool) -> None:
    if not readable:
        (fresh / READY_FILE).unlink()
    data = load_set(fresh)
    with capture_logs() as said:
        whole(data)
        whole(data)
    assert [line["log_level"] for line in said] == ([] if readable else ["warning"])


def test_a_damaged_message_costs_those_before_it_nothing_and_is_never_sent(fresh: Path) -> None:
    data = ready_only(fresh)
    first = data.years[2023].start
    before, damaged = range(first + 98, first + 100), range(first + 100, first + 102)
    message = data.message(damaged, range(3))
    assert message is not None
    flipped(fresh / "ready-2023.bin", (fresh / "ready-2023.bin").read_bytes().index(message) + len(message) - 1)
    again = ready_only(fresh)
    assert again.message(before, range(3)) == data.message(before, range(3))
    assert again.message(damaged, range(3)) is None
    with pytest.raises(AssertionError, match="2023 was read"):
        block(again, before)
    assert whole(load_set(fresh)) == whole(parquet_only(fresh))


@pytest.mark.parametrize("how", ["gone", "shorter"])
def test_ready_rows_that_go_while_they_are_used_cost_no_answer(fresh: Path, how: str) -> None:
    data = load_set(fresh)
    expected = whole(data)
    for file in fresh.glob("ready-*.bin"):
        if how == "gone":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:-1])
    assert whole(data) == expected


def test_a_year_that_is_damaged_leaves_the_others_ready(fresh: Path) -> None:
    (fresh / "ready-2022.bin").unlink()
    data = ready_only(fresh)
    block(data, data.rows("2024-01-01", "", ALWAYS))


@pytest.mark.parametrize("lost", [READY_FILE, "ready-2023.bin", "a message"])
def test_importing_again_makes_a_set_ready_that_was_not(fresh: Path, lost: str) -> None:
    if lost == "a message":
        flipped(fresh / "ready-2023.bin", -1)
    else:
        (fresh / lost).unlink()
    again = import_set(ImportOrder(fresh.parent.parent / "bars.csv", "mine", date(2024, 12, 31)), fresh.parent)
    assert (again.already, Path(again.folder)) == (True, fresh)
    assert whole(ready_only(fresh)) == whole(parquet_only(fresh))


def test_a_year_of_which_much_came_late_is_left_to_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready_writing, "MOST_LATE_BARS", 1)
    folder = Path(an_import(tmp_path).folder)
    assert sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".npz")) == [
        "late-2023.npz",
        "ready-2022.bin",
        "ready-2023.bin",
    ]
    assert whole(load_set(folder)) == whole(parquet_only(folder))


def test_ready_rows_are_not_part_of_what_a_set_is(fresh: Path) -> None:
    before = load_set(fresh).record
    for path in (fresh / READY_FILE, *fresh.glob("ready-*"), *fresh.glob("late-*")):
        path.unlink()
    assert load_set(fresh).record == before
