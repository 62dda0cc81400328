"""What must be right for a run in mode PAPER, said all at once when it is started."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from conftest import StartServer
from paper_run import PaperMesh, paper_mesh
from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh.trading.v1 import market_data_service_pb2, market_data_service_pb2_grpc
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.server import registration
from trademesh_runs.run_config import faults_of, normalised
from trademesh_runtime.run_data import faults_of_data
from trademesh_trading.market_data_service import MarketDataServicer
from trademesh_trading.store import MarketStore

pytestmark = pytest.mark.filterwarnings(
    "ignore:Series.values returning:DeprecationWarning"
)  # exchange-calendars uses what pandas 3 deprecates

BEFORE_THE_OPEN = "2026-11-27T14:29:59"
AT_THE_OPEN = "2026-11-27T14:30:00"


@dataclass
class Judged:
    """A configuration as StartRun would leave it, and what is wrong with it."""

    config: RunConfig
    faults: dict[str, str]


Judge = Callable[..., Awaitable[Judged]]


async def judged(mesh: PaperMesh, target: str, config: RunConfig) -> Judged:
    """What StartRun would say."""
    full = normalised(config)
    async with ServiceClient(target, "trading_service") as trading:
        faults = faults_of(full) + await faults_of_data(trading, full, mesh.clock.unix_s)
    return Judged(full, {fault.field: fault.description for fault in faults})


@pytest_asyncio.fixture
async def judge(start_server: StartServer, tmp_path: Path) -> AsyncIterator[Judge]:
    """Judges a configuration at an instant."""
    async with AsyncExitStack() as running:

        async def judge(now: str, change: Callable[[RunConfig], None] = lambda _: None, *, last_bar: str = "2026-11-25") -> Judged:
            mesh = await running.enter_async_context(paper_mesh(start_server, tmp_path, now, last_bar))
            config = RunConfig(mode=contract.RUN_MODE_PAPER)
            config.data.set = "mine"
            change(config)
            return await judged(mesh, mesh.trading.target, config)

        yield judge


async def test_a_run_that_starts_before_the_open_begins_with_that_session_and_fills_at_opens(judge: Judge) -> None:
    found = await judge(BEFORE_THE_OPEN)
    assert found.faults == {}
    assert (found.config.sessions.start, found.config.sessions.calendar) == ("2026-11-27", "XNYS")
    assert found.config.sessions.end == "2027-11-26"
    assert found.config.execution.fill == contract.FILL_POLICY_NEXT_OPEN
    assert list(found.config.tickers) == ["AAPL", "MSFT"]


async def test_a_run_that_starts_at_the_open_or_later_begins_with_the_next_session(judge: Judge) -> None:
    found = await judge(AT_THE_OPEN)
    assert found.faults == {}
    assert found.config.sessions.start == "2026-11-30"


async def test_a_session_that_is_named_and_has_opened_is_a_fault_that_names_the_next(judge: Judge) -> None:
    found = await judge(AT_THE_OPEN, lambda config: setattr(config.sessions, "start", "2026-11-27"))
    assert found.faults == {"sessions.start": "session 2026-11-27 has opened already, the next is 2026-11-30"}


async def test_a_day_without_a_session_means_the_next_one(judge: Judge) -> None:
    def weekend(config: RunConfig) -> None:
        config.sessions.start, config.sessions.end = "2026-11-28", "2026-12-06"

    found = await judge(BEFORE_THE_OPEN, weekend)
    assert found.faults == {}
    assert (found.config.sessions.start, found.config.sessions.end) == ("2026-11-30", "2026-12-04")


async def test_an_end_in_the_past_is_a_fault(judge: Judge) -> None:
    found = await judge(AT_THE_OPEN, lambda config: setattr(config.sessions, "end", "2026-11-27"))
    assert list(found.faults) == ["sessions.end"]


async def test_bars_that_end_long_before_are_a_fault(judge: Judge) -> None:
    found = await judge(BEFORE_THE_OPEN, last_bar="2026-11-16")
    assert list(found.faults) == ["data.set"]
    assert "trademesh data import" in found.faults["data.set"]


async def test_all_that_paper_cannot_do_is_said_at_once(judge: Judge) -> None:
    def wrong(config: RunConfig) -> None:
        config.execution.fill = contract.FILL_POLICY_SAME_CLOSE
        config.execution.participation = 0.1
        config.pipeline.pace_sessions_per_s = 2
        config.sessions.start = "2026-11-20"
        config.tickers.extend(["AAPL", "NONE"])

    found = await judge(AT_THE_OPEN, wrong)
    assert set(found.faults) == {
        "execution.fill",
        "execution.participation",
        "pipeline.pace_sessions_per_s",
        "sessions.start",
        "tickers",
    }


async def test_without_a_provider_the_variable_to_set_is_named(start_server: StartServer, tmp_path: Path) -> None:
    async with paper_mesh(start_server, tmp_path, BEFORE_THE_OPEN) as mesh:
        server = await start_server(
            [
                registration(
                    market_data_service_pb2_grpc.add_MarketDataServiceServicer_to_server,
                    MarketDataServicer(MarketStore(tmp_path / "sets")),
                    market_data_service_pb2.DESCRIPTOR,
                    "MarketDataService",
                )
            ]
        )
        config = RunConfig(mode=contract.RUN_MODE_PAPER)
        config.data.set = "mine"
        found = await judged(mesh, server.target, config)
        assert list(found.faults) == ["mode"]
        assert "TRADEMESH_FINNHUB_API_KEY" in found.faults["mode"]


async def test_more_tickers_than_the_providers_plan_allows_are_a_fault(start_server: StartServer, tmp_path: Path) -> None:
    async with paper_mesh(start_server, tmp_path, BEFORE_THE_OPEN) as mesh:
        mesh.quotes._most = 1
        config = RunConfig(mode=contract.RUN_MODE_PAPER)
        config.data.set = "mine"
        found = await judged(mesh, mesh.trading.target, config)
    assert list(found.faults) == ["tickers"]
    assert "TRADEMESH_QUOTES_MAX_SYMBOLS" in found.faults["tickers"]


async def test_the_calendar_of_another_exchange_is_a_fault(judge: Judge) -> None:
    found = await judge(BEFORE_THE_OPEN, lambda config: setattr(config.sessions, "calendar", "XLON"))
    assert list(found.faults) == ["sessions.calendar"]
