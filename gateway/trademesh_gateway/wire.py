"""Translates between the desk's records and the messages of the journal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1.state_pb2 import LimitInForce, LimitsInForce
from trademesh_gateway.agents.records import AnySignals, Decisions, Stance, TabledSignals
from trademesh_gateway.pipeline.broker import Moment
from trademesh_gateway.pipeline.execution import Expired, Filled
from trademesh_gateway.pipeline.order_book import OrderType, SessionOrder, WorkingOrder
from trademesh_gateway.risk.gate import Gated
from trademesh_gateway.risk.limits import UNITS, Limit, Limits, Unit, limits_that_are_on
from trademesh_gateway.risk.stops import Stops, has_fallen
from trademesh_gateway.row_templates import RowTemplate, template_of
from trademesh_gateway.signal_rows import (
    DIGITS,
    DIRECTIONS,
    TOO_SHORT,
    figure_columns,
    prediction_rows,
    probability_of,
    rounded,
    rows_of,
    signal_rows,
)
from trademesh_ledger.account import Account, Settlement
from trademesh_ledger.corporate_actions import ActionEffect, CorporateAction, Delisting, Dividend, Split, in_sequence
from trademesh_ledger.maintenance import MarginCall
from trademesh_ledger.money import BASIS_POINTS
from trademesh_runs.fold import portfolio_message
from trademesh_runs.journal import EncodedPayload

Payload: TypeAlias = Message | EncodedPayload

NO_PRICE = events.LIMIT_CODE_NO_PRICE

_MOMENTS = {events.TIME_IN_FORCE_AT_THE_OPENING: Moment.OPEN, events.TIME_IN_FORCE_AT_THE_CLOSE: Moment.CLOSE}
_KEPT_REASONS = 256
_LONG, _SHORT, _HOLD = words.ACTION_LONG, words.ACTION_SHORT, words.ACTION_HOLD
_NEUTRAL, _ABSTAIN = Stance.NEUTRAL.value, Stance.ABSTAIN.value


def order_id(session: str, ticker: str) -> str:
    """Name of an order within its run."""
    return f"{session}/{ticker}"


def forced_order_id(session: str, ticker: str) -> str:
    """Name of an order by which a margin call closes a position."""
    return f"{session}/{ticker}/forced"


def side_of(delta: int) -> words.Side.ValueType:
    """Which way signed shares go."""
    return words.SIDE_LONG if delta > 0 else words.SIDE_SHORT


def session_opened(number: int, decision_unix_s: int) -> events.SessionOpened:
    """A session's cycle began."""
    return events.SessionOpened(session_number=number, decision_time=Timestamp(seconds=decision_unix_s))


def signals(tickers: tuple[str, ...], one: AnySignals) -> Payload:
    """An analyst's view."""
    if isinstance(one, TabledSignals):
        return EncodedPayload(rows_of(one.table, tickers, signal_rows).of(one.place))
    if one.abstained_because:
        return _abstention(one.abstained_because)
    template: RowTemplate[events.Signals] = template_of(events.Signals, "signals", tickers)
    stances, count = one.stances(), len(tickers)
    template.fill("stance", stances)
    template.fill("horizon_sessions", [one.horizon_sessions] * count)
    template.fill("note", [TOO_SHORT if stance == _ABSTAIN else "" for stance in stances])
    template.put("score", rounded(one.score))
    template.fill("confidence", rounded(one.weights()))
    return template.encoded(figure_columns(one.figures))


@lru_cache(_KEPT_REASONS)
def _abstention(because: str) -> EncodedPayload:
    return EncodedPayload(events.Signals(abstained_because=because).SerializeToString())


def predictions(tickers: tuple[str, ...], one: AnySignals) -> Payload:
    """An analyst's predictions: the direction of its signal, and as probability one half plus half of its conviction."""
    if isinstance(one, TabledSignals):
        return EncodedPayload(rows_of(one.table, tickers, prediction_rows).of(one.place))
    stances, score, confidence = one.stances(), one.score, one.confidence
    if _ABSTAIN in stances:
        kept = [column for column, stance in enumerate(stances) if stance != _ABSTAIN]
        stances, tickers = [stances[column] for column in kept], tuple(tickers[column] for column in kept)
        score, confidence = [score[column] for column in kept], [confidence[column] for column in kept]
    template: RowTemplate[events.Predictions] = template_of(events.Predictions, "predictions", tickers)
    probability = rounded(map(probability_of, score, confidence))
    template.fill("direction", list(map(DIRECTIONS.__getitem__, stances)))
    template.fill("confidence", [0.0 if stance == _NEUTRAL else sure for stance, sure in zip(stances, probability, strict=True)])
    return template.encoded()


@lru_cache(1)
def decisions(tickers: tuple[str, ...], wanted: Decisions) -> Payload:
    """What the portfolio manager wants, of every ticker in the run's order. Who holds session by session says so with the same object."""
    template: RowTemplate[events.Decisions] = template_of(events.Decisions, "decisions", tickers)
    deltas = wanted.deltas
    if any(deltas):
        template.fill("action", [_LONG if delta > 0 else _SHORT if delta else _HOLD for delta in deltas])
        template.fill("quantity", [abs(delta) for delta in deltas])
    else:
        template.fill("action", [_HOLD] * len(deltas))
        template.fill("quantity", deltas)
    template.fill("confidence", rounded(wanted.confidence))
    template.put("score", rounded(wanted.score))
    template.put("target_weight", rounded(wanted.target_weight))
    return template.encoded()


def orders_gated(tickers: Sequence[str], rows: Sequence[tuple[SessionOrder, Gated]]) -> events.OrdersGated:
    """What the limits made of the orders."""
    message = events.OrdersGated()
    add = message.results.add
    for order, gated in rows:
        limit = gated.limit
        if limit is Limit.NONE:
            result = add(requested_quantity=abs(gated.requested))
        else:
            unit = UNITS[limit]
            result = add(
                requested_quantity=abs(gated.requested),
                limit=limit.value,
                limit_value=_in_unit(gated.bound, unit),
                figure=_in_unit(gated.figure, unit),
                unit=unit.value,
                group=gated.group,
            )
        told = result.order
        if order.working is not None:
            told.CopyFrom(working_order(order.working))
            told.quantity = abs(gated.allowed)
        else:
            told.order_id, told.ticker, told.quantity = order.order_id, tickers[order.column], abs(gated.allowed)
            told.side = side_of(gated.requested)
    return message


def working_order(order: WorkingOrder) -> events.Order:
    """A person's order. Who submitted it is told where it was taken in."""
    return events.Order(
        order_id=order.order_id,
        ticker=order.ticker,
        side=side_of(order.delta),
        quantity=abs(order.delta),
        type=int(order.type),  # type: ignore[arg-type]  # OrderType has the contract's numbers
        limit_price_micros=order.price_micros if order.type is OrderType.LIMIT else 0,
        stop_price_micros=order.price_micros if order.type is OrderType.STOP else 0,
        time_in_force=_time_in_force(order),
    )


def _time_in_force(order: WorkingOrder) -> events.TimeInForce.ValueType:
    if order.at is not None:
        return events.TIME_IN_FORCE_AT_THE_OPENING if order.at is Moment.OPEN else events.TIME_IN_FORCE_AT_THE_CLOSE
    return events.TIME_IN_FORCE_GOOD_TILL_CANCELED if order.good_till_canceled else events.TIME_IN_FORCE_DAY


def working_order_of(submitted: events.OrderSubmitted) -> WorkingOrder:
    """A person's order from its event."""
    order = submitted.order
    return WorkingOrder(
        order.order_id,
        order.ticker,
        order.quantity if order.side == words.SIDE_LONG else -order.quantity,
        OrderType(order.type or OrderType.MARKET),
        order.limit_price_micros or order.stop_price_micros,
        order.time_in_force == events.TIME_IN_FORCE_GOOD_TILL_CANCELED,
        submitted.from_session,
        _MOMENTS.get(order.time_in_force),
    )


def order_expired(one: Expired) -> events.OrderExpired:
    """An order, or its rest, that is in force no more."""
    return events.OrderExpired(
        order_id=one.order_id,
        ticker=one.ticker,
        quantity=one.quantity,
        reason=int(one.reason),  # type: ignore[arg-type]  # Expiry has the contract's numbers
    )


def _in_unit(value: int | None, unit: Unit) -> float | None:
    return None if value is None else float(value) if unit is Unit.ORDERS else value / BASIS_POINTS


def limits_in_force(tickers: Sequence[str], limits: Limits, stops: Stops) -> LimitsInForce:
    """The limits of a run, and what they hold back after the last settled close."""
    nav, peak, previous = stops.nav_micros, stops.peak_micros, stops.previous_nav_micros
    return LimitsInForce(
        limits=[
            LimitInForce(
                limit=int(one.limit),  # type: ignore[arg-type]  # Limit has the contract's numbers
                value=_in_unit(one.bound, one.unit),
                unit=int(one.unit),  # type: ignore[arg-type]  # so has Unit
                group=one.group,
                tickers=[tickers[column] for column in sorted(one.columns)],
            )
            for one in limits_that_are_on(limits)
        ],
        shorts_allowed=limits.shorts_allowed,
        halted=limits.halted,
        drawdown_stopped=stops.drawdown_stopped,
        loss_stopped=has_fallen(previous, nav, limits.daily_loss_bp),
        drawdown=round(nav / peak - 1, DIGITS) if peak > 0 else 0.0,
        last_return=round(nav / previous - 1, DIGITS) if previous > 0 else None,
    )


def approval_resolved(answer: Any, order: str) -> events.ApprovalResolved:
    """What came of asking a person."""
    return events.ApprovalResolved(
        approval_id=answer.approval_id, order_id=order, approved=answer.approved, decided_by=answer.decided_by, reason=answer.reason
    )


def approval_rejection(order: str, ticker: str, answer: Any, quantity: int) -> events.OrderRejected:
    """An order that a person did not let pass."""
    reason = events.LIMIT_CODE_APPROVAL_EXPIRED if answer.expired else events.LIMIT_CODE_APPROVAL_DENIED
    return order_rejected(order, ticker, reason, quantity)


def order_rejected(order: str, ticker: str, reason: int, quantity: int) -> events.OrderRejected:
    """An order that was not filled, or not whole."""
    return events.OrderRejected(order_id=order, ticker=ticker, reason=events.LimitCode.ValueType(reason), quantity=quantity)


def order_filled(order: str, filled: Filled) -> events.OrderFilled:
    """An order that was filled, or a part of it."""
    fill, effect = filled.fill, filled.fill.effect
    return events.OrderFilled(
        order_id=order,
        ticker=fill.ticker,
        side=side_of(fill.delta),
        quantity=abs(fill.delta),
        price_micros=fill.price_micros,
        fee_micros=fill.fee_micros,
        realised_micros=effect.realised_micros,
        legs=[events.Leg(kind=events.LegKind.ValueType(leg.kind.value), quantity=leg.quantity) for leg in effect.legs],
        position_quantity=filled.position,
        cash_micros=filled.cash_micros,
        origin=events.ORDER_ORIGIN_FORCED_LIQUIDATION if filled.forced else events.ORDER_ORIGIN_UNSPECIFIED,
        remaining_quantity=filled.remaining,
    )


def corporate_actions_applied(
    actions: Sequence[CorporateAction], effects: Sequence[ActionEffect], cash_micros: int
) -> events.CorporateActionsApplied:
    """What companies did on a morning; cash is as it is afterwards."""
    done = {effect.action: effect for effect in effects}
    return events.CorporateActionsApplied(
        actions=[_action_applied(action, done.get(action)) for action in in_sequence(actions)], cash_micros=cash_micros
    )


def _action_applied(action: CorporateAction, effect: ActionEffect | None) -> events.CorporateActionApplied:
    applied = events.CorporateActionApplied(ticker=action.ticker)
    match action:
        case Dividend():
            applied.dividend_per_share_micros = action.per_share_micros
        case Split():
            applied.split.new, applied.split.old = action.new, action.old
        case Delisting():
            applied.delisted_at_micros = action.price_micros
    if effect is not None:
        applied.last_price_micros = effect.mark_micros
        applied.quantity_before, applied.quantity_after = effect.quantity_before, effect.quantity_after
        applied.amount_micros, applied.realised_micros = effect.cash_micros, effect.realised_micros
    return applied


def margin_called(call: MarginCall) -> events.MarginCalled:
    """At a close the account was worth less than must be kept."""
    return events.MarginCalled(nav_micros=call.nav_micros, required_micros=call.required_micros, missing_micros=call.amount_micros)


def _baselines(rows: Sequence[tuple[str, int]]) -> list[events.Baseline]:
    return [events.Baseline(name=name, nav_micros=nav) for name, nav in rows]


def settled(
    number: int, settlement: Settlement, account: Account, days_to_next: int, baselines: Sequence[tuple[str, int]]
) -> events.Settled:
    """A session's closing account."""
    message = events.Settled(
        session_number=number,
        nav_micros=settlement.nav_micros,
        baselines=_baselines(baselines),
        borrow=[
            events.BorrowCharge(ticker=one.ticker, rate_bp=account.costs.borrow_bp, days=days_to_next, charge_micros=one.charge_micros)
            for one in settlement.borrow
            if days_to_next
        ],
    )
    message.portfolio.CopyFrom(_account(account))
    return message


def _account(account: Account) -> events.PortfolioState:
    """What `portfolio_message` makes of an account in which everything that is held has a mark; filled again when next asked for."""
    portfolio, marks = account.portfolio, account.marks_micros
    held = sorted(portfolio.positions)
    template: RowTemplate[events.PortfolioState] = template_of(events.PortfolioState, "positions", tuple(held))
    message = template.message
    message.initial_cash_micros, message.cash_micros = portfolio.initial_cash_micros, portfolio.cash_micros
    message.realised_micros, message.fees_micros = portfolio.realised_micros, portfolio.fees_micros
    message.borrow_micros, message.dividends_micros = portfolio.borrow_micros, portfolio.dividends_micros
    positions = [portfolio.positions[ticker] for ticker in held]
    template.fill("quantity", [position.quantity for position in positions])
    template.fill("cost_micros", [position.cost_micros for position in positions])
    template.fill("mark_micros", list(map(marks.__getitem__, held)))
    return message


def note_baseline(message: events.Settled, name: str, note: str) -> None:
    """Says what a baseline lacks, if it is there."""
    for baseline in message.baselines:
        if baseline.name == name:
            baseline.note = note


def checkpoint(account: Account, sessions: int, fills: int, peak: int, baselines: Sequence[tuple[str, int]]) -> events.StateCheckpoint:
    """The state at a point."""
    return events.StateCheckpoint(
        portfolio=portfolio_message(account.portfolio, account.marks_micros),
        sessions_settled=sessions,
        fills=fills,
        peak_nav_micros=peak,
        baselines=_baselines(baselines),
    )
