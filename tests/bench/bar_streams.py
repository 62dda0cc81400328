"""StreamBars of large universes: against a stream of ready messages, with the memory that the server needs, and how time grows with tickers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import grpc
import numpy as np
import polars as pl
import psutil
from google.protobuf.timestamp_pb2 import Timestamp

from bench.figures import Figure, against, at_most, told
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

    def cpu_s(self) -> float:
        """Processor time that the process has taken so far."""
        return sum(psutil.Process(self._process.pid).cpu_times()[:2])

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


@dataclass(frozen=True)
class Rounds:
    """Streams of one request by new servers, each in turn with one of ready messages, and what they took of their servers."""

    streams: list[Stream]
    again: list[Stream]
    bare: list[Stream]
    cpu_s: list[float]
    """Of the first stream."""
    grown_mib: float
    """Memory, by all streams of a server; the most of all rounds."""


def rounds(what: str, request: messages.StreamBarsRequest, ready: BarsServer) -> Rounds:
    """Some rounds. A new server each time: what was read before is partly at hand, as the second stream of each shows."""
    found = Rounds([], [], [], [], 0.0)
    for _ in range(ROUNDS):
        with bars_server("recorded", what) as server:
            idle_mib, idle_s = server.peak_mib(), server.cpu_s()
            found.streams.append(server.stream(request))
            found.cpu_s.append(server.cpu_s() - idle_s)
            found.again.append(server.stream(request))
            found = replace(found, grown_mib=max(found.grown_mib, server.peak_mib() - idle_mib))
        found.bare.append(ready.stream(messages.StreamBarsRequest(set=MANY, as_of=ALWAYS)))
    return found


def rates(streams: Sequence[Stream]) -> list[float]:
    """MiB/s of each."""
    return [one.size_bytes / MEBIBYTE / one.seconds for one in streams]


def bar_figures() -> list[Figure]:
    """All of them; two minutes."""
    figures = list[Figure]()
    with bars_server("ready", MANY) as ready, tempfile.TemporaryDirectory() as folder:
        made_up = rounds(".", messages.StreamBarsRequest(set=MANY, as_of=ALWAYS), ready)
        figures += told_of(f"bars of {MANY}, 33 years", made_up)
        figures.append(growth())
        written = write_years(Path(folder), MarketStore().get(LARGE))
        year = messages.StreamBarsRequest(set="large", start="2001-01-01", end="2001-12-31", as_of=ALWAYS)
        figures += told_of("a year of 5,000 tickers, imported by an older version", rounds(folder, year, ready))
        make_set_ready(written)
        one = rounds(folder, year, ready)
        figures += told_of("a year of 5,000 imported tickers", one)
        figures.append(told("to its first message", "s", median(stream.first_message_s for stream in one.streams)))
        everything = rounds(folder, messages.StreamBarsRequest(set="large", as_of=ALWAYS), ready)
        figures += told_of("all three years of the set", everything)
        figures.append(against("the same again, from the same server", "MiB/s", rates(everything.again), rates(everything.bare)))
        half = [instrument.ticker for instrument in MarketStore(Path(folder)).get("large").instruments][::2]
        some = rounds(folder, messages.StreamBarsRequest(set="large", as_of=ALWAYS, tickers=half), ready)
        figures += told_of("every second ticker of them", some)
    return figures


def told_of(name: str, seen: Rounds) -> list[Figure]:
    """Rate, processor and memory of some rounds."""
    sent = seen.streams[0].size_bytes / MEBIBYTE
    return [
        against(f"{name}, against ready messages", "MiB/s", rates(seen.streams), rates(seen.bare)),
        told(f"for each CPU second of the server, of {sent:,.0f} MiB", "MiB", sent / median(seen.cpu_s)),
        at_most("memory for it", "MiB", seen.grown_mib, MOST_MEMORY_MIB),
    ]


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


def write_years(folder: Path, data: MarketSet) -> Path:
    """Some years of a made-up universe, as the importer writes a set before it packs it."""
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
    written = folder / "large-000000000000"
    write_yearly_set(written, description, tables)
    return written
