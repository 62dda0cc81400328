"""`trademesh data` against services that run: what is imported is served at once, and can be traded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import grpc
import polars as pl
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from mesh_processes import SERVICES, Mesh, running_mesh
from typer.testing import CliRunner

from trademesh.news.v1 import news_service_pb2, news_service_pb2_grpc
from trademesh_cli import data_commands
from trademesh_trading.store import EMBEDDED_SETS

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Services without an edge, in a folder without data."""
    with running_mesh(tmp_path_factory.mktemp("import"), *SERVICES) as mesh:
        yield mesh


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it: two years of a few stocks, a CSV file for each."""
    folder = tmp_path_factory.mktemp("prices")
    bars = pl.read_parquet(EMBEDDED_SETS / "wiki5" / "bars.parquet")
    # Without AAPL, whose price of then needs its split.
    bars = bars.filter(pl.col("session").is_between(date(2004, 9, 1), date(2006, 9, 1)), pl.col("ticker") != "AAPL")
    for (ticker,), rows in bars.group_by("ticker"):
        given = {"date": "session", "open": "open_micros", "high": "high_micros", "low": "low_micros", "close": "close_micros"}
        table = rows.sort("session").select(
            *(pl.col(column) if name == "date" else pl.col(column) / 10**6 for name, column in given.items()), "volume_shares"
        )
        table.columns = [*given, "volume"]
        table.write_csv(folder / f"{ticker}.csv")
    return folder


def test_a_running_service_serves_what_is_imported_and_a_run_trades_it(running: Mesh, prices: Path, tmp_path: Path) -> None:
    assert [one["set"]["name"] for one in running.json("data", "show")][:2] == ["us20", "wiki5"]
    imported = running.json("data", "import", str(prices), "--name", "mine", "--licence", "public domain")
    assert imported["tickers"] == ["GOOG", "IBM", "MSFT"]
    assert imported["already"] is False
    (listed,) = [one["set"] for one in running.json("data", "show") if one["set"]["name"] == imported["name"]]
    assert (listed["name"], listed["snapshot"]) == (imported["name"], imported["snapshot"])
    assert (listed["first_session"], listed["last_session"]) == ("2004-09-01", "2006-09-01")
    assert (listed["adjustment"], listed["licence"]) == ("ADJUSTMENT_AS_IMPORTED", "public domain")
    (shown,) = running.json("data", "show", "mine")
    assert {one["bar_kind"] for one in shown["instruments"]} == {"BAR_KIND_OHLCV"}
    assert "GOOG" in running.cli("data", "show", imported["name"]).stdout

    bootstrap = tmp_path / "BOOTSTRAP.md"
    bootstrap.write_text("---\ndata: {set: mine}\n---\n")
    started = running.cli("run", "start", str(bootstrap), "--run-id", "of-mine")
    assert started.returncode == 0, started.stderr
    summary = running.summary("of-mine")
    assert int(summary["sessions"]) == len((prices / "IBM.csv").read_text().splitlines()) - 1
    assert int(summary["trades"]) > 0
    assert running.json("run", "verify", "of-mine")["verified"] is True

    again = running.json("data", "import", str(prices), "--name", "mine")
    assert (again["already"], again["folder"]) == (True, imported["folder"])


def test_a_made_up_universe_is_traded_without_being_imported_and_the_same_way_twice(running: Mesh, tmp_path: Path) -> None:
    bootstrap = tmp_path / "BOOTSTRAP.md"
    bootstrap.write_text("---\nmode: mock\ndata: {set: mock-20@7}\nsessions: {start: 1990-06-01, end: 1990-09-28}\n---\n")
    journals = set[str]()
    for run_id in ("made-up", "made-up-again"):
        started = running.cli("run", "start", str(bootstrap), "--run-id", run_id)
        assert started.returncode == 0, started.stderr
        summary = running.summary(run_id)
        assert int(summary["trades"]) > 0
        journals.add(summary["journal_sha256"])
    assert len(journals) == 1


def test_a_running_service_serves_news_that_are_imported_and_a_run_reads_them(running: Mesh, prices: Path, tmp_path: Path) -> None:
    full_name = running.json("data", "import", str(prices), "--name", "told")["name"]
    lines = [
        {"id": str(day), "published_at": f"2005-03-{day:02}T12:00:00Z", "headline": f"Profit surges {day}", "tickers": ["IBM"]}
        for day in range(1, 5)
    ]
    path = tmp_path / "news.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    imported = running.json("data", "import-news", str(path), "--set", "told")
    assert (imported["set"], imported["added"], imported["items"]) == ("told", 4, 4)
    with grpc.insecure_channel(f"127.0.0.1:{running.ports['news']}") as channel:
        stub = news_service_pb2_grpc.NewsServiceStub(channel)
        request = news_service_pb2.SearchNewsRequest(set=full_name, query="surges", as_of=Timestamp(seconds=1_109_800_000))
        assert [hit.item.news_id for hit in stub.SearchNews(request, timeout=10).hits] == ["2", "1"]

    bootstrap = tmp_path / "BOOTSTRAP.md"
    bootstrap.write_text("---\ndata: {set: told}\nsessions: {start: 2005-02-25, end: 2005-03-31}\n---\n")
    started = running.cli("run", "start", str(bootstrap), "--run-id", "of-told")
    assert started.returncode == 0, started.stderr
    running.summary("of-told")
    running.json("run", "stop", "of-told")
    events = running.cli("feed", "tail", "of-told", "--after", "0", "--json", "--kind", "signals").stdout
    scores = {
        event["session_date"]: {one["ticker"]: one.get("score", 0) for one in event["signals"]["signals"]}
        for event in map(json.loads, events.splitlines())
        if event["agent_id"] == "sentiment_analyst"
    }
    assert scores["2005-03-01"] == {"GOOG": 0, "IBM": pytest.approx(0.49, abs=0.02), "MSFT": 0}
    assert scores["2005-02-28"]["IBM"] == 0

    path.write_text(json.dumps(lines[0] | {"headline": "Profit falls 1"}))
    refused = running.cli("data", "import-news", str(path), "--set", "told")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: row 1: 1 is told in two ways as of one second")
    assert running.cli("data", "import-news", str(path), "--set", "us20").returncode == 2


def test_a_bad_row_imports_nothing_and_a_wrong_call_is_a_usage_error(running: Mesh, prices: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    good = (prices / "IBM.csv").read_text()
    (bad / "IBM.csv").write_text(f"{good}2006-09-04,80,81,79,80,1\n")
    row = len(good.splitlines()) + 1
    outcome = running.cli("data", "import", str(bad))
    assert outcome.returncode == 1
    assert outcome.stderr.splitlines() == [
        f"error: IBM.csv: row {row}: 2006-09-04 is not a session of XNYS",
        "error: nothing was imported: 1 bad row or file",
    ]
    assert not list((running.folder / "data" / "sets").glob("bad*"))
    told = running.cli("data", "import", str(bad), "--json")
    assert (told.returncode, json.loads(told.stdout)["faults"][0]["row"]) == (1, row)
    for arguments in (["nowhere"], [str(bad), "--calendar", "MOON"], [str(bad), "--adjustment", "some"]):
        assert running.cli("data", "import", *arguments).returncode == 2, arguments
    absent = running.cli("data", "show", "moon")
    assert absent.returncode == 4
    assert absent.stderr.startswith("error: there is no set moon: there are us20, wiki5")


def test_without_the_extra_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch, prices: Path) -> None:
    monkeypatch.setattr(data_commands, "IMPORTER_NEEDS", ("a_package_that_is_not_there",))
    outcome = CliRunner().invoke(data_commands.data_app, ["import", str(prices)])
    assert outcome.exit_code == 1
    assert outcome.stderr == "error: `trademesh data import` needs the trading extra: pip install 'trademesh[trading]'\n"
