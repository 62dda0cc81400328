"""Events and orders in words, on one line each, as a terminal shows them: figures of events that have few, and only the name of others.

What a person wrote is made printable (`plain`).
"""

from __future__ import annotations

from decimal import Decimal

from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1 import event_pb2
from trademesh_cli.rpc import plain

MICROS = 1_000_000

_LASTS = {
    event_pb2.TIME_IN_FORCE_GOOD_TILL_CANCELED: " until canceled",
    event_pb2.TIME_IN_FORCE_AT_THE_OPENING: " at the open",
    event_pb2.TIME_IN_FORCE_AT_THE_CLOSE: " at the close",
}
_EXPIRED = {
    event_pb2.EXPIRY_REASON_PARTICIPATION: ", since the session's volume left no room for more",
    event_pb2.EXPIRY_REASON_SPLIT: ", since the ticker was split",
    event_pb2.EXPIRY_REASON_DELISTED: ", since the ticker trades no more",
}


def line_of(event: event_pb2.Event) -> str:
    """An event: its number, session, who, what, and its figures in words."""
    kind = event.WhichOneof("payload") or ""
    text = f"{event.sequence:>8}  {event.session_date or '-':<10}  {event.agent_id or 'desk':<20}  {kind}"
    told = words_of(event)
    return f"{text}  {told}" if told else text


def words_of(event: event_pb2.Event) -> str:
    """What happened, in words; empty for kinds that have too many figures for a line."""
    match event.WhichOneof("payload"):
        case "order_submitted":
            return submitted(event.order_submitted)
        case "order_canceled":
            return f"{event.order_canceled.ticker} by {plain(event.order_canceled.canceled_by)}"
        case "order_expired":
            expired = event.order_expired
            return f"{expired.quantity:,} {expired.ticker}{_EXPIRED.get(expired.reason, '')}"
        case "order_filled":
            return _filled(event.order_filled)
        case "order_rejected":
            rejected = event.order_rejected
            return f"{rejected.quantity:,} {rejected.ticker} {_name(event_pb2.LimitCode, rejected.reason)}"
        case "corporate_actions_applied":
            return "; ".join(map(_action, event.corporate_actions_applied.actions))
        case "margin_called":
            call = event.margin_called
            return (
                f"net asset value {_money(call.nav_micros)} is {_money(call.missing_micros)} below the maintenance margin of "
                f"{_money(call.required_micros)}"
            )
        case "settled":
            return f"net asset value {_money(event.settled.nav_micros)}"
        case "cycle_failed":
            failed = event.cycle_failed
            return f"{_name(event_pb2.Phase, failed.phase)} {failed.reason}, {len(failed.void_order_ids)} orders void"
        case "message_sent":
            sent = event.message_sent
            return f"{plain(sent.sender)} to {', '.join(sent.agent_ids)}: {plain(sent.text)}"
        case "message_answered":
            return plain(event.message_answered.text)
        case "pipeline_state_changed":
            change = event.pipeline_state_changed
            return f"{_name(event_pb2.PipelineState, change.state)} {change.reason}".rstrip()
    return ""


def submitted(one: event_pb2.OrderSubmitted) -> str:
    """An order as it was taken in: what it asks for, how long, and who submitted it."""
    order = one.order
    price = ""
    if order.limit_price_micros:
        price = f" limit {_price(order.limit_price_micros)}"
    elif order.stop_price_micros:
        price = f" stop {_price(order.stop_price_micros)}"
    way = "buy" if order.side == words.SIDE_LONG else "sell"
    lasts = _LASTS.get(order.time_in_force, "")
    return f"{way} {order.quantity} {order.ticker}{price}{lasts}, from session {one.from_session}, by {plain(order.submitted_by)}"


def _filled(fill: event_pb2.OrderFilled) -> str:
    side = words.Side.Name(fill.side).removeprefix("SIDE_")
    text = f"{side} {fill.quantity:,} {fill.ticker} at {_money(fill.price_micros)}"
    if fill.origin == event_pb2.ORDER_ORIGIN_FORCED_LIQUIDATION:
        text += " by force of a margin call"
    return f"{text}, {fill.remaining_quantity:,} stay in force" if fill.remaining_quantity else text


def _action(one: event_pb2.CorporateActionApplied) -> str:
    match one.WhichOneof("action"):
        case "split":
            text = f"{one.ticker} split {one.split.new} for {one.split.old}"
            text += f", {one.quantity_before:,} shares become {one.quantity_after:,}" if one.quantity_before else ""
        case "delisted_at_micros":
            text = f"{one.ticker} delisted at {_price(one.delisted_at_micros)}"
            text += f", {one.quantity_before:,} shares closed" if one.quantity_before else ""
        case _:
            text = f"{one.ticker} dividend {_price(one.dividend_per_share_micros)}"
    return f"{text}, {_money(one.amount_micros)} in cash" if one.amount_micros else text


def _money(micros: int) -> str:
    return f"{micros / MICROS:,.2f}"


def _price(micros: int) -> str:
    """Exactly, with no more digits than it has."""
    return f"{Decimal(micros) / MICROS:f}"


def _name(kind: type[event_pb2.Phase] | type[event_pb2.PipelineState] | type[event_pb2.LimitCode], value: int) -> str:
    """A value without the prefix of its enum."""
    name: str = kind.Name(value)  # type: ignore[arg-type]  # values of that enum
    prefix = {"Phase": "PHASE_", "PipelineState": "PIPELINE_STATE_", "LimitCode": "LIMIT_CODE_"}[kind.DESCRIPTOR.name]
    return name.removeprefix(prefix)
