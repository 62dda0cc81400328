"""Translates between market data in memory, live quotes among it, and its messages."""

from __future__ import annotations

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.trading.v1 import market_data_pb2 as market
from trademesh.trading.v1 import quote_pb2 as live
from trademesh_trading.corporate_actions import ActionRecord
from trademesh_trading.live_quotes import Line, Link
from trademesh_trading.quote_provider import Trade
from trademesh_trading.store import OPTIONAL_FIELDS, InstrumentRecord, MarketSet, Matrix

QUALITY_BITS = {1: market.BAR_QUALITY_SUSPECT, 2: market.BAR_QUALITY_COARSE_TICK}


def set_message(data: MarketSet) -> market.DataSet:
    """A set as its message."""
    record = data.record
    return market.DataSet(
        name=record.name,
        snapshot=record.snapshot,
        source=record.source,
        licence=record.licence,
        adjustment=market.Adjustment.Value(f"ADJUSTMENT_{record.adjustment}"),
        first_session=data.sessions[0],
        last_session=data.sessions[-1],
        calendar=record.calendar,
    )


def instrument_message(value: InstrumentRecord) -> market.Instrument:
    """An instrument as its message."""
    return market.Instrument(
        ticker=value.ticker,
        kind=market.InstrumentKind.Value(f"INSTRUMENT_KIND_{value.kind}"),
        first_session=value.first_session,
        last_session=value.last_session,
        bar_kind=_bar_kind(value.fields),
    )


def instant_ns(unix_ns: int) -> Timestamp:
    """An instant, from nanoseconds since 1970."""
    return Timestamp(seconds=unix_ns // 1_000_000_000, nanos=unix_ns % 1_000_000_000)


def quote_message(line: Line, now_unix_ns: int, *, stale: bool) -> live.Quote:
    """The newest trade of a ticker of which there is one."""
    trade = line.tape.last
    assert trade is not None
    quote = live.Quote(
        ticker=trade.ticker,
        price_micros=trade.price_micros,
        volume_shares=trade.volume_shares,
        traded_at=instant_ns(trade.traded_unix_ms * 1_000_000),
        received_at=instant_ns(line.received_unix_ns),
        stale=stale,
    )
    quote.age.FromNanoseconds(max(0, now_unix_ns - trade.traded_unix_ms * 1_000_000))
    return quote


def around_message(ticker: str, line: Line | None, around_unix_s: int) -> live.TradesAround:
    """The trades of a ticker around an instant; None: nothing is known of it."""
    if line is None:
        return live.TradesAround(ticker=ticker)
    heard = line.heard_since_unix_ns
    return live.TradesAround(
        ticker=ticker,
        before=_print(line.tape.last_until(around_unix_s)),
        after=_print(line.tape.first_from(around_unix_s)),
        heard_since=None if heard is None else instant_ns(heard),
    )


def _print(trade: Trade | None) -> live.TradePrint | None:
    if trade is None:
        return None
    return live.TradePrint(
        price_micros=trade.price_micros,
        volume_shares=trade.volume_shares,
        traded_at=instant_ns(trade.traded_unix_ms * 1_000_000),
    )


def provider_message(name: str, link: Link) -> live.QuoteProvider:
    """How the provider of live quotes stands."""
    return live.QuoteProvider(
        name=name,
        link=live.QUOTE_LINK_CONNECTED if link.connected else live.QUOTE_LINK_DISCONNECTED,
        since=instant_ns(link.since_unix_ns),
        reason=link.why,
        disconnects=link.disconnects,
        bad_frames=link.bad_frames,
        duplicates=link.duplicates,
        late=link.late,
        refused=link.refused,
    )


def _bar_kind(fields: frozenset[str]) -> market.BarKind.ValueType:
    if not fields:
        return market.BAR_KIND_CLOSE_ONLY
    return market.BAR_KIND_OHLCV if fields.issuperset(OPTIONAL_FIELDS) else market.BAR_KIND_PARTIAL


def bar_message(data: MarketSet, row: int, column: int) -> market.Bar | None:
    """One bar, or None where the source has none."""

    def field(matrix: Matrix | None, less: int = 0) -> int | None:
        return None if matrix is None or matrix[row, column] == 0 else int(matrix[row, column]) - less

    close = field(data.close_micros)
    if close is None:
        return None
    flags = int(data.quality[row, column])
    return market.Bar(
        ticker=data.instruments[column].ticker,
        session_date=data.sessions[row],
        open_micros=field(data.open_micros),
        high_micros=field(data.high_micros),
        low_micros=field(data.low_micros),
        close_micros=close,
        volume_shares=field(data.volume_plus_one, less=1),
        known_at=Timestamp(seconds=int(data.close_unix_s[row])),
        qualities=[quality for bit, quality in QUALITY_BITS.items() if flags & bit],
    )


def block_message(data: MarketSet, rows: range, columns: list[int]) -> market.BarBlock:
    """Bars of some rows and columns as one block."""

    def field(matrix: Matrix | None) -> list[int]:
        if matrix is None:
            return []
        part = matrix[rows.start : rows.stop][:, columns]
        return np.ascontiguousarray(part).ravel().tolist() if part.any() else []

    flags = data.quality[rows.start : rows.stop][:, columns].ravel()
    return market.BarBlock(
        session_dates=data.sessions[rows.start : rows.stop],
        known_at_unix_s=data.close_unix_s[rows.start : rows.stop].tolist(),
        tickers=[data.instruments[column].ticker for column in columns],
        # Closes are always there, 0 where a ticker has none: they say how many sessions and tickers the block has.
        close_micros=data.close_micros[rows.start : rows.stop][:, columns].ravel().tolist(),
        open_micros=field(data.open_micros),
        high_micros=field(data.high_micros),
        low_micros=field(data.low_micros),
        volume_shares_plus_one=field(data.volume_plus_one),
        quality_bits=flags.tolist() if flags.any() else [],
    )


def action_message(value: ActionRecord) -> market.CorporateAction:
    """A corporate action as its message."""
    message = market.CorporateAction(ticker=value.ticker, ex_date=value.ex_date, known_at=Timestamp(seconds=value.known_unix_s))
    if value.kind == "dividend":
        message.dividend.CopyFrom(market.Dividend(per_share_micros=value.dividend_micros))
    elif value.kind == "split":
        message.split.CopyFrom(market.Split(new_shares=value.split_new, old_shares=value.split_old))
    else:
        message.delisting.CopyFrom(market.Delisting(last_price_micros=value.last_price_micros))
    return message
