"""What a configuration asks of market data, held against the set that it names: tickers, sessions, the prices that its orders are to get.

Fills in what was left out, so that BOOTSTRAP.md says all that a run rests on. What can be wrong without asking anybody is
`trademesh_runs.run_config`'s.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh.trading.v1 import market_data_pb2 as market
from trademesh.trading.v1 import market_data_service_pb2 as data
from trademesh.trading.v1 import market_data_service_pb2_grpc
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import FieldViolation, RemoteError
from trademesh_runtime.paper_data import faults_of_paper

RAW_PRICES = (
    "set {set} has prices as they were traded, and does not tell splits and dividends: a split would count as a loss. "
    "Import it with its corporate actions, or one whose prices are adjusted"
)


async def faults_of_data(trading: ServiceClient, config: RunConfig, now_unix_s: float | None = None) -> list[FieldViolation]:
    """What the data set lacks. Fills in the set's hash, and the tickers, the fill policy and the sessions that were left out.

    `now_unix_s`: the time for mode PAPER, if not the clock's.

    Raises:
        DependencyUnavailable: trading_service does not answer.
    """
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    try:
        listing = (await trading.call(stub.ListInstruments, data.ListInstrumentsRequest(set=config.data.set))).sets[0]
    except RemoteError as error:
        return [FieldViolation("data.set", error.message)]
    faults = _faults_of_set(config, listing.set)
    instruments = {instrument.ticker: instrument for instrument in listing.instruments}
    faults += _faults_of_tickers(config, instruments)
    faults += _faults_of_fill(config, instruments)
    if config.mode == contract.RUN_MODE_PAPER:
        return faults + await faults_of_paper(trading, config, listing.set, time.time() if now_unix_s is None else now_unix_s)
    faults += _faults_of_sessions(config, listing.set)
    if not faults:
        span = data.ListSessionsRequest(set=config.data.set, start=config.sessions.start, end=config.sessions.end)
        if not (await trading.call(stub.ListSessions, span)).sessions:
            faults.append(FieldViolation("sessions", "there is no session between start and end"))
    return faults


def _faults_of_set(config: RunConfig, found: market.DataSet) -> list[FieldViolation]:
    faults = list[FieldViolation]()
    config.sessions.calendar = config.sessions.calendar or found.calendar
    if config.sessions.calendar != found.calendar:
        faults.append(FieldViolation("sessions.calendar", f"set {found.name} has the sessions of {found.calendar}"))
    if config.data.snapshot and config.data.snapshot != found.snapshot:
        faults.append(FieldViolation("data.snapshot", f"set {found.name} is {found.snapshot} now"))
    if found.adjustment == market.ADJUSTMENT_NONE and market.DATA_TABLE_CORPORATE_ACTIONS not in found.tables:
        faults.append(FieldViolation("data.set", RAW_PRICES.format(set=found.name)))
    # The full name: a short one may mean another set when the run is resumed.
    config.data.set, config.data.snapshot = found.name, found.snapshot
    return faults


def _faults_of_tickers(config: RunConfig, instruments: Mapping[str, market.Instrument]) -> list[FieldViolation]:
    if not config.tickers:
        config.tickers.extend(ticker for ticker, one in instruments.items() if one.kind == market.INSTRUMENT_KIND_STOCK)
    faults = list[FieldViolation]()
    for ticker in config.tickers:
        if ticker not in instruments:
            faults.append(FieldViolation("tickers", f"set {config.data.set} has no {ticker}"))
        elif instruments[ticker].kind == market.INSTRUMENT_KIND_INDEX:
            faults.append(FieldViolation("tickers", f"{ticker} is an index and cannot be traded"))
    return faults


def _faults_of_fill(config: RunConfig, instruments: Mapping[str, market.Instrument]) -> list[FieldViolation]:
    """Orders are filled at opens where there are some, unless another policy was named; a price that the data lacks is never made up."""
    closed = [one for one in config.tickers if one in instruments and not instruments[one].has_opens]
    if config.mode == contract.RUN_MODE_PAPER:
        config.execution.fill = config.execution.fill or contract.FILL_POLICY_NEXT_OPEN
        return []
    if not config.execution.fill:
        config.execution.fill = contract.FILL_POLICY_NEXT_CLOSE if closed else contract.FILL_POLICY_NEXT_OPEN
    if config.execution.fill == contract.FILL_POLICY_NEXT_OPEN and closed:
        return [FieldViolation("execution.fill", f"set {config.data.set} has no opens of {', '.join(closed[:5])}: use next_close")]
    return []


def _faults_of_sessions(config: RunConfig, found: market.DataSet) -> list[FieldViolation]:
    faults = list[FieldViolation]()
    config.sessions.start = config.sessions.start or found.first_session
    config.sessions.end = config.sessions.end or found.last_session
    if config.sessions.start < found.first_session:
        faults.append(FieldViolation("sessions.start", f"set {found.name} begins on {found.first_session}"))
    if config.sessions.end > found.last_session:
        faults.append(FieldViolation("sessions.end", f"set {found.name} ends on {found.last_session}"))
    return faults
