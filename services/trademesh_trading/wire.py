"""Translates between what this service knows, live quotes among it, and its messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.trading.v1 import market_data_pb2 as market
from trademesh.trading.v1 import market_data_service_pb2 as messages
from trademesh.trading.v1 import portfolio_service_pb2 as portfolio
from trademesh.trading.v1 import quote_pb2 as live
from trademesh_kernel.wire_format import prefix
from trademesh_ledger.money import divide_half_even
from trademesh_trading.bar_matrices import Flags, Matrix, Revisions
from trademesh_trading.bar_rows import BarRow
from trademesh_trading.corporate_actions import ActionRecord
from trademesh_trading.known_tables import STATEMENT_FIELDS
from trademesh_trading.live_quotes import Line, Link
from trademesh_trading.market_set import OPTIONAL_FIELDS, InstrumentRecord, MarketSet
from trademesh_trading.packed_columns import PackedBars, Pieces
from trademesh_trading.quote_provider import Trade

PERIODS = {3: market.FISCAL_PERIOD_QUARTER, 6: market.FISCAL_PERIOD_HALF_YEAR, 12: market.FISCAL_PERIOD_YEAR}
TRADE_CODES = {"P": market.INSIDER_TRADE_CODE_PURCHASE, "S": market.INSIDER_TRADE_CODE_SALE}
BLOCK_FIELD = {field.name: field.number for field in market.BarBlock.DESCRIPTOR.fields}
PACKED_FIELDS = {"volume_plus_one": "volume_shares_plus_one", "quality": "quality_bits"}
"""Names in a BarBlock, where they are others than in `Bars`."""
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
        tables=[
            *([market.DATA_TABLE_CORPORATE_ACTIONS] if data.actions else []),
            *(market.DataTable.Value(f"DATA_TABLE_{name.upper()}") for name in data.tables),
        ],
    )


def instrument_message(value: InstrumentRecord) -> market.Instrument:
    """An instrument as its message."""
    return market.Instrument(
        ticker=value.ticker,
        kind=market.InstrumentKind.Value(f"INSTRUMENT_KIND_{value.kind}"),
        first_session=value.first_session,
        last_session=value.last_session,
        bar_kind=_bar_kind(value.fields),
        has_opens="open" in value.fields,
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


def around_message(ticker: str, line: Line | None, around_unix_s: int, since_unix_s: int | None) -> live.TradesAround:
    """The trades of a ticker around an instant, and the prices since an earlier one, if there is one; no line: nothing is known of it."""
    if line is None:
        return live.TradesAround(ticker=ticker)
    heard = line.heard_since_unix_ns
    high_low = None if since_unix_s is None else line.tape.range_between(since_unix_s, around_unix_s)
    return live.TradesAround(
        ticker=ticker,
        before=_print(line.tape.last_until(around_unix_s)),
        after=_print(line.tape.first_from(around_unix_s)),
        heard_since=None if heard is None else instant_ns(heard),
        high_micros=None if high_low is None else high_low[0],
        low_micros=None if high_low is None else high_low[1],
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


@dataclass(frozen=True)
class EncodedBlock:
    """A StreamBarsResponse: pieces that follow each other, and where in it the content of each packed field begins."""

    pieces: Pieces
    begins: Mapping[str, int]


class BlockResponses:
    """Encoded StreamBarsResponses of one stream."""

    def __init__(self, data: MarketSet, columns: Sequence[int], as_of_unix_s: int) -> None:
        self._data = data
        self._columns = columns
        self._as_of_unix_s = as_of_unix_s

    @cached_property
    def _tickers(self) -> bytes:
        """Once for all blocks: of five thousand they are a third of what a block costs whose rows were packed beforehand."""
        return market.BarBlock(tickers=[self._data.instruments[column].ticker for column in self._columns]).SerializeToString()

    def response(self, rows: range) -> bytes:
        """Bars of some rows, and what of them is revised by then."""
        ready = self._data.message(rows, self._columns)
        return b"".join(self.encoded(rows, self._data.packed(rows, self._columns)).pieces) if ready is None else ready

    def encoded(self, rows: range, bars: PackedBars) -> EncodedBlock:
        """The same in pieces, of bars that are at hand."""
        revised = None if bars.revisions is None else bars.revisions.known_by(self._as_of_unix_s)
        block = market.BarBlock(
            session_dates=self._data.sessions[rows.start : rows.stop],
            known_at_unix_s=self._data.close_unix_s[rows.start : rows.stop].tolist(),
            revisions=_revisions_message(revised, len(self._columns)) if revised is not None and len(revised.rows) else None,
        )
        parts: Pieces = [block.SerializeToString(), self._tickers]
        size, begins = sum(map(len, parts)), dict[str, int]()
        for field, pieces in bars.fields.items():
            of_field = sum(map(len, pieces))
            head = prefix(BLOCK_FIELD[PACKED_FIELDS.get(field, field)], of_field)
            begins[field] = size + len(head)
            size = begins[field] + of_field
            parts += (head, *pieces)
        head = prefix(messages.StreamBarsResponse.BLOCK_FIELD_NUMBER, size)
        return EncodedBlock([head, *parts], {field: len(head) + begin for field, begin in begins.items()})


def _revisions_message(revisions: Revisions, width: int) -> market.BarRevisions:
    return market.BarRevisions(
        known_at_unix_s=revisions.known_unix_s.tolist(),
        rows=(revisions.rows * width + revisions.columns).tolist(),
        close_micros=revisions.close_micros.tolist(),
        open_micros=_packed(revisions.open_micros),
        high_micros=_packed(revisions.high_micros),
        low_micros=_packed(revisions.low_micros),
        volume_shares_plus_one=_packed(revisions.volume_plus_one),
        quality_bits=_packed(revisions.quality),
    )


def _packed(field: Matrix | Flags | None) -> list[int]:
    """A column of a message: empty where nothing is in it."""
    return [] if field is None or not field.any() else field.ravel().tolist()


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


def statement_message(row: Mapping[str, Any]) -> market.FinancialStatement:
    """A financial statement as its message, from a row of the table `fundamentals`."""
    return market.FinancialStatement(
        ticker=row["ticker"],
        fiscal_period_end=row["fiscal_period_end"].isoformat(),
        period=PERIODS[row["period_months"]],
        known_at=Timestamp(seconds=row["known_unix_s"]),
        **{field: row[field] for field in STATEMENT_FIELDS},
    )


def insider_trade_message(row: Mapping[str, Any]) -> market.InsiderTrade:
    """An insider's trade as its message, from a row of the table `insider_trades`."""
    return market.InsiderTrade(
        ticker=row["ticker"],
        trade_id=row["trade_id"] or "",
        transaction_date=row["transaction_date"].isoformat(),
        code=TRADE_CODES[row["code"]],
        shares=row["shares"],
        price_micros=row["price_micros"],
        insider=row["insider"] or "",
        role=row["role"] or "",
        known_at=Timestamp(seconds=row["known_unix_s"]),
    )
