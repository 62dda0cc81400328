"""StreamBars of large universes: against a stream of ready messages, with the memory that the server needs, and how time grows with tickers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import grpc
import numpy as np
import polars as pl
from google.protobuf.timestamp_pb2 import Timestamp

from bench.figures import Figure, at_most, told
from trademesh.trading.v1 import market_data_service_pb2 as messages
from trademesh_trading.market_set import OPTIONAL_FIELDS, MarketSet
from trademesh_trading.set_files import make_set_ready
from trademesh_trading.setwriter import SetDescription, tables_by_year, write_yearly_set
from trademesh_trading.store import MarketStore

MANY, FEW, LARGE = "mock-2000@7", "mock-20@7", "mock-5000@7"
YEARS = (2000, 2001, 2002)
ALWAYS = Timestamp(seconds=2**33)
MEBIBYTE = 1024 * 1024
ROUNDS = 3
MOST_MEMORY_MIB = 512
"""What a stream may add to the server's memory: years at hand, and blocks on their way. The bars of MANY alone are 660 MiB."""


@dataclass(frozen=True)
class Stream:
    """One stream as its client saw it."""

    seconds: float
    first_message_s: float
    size_bytes: int
    bars: int


class BarsServer:
    """A child process that serves `bars_server.py`."""

    def __init__(self, kind: str, what: str) -> None:
        command = [sys.executable, "-m", "bench.bars_server", kind, what]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None, "piped"
        self._target = f"127.0.0.1:{int(self._process.stdout.readline())}"

    def peak_mib(self) -> float:
        """The most memory that the process has held so far."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024

    def stream(self, request: messages.StreamBarsRequest) -> Stream:
        """Reads a stream to its end. Messages stay bytes: what a client makes of them is its own affair."""
        return asyncio.run(self._stream(request))

    async def _stream(self, request: messages.StreamBarsRequest) -> Stream:
        begun, first, size, last = time.perf_counter(), 0.0, 0, b""
        async with grpc.aio.insecure_channel(self._target, options=[("grpc.max_receive_message_length", 16 * MEBIBYTE)]) as channel:
            method = channel.unary_stream(
                "/trademesh.trading.v1.MarketDataService/StreamBars", messages.StreamBarsRequest.SerializeToString
            )
            bars = 0
            async for last in method(request, timeout=600):
                first = first or time.perf_counter() - begun
                size += len(last)
                bars += 1
        block = messages.StreamBarsResponse.FromString(last).block
        return Stream(time.perf_counter() - begun, first, size, len(block.tickers) * bars)

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait(10)


@contextmanager
def bars_server(kind: str, what: str) -> Iterator[BarsServer]:
    """A server while it is needed."""
    server = BarsServer(kind, what)
    try:
        yield server
    finally:
        server.stop()


def bar_figures() -> list[Figure]:
    """All of them; two minutes."""
    figures = list[Figure]()
    with bars_server("ready", MANY) as ready:
        asked = messages.StreamBarsRequest(set=MANY, as_of=ALWAYS)
        rates, bare = list[float](), list[float]()
        for _ in range(ROUNDS):
            # A new server each time: a universe that was read before is partly at hand.
            with bars_server("recorded", ".") as server:
                idle_mib = server.peak_mib()
                ours = server.stream(asked)
                grown_mib = server.peak_mib() - idle_mib
            rates.append(ours.size_bytes / MEBIBYTE / ours.seconds)
            theirs = ready.stream(asked)
            bare.append(theirs.size_bytes / MEBIBYTE / theirs.seconds)
    figures.append(
        Figure(f"bars of {MANY}, 33 years, against ready messages", median(rates), "MiB/s", median(bare), median(rates) / median(bare))
    )
    figures.append(at_most(f"memory for it, of {ours.size_bytes / MEBIBYTE:,.0f} MiB sent", "MiB", grown_mib, MOST_MEMORY_MIB))
    figures.append(growth())
    with tempfile.TemporaryDirectory() as folder:
        write_years(Path(folder), MarketStore().get(LARGE))
        with bars_server("recorded", folder) as server:
            idle_mib = server.peak_mib()
            year = messages.StreamBarsRequest(set="large", start="2001-01-01", end="2001-12-31", as_of=ALWAYS)
            one = server.stream(year)
            figures.append(told("a year of 5,000 imported tickers, to its first message", "s", one.first_message_s))
            figures.append(told("a year of 5,000 imported tickers, all of it", "MiB/s", one.size_bytes / MEBIBYTE / one.seconds))
            figures.append(at_most("memory for that year, of three in the set", "MiB", server.peak_mib() - idle_mib, MOST_MEMORY_MIB))
    return figures


def growth() -> Figure:
    """Time of a ticker's session with 2,000 tickers against 20, both from new servers, both of the same span."""
    seconds = dict[str, float]()
    for name, tickers in ((FEW, 20), (MANY, 2_000)):
        takes = list[float]()
        for _ in range(ROUNDS):
            with bars_server("recorded", ".") as server:
                takes.append(server.stream(messages.StreamBarsRequest(set=name, as_of=ALWAYS)).seconds)
        seconds[name] = median(takes) / tickers
    return at_most("time per ticker, 2,000 made-up tickers against 20", "times", seconds[MANY] / seconds[FEW], 1.25)


def write_years(folder: Path, data: MarketSet) -> None:
    """Some years of a made-up universe, as the importer writes a set."""
    parts = list[pl.DataFrame]()
    for year in YEARS:
        rows = data.rows(f"{year}-01-01", f"{year}-12-31", 2**40)
        tickers = range(len(data.instruments))
        bars = data.window(rows, tickers)
        assert bars.volume_plus_one is not None, "a made-up bar is whole"
        columns = {f"{field}_micros": getattr(bars, f"{field}_micros").ravel() for field in ("open", "high", "low", "close")}
        parts.append(
            pl.DataFrame(
                {
                    "session": np.repeat(np.array(data.sessions[rows.start : rows.stop], "datetime64[D]"), len(tickers)),
                    "column": np.tile(np.arange(len(tickers), dtype=np.int32), len(rows)),
                    **columns,
                    "volume_shares": bars.volume_plus_one.ravel() - 1,
                    "quality": bars.quality.ravel(),
                    "known_unix_s": np.repeat(data.close_unix_s[rows.start : rows.stop], len(tickers)),
                }
            )
        )
    rows = data.rows(f"{YEARS[0]}-01-01", f"{YEARS[-1]}-12-31", 2**40)
    dates = np.array(data.sessions[rows.start : rows.stop], "datetime64[D]")
    sessions = pl.DataFrame(
        {
            "session": dates,
            "open_unix_s": data.open_unix_s[rows.start : rows.stop],
            "close_unix_s": data.close_unix_s[rows.start : rows.stop],
        }
    )
    instruments = pl.DataFrame({"ticker": [one.ticker for one in data.instruments]}).with_columns(
        pl.lit("STOCK").alias("kind"),
        pl.lit(dates[0].item()).alias("first_session"),
        pl.lit(dates[-1].item()).alias("last_session"),
        *(pl.lit(True).alias(f"has_{field}") for field in OPTIONAL_FIELDS),
    )
    description = SetDescription("large@000000000000", data.record.source, data.record.licence, "AS_IMPORTED", "XNYS", "made up")
    tables = tables_by_year(pl.concat(parts), {"instruments": instruments, "sessions": sessions})
    write_yearly_set(folder / "large-000000000000", description, tables)
    make_set_ready(folder / "large-000000000000")
