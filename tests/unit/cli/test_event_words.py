"""What a terminal shows of events and orders."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1 import pipeline_service_pb2
from trademesh_cli import order_commands
from trademesh_cli.event_words import line_of, submitted, words_of
from trademesh_cli.main import app

DOLLAR = 1_000_000
LONG, SHORT = words.SIDE_LONG, words.SIDE_SHORT
FORCED = events.ORDER_ORIGIN_FORCED_LIQUIDATION


def order(**fields: Any) -> events.OrderSubmitted:
    """A purchase of 100 KO by Ada."""
    given = {"order_id": "a", "ticker": "KO", "side": LONG, "quantity": 100, "submitted_by": "ada"} | fields
    return events.OrderSubmitted(order=events.Order(**given), from_session=7)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "buy 100 KO, from session 7, by ada"),
        ({"side": SHORT, "limit_price_micros": 10_500_000}, "sell 100 KO limit 10.5, from session 7, by ada"),
        ({"stop_price_micros": 9 * DOLLAR}, "buy 100 KO stop 9, from session 7, by ada"),
        ({"time_in_force": events.TIME_IN_FORCE_GOOD_TILL_CANCELED}, "buy 100 KO until canceled, from session 7, by ada"),
        ({"time_in_force": events.TIME_IN_FORCE_AT_THE_OPENING}, "buy 100 KO at the open, from session 7, by ada"),
        ({"time_in_force": events.TIME_IN_FORCE_AT_THE_CLOSE}, "buy 100 KO at the close, from session 7, by ada"),
        ({"submitted_by": "a\x1b[2Jb"}, "buy 100 KO, from session 7, by a [2Jb"),
    ],
)
def test_an_order_is_told_with_its_price_and_how_long_it_is_in_force(fields: dict[str, Any], said: str) -> None:
    assert submitted(order(**fields)) == said


ACTIONS = events.CorporateActionsApplied(
    actions=[
        events.CorporateActionApplied(ticker="IBM", dividend_per_share_micros=250_000, quantity_before=-10, amount_micros=-2_500_000),
        events.CorporateActionApplied(ticker="AAPL", split=events.SplitRatio(new=3, old=2), quantity_before=15, quantity_after=22),
        events.CorporateActionApplied(ticker="KO", split=events.SplitRatio(new=2, old=1)),
        events.CorporateActionApplied(ticker="LEH", delisted_at_micros=30_000, quantity_before=1_000, amount_micros=30 * DOLLAR),
    ]
)
FILL = events.OrderFilled(ticker="KO", side=LONG, quantity=1_000, price_micros=30_510_000)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (order(), "buy 100 KO, from session 7, by ada"),
        (events.OrderCanceled(ticker="KO", canceled_by="ada"), "KO by ada"),
        (events.OrderExpired(ticker="KO", quantity=1_000), "1,000 KO"),
        (events.OrderExpired(ticker="KO", quantity=5, reason=events.EXPIRY_REASON_SPLIT), "5 KO, since the ticker was split"),
        (events.OrderExpired(ticker="KO", quantity=5, reason=events.EXPIRY_REASON_DELISTED), "5 KO, since the ticker trades no more"),
        (
            events.OrderExpired(ticker="KO", quantity=5, reason=events.EXPIRY_REASON_PARTICIPATION),
            "5 KO, since the session's volume left no room for more",
        ),
        (events.OrderRejected(ticker="KO", quantity=5, reason=events.LIMIT_CODE_MARGIN_CALL), "5 KO MARGIN_CALL"),
        (FILL, "LONG 1,000 KO at 30.51"),
        (events.OrderFilled(ticker="KO", side=SHORT, quantity=1, remaining_quantity=40), "SHORT 1 KO at 0.00, 40 stay in force"),
        (events.OrderFilled(ticker="KO", side=SHORT, quantity=1, origin=FORCED), "SHORT 1 KO at 0.00 by force of a margin call"),
        (
            ACTIONS,
            "IBM dividend 0.25, -2.50 in cash; AAPL split 3 for 2, 15 shares become 22; KO split 2 for 1; "
            "LEH delisted at 0.03, 1,000 shares closed, 30.00 in cash",
        ),
        (
            events.MarginCalled(nav_micros=34_935 * DOLLAR, required_micros=39_000 * DOLLAR, missing_micros=4_065 * DOLLAR),
            "net asset value 34,935.00 is 4,065.00 below the maintenance margin of 39,000.00",
        ),
        (events.Signals(), ""),
    ],
)
def test_an_event_is_told_by_the_figures_that_matter(payload: Any, said: str) -> None:
    event = events.Event()
    kind = next(
        field.name for field in events.Event.DESCRIPTOR.oneofs_by_name["payload"].fields if field.message_type is payload.DESCRIPTOR
    )
    getattr(event, kind).CopyFrom(payload)
    assert words_of(event) == said


def test_a_line_begins_with_number_session_who_and_kind() -> None:
    event = events.Event(sequence=12, session_date="2008-09-15", order_filled=FILL)
    assert line_of(event) == "      12  2008-09-15  desk                  order_filled  LONG 1,000 KO at 30.51"
    assert line_of(events.Event(sequence=3, signals=events.Signals(), agent_id="seer")).endswith("seer                  signals")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ((), events.TIME_IN_FORCE_DAY),
        (("--gtc",), events.TIME_IN_FORCE_GOOD_TILL_CANCELED),
        (("--at-open",), events.TIME_IN_FORCE_AT_THE_OPENING),
        (("--at-close", "--limit", "30.5"), events.TIME_IN_FORCE_AT_THE_CLOSE),
    ],
)
def test_the_command_submits_an_order_for_its_time(option: tuple[str, ...], expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[pipeline_service_pb2.SubmitOrderRequest]()

    class Gateway:
        async def __aenter__(self) -> tuple[Gateway, Gateway]:
            return self, self

        async def __aexit__(self, *_: object) -> None: ...

        SubmitOrder = None

        async def call(self, _method: object, request: pipeline_service_pb2.SubmitOrderRequest) -> pipeline_service_pb2.SubmitOrderResponse:
            asked.append(request)
            return pipeline_service_pb2.SubmitOrderResponse(order=order())

    monkeypatch.setattr(order_commands, "gateway_of", lambda _run_id, _what: Gateway())
    outcome = CliRunner().invoke(app, ["order", "submit", "demo", "buy", "100", "KO", *option])
    assert (outcome.exit_code, outcome.stdout) == (0, "a in force from session 7\n")
    assert [one.time_in_force for one in asked] == [expected]


@pytest.mark.parametrize("options", [("--gtc", "--at-open"), ("--at-open", "--at-close")])
def test_an_order_that_is_in_force_two_ways_is_a_usage_error(options: tuple[str, ...]) -> None:
    outcome = CliRunner().invoke(app, ["order", "submit", "demo", "buy", "100", "KO", *options])
    assert outcome.exit_code == 2
    assert "one way" in outcome.stderr
