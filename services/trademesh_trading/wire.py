"""Translates between market data in memory and its messages."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.trading.v1 import market_data_pb2 as market
from trademesh_trading.bar_rows import BarRow
from trademesh_trading.corporate_actions import ActionRecord
from trademesh_trading.market_set import OPTIONAL_FIELDS, InstrumentRecord, MarketSet, Matrix

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


def _bar_kind(fields: frozenset[str]) -> market.BarKind.ValueType:
    if not fields:
        return market.BAR_KIND_CLOSE_ONLY
    return market.BAR_KIND_OHLCV if fields.issuperset(OPTIONAL_FIELDS) else market.BAR_KIND_PARTIAL


def bar_message(bar: BarRow) -> market.Bar:
    """One bar as its message."""
    return market.Bar(
        ticker=bar.ticker,
        session_date=bar.session,
        open_micros=bar.open_micros,
        high_micros=bar.high_micros,
        low_micros=bar.low_micros,
        close_micros=bar.close_micros,
        volume_shares=bar.volume_shares,
        known_at=Timestamp(seconds=bar.known_unix_s),
        qualities=[quality for bit, quality in QUALITY_BITS.items() if bar.quality & bit],
    )


def block_message(data: MarketSet, rows: range, columns: Sequence[int]) -> market.BarBlock:
    """Bars of some rows and columns as one block."""
    bars = data.window(rows, columns)

    def field(matrix: Matrix | None) -> list[int]:
        return [] if matrix is None or not matrix.any() else matrix.ravel().tolist()

    return market.BarBlock(
        session_dates=data.sessions[rows.start : rows.stop],
        known_at_unix_s=data.close_unix_s[rows.start : rows.stop].tolist(),
        tickers=[data.instruments[column].ticker for column in columns],
        # Closes are always there, 0 where a ticker has none: they say how many sessions and tickers the block has.
        close_micros=bars.close_micros.ravel().tolist(),
        open_micros=field(bars.open_micros),
        high_micros=field(bars.high_micros),
        low_micros=field(bars.low_micros),
        volume_shares_plus_one=field(bars.volume_plus_one),
        quality_bits=bars.quality.ravel().tolist() if bars.quality.any() else [],
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
