"""`trademesh run report`: one page that loads nothing, tables that lose nothing, the same bytes each time."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from random_journals import CASH_MICROS, Session, drafts_of, write
from trademesh.gateway.v1 import event_pb2 as events
from trademesh_cli.main import app
from trademesh_cli.report_data import drawdowns, monthly_returns, read_report
from trademesh_cli.svg_chart import Line, line_chart, shown_places
from trademesh_runs.compaction import compact
from trademesh_runs.journal import Draft
from trademesh_runs.journal_sqlite import SqliteReader, SqliteStore
from trademesh_runs.layout import RunLayout

SESSIONS = [Session([(0, 5, 10 + number % 7), (1, -2 + number % 5 or 3, 30)]) for number in range(70)]
VOID = {"meta", "line", "polyline", "br"}


def desk() -> list[Draft]:
    """A desk with an analyst whose name and data would break a page that does not escape them."""
    drafts = drafts_of(SESSIONS)
    for draft in drafts:
        if isinstance(draft.payload, events.RunStarted):
            draft.payload.agent_ids.append("technical_analyst")
            draft.payload.config_sha256 = "<script>alert(1)</script>"
        if isinstance(draft.payload, events.Settled):
            draft.payload.close_micros.extend([10_000_000 + draft.payload.session_number, 5_000_000, 0])
    found = list[Draft]()
    for draft in drafts:
        if draft.kind == "settled":
            rows = [events.Prediction(ticker=name, direction=events.DIRECTION_UP, confidence=0.6) for name in ("AAPL", "KO", "XOM")]
            found.append(Draft("predictions", events.Predictions(predictions=rows), draft.session_date, 4, "technical_analyst"))
        found.append(draft)
    return found


@pytest.fixture
async def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunLayout:
    found = RunLayout(tmp_path / "runs", "demo")
    found.make_folders()
    await write(SqliteStore(found.journal), desk())
    monkeypatch.setenv("TRADEMESH_RUNS_DIR", str(found.runs_dir))
    return found


def report(*arguments: str) -> str:
    """What the command prints; it succeeds."""
    result = CliRunner().invoke(app, ["run", "report", "demo", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


class Balanced(HTMLParser):
    """Fails where an element is closed that was not opened last."""

    def __init__(self) -> None:
        super().__init__()
        self.open = list[str]()
        self.text = list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element without content."""

    def handle_data(self, data: str) -> None:
        self.text.append(data)


async def test_the_page_is_whole_loads_nothing_and_runs_nothing(layout: RunLayout, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert report("-o", str(page)) == f"{page}\n"
    html = page.read_text(encoding="utf-8")
    parsed = Balanced()
    parsed.feed(html)
    assert parsed.open == []
    assert not re.search(r"https?:|src=|<link|<script|@import|url\(", html)
    text = " ".join(parsed.text)
    for title in ("Net asset value", "Figures", "Drawdown", "Returns by month", "Exposure", "Accuracy of agents", "Trades"):
        assert title in text
    assert "<script>alert(1)</script>" in text
    assert html.count("<svg") == 3
    assert "technical_analyst" in text
    # The close of AAPL rises each session, that of KO never, XOM has none; the first session has no close before it.
    assert "50.0% of 138" in text


async def test_the_same_journal_gives_the_same_bytes(layout: RunLayout, tmp_path: Path) -> None:
    for form in ("csv", "parquet"):
        for name in ("one", "two"):
            report("--format", form, "-o", str(tmp_path / form / name))
        files = sorted((tmp_path / form / "one").iterdir())
        assert [path.name for path in files] == [f"{name}.{form}" for name in ("agents", "equity", "figures", "trades")]
        for path in files:
            assert path.read_bytes() == (tmp_path / form / "two" / path.name).read_bytes()
    report("-o", str(tmp_path / "one.html"))
    report("-o", str(tmp_path / "two.html"))
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


async def test_tables_hold_every_session_and_fill_in_whole_micro_dollars_and_are_alike_in_both_formats(
    layout: RunLayout, tmp_path: Path
) -> None:
    record = json.loads(report("--format", "csv", "-o", str(tmp_path / "csv"), "--json"))
    assert (record["run_id"], len(record["files"])) == ("demo", 4)
    report("--format", "parquet", "-o", str(tmp_path / "parquet"))
    for name in ("equity", "trades", "figures", "agents"):
        with (tmp_path / "csv" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        table = pl.read_parquet(tmp_path / "parquet" / f"{name}.parquet")
        assert table.columns == list(rows[0])
        for row, same in zip(rows, table.iter_rows(named=True), strict=True):
            for key, value in same.items():
                assert row[key] == ("" if value is None else str(value)), (name, key)
    equity = pl.read_parquet(tmp_path / "parquet" / "equity.parquet")
    assert equity["nav_micros"].dtype == pl.Int64
    assert equity["equal_weight_micros"].to_list() == [CASH_MICROS + number for number in range(1, 71)]
    assert pl.read_parquet(tmp_path / "parquet" / "trades.parquet").height == sum(len(session.fills) for session in SESSIONS)


async def test_a_run_that_has_no_session_yet_has_a_page_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = RunLayout(tmp_path, "demo")
    layout.make_folders()
    await write(SqliteStore(layout.journal), desk()[:2])
    monkeypatch.setenv("TRADEMESH_RUNS_DIR", str(tmp_path))
    report("-o", str(tmp_path / "report.html"))
    assert "no session is settled yet" in (tmp_path / "report.html").read_text(encoding="utf-8")
    report("--format", "parquet", "-o", str(tmp_path / "tables"))
    assert pl.read_parquet(tmp_path / "tables" / "equity.parquet").height == 0


async def test_a_compacted_run_says_what_cannot_be_told_any_more(layout: RunLayout, tmp_path: Path) -> None:
    through = compact("demo", SqliteStore(layout.journal), 100).compacted_through
    report("-o", str(tmp_path / "report.html"))
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"Events up to {through:,} were compacted" in html
    assert "Predictions were compacted away" in html
    report("--format", "parquet", "-o", str(tmp_path / "tables"))
    agents = pl.read_parquet(tmp_path / "tables" / "agents.parquet")
    assert (agents.height, agents.columns[:2], agents["brier"].dtype) == (0, ["agent_id", "rank"], pl.Float64)


async def test_faults_are_said_in_one_line(layout: RunLayout, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["run", "report", "demo", "--format", "csv", "-o", str(tmp_path / "file")])
    assert (result.exit_code, "cannot be written" in result.output) == (1, True)
    layout.journal.write_bytes(b"nothing")
    result = CliRunner().invoke(app, ["run", "report", "demo", "-o", str(tmp_path / "report.html")])
    assert (result.exit_code, "cannot be read" in result.output) == (1, True)


async def test_figures_of_the_report_are_those_of_the_ledger(layout: RunLayout) -> None:
    reader = SqliteReader(layout.journal)
    data = read_report("demo", reader)
    reader.close()
    assert data.figures().sessions == 70
    assert data.curves()["desk"][0] == CASH_MICROS
    assert data.figures_of_baselines()["equal_weight"].total_return == pytest.approx(70 / CASH_MICROS)


def test_months_and_years_are_chained_from_the_close_before_them() -> None:
    sessions = ["2007-12-31", "2008-01-02", "2008-01-31", "2008-02-01"]
    found = monthly_returns(sessions, [100, 110, 121, 99, 198])
    expected = {"2007-12": 0.1, "2008-01": -0.1, "2008-02": 1.0, "2007": 0.1, "2008": 0.8}
    assert found == {key: pytest.approx(value) for key, value in expected.items()}
    assert monthly_returns(["2008-01-02", "2008-02-01"], [100, -5, 7]) == {"2008-01": -1.05, "2008": pytest.approx(-0.93)}


def test_a_drawdown_is_below_the_highest_value_so_far() -> None:
    assert drawdowns([100, 80, 120, 90]) == [0.0, pytest.approx(-0.2), 0.0, pytest.approx(-0.25)]


def test_a_chart_of_many_points_keeps_every_peak_and_trough() -> None:
    values = [0.0] * 10_000
    values[1234], values[5678], values[777] = 9.0, -9.0, float("nan")
    places = shown_places(values)
    assert len(places) < 1_000
    assert {0, 1234, 5678, 9_999} <= set(places)
    assert 777 not in places
    assert shown_places([1.0, float("nan"), 2.0]) == [0, 2]


def test_a_chart_of_one_value_or_of_values_below_zero_is_drawn_all_the_same() -> None:
    assert "polyline" in line_chart("t", ["2008-01-02"], [Line("a", [5.0])], str, log=True)
    assert "polyline" in line_chart("t", ["2008-01-02"] * 2, [Line("a", [5.0, -5.0])], str, log=True)
    marked = line_chart("<b>", ["2008-01-02"], [Line("<b>", [1.0]), Line("c", [2.0])], str)
    assert (marked.count("&lt;b&gt;"), "<b>" in marked) == (2, False)
