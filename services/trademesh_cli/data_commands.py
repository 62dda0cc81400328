"""`trademesh data …`: import, import-news, show. The importers are programs of trademesh_trading's and trademesh_news'; what sets there are is
asked by RPC."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from trademesh.trading.v1 import market_data_pb2, market_data_service_pb2, market_data_service_pb2_grpc
from trademesh_cli.rpc import EXIT_FAILED, as_record, call, fail, print_json, settings
from trademesh_cli.run_arguments import AsJson
from trademesh_kernel.client import ServiceClient

data_app = typer.Typer()

IMPORTER = "trademesh_trading.importer"
IMPORTER_NEEDS = ("trademesh_trading", "polars", "exchange_calendars", "numpy")
NEWS_IMPORTER = "trademesh_news.importer"
NEWS_IMPORTER_NEEDS = ("trademesh_news", "polars", "numpy")


@data_app.command("import")
def import_command(
    path: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="a .csv or .parquet file, or a folder of them")],
    name: Annotated[str, typer.Option(help="name of the set; that of the file or folder if left out")] = "",
    calendar: Annotated[str, typer.Option(help="exchange whose sessions the dates must be, ISO 10383")] = "XNYS",
    adjustment: Annotated[str, typer.Option(help="what was done to prices: none, splits-and-dividends or as-imported")] = "as-imported",
    source: Annotated[str, typer.Option(help="where the prices come from, in words")] = "",
    licence: Annotated[str, typer.Option(help="licence of the prices")] = "not stated",
    index: Annotated[list[str] | None, typer.Option(help="ticker that is an index and cannot be traded; may be repeated")] = None,
    fund: Annotated[list[str] | None, typer.Option(help="ticker that is a fund; may be repeated")] = None,
    as_json: AsJson = False,
) -> None:
    """Import prices, and what belongs to them, as a set that trading_service serves: all rows, or with a message per bad row none.

    Columns of prices: date and close, and if they are there ticker (else the file's name), open, high, low, volume, known_at. Files of a folder
    that are named corporate_actions (ticker, ex_date; dividend, split_new and split_old, last_price, known_at), fundamentals (ticker,
    fiscal_period_end, period, known_at; lines of a statement) and insider_trades (ticker, transaction_date, code, shares, known_at; price,
    insider, role, trade_id) are taken for what they are named. known_at is an instant, or a day, which is the next open after it; what is told
    again with a later one is a revision. The set goes below TRADEMESH_DATA_DIR; a service that runs with the same finds it without a restart.
    """
    if any(importlib.util.find_spec(needed) is None for needed in IMPORTER_NEEDS):
        fail("`trademesh data import` needs the trading extra: pip install 'trademesh[trading]'", None, EXIT_FAILED)
    options = [f"--name={name}", f"--calendar={calendar}", f"--adjustment={adjustment}", f"--source={source}", f"--licence={licence}"]
    options += [f"--index={ticker}" for ticker in index or ()]
    options += [f"--fund={ticker}" for ticker in fund or ()]
    options += ["--json"] if as_json else []
    command = [sys.executable, "-m", IMPORTER, *options, "--", str(path)]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


@data_app.command("import-news")
def import_news(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="a file of JSON lines, one for each version of an item")],
    set_name: Annotated[str, typer.Option("--set", help="the market data that the news belong to, with or without what follows its @")],
    as_json: AsJson = False,
) -> None:
    """Add news to what news_service serves for a set: all lines, or with a message per bad line none.

    A line has id, published_at (RFC 3339 with its offset) and headline, and if they are there updated_at, tickers, body, url, source and
    direction (1, 0 or -1; else told from words). Lines with one id are versions of an item, each known from its updated_at on. News go below
    TRADEMESH_DATA_DIR; a service that runs with the same finds them without a restart.
    """
    if any(importlib.util.find_spec(needed) is None for needed in NEWS_IMPORTER_NEEDS):
        fail("`trademesh data import-news` needs the news extra: pip install 'trademesh[news]'", None, EXIT_FAILED)
    options = [f"--set={set_name}", *(["--json"] if as_json else [])]
    command = [sys.executable, "-m", NEWS_IMPORTER, *options, "--", str(path)]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


@data_app.command("show")
def show(
    set_name: Annotated[str, typer.Argument(metavar="[SET]", help="a set; all of them if left out")] = "",
    as_json: AsJson = False,
) -> None:
    """List the sets that trading_service has, or one set's instruments."""

    async def work() -> Sequence[market_data_service_pb2.SetInstruments]:
        async with ServiceClient(settings().trading_target, "trading_service") as trading:
            stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
            request = market_data_service_pb2.ListInstrumentsRequest(set=set_name)
            answer: market_data_service_pb2.ListInstrumentsResponse = await trading.call(stub.ListInstruments, request, timeout_s=30)
            return answer.sets

    found = call(work)
    if as_json:
        print_json([as_record(one) for one in found])
        return
    console = Console()
    if set_name:
        for one in found:
            _show_instruments(console, one)
        return
    table = Table(
        Column("set", overflow="fold"),
        "tickers",
        Column("sessions", no_wrap=True),
        Column("adjustment, source, licence, sha256", overflow="fold"),
    )
    for one in found:
        record = one.set
        words = [_adjustment(record), record.source, record.licence, record.snapshot.removeprefix("sha256:")]
        span = f"{record.first_session}\n{record.last_session}"
        # Text, since words in brackets would be taken for markup.
        table.add_row(Text(record.name), str(len(one.instruments)), span, Text("\n".join(words)), end_section=True)
    console.print(table)


def _show_instruments(console: Console, found: market_data_service_pb2.SetInstruments) -> None:
    record = found.set
    facts = Table("fact", Column("value", overflow="fold"), show_header=False)
    for name, value in (
        ("set", record.name),
        ("tickers", str(len(found.instruments))),
        ("sessions", f"{record.first_session} to {record.last_session}, {record.calendar}"),
        ("adjustment", _adjustment(record)),
        ("source", record.source),
        ("licence", record.licence),
        ("besides prices", ", ".join(_table_name(table) for table in record.tables) or "nothing"),
        ("content", record.snapshot),
    ):
        facts.add_row(name, Text(value))
    console.print(facts)
    table = Table("ticker", "kind", "first session", "last session", "bars")
    for one in found.instruments:
        kind = market_data_pb2.InstrumentKind.Name(one.kind).removeprefix("INSTRUMENT_KIND_")
        bars = market_data_pb2.BarKind.Name(one.bar_kind).removeprefix("BAR_KIND_")
        table.add_row(Text(one.ticker), kind, one.first_session, one.last_session, bars)
    console.print(table)


def _adjustment(record: market_data_pb2.DataSet) -> str:
    return market_data_pb2.Adjustment.Name(record.adjustment).removeprefix("ADJUSTMENT_")


def _table_name(table: market_data_pb2.DataTable.ValueType) -> str:
    return market_data_pb2.DataTable.Name(table).removeprefix("DATA_TABLE_").lower().replace("_", " ")
