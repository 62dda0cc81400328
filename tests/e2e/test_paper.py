"""A run in mode PAPER as real processes, by the real clock: it waits for its session, and can be killed and stopped meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mesh_processes import SERVICES, Mesh, running_mesh, wait_until

from finnhub_server import KEY, FinnhubServer
from paper_run import make_bars

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore:Series.values returning:DeprecationWarning"),  # exchange-calendars uses what pandas 3 deprecates
]

PAPER = """---
mode: paper
data: {set: mine}
---
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[FinnhubServer]:
    """A provider of quotes that lives in a thread of its own, as if it were elsewhere."""
    server, loop = FinnhubServer(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="provider")
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    yield server
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture(scope="module")
def paper(provider: FinnhubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Services with a key for it, and bars up to yesterday."""
    folder = tmp_path_factory.mktemp("paper")
    with running_mesh(folder, *SERVICES, TRADEMESH_FINNHUB_API_KEY=KEY, TRADEMESH_QUOTES_URL=provider.url) as mesh:
        bars = make_bars(folder / "bars", (datetime.now(UTC) - timedelta(days=1)).date())
        imported = mesh.cli("data", "import", str(bars), "--name", "mine")
        assert imported.returncode == 0, imported.stderr
        (folder / "PAPER.md").write_text(PAPER)
        yield mesh


def test_a_run_waits_for_its_session_survives_a_kill_and_stops_at_once(paper: Mesh, provider: FinnhubServer) -> None:
    started = paper.cli("run", "start", "PAPER.md", "--run-id", "by-the-clock", "--wait")
    assert started.returncode == 0, started.stderr
    run = paper.json("run", "show", "by-the-clock")["run"]
    assert run["state"] == "RUN_STATE_RUNNING"
    wait_until(lambda: provider.symbols == {"AAPL", "MSFT"}, 20, "quotes of the run's tickers")
    quotes = paper.grpcurl("trading", "trademesh.trading.v1.MarketDataService/GetQuotes", {"tickers": ["AAPL"]})
    assert quotes["provider"]["link"] == "QUOTE_LINK_CONNECTED"

    os.kill(int(run["pid"]), signal.SIGKILL)
    wait_until(lambda: alive_after(paper, int(run["generation"])), 30, "the next generation")
    stopped = paper.cli("run", "stop", "by-the-clock", timeout_s=30)
    assert stopped.returncode == 0, stopped.stderr
    assert paper.json("run", "show", "by-the-clock")["run"]["state"] == "RUN_STATE_STOPPED"
    key_seen = [path for path in Path(paper.folder).rglob("*.log") if KEY in path.read_text(errors="replace")]
    assert key_seen == []


def alive_after(mesh: Mesh, generation: int) -> bool:
    """True once a later generation of its gateway serves."""
    run = mesh.json("run", "show", "by-the-clock")["run"]
    return int(run["generation"]) > generation and run["state"] == "RUN_STATE_RUNNING"


def test_a_set_that_ends_years_ago_is_refused_with_the_reason(paper: Mesh) -> None:
    (paper.folder / "OLD.md").write_text("---\nmode: paper\ntickers: [AAPL]\n---\n")
    refused = paper.cli("run", "start", "OLD.md")
    assert refused.returncode != 0
    assert "data.set: set us20 ends on 2022-12-28" in refused.stderr
