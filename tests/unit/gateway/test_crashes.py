"""A gateway that dies after any event, and the one that goes on: nothing is repeated, nothing is lost, and the journal is the same."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journaled_desk import APPROVAL, GATE, PREPARE, Desk, config_of
from made_up_bars import DOLLAR, Stage, real_stage, stage
from real_closes import no_one
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_gateway.pipeline.broker import BarBroker, Moment, SessionTimes
from trademesh_gateway.pipeline.cycle import PHASES, ApprovalAnswer, ApprovalQuestion, Ask, Emit
from trademesh_gateway.pipeline.order_book import TooLateError
from trademesh_ledger.corporate_actions import Delisting, Dividend, Split
from trademesh_runs.fold import replay_journal
from trademesh_runs.journal import Draft

GTC = events.TIME_IN_FORCE_GOOD_TILL_CANCELED


@dataclass(frozen=True)
class Act:
    """What a person does once."""

    kind: str
    order_id: str
    do: Callable[[Desk], object]

    def __call__(self, desk: Desk) -> None:
        """Does it, unless the journal tells that it was done."""
        told = desk.told(self.kind)
        if self.order_id not in {one.order.order_id if self.kind == "order_submitted" else one.order_id for one in told}:
            self.do(desk)


def submits(order_id: str, ticker: str, delta: int, **fields: Any) -> Act:
    """Submits an order."""
    return Act("order_submitted", order_id, lambda desk: desk.submit(order_id, ticker, delta, **fields))


def cancels(order_id: str) -> Act:
    """Takes an order back."""
    return Act("order_canceled", order_id, lambda desk: desk.cancel(order_id))


@dataclass(frozen=True)
class Story:
    """A run with what people do in it: by session, and the phase after which they do it; 0 is before the first one."""

    config: RunConfig
    stage: Stage
    acts: Mapping[tuple[int, int], Sequence[Act]] = field(default_factory=dict)
    sessions: int = 0
    cash_micros: int = 100_000 * DOLLAR
    ask: Ask = no_one

    def desk(self, journal: Sequence[Any] = ()) -> Desk:
        """The run's desk, as it goes on from a journal."""
        return Desk(self.config, self.stage, journal, self.cash_micros, ask=self.ask)

    def play(self, desk: Desk) -> Desk:
        """Goes on to the end."""
        for number in range(desk.desk.sessions_settled + 1, (self.sessions or self.stage.sessions) + 1):
            cycle = desk.cycle()
            for phase in (0, *PHASES):
                if phase:
                    desk.run(phase, cycle, phase - 1)
                for act in self.acts.get((number, phase), ()):
                    act(desk)
        return desk


def next_close_story() -> Story:
    acts = {
        (1, 0): [submits("first", "KO", 100), submits("lasts", "KO", -40, time_in_force=GTC, limit_price_micros=900 * DOLLAR)],
        (1, GATE): [submits("late", "PG", 30)],
        (2, GATE): [cancels("lasts")],
    }
    return Story(config_of(contract.FILL_POLICY_NEXT_CLOSE, free=False), real_stage(), acts, 3, 1_000_000 * DOLLAR)


def same_close_story() -> Story:
    acts = {(1, 0): [submits("first", "KO", 100)], (2, PREPARE): [submits("short", "GE", -200)]}
    return Story(config_of(contract.FILL_POLICY_SAME_CLOSE, free=False, borrow_bp=250), real_stage(), acts, 3, 1_000_000 * DOLLAR)


def next_open_story() -> Story:
    """Orders of every kind, in a market that is too small for some of them."""
    bars = stage(
        {"AAA": [10, 10, 11, 12, 11, 10], "BBB": [50, 50, 49, 52, 51, 50]},
        opens={"AAA": [10, 10, 11, 12, 12, 10], "BBB": [50, 50, 50, 50, 52, 50]},
        highs={"AAA": [10, 11, 12, 13, 12, 11], "BBB": [51, 51, 50, 53, 53, 51]},
        lows={"AAA": [9, 9, 10, 11, 10, 9], "BBB": [49, 49, 48, 50, 50, 49]},
        volumes={"AAA": [1000, 1000, 700, 0, 2000, -1], "BBB": [500, 500, 500, 500, 500, 500]},
    )
    config = config_of(contract.FILL_POLICY_NEXT_OPEN, manager="monthly-equal-weight", fee_bp=10, slippage_bp=5)
    config.execution.participation = 0.25
    acts = {
        (1, 0): [
            submits("parts", "AAA", 900, time_in_force=GTC),
            submits("limit", "BBB", 100, time_in_force=GTC, limit_price_micros=49 * DOLLAR),
            submits("opening", "AAA", 10, time_in_force=events.TIME_IN_FORCE_AT_THE_OPENING),
        ],
        (2, 0): [submits("stop", "BBB", 60, stop_price_micros=52 * DOLLAR, time_in_force=GTC)],
        (2, GATE): [submits("closing", "BBB", -80, time_in_force=events.TIME_IN_FORCE_AT_THE_CLOSE)],
        (4, PREPARE): [cancels("parts")],
    }
    return Story(config, bars, acts)


def corporate_story() -> Story:
    """Splits, dividends and a delisting, with orders of before, a long and a short position."""
    bars = stage(
        {"AAA": [30, 30, 20, 21, 20, 20], "BBB": [10, 10, 10, 80, 81, 80], "CCC": [5, 5, 5, 5, 0, 0]},
        actions=[
            (2, Split("AAA", 3, 2)),
            (2, Dividend("AAA", 250_000)),
            (3, Split("BBB", 1, 8)),
            (3, Dividend("BBB", 100_000)),
            (4, Delisting("CCC", 4 * DOLLAR)),
            (4, Dividend("AAA", 500_000)),
        ],
    )
    acts = {
        (1, 0): [
            submits("long", "AAA", 101),
            submits("short", "BBB", -101),
            submits("gone", "CCC", 50),
            submits("split", "AAA", 10, limit_price_micros=5 * DOLLAR, time_in_force=GTC),
            submits("delisted", "CCC", 10, limit_price_micros=DOLLAR, time_in_force=GTC),
        ],
        (3, GATE): [submits("after", "BBB", -3)],
    }
    return Story(config_of(contract.FILL_POLICY_NEXT_CLOSE, borrow_bp=250), bars, acts)


def margin_story() -> Story:
    """The worked example of a margin call, with an order that was to reduce the position and one that lasts."""
    bars = stage({"AAA": [50, 50, 100, 101, 101, 300, 310], "BBB": [20, 20, 20, 20, 20, 20, 20]})
    acts = {
        (1, 0): [submits("short", "AAA", -1300), submits("other", "BBB", 10)],
        (3, 0): [submits("cover", "AAA", 1200, time_in_force=GTC)],
        (4, 0): [submits("again", "AAA", -1000)],
    }
    return Story(config_of(contract.FILL_POLICY_NEXT_CLOSE, fee_bp=10), bars, acts)


async def ada(question: ApprovalQuestion, emit: Emit) -> ApprovalAnswer:
    """A person who refuses purchases of BBB, and says the same when she is asked again."""
    approval_id, approved = f"about {question.order_id}", question.ticker != "BBB"
    asked = events.ApprovalRequested(approval_id=approval_id, order=events.Order(order_id=question.order_id))
    emit(Draft("approval_requested", asked, question.session, APPROVAL, item=question.order_id))
    return ApprovalAnswer(approval_id, approved, "ada", "" if approved else "too large", False)


def approval_story() -> Story:
    """Orders of the desk and of people that wait for a person, some of which are taken back meanwhile."""
    config = config_of(contract.FILL_POLICY_NEXT_CLOSE, manager="monthly-equal-weight")
    config.approvals.orders_over_nav = 0.001
    acts = {
        (1, 0): [submits("mine", "AAA", 40, time_in_force=GTC), submits("refused", "BBB", 40, time_in_force=GTC)],
        (2, GATE): [cancels("later")],
        (2, 0): [submits("later", "AAA", 30, time_in_force=GTC)],
        (2, APPROVAL): [submits("last", "AAA", -20)],
    }
    return Story(config, stage({"AAA": [10] * 5, "BBB": [20] * 5}), acts, ask=ada)


STORIES = {
    story.__name__: story for story in (next_close_story, same_close_story, next_open_story, corporate_story, margin_story, approval_story)
}


@pytest.mark.parametrize("name", STORIES)
def test_a_gateway_that_dies_after_any_event_goes_on_to_the_same_journal(name: str) -> None:
    story = STORIES[name]()
    whole = story.play(story.desk()).store.events
    expected = [(one.parse().event_id, one.data[: one.core_length]) for one in whole]
    for kept in range(1, len(whole)):
        again = story.play(story.desk(whole[:kept]))
        found = [(one.parse().event_id, one.data[: one.core_length]) for one in again.store.events]
        assert found == expected, f"died after event {kept}, {whole[kept - 1].parse()}"


@pytest.mark.parametrize("name", STORIES)
def test_the_ledger_proves_every_story_and_both_folds_and_the_book_agree_on_orders(name: str) -> None:
    story = STORIES[name]()
    desk = story.play(story.desk())
    assert replay_journal("demo", desk.store.reader()).portfolio == desk.desk.portfolio
    desk.in_force()


def test_the_stories_tell_what_they_are_to_prove() -> None:
    told = dict.fromkeys(("corporate_actions_applied", "margin_called", "order_expired", "order_canceled", "order_rejected"), 0)
    for story in STORIES.values():
        desk = (found := story()).play(found.desk())
        told = {kind: count + len(desk.told(kind)) for kind, count in told.items()}
    assert all(told.values()), told


@types.coroutine
def until_asked_again() -> Generator[None, None, None]:
    """Waits until whoever drives the coroutine asks again."""
    yield


class Clockwork(BarBroker):
    """Recorded bars whose moments come when a test says so."""

    now = Moment.DECISION

    def is_time(self, session: SessionTimes, moment: Moment) -> bool:
        """True once it has come."""
        return moment <= self.now

    async def until(self, session: SessionTimes, moment: Moment) -> None:
        """Waits for it."""
        while not self.is_time(session, moment):
            await until_asked_again()


class Trading:
    """A desk that goes on step by step: phases, and within that of execution the moments before the open, the open and the close."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.clock = desk.broker = Clockwork(desk.stage.history)
        self.between_sessions = True
        self._steps = self._all_steps()

    def step(self) -> None:
        """Goes on to the next place at which people may act."""
        next(self._steps)

    def _all_steps(self) -> Iterator[None]:
        while True:
            cycle, self.between_sessions, self.clock.now = self.desk.cycle(), False, Moment.DECISION
            for phase in PHASES:
                rest = cycle.run(phase) if not cycle.is_void(phase) else None
                while isinstance(rest, Coroutine) and not done(rest):
                    yield
                    self.clock.now = Moment(self.clock.now + 1)
                self.between_sessions = phase == max(PHASES)
                yield


def done(rest: Coroutine[Any, Any, None]) -> bool:
    """Lets a coroutine go on as far as it can."""
    try:
        rest.send(None)
    except StopIteration:
        return True
    return False


def check(desk: Desk, canceled: set[str]) -> None:
    """Proves a journal, and that nothing is filled after it was canceled."""
    replay_journal("demo", desk.store.reader())
    parsed = [stored.parse() for stored in desk.store.events]
    ends = {one.order_canceled.order_id: one.sequence for one in parsed if one.WhichOneof("payload") == "order_canceled"}
    for one in parsed:
        assert one.sequence < ends.get(one.order_filled.order_id, one.sequence + 1), "filled after it was canceled"
    assert set(ends) == canceled


def with_orders() -> Trading:
    """Two orders that last, one of which is executed in parts over many sessions, and one for the day."""
    story = next_open_story()
    trading = Trading(story.desk())
    trading.desk.submit("parts", "AAA", 900, time_in_force=GTC)
    trading.desk.submit("limit", "BBB", 100, time_in_force=GTC, limit_price_micros=49 * DOLLAR)
    trading.desk.submit("day", "AAA", 30, time_in_force=events.TIME_IN_FORCE_AT_THE_CLOSE)
    return trading


def died(trading: Trading, kept: int | None = None) -> Trading:
    """The gateway that goes on from what was journaled."""
    return Trading(next_open_story().desk(trading.desk.store.events[:kept]))


def finished(trading: Trading, canceled: set[str]) -> list[bytes]:
    """What the desk did up to the end of session 3, proved."""
    while trading.desk.desk.sessions_settled < 3 or not trading.between_sessions:
        trading.step()
        if trading.between_sessions:
            trading.desk.in_force()
    check(trading.desk, canceled)
    return [one.data[: one.core_length] for one in trading.desk.store.events]


def taken_back(trading: Trading, order_id: str) -> bool:
    """Cancels an order; False if it is too late."""
    if trading.desk.desk.orders.ticker_of(order_id) is None:
        return False
    try:
        trading.desk.cancel(order_id)
    except TooLateError:
        return False
    return True


STEPS_OF_TWO_SESSIONS = 22


@pytest.mark.parametrize("order_id", ["parts", "limit", "day"])
def test_an_order_is_canceled_at_any_place_and_its_session_comes_out_the_same_when_it_is_done_again(order_id: str) -> None:
    places = 0
    for place in range(STEPS_OF_TWO_SESSIONS):
        stories = list[list[bytes]]()
        for dies in (False, True):
            trading = with_orders()
            for _ in range(place):
                trading.step()
            if taken_back(trading, order_id):
                places += 1
                stories.append(finished(died(trading) if dies else trading, {order_id}))
        assert len(stories) != 1
        assert not stories or stories[0] == stories[1]
    assert places > STEPS_OF_TWO_SESSIONS // 2


@pytest.mark.parametrize("order_id", ["parts", "limit", "day"])
def test_an_order_is_canceled_at_any_place_of_a_session_that_is_done_again(order_id: str) -> None:
    """A gateway dies after any event of two sessions; the next one goes on for a while, hears a person, and dies as well."""
    trading = with_orders()
    for _ in range(STEPS_OF_TWO_SESSIONS):
        trading.step()
    places = 0
    for kept in range(4, len(trading.desk.store.events)):
        for place in (0, 1, 7, 9, 10, 11):
            again = died(trading, kept)
            for _ in range(place):
                again.step()
            if taken_back(again, order_id):
                places += 1
                finished(died(again), {order_id})
    assert places


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whenever_people_act_and_gateways_die_the_ledger_proves_the_journal(data: st.DataObject) -> None:
    """People submit and cancel at any moment, also while a gateway has opened a journal and not begun yet, and between the open and the close;
    gateways die after any event that nobody was answered on."""
    trading, answered, canceled = Trading(next_open_story().desk()), 1, set[str]()
    for place in range(data.draw(st.integers(3, 8))):
        for _ in range(data.draw(st.integers(0, 11))):
            if trading.desk.desk.sessions_settled < 4:
                trading.step()
        desk = trading.desk
        act = data.draw(st.sampled_from(["submit", "cancel", "die"]))
        if act == "submit":
            ticker, shares = data.draw(st.sampled_from(["AAA", "BBB"])), data.draw(st.sampled_from([5, 300, 900, -400]))
            lasts = data.draw(st.sampled_from([{}, {"time_in_force": GTC}, {"time_in_force": events.TIME_IN_FORCE_AT_THE_CLOSE}]))
            limit = {"limit_price_micros": 11 * DOLLAR} if data.draw(st.booleans()) else {}
            desk.submit(f"order {place}", ticker, shares, **lasts, **limit)
            answered = len(desk.store.events)
        elif act == "cancel" and desk.desk.orders.working:
            order_id = data.draw(st.sampled_from([one.order_id for one in desk.desk.orders.working]))
            if taken_back(trading, order_id):
                canceled.add(order_id)
            answered = len(desk.store.events)
        elif act == "die":
            trading = died(trading, data.draw(st.integers(answered, len(desk.store.events))))
        check(trading.desk, canceled)
