"""What mode PAPER asks of market data: sessions to come, bars up to yesterday, and a provider of live quotes. Fills in which sessions are traded.

A run that starts after a session has opened begins with the next one. Its bars must reach the session before the first, or nearly: a desk
that decides on prices of years ago would be right about a market that is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh.trading.v1 import market_data_pb2 as market
from trademesh.trading.v1 import market_data_service_pb2 as data
from trademesh.trading.v1 import market_data_service_pb2_grpc
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import FieldViolation, RemoteError
from trademesh_kernel.validation import is_date

MOST_DAYS_MISSING = 10
"""So many calendar days may lie between the last bar and the first session that is traded: a week's holidays, or a few bars too few."""

DEFAULT_DAYS = 365
"""How far a run goes that names no end."""


async def faults_of_paper(trading: ServiceClient, config: RunConfig, found: market.DataSet, now_unix_s: float) -> list[FieldViolation]:
    """What stands in the way of trading a configuration's tickers from now on. Fills in its first and last session.

    Raises:
        DependencyUnavailable: trading_service does not answer.
    """
    stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
    faults = await _faults_of_quotes(trading, stub, config)
    if not all(is_date(text) for text in (config.sessions.start, config.sessions.end) if text):
        return faults  # It is said already.
    today = datetime.fromtimestamp(now_unix_s, UTC).date()
    named = config.sessions.start
    last = config.sessions.end or (max(date.fromisoformat(named or str(today)), today) + timedelta(days=DEFAULT_DAYS)).isoformat()
    # A session of another day's date may be going on, and a week back there is one in any case, for what is said of a start that has passed.
    first = (today - timedelta(days=7)).isoformat()
    try:
        request = data.ListSessionsRequest(calendar=config.sessions.calendar, start=first, end=max(first, last))
        sessions = list((await trading.call(stub.ListSessions, request)).sessions)
    except RemoteError as error:
        field = "sessions.calendar" if error.remote_reason == "DATA_ABSENT" else "sessions.end"
        return [*faults, FieldViolation(field, error.message)]
    to_come = [one for one in sessions if one.open_at.seconds > now_unix_s and one.session_date >= named]
    faults += _faults_of_start(named, sessions, to_come, now_unix_s)
    if not to_come:
        return [*faults, FieldViolation("sessions.end", "no session opens from now until then: mode paper trades sessions to come")]
    config.sessions.start, config.sessions.end = to_come[0].session_date, to_come[-1].session_date
    return faults + _faults_of_bars(found, config.sessions.start)


async def _faults_of_quotes(
    trading: ServiceClient, stub: market_data_service_pb2_grpc.MarketDataServiceStub, config: RunConfig
) -> list[FieldViolation]:
    if not config.tickers:
        return []
    try:
        await trading.call(stub.GetQuotes, data.GetQuotesRequest(tickers=config.tickers))
    except RemoteError as error:
        if error.remote_reason == "NOT_CONFIGURED":
            return [FieldViolation("mode", error.message)]
        return [FieldViolation("tickers", error.message)]
    return []


def _faults_of_start(
    named: str, sessions: Sequence[data.Session], to_come: Sequence[data.Session], now_unix_s: float
) -> list[FieldViolation]:
    """A first session that was named and has opened: it is not traded, and nobody is to think that it was."""
    opened = [one for one in sessions if named and one.session_date >= named and one.open_at.seconds <= now_unix_s]
    if not opened:
        return []
    following = f", the next is {to_come[0].session_date}" if to_come else ""
    return [FieldViolation("sessions.start", f"session {opened[0].session_date} has opened already{following}")]


def _faults_of_bars(found: market.DataSet, first: str) -> list[FieldViolation]:
    missing = (date.fromisoformat(first) - date.fromisoformat(found.last_session)).days
    if missing <= MOST_DAYS_MISSING:
        return []
    text = f"set {found.name} ends on {found.last_session}, and the first session is {first}: decisions need bars up to the session before"
    return [FieldViolation("data.set", f"{text} ({MOST_DAYS_MISSING} days may be missing). Import newer ones: trademesh data import")]
