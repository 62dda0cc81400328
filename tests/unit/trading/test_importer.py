"""Users' own prices: what is refused, that nothing is half-imported, and that what arrives is what was in the file."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trademesh_kernel.errors import DataAbsent
from trademesh_trading import importer, importing
from trademesh_trading.bar_matrices import Bars
from trademesh_trading.importer_files import read_files
from trademesh_trading.importer_rows import judge_bars
from trademesh_trading.importer_values import trading_days
from trademesh_trading.importing import ImportedSet, ImportOrder, ImportRefused, RowsRefused, default_name, import_set
from trademesh_trading.market_set import MarketSet
from trademesh_trading.set_files import load_set
from trademesh_trading.store import EMBEDDED_SETS, MarketStore

# exchange-calendars uses what pandas 3 deprecates; no name of ours is involved.
pytestmark = pytest.mark.filterwarnings("ignore:Series.values returning:DeprecationWarning")

GOOD = "date,open,high,low,close,volume\n2024-01-02,10,11,9,10.5,100\n"
HEADER = "date,open,high,low,close,volume\n"
TODAY = date(2024, 12, 31)
SESSIONS = (date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 4), date(2024, 1, 5), date(2024, 1, 8))


def written(folder: Path, **files: str) -> Path:
    """A folder of CSV files."""
    folder.mkdir(exist_ok=True)
    for stem, text in files.items():
        (folder / f"{stem}.csv").write_text(text)
    return folder


def order(path: Path, name: str = "mine", **more: str) -> ImportOrder:
    return ImportOrder(path, name, TODAY, **more)


def loaded(imported: ImportedSet) -> MarketSet:
    return load_set(Path(imported.folder))


def all_bars(data: MarketSet) -> Bars:
    return data.window(range(len(data.sessions)), range(len(data.instruments)))


def refused(folder: Path, **files: str) -> list[str]:
    """What is said of files that must not be imported."""
    sets = folder / "sets"
    with pytest.raises(RowsRefused) as caught:
        import_set(order(written(folder / "given", **files)), sets)
    assert not sets.exists()
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("2024-01-03,,,,0,", "close is 0, and not above zero"),
        ("2024-01-03,,,,-1.5,", "close is -1.5, and not above zero"),
        ("2024-01-03,0.00,11,9,10,", "open is 0.00, and not above zero"),
        ("2024-01-03,,,,0.0000001,", "close is 0.0000001, and less than a micro-dollar"),
        ("2024-01-03,,,,nan,", "close is nan, and not finite"),
        ("2024-01-03,,inf,,10,", "high is inf, and not finite"),
        ("2024-01-03,,,,ten,", "close is ten, and not a number"),
        ("2024-01-03,,,,1_000,", "close is 1_000, and not a number"),
        ("2024-01-03,,,,1e12,", "close is 1e12, and above 1000000000"),
        ("2024-01-03,,,,,", "close is missing"),
        ("2024-01-03,9,8,9,10,", "high 8 is below low 9; open 9 is above high 8; close 10 is above high 8"),
        ("2024-01-03,,11,9,12,", "close 12 is above high 11"),
        ("2024-01-03,,11,9,8.999999,", "close 8.999999 is below low 9"),
        ("2024-01-03,8,11,9,10,", "open 8 is below low 9"),
        ("2024-01-03,,,,10,-1", "volume is -1, and below zero"),
        ("2024-01-03,,,,10,1.5", "volume is 1.5, and not a whole number"),
        ("2024-01-06,,,,10,", "2024-01-06 is not a session of XNYS"),
        ("2024-01-01,,,,10,", "2024-01-01 is not a session of XNYS"),
        ("2024-02-30,,,,10,", "date is 2024-02-30, and not a date like 2024-01-31"),
        ("03/01/2024,,,,10,", "date is 03/01/2024, and not a date like 2024-01-31"),
        (",,,,10,", "date is missing"),
        ("1066-10-14,,,,10,", "date is 1066-10-14, and not between 1900-01-01 and today"),
        ("2124-01-04,,,,10,", "date is 2124-01-04, and not between 1900-01-01 and today"),
        ("2024-01-02,,,,10,", "A has 2024-01-02 already, in A.csv row 2"),
    ],
)
def test_a_bad_row_is_told_with_its_place(tmp_path: Path, row: str, said: str) -> None:
    assert refused(tmp_path, A=f"{GOOD}{row}\n", B=GOOD) == [f"A.csv: row 3: {said}"]


def test_rows_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    assert refused(tmp_path, A=f"{GOOD}\n\n2024-01-03,,,,-1,\n") == ["A.csv: row 5: close is -1, and not above zero"]


def test_a_date_twice_is_found_across_files(tmp_path: Path) -> None:
    rows = "ticker,date,close\nX,2024-01-02,1\n"
    assert refused(tmp_path, first=rows, second=rows) == ["second.csv: row 2: X has 2024-01-02 already, in first.csv row 2"]


def test_a_ticker_must_be_there_and_be_visible(tmp_path: Path) -> None:
    said = refused(tmp_path, A="ticker,date,close\n,2024-01-02,1\nA B,2024-01-02,1\n")
    assert said == ["A.csv: row 2: ticker is missing", "A.csv: row 3: ticker is A B, and not 1 to 32 visible ASCII characters"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("date,price\n2024-01-02,1\n", "A.csv: has no column close, but date, price"),
        ("date,close,Close\n2024-01-02,1,1\n", "A.csv: has two columns close"),
        ("date,close\n2024-01-02,1\n2024-01-03,1,5\n", "A.csv: row 3: has 3 fields, and the header 2"),
        ("", "A.csv: cannot be read: empty CSV"),
    ],
)
def test_a_file_that_is_no_table_of_prices_is_told_and_the_others_are_judged_still(tmp_path: Path, text: str, said: str) -> None:
    assert refused(tmp_path, A=text, B=f"{HEADER}2024-01-03,,,,0,\n") == [said, "B.csv: row 2: close is 0, and not above zero"]


def test_a_file_that_is_not_what_its_name_says_is_told(tmp_path: Path) -> None:
    given = written(tmp_path / "given", A=GOOD)
    (given / "B.parquet").write_bytes(b"no Parquet at all")
    with pytest.raises(RowsRefused) as caught:
        import_set(order(given), tmp_path / "sets")
    assert [(fault.file, fault.row) for fault in caught.value.faults] == [("B.parquet", 0)]


def test_no_rows_are_no_set(tmp_path: Path) -> None:
    assert refused(tmp_path, A=HEADER) == ["given: there is no row"]


def test_what_is_absent_stays_absent(tmp_path: Path) -> None:
    text = "Date , CLOSE,Adj Close\n2024-01-02,10,9\n2024-01-05,11,9\n"
    imported = import_set(order(written(tmp_path / "given", AAA=text, BBB=GOOD)), tmp_path / "sets")
    assert imported.ignored_columns == ["Adj Close"]
    data = load_set(Path(imported.folder))
    assert data.sessions == tuple(day.isoformat() for day in SESSIONS[:4])
    bars = all_bars(data)
    assert bars.close_micros[:, 0].tolist() == [10_000_000, 0, 0, 11_000_000]
    assert bars.open_micros is not None
    assert bars.open_micros[:, 0].tolist() == [0, 0, 0, 0]
    assert [instrument.fields for instrument in data.instruments] == [set(), {"open", "high", "low", "volume"}]
    assert [instrument.last_session for instrument in data.instruments] == ["2024-01-05", "2024-01-02"]
    closes_only = import_set(order(tmp_path / "given" / "AAA.csv"), tmp_path / "sets")
    bars = all_bars(loaded(closes_only))
    assert (bars.open_micros, bars.high_micros, bars.low_micros, bars.volume_plus_one) == (None, None, None, None)


def test_csv_and_parquet_of_the_same_prices_are_the_same_set(tmp_path: Path) -> None:
    text = "date,ticker,close,volume\n2024-01-03,B,0.1,0\n2024-01-02,A,123.45,7\n2024-01-03,A,1e2,\n"
    first = import_set(order(written(tmp_path / "csv", prices=text)), tmp_path / "sets")
    table = pl.DataFrame(
        {
            "ticker": ["A", "A", "B"],
            "date": [datetime(2024, 1, 2, 16), datetime(2024, 1, 3), datetime(2024, 1, 3)],
            "close": [123.45, 100.0, 0.1],
            "volume": [7, None, 0],
        }
    )
    (tmp_path / "parquet").mkdir()
    table.write_parquet(tmp_path / "parquet" / "any.parquet")
    assert import_set(order(tmp_path / "parquet"), tmp_path / "sets") == ImportedSet(**{**vars(first), "already": True})
    narrow = table.with_columns(pl.col("close").cast(pl.Float32), pl.col("date").dt.date())
    narrow.write_parquet(tmp_path / "parquet" / "any.parquet")
    assert import_set(order(tmp_path / "parquet"), tmp_path / "sets").snapshot == first.snapshot


def test_rows_of_parquet_files_are_counted_from_one(tmp_path: Path) -> None:
    pl.DataFrame({"date": [date(2024, 1, 2), date(2024, 1, 3)], "close": [1.0, float("nan")]}).write_parquet(tmp_path / "A.parquet")
    with pytest.raises(RowsRefused) as caught:
        import_set(order(tmp_path / "A.parquet"), tmp_path / "sets")
    assert [str(fault) for fault in caught.value.faults] == ["A.parquet: row 2: close is NaN, and not finite"]


def test_importing_again_changes_nothing_and_says_so(tmp_path: Path) -> None:
    given = written(tmp_path / "given", A=GOOD)
    first = import_set(order(given), tmp_path / "sets")
    before = {path: path.stat().st_mtime_ns for path in Path(first.folder).iterdir()}
    again = import_set(order(given), tmp_path / "sets")
    assert (first.already, again.already) == (False, True)
    assert {path: path.stat().st_mtime_ns for path in Path(again.folder).iterdir()} == before
    assert [path.name for path in (tmp_path / "sets").iterdir()] == [f"mine-{first.snapshot[7:19]}"]
    # What the prices mean and when they were known belong to what a set says: it is another set.
    assert import_set(order(given, adjustment="NONE"), tmp_path / "sets").snapshot != first.snapshot


def test_quality_flags_depend_on_nothing_later(tmp_path: Path) -> None:
    lines = ["date,close", *(f"{day},5" for day in SESSIONS[:2]), f"{SESSIONS[2]},5.0001"]
    flags = list[list[int]]()
    for count in (3, 4):
        path = written(tmp_path / str(count), A="\n".join(lines[:count]) + "\n")
        flags.append(all_bars(loaded(import_set(order(path), tmp_path / "sets"))).quality[:, 0].tolist())
    assert flags == [[2, 2], [2, 2, 0]]


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(importing, "_to_disk", full)
    with pytest.raises(OSError, match="No space"):
        import_set(order(written(tmp_path / "given", A=GOOD)), tmp_path / "sets")
    assert list((tmp_path / "sets").iterdir()) == []


def test_what_is_not_finished_is_not_served(tmp_path: Path) -> None:
    imported = import_set(order(written(tmp_path / "given", A=GOOD)), tmp_path / "sets")
    Path(imported.folder).rename(tmp_path / "sets" / ".importing-1")
    assert MarketStore(tmp_path / "sets").names() == MarketStore().names()


def test_a_store_finds_what_is_imported_while_it_runs(tmp_path: Path) -> None:
    store = MarketStore(tmp_path / "sets")
    with pytest.raises(DataAbsent, match="there is no set mine"):
        store.get("mine")
    one = import_set(order(written(tmp_path / "given", A=GOOD)), tmp_path / "sets")
    assert store.get("mine").record.name == store.get(one.name).record.name == one.name
    assert store.names() == ["us20", "wiki5", one.name]
    other = import_set(order(written(tmp_path / "given", B=GOOD)), tmp_path / "sets")
    with pytest.raises(DataAbsent, match=f"several sets are called mine: say which of .*{other.name}"):
        store.get("mine")
    assert len(store.get(other.name).instruments) == 2


def test_a_set_that_an_older_version_imported_is_served_still(tmp_path: Path) -> None:
    old = MarketStore().get("wiki5")
    shutil.copytree(EMBEDDED_SETS / "wiki5", tmp_path / "sets" / "mine-0123456789ab")
    store = MarketStore(tmp_path / "sets")
    assert store.names() == ["us20", "wiki5", "mine@0123456789ab"]
    assert store.get("mine").record.snapshot == old.record.snapshot


def test_a_damaged_year_is_said_and_the_others_are_read(tmp_path: Path) -> None:
    imported = import_set(order(written(tmp_path / "given", A="date,close\n2023-12-29,10\n2024-01-02,11\n")), tmp_path / "sets")
    file = Path(imported.folder) / "bars-2023.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"X")
    data = MarketStore(tmp_path / "sets").get("mine")
    assert data.window(range(1, 2), [0]).close_micros.tolist() == [[11_000_000]]
    with pytest.raises(DataAbsent, match=r"2023 of set mine@.* is not the file that was written"):
        data.window(range(2), [0])
    with pytest.raises(ImportRefused, match="is damaged"):
        import_set(order(tmp_path / "given"), tmp_path / "sets")


def test_a_year_is_read_without_the_others(tmp_path: Path) -> None:
    imported = import_set(order(written(tmp_path / "given", A="date,close\n2023-12-29,10\n2024-01-02,11\n")), tmp_path / "sets")
    (Path(imported.folder) / "bars-2023.parquet").unlink()
    data = MarketStore(tmp_path / "sets").get("mine")
    assert data.window(range(1, 2), [0]).close_micros.tolist() == [[11_000_000]]


def test_a_damaged_set_is_refused_and_not_listed(tmp_path: Path) -> None:
    imported = import_set(order(written(tmp_path / "given", A=GOOD)), tmp_path / "sets")
    sessions = Path(imported.folder) / "sessions.parquet"
    content = bytearray(sessions.read_bytes())
    content[len(content) // 2] ^= 1
    sessions.write_bytes(content)
    store = MarketStore(tmp_path / "sets")
    assert store.names() == MarketStore().names()
    with pytest.raises(DataAbsent, match="is not the file that was written"):
        store.get("mine")
    with pytest.raises(ImportRefused, match="is damaged"):
        import_set(order(tmp_path / "given"), tmp_path / "sets")


def test_kinds_and_words_of_a_set_are_kept(tmp_path: Path) -> None:
    given = written(tmp_path / "given", A=GOOD, SPX=GOOD, SPY=GOOD)
    imported = import_set(
        ImportOrder(given, "mine", TODAY, "XNYS", "NONE", "a friend", "CC0-1.0", indexes={"SPX"}, funds={"SPY"}), tmp_path / "sets"
    )
    data = load_set(Path(imported.folder))
    assert [instrument.kind for instrument in data.instruments] == ["STOCK", "INDEX", "ETF"]
    assert (data.record.source, data.record.licence, data.record.adjustment) == ("a friend", "CC0-1.0", "NONE")
    with pytest.raises(ImportRefused, match="no DAX among the tickers"):
        import_set(ImportOrder(given, "mine", TODAY, indexes={"DAX"}), tmp_path / "sets")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"name": "us20"}, "comes with"),
        ({"name": "mock-20"}, "made up"),
        ({"name": "a@b"}, "no name"),
        ({"calendar": "MOON"}, "no calendar"),
    ],
)
def test_what_cannot_be_asked_for_is_said(tmp_path: Path, more: dict[str, str], said: str) -> None:
    with pytest.raises(ImportRefused, match=said):
        import_set(order(written(tmp_path / "given", A=GOOD), **more), tmp_path / "sets")


def test_dates_are_those_of_the_exchange_that_is_named(tmp_path: Path) -> None:
    # In New York the 15th was a holiday; in London the 24th of December closed at half past twelve.
    given = written(tmp_path / "given", A="date,close\n2024-01-15,10\n2024-12-24,11\n")
    data = loaded(import_set(order(given, calendar="XLON"), tmp_path / "sets"))
    assert (data.record.calendar, data.sessions[0], data.sessions[-1]) == ("XLON", "2024-01-15", "2024-12-24")
    closes = [datetime.fromtimestamp(int(data.close_unix_s[row]), UTC).time().isoformat() for row in (0, -1)]
    assert closes == ["16:30:00", "12:30:00"]
    with pytest.raises(RowsRefused):
        import_set(order(given), tmp_path / "sets")


def test_a_name_is_made_of_that_of_the_folder(tmp_path: Path) -> None:
    assert default_name(written(tmp_path / "My Prices (2024)")) == "my-prices-2024"
    assert default_name(tmp_path / "EU.v2.parquet") == "eu.v2"


def test_messages_end_after_a_hundred_and_then_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRADEMESH_DATA_DIR", str(tmp_path / "data"))
    given = written(tmp_path / "given", A=HEADER + "2024-01-06,,,,0,\n" * 250)
    assert importer.main([str(given)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 101
    assert lines[-1] == "error: nothing was imported: 250 bad rows or files, 150 more than are shown: --json tells all"
    assert importer.main([str(given), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["imported"], told["faults_total"], len(told["faults"])) == (False, 250, 250)
    assert not (tmp_path / "data").exists()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.decimals(Decimal("0.000001"), 10**9, places=6), st.integers(0, 6), st.booleans()), min_size=1, max_size=len(SESSIONS)
    )
)
def test_prices_of_up_to_six_decimals_arrive_exactly(tmp_path: Path, drawn: list[tuple[Decimal, int, bool]]) -> None:
    prices = [max(round(price, places), Decimal(1).scaleb(-places)) for price, places, _ in drawn]
    texts = [f"{price:e}" if scientific else f"{price:f}" for price, (_, _, scientific) in zip(prices, drawn, strict=True)]
    lines = [f"{day},{text}" for day, text in zip(SESSIONS, texts, strict=False)]
    (tmp_path / "A.csv").write_text("\n".join(["date,close", *lines]))
    pl.DataFrame({"date": SESSIONS[: len(prices)], "close": [float(price) for price in prices]}).write_parquet(tmp_path / "A.parquet")
    for file in ("A.csv", "A.parquet"):
        rows = read_files([tmp_path / file]).rows
        judged = judge_bars(rows, trading_days("XNYS", [rows["date"]], TODAY))
        assert judged.faults == ()
        assert judged.table.sort("session")["close_micros"].to_list() == [int(price * 10**6) for price in prices]
