"""Import of news: every fault with its row, all or nothing, versions kept, and nothing that was there is changed."""

from __future__ import annotations

import fcntl
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademesh_kernel.errors import DataAbsent
from trademesh_news.imported_sets import import_files
from trademesh_news.importer import ImportedNews, ImportRefused, RowsRefused, import_news, main
from trademesh_news.importer_rows import Fault, judge
from trademesh_news.news_items import DirectionMethod
from trademesh_news.store import NewsStore

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
GOOD = {"id": "a", "published_at": "2008-09-15T13:30:00Z", "headline": "Profit warning", "tickers": ["KO"]}


def line(**fields: Any) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


def faults(*lines: bytes) -> list[str]:
    return [str(fault) for fault in judge(lines, NOW).faults]


def imported(tmp_path: Path, *lines: bytes, name: str = "mine") -> ImportedNews:
    path = tmp_path / "news.jsonl"
    path.write_bytes(b"\n".join(lines))
    return import_news(path, name, tmp_path / "news", NOW)


def unix_s(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"published_at": None}, "has no published_at: news without a date cannot be told as of an instant"),
        ({"published_at": "2008-09-15"}, "published_at 2008-09-15 does not say its offset"),
        ({"published_at": "2008-09-15T13:30:00"}, "does not say its offset"),
        ({"published_at": "yesterday"}, "is not an instant"),
        ({"published_at": 1221485400}, "is not an instant"),
        ({"published_at": "2027-01-01T00:00:00Z"}, "is still to come"),
        ({"published_at": "0001-01-01T00:00:00+10:00"}, "is out of range"),
        ({"updated_at": "2008-09-15T13:29:59Z"}, "updated_at is before published_at"),
        ({"id": ""}, "has no id"),
        ({"headline": "   "}, "has no headline"),
        ({"headline": "x" * 501}, "headline has 501 characters, and may have 500"),
        ({"headline": 7}, "headline is not a text"),
        ({"id": "a\u0007b"}, "id has a character that is not to be printed"),
        ({"body": "\ud800"}, "body has a character that is not to be printed"),
        ({"url": "javascript:alert(1)"}, "url does not begin with https"),
        ({"tickers": "KO"}, "tickers is not a list of texts"),
        ({"tickers": ["K O"]}, "'K O' is no ticker"),
        ({"tickers": [f"T{number}" for number in range(101)]}, "has 101 tickers"),
        ({"direction": 2}, "direction is not 1, 0 or -1"),
        ({"direction": True}, "direction is not 1, 0 or -1"),
    ],
)
def test_a_line_that_says_what_it_may_not_is_refused_with_its_row(fields: dict[str, Any], what: str) -> None:
    (found,) = faults(line(id="b"), line(**fields))
    assert found.startswith("row 2: ")
    assert what in found


@pytest.mark.parametrize("text", [b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000, b"null"])
def test_what_is_no_json_object_is_refused(text: bytes) -> None:
    assert len(faults(text)) == 1


@given(
    st.binary(max_size=60),
    st.dictionaries(st.sampled_from(["id", "published_at", "tickers", "direction", "url"]), st.integers() | st.text()),
)
def test_whatever_a_line_holds_it_is_taken_in_or_has_a_fault(text: bytes, fields: dict[str, Any]) -> None:
    for one in (text.replace(b"\n", b""), line(**fields)):
        found = judge([one], NOW)
        assert len(found.records) + len(found.faults) == (1 if one.strip() else 0)


def test_one_bad_line_of_many_leaves_everything_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(RowsRefused) as refused:
        imported(tmp_path, line(id="b"), line(published_at=None), line(id="c"), b"{")
    assert [fault.row for fault in refused.value.faults] == [2, 4]
    assert import_files(tmp_path / "news" / "mine") == []
    assert NewsStore(tmp_path / "news").names() == ["us20", "wiki5"]


def test_an_item_is_known_from_the_next_whole_second_on() -> None:
    (record,) = judge([line(published_at="2008-09-15T15:30:00.000001+02:00")], NOW).records
    assert record.published_unix_s == record.known_unix_s == unix_s("2008-09-15T13:30:01Z")


def test_a_direction_is_the_one_stated_or_told_from_words() -> None:
    stated, words, neither = judge(
        [line(id="1", direction=1), line(id="2", body="A lawsuit, losses; profits surge"), line(id="3", headline="Dividend day")], NOW
    ).records
    assert (stated.direction, stated.method, stated.figures) == (1, DirectionMethod.STATED, {})
    assert (words.direction, words.method) == (-1, DirectionMethod.WORDS)
    assert words.figures == {"positive_words": 1, "negative_words": 3}
    assert (neither.direction, neither.tone) == (0, 0)


def test_versions_of_an_item_are_kept_and_each_is_seen_from_its_time_on(tmp_path: Path) -> None:
    update = line(headline="No warning after all", updated_at="2008-09-16T09:00:00Z")
    first = imported(tmp_path, update, line(), b"", line())
    assert (first.added, first.items, first.versions) == (2, 1, 2)
    news = NewsStore(tmp_path / "news").get("mine")
    for instant, headlines in (
        ("2008-09-15T13:29:59Z", []),
        ("2008-09-15T13:30:00Z", ["Profit warning"]),
        ("2008-09-16T08:59:59Z", ["Profit warning"]),
        ("2008-09-16T09:00:00Z", ["Profit warning", "No warning after all"]),
    ):
        assert [one.headline for one in news.versions("a", unix_s(instant))] == headlines
    assert [(one.revision, one.published_unix_s) for one in news.items] == [
        (1, unix_s(GOOD["published_at"])),
        (2, unix_s(GOOD["published_at"])),
    ]


def test_what_is_imported_later_is_added_and_what_was_there_is_not_added_again(tmp_path: Path) -> None:
    imported(tmp_path, line())
    store = NewsStore(tmp_path / "news")
    before = store.get("mine")
    again = imported(tmp_path, line())
    assert (again.added, again.file, again.items) == (0, "", 1)
    assert store.get("mine") is before
    more = imported(tmp_path, line(), line(id="early", published_at="2001-01-01T00:00:00Z"))
    assert (more.added, more.items) == (1, 2)
    assert [(one.news_id, one.arrival) for one in store.get("mine").items] == [("early", 2), ("a", 1)]


def test_history_is_not_written_anew(tmp_path: Path) -> None:
    imported(tmp_path, line())
    for change, what in (
        ({"headline": "Another"}, "is told in two ways as of one second"),
        ({"published_at": "2008-09-15T14:30:00Z", "updated_at": "2008-09-15T15:30:00Z"}, "has another published_at elsewhere"),
    ):
        with pytest.raises(RowsRefused, match="1 faults") as refused:
            imported(tmp_path, line(**change))
        assert what in refused.value.faults[0].message
    assert len(import_files(tmp_path / "news" / "mine")) == 1


def test_keys_that_nothing_is_made_of_are_told(tmp_path: Path) -> None:
    assert imported(tmp_path, line(mood="glad")).ignored_keys == ["mood"]


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RowsRefused) as refused:
        imported(tmp_path, b"", b"  ")
    assert refused.value.faults == (Fault(0, "there is no line"),)


@pytest.mark.parametrize("name", ["us20", "", "../x", "Mine", "a/b", "mine@xyz"])
def test_a_name_that_cannot_be_is_refused_and_so_is_that_of_a_set_that_comes_with_the_program(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImportRefused):
        imported(tmp_path, line(), name=name)
    assert not (tmp_path / "news").exists()


def test_two_imports_at_once_do_not_mix(tmp_path: Path) -> None:
    folder = tmp_path / "news" / "mine"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ImportRefused, match="another import into mine is going on"):
            imported(tmp_path, line())
    assert imported(tmp_path, line()).added == 1


def test_a_file_that_was_changed_is_not_read_and_nothing_is_added_to_it(tmp_path: Path) -> None:
    imported(tmp_path, line())
    (path,) = import_files(tmp_path / "news" / "mine")
    path.write_bytes(path.read_bytes().replace(b"warning", b"promise"))
    with pytest.raises(DataAbsent, match="is not the file that was written"):
        NewsStore(tmp_path / "news").get("mine")
    with pytest.raises(ImportRefused, match="damaged"):
        imported(tmp_path, line(id="b"))


def test_news_of_a_set_are_found_by_the_full_name_of_its_market_data(tmp_path: Path) -> None:
    imported(tmp_path, line())
    imported(tmp_path, line(id="b"), name="other@0123456789ab")
    store = NewsStore(tmp_path / "news")
    assert store.get("mine@0123456789ab") is store.get("mine")
    assert [one.news_id for one in store.get("other@0123456789ab").items] == ["b"]
    for nothing in ("other", "mine/../mine", "..", ""):
        with pytest.raises(DataAbsent):
            store.get(nothing)


def test_the_program_prints_what_it_did_and_ends_with_a_fitting_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRADEMESH_DATA_DIR", str(tmp_path))
    path = tmp_path / "news.jsonl"
    path.write_bytes(line())
    assert main(["--set", "mine", str(path)]) == 0
    assert "1 versions added; it has 1 items in 1 versions" in capsys.readouterr().out
    path.write_bytes(line(published_at=None))
    assert main(["--set", "mine", str(path)]) == 1
    assert "row 1: has no published_at" in capsys.readouterr().err
    assert main(["--json", "--set", "mine", str(path)]) == 1
    assert json.loads(capsys.readouterr().out)["faults"][0]["row"] == 1
    assert main(["--set", "us20", str(path)]) == 2
    assert main(["--set", "mine", str(tmp_path / "nothing")]) == 2
