"""Users' own corporate actions, statements and insider trades: what is refused, and from when on each is known."""

from __future__ import annotations

import tempfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademesh_kernel.errors import DataAbsent
from trademesh_trading import importer
from trademesh_trading.corporate_actions import actions_known
from trademesh_trading.importing import ImportedSet, ImportOrder, ImportRefused, RowsRefused, import_set
from trademesh_trading.known_tables import ended_within, known_after
from trademesh_trading.market_set import MarketSet
from trademesh_trading.set_files import load_set
from trademesh_trading.store import MarketStore

# exchange-calendars uses what pandas 3 deprecates; no name of ours is involved.
pytestmark = pytest.mark.filterwarnings("ignore:Series.values returning:DeprecationWarning")

TODAY = date(2024, 12, 31)
ALWAYS = 2**40
PRICES = "ticker,date,close\nA,2024-01-02,10\nA,2024-01-03,11\nB,2024-01-02,20\nB,2024-01-04,21\n"
ACTIONS = "ticker,ex_date,dividend,split_new,split_old,last_price,known_at\n"
STATEMENTS = "ticker,fiscal_period_end,period,known_at,revenue,net_income,shares_outstanding\n"
TRADES = "ticker,transaction_date,code,shares,price,known_at,trade_id\n"


def at(iso: str) -> int:
    return int(datetime.fromisoformat(iso).timestamp())


def written(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for stem, text in {"bars": PRICES, **files}.items():
        (folder / f"{stem}.csv").write_text(text)
    return folder


def imported(folder: Path, **files: str) -> ImportedSet:
    return import_set(ImportOrder(written(folder / "given", **files), "mine", TODAY), folder / "sets")


def loaded(folder: Path, **files: str) -> MarketSet:
    return load_set(Path(imported(folder, **files).folder))


def refused(folder: Path, **files: str) -> list[str]:
    with pytest.raises(RowsRefused) as caught:
        imported(folder, **files)
    assert not (folder / "sets").exists()
    return [str(fault) for fault in caught.value.faults]


def known(data: MarketSet, table: str, as_of: int = ALWAYS, *, all_revisions: bool = False) -> list[dict[str, Any]]:
    return data.table(table).known([], [], as_of, all_revisions=all_revisions).to_dicts()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("C,2024-01-03,1,,,,", "C has no prices among the files"),
        (",2024-01-03,1,,,,", "ticker is missing"),
        ("A,2024-01-06,1,,,,", "ex_date 2024-01-06 is not a session of XNYS"),
        ("A,2024-13-01,1,,,,", "ex_date is 2024-13-01, and not a date like 2024-01-31"),
        ("A,2024-01-03,,,,,", "tells no dividend, no split and no last_price"),
        ("A,2024-01-03,,2,,,", "split_new and split_old go together"),
        ("A,2024-01-03,,2,0,,", "split_old is 0, and not above zero"),
        ("A,2024-01-03,-1,,,,", "dividend is -1, and not above zero"),
        ("A,2024-01-03,,,,-1,", "last_price is -1, and below zero"),
        ("A,2024-01-03,1,,,,soon", "known_at is soon, and neither an instant like 2024-01-31T21:00:00Z nor a date like 2024-01-31"),
        ("A,2024-01-02,3,,,,", "A has a dividend of 2024-01-02 already, in corporate_actions.csv row 2"),
    ],
)
def test_a_bad_corporate_action_is_told_with_its_place(tmp_path: Path, row: str, said: str) -> None:
    assert refused(tmp_path, corporate_actions=f"{ACTIONS}A,2024-01-02,1,,,,\n{row}\n") == [f"corporate_actions.csv: row 3: {said}"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("C,2023-12-31,year,2024-02-01,1,,", "C has no prices among the files"),
        ("A,2023-12-31,month,2024-02-01,1,,", "period is month, and not one of quarter, q1, q2, q3, q4, half_year, h1, h2, year, fy"),
        ("A,2023-12-31,,2024-02-01,1,,", "period is missing"),
        ("A,2023-12-31,year,,1,,", "known_at is missing"),
        ("A,2023-12-31,year,2023-11-30,1,,", "known_at is 2023-11-30, before fiscal_period_end"),
        ("A,2023-12-31,year,2024-02-01,,,", "tells no line of a statement"),
        ("A,2023-12-31,year,2024-02-01,1e13,,", "revenue is 1e13, and above 9000000000000"),
        ("A,2023-12-31,year,2024-02-01,,-1e13,", "net_income is -1e13, and below -9000000000000"),
        ("A,2023-12-31,year,2024-02-01,,,1.5", "shares_outstanding is 1.5, and not a whole number"),
        ("A,2023-09-30,Q3,2023-11-01,9,,", "A has q3 2023-09-30 of that known_at already, in fundamentals.csv row 2"),
    ],
)
def test_a_bad_statement_is_told_with_its_place(tmp_path: Path, row: str, said: str) -> None:
    assert refused(tmp_path, fundamentals=f"{STATEMENTS}A,2023-09-30,quarter,2023-11-01,1,,\n{row}\n") == [
        f"fundamentals.csv: row 3: {said}"
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("A,2024-01-02,M,5,1,2024-01-04,", "code is M, and neither P nor S: only trades on the open market are taken"),
        ("A,2024-01-02,,5,1,2024-01-04,", "code is missing"),
        ("A,2024-01-02,P,0,1,2024-01-04,", "shares is 0, and not above zero"),
        ("A,2024-01-02,P,5,-1,2024-01-04,", "price is -1, and below zero"),
        ("A,2024-01-02,P,5,1,2023-12-01,", "known_at is 2023-12-01, before transaction_date"),
        ("A,2024-01-02,P,5,1,2024-01-04,x", "A has trade x of that known_at already, in insider_trades.csv row 2"),
    ],
)
def test_a_bad_insider_trade_is_told_with_its_place(tmp_path: Path, row: str, said: str) -> None:
    assert refused(tmp_path, insider_trades=f"{TRADES}A,2024-01-02,S,5,1,2024-01-04,x\n{row}\n") == [f"insider_trades.csv: row 3: {said}"]


def test_a_bad_row_of_any_file_imports_nothing_and_all_files_are_judged(tmp_path: Path) -> None:
    said = refused(
        tmp_path,
        bars=PRICES + "A,2024-01-04,0\n",
        corporate_actions=ACTIONS + "A,2024-01-03,,,,,\n",
        fundamentals="ticker,period\nA,year\n",
    )
    assert said == [
        "fundamentals.csv: has no column fiscal_period_end and no column known_at, but ticker, period",
        "bars.csv: row 6: close is 0, and not above zero",
        "corporate_actions.csv: row 2: tells no dividend, no split and no last_price",
    ]


def test_files_without_prices_are_no_set(tmp_path: Path) -> None:
    (tmp_path / "fundamentals.csv").write_text(STATEMENTS)
    with pytest.raises(ImportRefused, match="parquet file of prices"):
        import_set(ImportOrder(tmp_path, "mine", TODAY), tmp_path / "sets")


def test_what_a_set_has_besides_prices_is_counted_and_what_it_lacks_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = imported(
        tmp_path, corporate_actions=ACTIONS + "A,2024-01-03,0.25,,,,\n", fundamentals=STATEMENTS + "B,2023-12-31,fy,2024-02-01,5,,\n"
    )
    assert made.tables == {"corporate_actions": 1, "fundamentals": 1}
    importer._tell(made)
    assert "4 bars of 2 tickers, 2024-01-02 to 2024-01-04, 1 corporate actions, 1 fundamentals" in capsys.readouterr().out
    data = load_set(Path(made.folder))
    assert list(data.tables) == ["fundamentals"]
    with pytest.raises(DataAbsent, match="has no insider trades: its source does not tell them") as caught:
        data.table("insider_trades")
    assert caught.value.metadata == {"set": made.name, "what": "insider trades"}


def test_actions_that_tell_no_time_are_known_from_the_close_before(tmp_path: Path) -> None:
    rows = "A,2024-01-02,,2,1,,\nA,2024-01-03,0.25,,,,2023-12-20\nB,2024-01-08,,,,0,\n"
    data = loaded(tmp_path, corporate_actions=ACTIONS + rows)
    assert [(one.kind, one.ex_date, one.known_unix_s) for one in data.actions] == [
        ("split", "2024-01-02", at("2023-12-29T21:00:00Z")),  # before the set's first session: the calendar knows that one too
        ("dividend", "2024-01-03", at("2023-12-21T14:30:00Z")),
        ("delisting", "2024-01-08", at("2024-01-05T21:00:00Z")),
    ]
    assert [one.dividend_micros for one in actions_known(data.actions, {"A"}, "", "", ALWAYS)] == [0, 250_000]


def test_a_filing_of_which_only_the_day_is_known_is_known_at_the_next_open(tmp_path: Path) -> None:
    rows = "A,2023-09-30,q3,2023-11-03,100.5,-3,7\nA,2023-12-31,fy,2024-02-01T21:05:00Z,400,,\n"
    first, second = known(loaded(tmp_path, fundamentals=STATEMENTS + rows), "fundamentals")
    assert first["known_unix_s"] == at("2023-11-06T14:30:00Z")  # filed on a Friday
    assert (first["revenue_micros"], first["net_income_micros"], first["shares_outstanding"]) == (100_500_000, -3_000_000, 7)
    assert (second["known_unix_s"], second["net_income_micros"], second["period_months"]) == (at("2024-02-01T21:05:00Z"), None, 12)


def test_a_restatement_is_seen_only_from_its_filing_on_and_what_it_replaced_is_kept(tmp_path: Path) -> None:
    rows = "A,2023-12-31,fy,2024-02-01T21:00:00Z,400,,\nA,2023-12-31,year,2024-03-01T21:00:00Z,390,,\n"
    data = loaded(tmp_path, fundamentals=STATEMENTS + rows)

    def revenues(as_of: str, **more: bool) -> list[int]:
        return [row["revenue_micros"] // 10**6 for row in known(data, "fundamentals", at(as_of), **more)]

    assert [revenues(as_of) for as_of in ("2024-02-01T20:59:59Z", "2024-03-01T20:59:59Z", "2024-03-01T21:00:00Z")] == [[], [400], [390]]
    assert revenues("2024-03-01T21:00:00Z", all_revisions=True) == [400, 390]
    assert revenues("2024-03-01T20:59:59Z", all_revisions=True) == [400]


def test_an_insider_trade_is_known_by_its_filing_and_an_amendment_replaces_it(tmp_path: Path) -> None:
    rows = "A,2024-01-02,p,5,10,2024-01-04T22:00:00Z,x\nA,2024-01-02,P,6,10,2024-01-09T22:00:00Z,x\nB,2024-01-02,S,5,,2024-01-04,\n"
    data = loaded(tmp_path, insider_trades=TRADES + rows)

    def shares(as_of: str) -> list[tuple[str, str, int]]:
        return [(row["ticker"], row["code"], row["shares"]) for row in known(data, "insider_trades", at(as_of))]

    assert shares("2024-01-03T23:00:00Z") == []
    assert shares("2024-01-05T14:30:00Z") == [("A", "P", 5), ("B", "S", 5)]
    assert shares("2024-01-09T22:00:00Z") == [("B", "S", 5), ("A", "P", 6)]
    later = data.table("insider_trades").known(["A"], [known_after(at("2024-01-05T00:00:00Z"))], ALWAYS, all_revisions=True)
    assert later["shares"].to_list() == [6]


def test_two_trades_without_a_name_that_say_the_same_are_two(tmp_path: Path) -> None:
    row = "A,2024-01-02,P,5,10,2024-01-04,\n"
    assert len(known(loaded(tmp_path, insider_trades=TRADES + row + row), "insider_trades")) == 2


def test_the_order_of_files_and_rows_makes_no_other_set(tmp_path: Path) -> None:
    actions = ["A,2024-01-03,1,,,,\n", "B,2024-01-03,2,,,,\n"]
    statements = ["A,2023-12-31,fy,2024-02-01,1,,\n", "B,2023-12-31,fy,2024-02-01,1,,\n"]
    trades = ["A,2024-01-02,P,5,10,2024-01-04,\n", "A,2024-01-02,S,5,10,2024-01-04,\n", "B,2024-01-02,S,5,10,2024-01-04,q\n"]

    def snapshot(name: str, turn: int) -> str:
        (tmp_path / name).mkdir()
        files = {"corporate_actions": ACTIONS + "".join(actions[::turn]), "fundamentals": STATEMENTS + "".join(statements[::turn])}
        return imported(tmp_path / name, **files, insider_trades=TRADES + "".join(trades[::turn])).snapshot

    assert snapshot("one", 1) == snapshot("other", -1)


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    made = imported(tmp_path, fundamentals=STATEMENTS + "A,2023-12-31,fy,2024-02-01,1,,\n")
    file = Path(made.folder) / "fundamentals.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataAbsent, match="is not the file that was written"):
        MarketStore(tmp_path / "sets").get("mine")


def test_periods_are_bounded_on_both_sides(tmp_path: Path) -> None:
    ends = ("2023-03-31", "2023-06-30", "2023-09-30")
    rows = "".join(f"A,{end},quarter,2023-12-01,1,,\n" for end in ends)
    table = loaded(tmp_path, fundamentals=STATEMENTS + rows).table("fundamentals")
    found = table.known([], ended_within("2023-04-01", "2023-06-30"), ALWAYS, all_revisions=False)
    assert found["fiscal_period_end"].to_list() == [date(2023, 6, 30)]
    assert table.known(["B"], [], ALWAYS, all_revisions=False).height == 0


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("AB"), st.sampled_from(["2023-06-30", "2023-12-31"]), st.integers(0, 300), st.integers(-99, 99)),
        min_size=1,
        max_size=10,
        unique_by=lambda drawn: drawn[:3],
    ),
    st.integers(0, 310),
)
def test_what_was_filed_later_changes_no_answer(drawn: list[tuple[str, str, int, int]], day: int) -> None:
    first = at("2024-01-02T00:00:00Z")

    def text(rows: list[tuple[str, str, int, int]]) -> str:
        times = [datetime.fromtimestamp(first + after * 86400, UTC).isoformat() for _, _, after, _ in rows]
        return STATEMENTS + "".join(f"{one[0]},{one[1]},quarter,{time},,{one[3]},\n" for one, time in zip(rows, times, strict=True))

    as_of = first + day * 86400
    by_then = [one for one in drawn if one[2] <= day]
    with tempfile.TemporaryDirectory() as name:
        for part in ("all", "part"):
            (Path(name) / part).mkdir()
        whole = loaded(Path(name) / "all", fundamentals=text(drawn))
        part_of_it = loaded(Path(name) / "part", fundamentals=text(by_then))
        for all_revisions in (False, True):
            answer = known(whole, "fundamentals", as_of, all_revisions=all_revisions)
            assert answer == known(part_of_it, "fundamentals", ALWAYS, all_revisions=all_revisions)
            assert len(answer) == len({one[:2] if not all_revisions else one[:3] for one in by_then})


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("AB"), st.sampled_from(["x", "y", ""]), st.integers(2, 300), st.integers(1, 99)),
        min_size=1,
        max_size=10,
        unique_by=lambda drawn: drawn[:3],
    ),
    st.integers(0, 310),
    st.none() | st.integers(0, 310),
)
def test_what_insiders_file_later_changes_no_answer(drawn: list[tuple[str, str, int, int]], day: int, after: int | None) -> None:
    first = at("2024-01-02T00:00:00Z")

    def text(rows: list[tuple[str, str, int, int]]) -> str:
        times = [datetime.fromtimestamp(first + filed * 86400, UTC).isoformat() for _, _, filed, _ in rows]
        return TRADES + "".join(f"{one[0]},2024-01-02,P,{one[3]},,{time},{one[1]}\n" for one, time in zip(rows, times, strict=True))

    def told(data: MarketSet, as_of: int) -> list[tuple[str, str | None, int, int]]:
        within = [] if after is None else [known_after(first + after * 86400)]
        rows = data.table("insider_trades").known([], within, as_of, all_revisions=False).to_dicts()
        return [(row["ticker"], row["trade_id"], row["known_unix_s"], row["shares"]) for row in rows]

    by_then = [one for one in drawn if one[2] <= day]
    with tempfile.TemporaryDirectory() as name:
        for part in ("all", "part"):
            (Path(name) / part).mkdir()
        answer = told(loaded(Path(name) / "all", insider_trades=text(drawn)), first + day * 86400)
        assert answer == told(loaded(Path(name) / "part", insider_trades=text(by_then)), ALWAYS)
        assert answer == sorted(answer, key=lambda one: (one[2], one[0]))
    newest = {one[:2] if one[1] else one[:3]: one for one in sorted(by_then, key=lambda one: one[2])}
    assert len(answer) == len([one for one in newest.values() if after is None or one[2] > after])
