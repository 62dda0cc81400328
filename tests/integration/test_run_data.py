"""What a configuration asks of market data, against a server that has it: the fill policy by what bars have, and modes with their sets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import pytest
import pytest_asyncio

from conftest import StartServer
from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh.trading.v1 import market_data_service_pb2 as messages
from trademesh.trading.v1 import market_data_service_pb2_grpc
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import FieldViolation
from trademesh_kernel.server import registration
from trademesh_runs.run_config import faults_of, normalised
from trademesh_runtime.run_data import faults_of_data
from trademesh_trading.importer import ImportOrder, import_set
from trademesh_trading.market_data_service import MarketDataServicer
from trademesh_trading.store import MarketStore

# exchange-calendars uses what pandas 3 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:Series.values returning:DeprecationWarning")

HEAD = "date,open,high,low,close,volume"
DAYS = ("2024-01-02", "2024-01-03", "2024-01-04")


@pytest_asyncio.fixture
async def trading(start_server: StartServer, tmp_path: Path) -> AsyncIterator[ServiceClient]:
    """A client of a trading_service that has imported bars of AAA with everything, of BBB with closes alone, and of CCC without volumes."""
    prices, sets = tmp_path / "prices", tmp_path / "sets"
    prices.mkdir()
    (prices / "AAA.csv").write_text("\n".join([HEAD, *(f"{day},10,11,9,10.5,100" for day in DAYS)]) + "\n")
    import_set(ImportOrder(prices, "whole", date(2024, 2, 1)), sets)
    (prices / "BBB.csv").write_text("\n".join(["date,close", *(f"{day},20" for day in DAYS)]) + "\n")
    import_set(ImportOrder(prices, "mixed", date(2024, 2, 1)), sets)
    alone = tmp_path / "without-volumes"
    alone.mkdir()
    (alone / "CCC.csv").write_text("\n".join(["date,open,high,low,close", *(f"{day},10,11,9,10.5" for day in DAYS)]) + "\n")
    import_set(ImportOrder(alone, "unmeasured", date(2024, 2, 1)), sets)
    added = registration(
        market_data_service_pb2_grpc.add_MarketDataServiceServicer_to_server,
        MarketDataServicer(MarketStore(sets)),
        messages.DESCRIPTOR,
        "MarketDataService",
    )
    server = await start_server([added])
    async with ServiceClient(server.target, "trading_service") as client:
        yield client


async def examined(trading: ServiceClient, set_name: str, **fields: object) -> tuple[RunConfig, list[FieldViolation]]:
    """A configuration on a set with what was left out filled in, and its faults."""
    config = RunConfig(**fields)  # type: ignore[arg-type]  # whatever a test names
    config.data.set = set_name
    full = normalised(config)
    return full, faults_of(full) + await faults_of_data(trading, full)


@pytest.mark.parametrize(
    ("set_name", "tickers", "fill"),
    [
        ("whole", [], contract.FILL_POLICY_NEXT_OPEN),
        ("unmeasured", [], contract.FILL_POLICY_NEXT_OPEN),
        ("mixed", [], contract.FILL_POLICY_NEXT_CLOSE),
        ("mixed", ["AAA"], contract.FILL_POLICY_NEXT_OPEN),
        ("mixed", ["BBB"], contract.FILL_POLICY_NEXT_CLOSE),
        ("us20", [], contract.FILL_POLICY_NEXT_CLOSE),
        ("wiki5", [], contract.FILL_POLICY_NEXT_OPEN),
    ],
)
async def test_orders_are_filled_at_opens_where_all_the_runs_tickers_have_them(
    trading: ServiceClient, set_name: str, tickers: list[str], fill: int
) -> None:
    config, faults = await examined(trading, set_name, tickers=tickers)
    assert (faults, config.execution.fill) == ([], fill)


@pytest.mark.parametrize("fill", [contract.FILL_POLICY_NEXT_CLOSE, contract.FILL_POLICY_SAME_CLOSE, contract.FILL_POLICY_NEXT_OPEN])
async def test_a_policy_that_was_named_stays(trading: ServiceClient, fill: contract.FillPolicy.ValueType) -> None:
    config, faults = await examined(trading, "whole", execution=contract.ExecutionRules(fill=fill))
    assert (faults, config.execution.fill) == ([], fill)


async def test_fills_at_opens_that_the_data_lacks_are_a_fault_and_never_made_up(trading: ServiceClient) -> None:
    rules = contract.ExecutionRules(fill=contract.FILL_POLICY_NEXT_OPEN)
    _, faults = await examined(trading, "mixed", execution=rules)
    assert [(one.field, "no opens of BBB" in one.description) for one in faults] == [("execution.fill", True)]
    _, faults = await examined(trading, "us20", execution=rules)
    assert [one.field for one in faults] == ["execution.fill"]


async def test_mode_mock_takes_no_recorded_prices_and_a_backtest_no_made_up_ones(trading: ServiceClient) -> None:
    _, faults = await examined(trading, "whole", mode=contract.RUN_MODE_MOCK)
    assert [one.field for one in faults] == ["data.set"]
    config = normalised(RunConfig())
    config.data.set = "mock-20@7"
    assert [one.field for one in faults_of(config)] == ["data.set"]


def test_mode_mock_names_its_set_by_its_seed() -> None:
    config = RunConfig(mode=contract.RUN_MODE_MOCK)
    assert normalised(config).data.set == "mock-20@7"
    config.data.seed = 12
    full = normalised(config)
    assert (full.data.set, full.data.seed) == ("mock-20@12", 12)
    assert normalised(full) == full
    assert faults_of(full) == []
