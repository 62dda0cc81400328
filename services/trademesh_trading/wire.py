"""Translates between what this service knows and its messages."""

from __future__ import annotations

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.trading.v1 import market_data_pb2 as market
from trademesh.trading.v1 import portfolio_service_pb2 as portfolio
from trademesh_ledger.money import divide_half_even
from trademesh_trading.corporate_actions import ActionRecord
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


def position_message(one: events.Position) -> portfolio.PositionRecord:
    """A position and what it is worth."""
    side = 1 if one.quantity > 0 else -1
    record = portfolio.PositionRecord(
        ticker=one.ticker,
        quantity=one.quantity,
        cost_micros=one.cost_micros,
        average_cost_micros=divide_half_even(one.cost_micros * side, one.quantity * side),
    )
    if one.HasField("mark_micros"):
        record.mark_micros = one.mark_micros
        record.value_micros = one.quantity * one.mark_micros
        record.unrealised_micros = record.value_micros - one.cost_micros
    return record
