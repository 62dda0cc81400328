"""Splits, dividends and delistings in a run on prices as traded: the account, baselines, orders of before, what agents see, and the proof."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from journaled_desk import EXECUTION, Desk, config_of
from made_up_bars import DOLLAR, stage
from trademesh.gateway.v1 import event_pb2 as events
from trademesh_ledger.corporate_actions import CorporateAction, Delisting, Dividend, Split
from trademesh_runs.fold import LedgerMismatchError, replay_journal
from trademesh_runs.journal import Draft, Encoder
from trademesh_runs.journal_memory import MemoryStore
from trademesh_runs.scoreboard import Scoreboard

CASH = 100_000 * DOLLAR
GTC = events.TIME_IN_FORCE_GOOD_TILL_CANCELED


def desk_with(closes: list[float], *actions: tuple[int, CorporateAction], held: int = 0, volumes: list[int] | None = None) -> Desk:
    """A desk that holds shares of AAA since session 1; free of fees. Closes are those of the session before the first, and of all sessions."""
    known = None if volumes is None else {"AAA": volumes, "BBB": volumes}
    bars = stage({"AAA": closes, "BBB": [1.0] * len(closes)}, actions=actions, volumes=known)
    desk = Desk(config_of(), bars, cash_micros=CASH)
    if held:
        desk.submit("held", "AAA", held)
    desk.run()
    return desk


def applied(desk: Desk) -> list[events.CorporateActionApplied]:
    """Every action that was told."""
    return [one for event in desk.told("corporate_actions_applied") for one in event.actions]


@pytest.mark.parametrize("held", [100, -100])
def test_longs_get_a_dividend_and_shorts_pay_it_before_anything_else_happens(held: int) -> None:
    desk = desk_with([10, 10, 10], (2, Dividend("AAA", 250_000)), held=held)
    cash = desk.desk.portfolio.cash_micros
    desk.run(1)
    (one,) = applied(desk)
    assert (one.amount_micros, one.quantity_before, one.quantity_after, one.realised_micros) == (held * 250_000, held, held, 0)
    assert desk.desk.portfolio.cash_micros == cash + held * 250_000
    assert desk.told("corporate_actions_applied")[0].cash_micros == desk.desk.portfolio.cash_micros


def test_three_for_two_pays_the_fraction_in_cash_at_the_close_before() -> None:
    desk = desk_with([90, 90, 60], (2, Split("AAA", 3, 2)), held=-15)
    desk.run()
    (one,) = applied(desk)
    # domain.md, section 4: 15 short at 90 become 22, and half a share of after is worth 30.
    assert (one.quantity_before, one.quantity_after, one.amount_micros, one.last_price_micros) == (-15, -22, -30 * DOLLAR, 90 * DOLLAR)
    assert [settled.nav_micros for settled in desk.told("settled")] == [CASH, CASH]


def test_eight_become_one_and_seven_of_them_are_paid() -> None:
    desk = desk_with([2, 2, 16], (2, Split("AAA", 1, 8)), held=15)
    desk.run()
    (one,) = applied(desk)
    assert (one.quantity_after, one.amount_micros) == (1, 14 * DOLLAR)
    assert desk.told("settled")[-1].nav_micros == CASH


def test_actions_of_one_morning_are_dividends_then_splits_then_delistings() -> None:
    desk = desk_with([10, 10, 0], (2, Delisting("AAA", 4 * DOLLAR)), (2, Split("AAA", 2, 1)), (2, Dividend("AAA", DOLLAR)), held=100)
    desk.run()
    assert [one.WhichOneof("action") for one in applied(desk)] == ["dividend_per_share_micros", "split", "delisted_at_micros"]
    assert [one.amount_micros for one in applied(desk)] == [100 * DOLLAR, 0, 800 * DOLLAR]
    assert [one.last_price_micros for one in applied(desk)] == [10 * DOLLAR, 10 * DOLLAR, 5 * DOLLAR]
    assert not desk.desk.portfolio.positions
    assert replay_journal("demo", desk.store.reader()).portfolio == desk.desk.portfolio


def test_an_action_on_what_is_not_held_is_told_and_changes_nothing() -> None:
    desk = desk_with([10, 10, 5], (2, Split("AAA", 2, 1)))
    desk.run()
    (one,) = applied(desk)
    assert (one.split.new, one.quantity_before, one.quantity_after, one.amount_micros) == (2, 0, 0, 0)
    assert desk.told("settled")[-1].nav_micros == CASH


@pytest.mark.parametrize(
    ("action", "reason"),
    [(Split("AAA", 2, 1), events.EXPIRY_REASON_SPLIT), (Delisting("AAA", 4 * DOLLAR), events.EXPIRY_REASON_DELISTED)],
)
def test_orders_of_before_end_with_their_reason_and_others_stay(action: CorporateAction, reason: events.ExpiryReason.ValueType) -> None:
    desk = desk_with([10, 10, 10, 5], (3, action))
    desk.submit("before", "AAA", 7, limit_price_micros=DOLLAR, time_in_force=GTC)
    desk.submit("other", "BBB", 7, limit_price_micros=1, time_in_force=GTC)
    desk.run()
    desk.run(1)
    expired = events.OrderExpired(order_id="before", ticker="AAA", quantity=7, reason=reason)
    assert desk.told("order_expired") == [expired]
    assert desk.in_force() == ["other"]


def test_a_dividend_ends_no_order() -> None:
    desk = desk_with([10, 10, 10, 10], (2, Dividend("AAA", DOLLAR)))
    desk.submit("before", "AAA", 7, limit_price_micros=DOLLAR, time_in_force=GTC)
    desk.run()
    assert desk.in_force() == ["before"]


def test_agents_see_closes_and_volumes_of_before_in_shares_of_now_from_the_ex_date_on() -> None:
    desk = desk_with([30, 32, 10, 11], (2, Split("AAA", 3, 1)), volumes=[100, -1, 300, 300])
    market, second = desk.stage.history, desk.stage.times(2)
    before = market.as_of(second.open_unix_s, desk.stage.times(1).date)
    assert before.last_closes(2)[:, 0].tolist() == [30 * DOLLAR, 32 * DOLLAR]
    now = market.as_of(second.open_unix_s, second.date)
    assert now.last_closes(2)[:, 0].tolist() == [10 * DOLLAR, 10_666_667]
    volumes = now.last("volume_plus_one", 2)
    assert volumes is not None
    assert volumes[:, 0].tolist() == [301, 0]
    later = market.as_of(second.close_unix_s, second.date).last_closes(3)
    assert later[:, 0].tolist() == [10 * DOLLAR, 10_666_667, 10 * DOLLAR]
    assert later[:, 1].tolist() == [DOLLAR] * 3


def test_a_split_is_no_gain_for_the_baseline_of_equal_parts_and_a_dividend_is_cash_of_its() -> None:
    """50,000 dollars buy 5,000 shares at 10; they become 10,000 of 5 dollars, and 4,000 after a dividend of one dollar and 2 for 5."""
    actions = [(2, Split("AAA", 2, 1)), (3, Dividend("AAA", DOLLAR)), (3, Split("AAA", 2, 5)), (4, Delisting("AAA", 11 * DOLLAR))]
    desk = desk_with([10, 10, 5, 12, 0, 0], *actions)
    for _ in range(3):
        desk.run()
    told = [next(one.nav_micros for one in settled.baselines if one.name == "equal_weight") for settled in desk.told("settled")]
    assert told == [100_000 * DOLLAR, 100_000 * DOLLAR, (50_000 + 10_000 + 4_000 * 12) * DOLLAR, (50_000 + 10_000 + 4_000 * 11) * DOLLAR]


def test_the_momentum_baseline_ranks_by_closes_with_splits_counted_in() -> None:
    """On the first of February AAA, at 6 dollars, has risen from 10 before a split of 2 for 1, and BBB has stood still. 16,666 shares of it are
    worth 9 dollars each afterwards."""
    bars = stage({"AAA": [10.0] * 11 + [6.0] * 16 + [9.0] * 2, "BBB": [10.0] * 29}, actions=[(1, Split("AAA", 2, 1))], before=11)
    desk = Desk(config_of(), bars, cash_micros=CASH)
    for _ in range(bars.sessions):
        desk.run()
    told = {one.name: one.nav_micros for one in desk.told("settled")[-1].baselines}
    assert told["momentum"] == (4 + 16_666 * 9) * DOLLAR


def test_predictions_are_scored_in_shares_of_one_kind() -> None:
    """Up from 10 to 6 dollars over a split of 2 for 1 is right."""
    desk = desk_with([10, 10, 6], (2, Split("AAA", 2, 1)))
    second = desk.stage.times(2).date
    up = events.Prediction(ticker="AAA", direction=events.DIRECTION_UP, confidence=0.8)
    desk.append(Draft("predictions", events.Predictions(predictions=[up]), second, 4, "seer"))
    desk.run()
    board = Scoreboard().catch_up(desk.store.reader(), len(desk.store.events))
    (outcome,) = board.agents["seer"].newest_outcomes()
    assert (outcome.earlier_close_micros, outcome.close_micros, outcome.right) == (5 * DOLLAR, 6 * DOLLAR, True)


def test_the_closes_before_the_first_session_are_told_in_shares_of_its_morning() -> None:
    desk = desk_with([10, 6], (1, Split("AAA", 2, 1)))
    (settled,) = desk.told("settled")
    assert (list(settled.earlier_close_micros), list(settled.close_micros)) == ([5 * DOLLAR, DOLLAR], [6 * DOLLAR, DOLLAR])


def changed(desk: Desk, change: Callable[[events.CorporateActionApplied], object]) -> MemoryStore:
    """The same journal with its first corporate action changed."""
    store, encoder, done = MemoryStore(), Encoder("demo", 1), False
    for stored in desk.store.events:
        event = stored.parse()
        kind = event.WhichOneof("payload") or ""
        if kind == "corporate_actions_applied" and not done:
            change(event.corporate_actions_applied.actions[0])
            done = True
        draft = Draft(kind, getattr(event, kind), event.session_date, event.phase, event.agent_id)
        store.events.append(encoder.encode(draft, event.sequence, event.event_id))
    return store


CHANGES: dict[str, Callable[[events.CorporateActionApplied], object]] = {
    "shares before": lambda one: setattr(one, "quantity_before", 14),
    "not held": lambda one: setattr(one, "quantity_before", 0),
    "not ours": lambda one: setattr(one, "ticker", "BBB"),
    "shares after": lambda one: setattr(one, "quantity_after", 23),
    "ratio": lambda one: setattr(one.split, "new", 4),
    "what was paid": lambda one: setattr(one, "amount_micros", 29 * DOLLAR),
    "realised": lambda one: setattr(one, "realised_micros", 1),
    "price and cash": lambda one: (setattr(one, "last_price_micros", 180 * DOLLAR), setattr(one, "amount_micros", 60 * DOLLAR)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_action_that_was_changed_in_the_journal_is_found(name: str) -> None:
    desk = desk_with([90, 90, 60], (2, Split("AAA", 3, 2)), held=15)
    desk.run(EXECUTION)
    assert replay_journal("demo", desk.store.reader()).portfolio == desk.desk.portfolio
    with pytest.raises(LedgerMismatchError):
        replay_journal("demo", changed(desk, CHANGES[name]).reader())
