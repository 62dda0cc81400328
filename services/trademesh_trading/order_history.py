"""Orders of a run and what became of them, from its events as they come. Nothing is decided here: each event says what happened.

An order that was given up with its cycle before the limits were applied is told by its name alone. What was ordered is then in the session's
decisions, which are too many to be read for the few that need them: `add_decisions` takes those in afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.trading.v1 import portfolio_service_pb2 as messages
from trademesh_ledger.money import divide_half_even

ORDER_KINDS = (
    *("order_submitted", "orders_gated", "approval_requested", "approval_resolved"),
    *("order_filled", "order_rejected", "order_canceled", "order_expired", "cycle_failed"),
)
IN_FORCE = frozenset({messages.ORDER_STATE_NEW, messages.ORDER_STATE_PENDING_APPROVAL, messages.ORDER_STATE_PARTIALLY_FILLED})


class OrderHistory:
    """Orders by their ids, oldest first."""

    def __init__(self) -> None:
        self.orders: dict[str, messages.OrderRecord] = {}
        self.through = 0
        """The sequence up to which events were taken in."""
        self.undescribed: set[str] = set()
        """Orders of which only the name is known."""
        self._paid: dict[str, int] = {}
        """Shares times price of an order's fills."""

    def add(self, event: events.Event) -> None:
        """Takes in one event of ORDER_KINDS, oldest first; others are passed over."""
        kind = event.WhichOneof("payload") or ""
        handler: Callable[[events.Event, Any], None] | None = getattr(self, f"_on_{kind}", None)
        if handler is not None:
            handler(event, getattr(event, kind))

    def add_decisions(self, event: events.Event) -> None:
        """Takes in what was ordered from a `decisions` event, for orders of which only the name is known."""
        for decision in event.decisions.decisions:
            order_id = f"{event.session_date}/{decision.ticker}"
            if order_id in self.undescribed and decision.quantity:
                self.undescribed.discard(order_id)
                record = self.orders[order_id]
                side = words.SIDE_LONG if decision.action == words.ACTION_LONG else words.SIDE_SHORT
                record.order.MergeFrom(events.Order(ticker=decision.ticker, side=side, quantity=decision.quantity))
                record.allowed_quantity = decision.quantity

    def _touched(self, event: events.Event, order_id: str) -> messages.OrderRecord:
        """The record of an order, a new one if there is none, which an event tells of."""
        record = self.orders.get(order_id)
        if record is None:
            record = self.orders[order_id] = messages.OrderRecord(sequence=event.sequence, origin=messages.ORDER_ORIGIN_DESK)
            record.order.order_id = order_id
            record.state = messages.ORDER_STATE_NEW
        record.last_sequence = event.sequence
        if event.session_date:
            record.first_session = record.first_session or event.session_date
            record.last_session = event.session_date
        return record

    def _on_order_submitted(self, event: events.Event, submitted: events.OrderSubmitted) -> None:
        record = self._touched(event, submitted.order.order_id)
        record.order.CopyFrom(submitted.order)
        record.origin = messages.ORDER_ORIGIN_PERSON
        record.from_session = submitted.from_session
        record.allowed_quantity = record.remaining_quantity = submitted.order.quantity

    def _on_orders_gated(self, event: events.Event, gated: events.OrdersGated) -> None:
        for result in gated.results:
            record = self._touched(event, result.order.order_id)
            if not record.order.ticker:
                record.order.CopyFrom(result.order)
                record.order.quantity = result.requested_quantity
            record.gate.CopyFrom(result)
            record.limit = result.limit or record.limit
            record.allowed_quantity = record.filled_quantity + result.order.quantity
            _stand(record)

    def _on_approval_requested(self, event: events.Event, requested: events.ApprovalRequested) -> None:
        self._touched(event, requested.order.order_id).state = messages.ORDER_STATE_PENDING_APPROVAL

    def _on_approval_resolved(self, event: events.Event, resolved: events.ApprovalResolved) -> None:
        record = self._touched(event, resolved.order_id)
        record.decided_by, record.reason = resolved.decided_by, resolved.reason
        if not resolved.approved:
            record.allowed_quantity = record.filled_quantity
        _stand(record)

    def _on_order_filled(self, event: events.Event, filled: events.OrderFilled) -> None:
        record = self._touched(event, filled.order_id)
        if filled.origin == events.ORDER_ORIGIN_FORCED_LIQUIDATION:
            record.origin = messages.ORDER_ORIGIN_FORCED
            record.order.MergeFrom(events.Order(ticker=filled.ticker, side=filled.side, quantity=filled.quantity))
            record.allowed_quantity = filled.quantity
        paid = self._paid[filled.order_id] = self._paid.get(filled.order_id, 0) + filled.quantity * filled.price_micros
        record.filled_quantity += filled.quantity
        record.fees_micros += filled.fee_micros
        record.fills += 1
        if filled.remaining_quantity:
            # The rest of what was ordered stays in force, whatever the limits let pass of it this time.
            record.allowed_quantity = record.filled_quantity + filled.remaining_quantity
        record.average_price_micros = divide_half_even(paid, record.filled_quantity)
        _stand(record)

    def _on_order_rejected(self, event: events.Event, rejected: events.OrderRejected) -> None:
        record = self._touched(event, rejected.order_id)
        record.limit = rejected.reason
        record.allowed_quantity = max(record.filled_quantity, record.allowed_quantity - rejected.quantity)
        _stand(record)

    def _on_order_canceled(self, event: events.Event, canceled: events.OrderCanceled) -> None:
        record = self._touched(event, canceled.order_id)
        record.decided_by = canceled.canceled_by
        _end(record, messages.ORDER_STATE_CANCELED)

    def _on_order_expired(self, event: events.Event, expired: events.OrderExpired) -> None:
        record = self._touched(event, expired.order_id)
        record.expiry = expired.reason
        _end(record, messages.ORDER_STATE_EXPIRED)

    def _on_cycle_failed(self, event: events.Event, failed: events.CycleFailed) -> None:
        for order_id in failed.void_order_ids:
            if order_id not in self.orders:
                self.undescribed.add(order_id)
            record = self._touched(event, order_id)
            record.reason = failed.reason
            _end(record, messages.ORDER_STATE_CANCELED)


def _stand(record: messages.OrderRecord) -> None:
    """Where an order stands by what limits let pass and what is filled of it."""
    record.remaining_quantity = max(0, record.allowed_quantity - record.filled_quantity)
    if record.filled_quantity:
        record.state = messages.ORDER_STATE_PARTIALLY_FILLED if record.remaining_quantity else messages.ORDER_STATE_FILLED
    else:
        record.state = messages.ORDER_STATE_NEW if record.remaining_quantity else messages.ORDER_STATE_REJECTED


def _end(record: messages.OrderRecord, state: messages.OrderState.ValueType) -> None:
    record.state = state
    record.remaining_quantity = 0


def matches(record: messages.OrderRecord, request: messages.ListOrdersRequest) -> bool:
    """True if a request asks for the order."""
    return (
        request.ticker in ("", record.order.ticker)
        and (not request.states or record.state in request.states)
        and request.origin in (messages.ORDER_ORIGIN_UNSPECIFIED, record.origin)
        and (not request.start or record.last_session >= request.start)
        and (not request.end or "" < record.first_session <= request.end)
    )
