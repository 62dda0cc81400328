"""A run on prices as traded, through the whole mesh: five stocks, 13 years, three splits, 92 dividends, and short positions that cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from importlib import resources
from pathlib import Path

import grpc
import pytest
from mesh_processes import Mesh

from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh.gateway.v1 import feed_service_pb2_grpc
from trademesh.gateway.v1.event_pb2 import Event

CASH = 1_000_000_000_000


@pytest.fixture(scope="module")
def told(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Event]]:
    """Everything that happened in the run."""
    bootstrap: Path = tmp_path_factory.mktemp("raw") / "BOOTSTRAP.md"
    bootstrap.write_text(resources.files("trademesh_cli").joinpath("demo", "as-traded.md").read_text(encoding="utf-8"))
    started = mesh.cli("run", "start", str(bootstrap), "--run-id", "as-traded")
    assert started.returncode == 0, started.stderr
    head = int(mesh.summary("as-traded")["events"])
    found = list[Event]()
    with grpc.insecure_channel(mesh.json("run", "show", "as-traded")["run"]["feed_target"]) as channel:
        stub = feed_service_pb2_grpc.FeedServiceStub(channel)
        for message in stub.Subscribe(feed.SubscribeRequest(run_id="as-traded", after_sequence=0), timeout=60):
            found.extend(message.events.events)
            if found and found[-1].sequence >= head:
                break
    yield found
    mesh.json("run", "stop", "as-traded")


def half_even(value: Fraction) -> int:
    return round(value)


def test_all_splits_and_dividends_are_booked_once_on_their_ex_dates(told: list[Event]) -> None:
    dated = [(event.session_date, one) for event in told for one in event.corporate_actions_applied.actions]
    splits = [(day, one.ticker, one.split.new, one.split.old) for day, one in dated if one.WhichOneof("action") == "split"]
    assert splits == [("2000-06-21", "AAPL", 2, 1), ("2003-02-18", "MSFT", 2, 1), ("2005-02-28", "AAPL", 2, 1)]
    paid = [one for _, one in dated if one.WhichOneof("action") == "dividend_per_share_micros"]
    assert len(paid) == 92
    assert {one.ticker for one in paid} == {"AAPL", "IBM", "MSFT"}


def test_cash_and_shares_of_every_session_are_what_fills_actions_and_borrow_make_of_them_by_hand(told: list[Event]) -> None:
    cash, shares, sessions = CASH, defaultdict[str, int](int), 0
    for event in told:
        match event.WhichOneof("payload"):
            case "corporate_actions_applied":
                for one in event.corporate_actions_applied.actions:
                    if one.WhichOneof("action") == "split":
                        assert shares[one.ticker] * one.split.new % one.split.old == 0, "no fraction to pay out: the splits are 2 for 1"
                        shares[one.ticker] = shares[one.ticker] * one.split.new // one.split.old
                    else:
                        cash += shares[one.ticker] * one.dividend_per_share_micros
            case "order_filled":
                fill = event.order_filled
                delta = fill.quantity if fill.side == words.SIDE_LONG else -fill.quantity
                shares[fill.ticker] += delta
                cash -= delta * fill.price_micros + half_even(Fraction(fill.quantity * fill.price_micros, 10_000))
            case "settled":
                sessions += 1
                marks = {one.ticker: one.mark_micros for one in event.settled.portfolio.positions}
                shorts = sorted(ticker for ticker, held in shares.items() if held < 0)
                charged = {one.ticker: one for one in event.settled.borrow}
                assert sorted(charged) == (shorts if sessions < 3_270 else [])
                for ticker, one in charged.items():
                    cost = half_even(Fraction(-shares[ticker] * marks[ticker] * 250 * one.days, 10_000 * 360))
                    assert one.charge_micros == cost, (event.session_date, ticker)
                    cash -= cost
                account = event.settled.portfolio
                assert account.cash_micros == cash, event.session_date
                assert {one.ticker: one.quantity for one in account.positions} == {name: held for name, held in shares.items() if held}
                worth = cash + sum(held * marks[ticker] for ticker, held in shares.items() if held)
                assert event.settled.nav_micros == worth, event.session_date
    assert sessions == 3_270


def test_a_split_is_no_loss_for_who_holds_the_shares_and_no_fall_for_who_looks_at_closes(told: list[Event]) -> None:
    days = [event.session_date for event in told if event.WhichOneof("payload") == "settled"]
    settled = {event.session_date: event.settled for event in told if event.WhichOneof("payload") == "settled"}
    split_day = "2005-02-28"
    before = settled[days[days.index(split_day) - 1]]
    held = next(one for one in before.portfolio.positions if one.ticker == "AAPL")
    after = next(one for one in settled[split_day].portfolio.positions if one.ticker == "AAPL")
    assert held.quantity > 0
    assert abs(settled[split_day].nav_micros / before.nav_micros - 1) < 0.02
    assert after.mark_micros < 0.6 * held.mark_micros
    for event in told:
        if event.session_date == split_day and event.agent_id == "technical_analyst" and event.WhichOneof("payload") == "signals":
            (stretch,) = [column.values[0] for column in event.signals.figures if column.name == "z_score_20"]
            assert abs(stretch) < 4, "closes of before the split are seen as half"


def test_what_the_run_says_is_proved_from_its_journal(mesh: Mesh, told: list[Event]) -> None:
    assert told[-1].sequence > 30_000
    assert mesh.json("run", "verify", "as-traded")["verified"] is True
