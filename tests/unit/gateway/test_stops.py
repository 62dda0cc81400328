"""The drawdown stop and the loss of a session: what the gate is told of the desk's own result, live and from a journal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway.risk.limits import Limit, Limits
from trademesh_gateway.risk.stops import Stops, has_fallen
from trademesh_gateway.stop_history import BY_A_PERSON, hear, stops_after
from trademesh_gateway.wire import limits_in_force
from trademesh_runs.fold import Fold
from trademesh_runs.journal import Draft, Encoder, StoredEvent

CASH = 1000
STOP_BP = 2000


def settled(stops: Stops, *navs: int) -> Stops:
    """After closes at these values."""
    for nav in navs:
        stops.settle(nav)
    return stops


@pytest.mark.parametrize(("to", "limit_bp", "fallen"), [(800, 2000, True), (801, 2000, False), (0, 0, False), (1200, 2000, False)])
def test_a_fall_is_one_from_its_limit_on(to: int, limit_bp: int, fallen: bool) -> None:
    assert has_fallen(1000, to, limit_bp) is fallen


def test_a_drawdown_stop_holds_after_the_desk_has_recovered() -> None:
    stops = settled(Stops(STOP_BP, CASH), 1100, 880, 1050)
    stops.begin_session("2020-03-05")
    assert stops.drawdown_stopped


def test_a_stop_is_lifted_for_the_session_after_a_person_resumed_and_measured_from_there() -> None:
    stops = settled(Stops(STOP_BP, CASH), 700)
    stops.begin_session("2020-03-05")
    stops.resume()
    stops.begin_session("2020-03-05")
    assert stops.drawdown_stopped, "the session in hand is done again"
    settled(stops, 720).begin_session("2020-03-06")
    assert (stops.drawdown_stopped, stops.peak_micros) == (False, 720)
    assert not settled(stops, 577).drawdown_stopped
    assert settled(stops, 576).drawdown_stopped


def test_to_resume_a_desk_that_is_not_stopped_changes_nothing() -> None:
    stops = settled(Stops(STOP_BP, CASH), 900)
    stops.resume()
    stops.begin_session("2020-03-05")
    assert stops.peak_micros == CASH
    assert settled(stops, 800).drawdown_stopped


def test_without_a_limit_nothing_is_stopped() -> None:
    assert not settled(Stops(0, CASH), 1).drawdown_stopped


@pytest.mark.parametrize(
    ("state", "reason", "lifts"),
    [
        (events.PIPELINE_STATE_RUNNING, BY_A_PERSON, True),
        (events.PIPELINE_STATE_RUNNING, "disk: there is room again", False),
        (events.PIPELINE_STATE_PAUSED, "PausePipeline", False),
    ],
)
def test_only_a_person_lifts_a_stop(state: events.PipelineState.ValueType, reason: str, lifts: bool) -> None:
    stops = settled(Stops(STOP_BP, CASH), 100)
    hear(stops, Draft("pipeline_state_changed", events.PipelineStateChanged(state=state, reason=reason)))
    stops.begin_session("2020-03-05")
    assert stops.drawdown_stopped is not lifts


class Reading:
    """A journal of which only kinds are read."""

    def __init__(self, stored: list[StoredEvent]) -> None:
        self._stored = stored

    def read_kind(self, kind: str) -> list[StoredEvent]:
        """Events of one kind."""
        return [one for one in self._stored if one.parse().WhichOneof("payload") == kind]


def after_journal(drafts: list[Draft]) -> Stops:
    """The stops after the events of a journal."""
    encoder, fold = Encoder("demo", 1), Fold("demo")
    stored = [encoder.encode(draft, place + 1, encoder.event_id(draft)) for place, draft in enumerate(drafts)]
    for one in stored:
        event = one.parse()
        if event.HasField("settled"):
            # The fold proves accounts; these are made up.
            fold.begin_with(event.settled.portfolio)
        fold.apply(one)
    return stops_after(Reading(stored), fold, STOP_BP, CASH)  # type: ignore[arg-type]  # nothing but kinds is read


@given(st.lists(st.one_of(st.just("resume"), st.just("open"), st.integers(1, 2000)), max_size=30))
def test_the_journal_tells_the_same_stops_as_the_desk_had(acts: list[str | int]) -> None:
    """Sessions open and settle in turn; a person resumes at any time, also in the middle of one, which is then done again."""
    live, drafts = Stops(STOP_BP, CASH), list[Draft]()
    number, is_open = 0, False
    for place, act in enumerate(acts):
        if act == "resume":
            changed = events.PipelineStateChanged(state=events.PIPELINE_STATE_RUNNING, reason=BY_A_PERSON)
            drafts.append(Draft("pipeline_state_changed", changed, item=str(place)))
            hear(live, drafts[-1])
        elif act == "open" and not is_open:
            number, is_open = number + 1, True
            live.begin_session(f"2020-01-{number:02}")
            drafts.append(Draft("session_opened", events.SessionOpened(session_number=number), f"2020-01-{number:02}", 1))
        elif isinstance(act, int) and is_open:
            is_open = False
            account = events.PortfolioState(initial_cash_micros=act, cash_micros=act)
            settlement = events.Settled(session_number=number, nav_micros=act, portfolio=account)
            drafts.append(Draft("settled", settlement, f"2020-01-{number:02}", 9))
            live.settle(act)
    again = after_journal(drafts)
    for session in ([f"2020-01-{number:02}"] if is_open else []) + ["2020-02-01"]:
        for stops in (live, again):
            stops.begin_session(session)
        assert again.drawdown_stopped == live.drawdown_stopped
        assert (again.peak_micros, again.nav_micros, again.previous_nav_micros) == (
            live.peak_micros, live.nav_micros, live.previous_nav_micros,
        )  # fmt: skip


def test_the_limits_in_force_tell_what_they_hold_back() -> None:
    limits = Limits(2000, 15000, 10000, STOP_BP, shorts_allowed=True, halted_columns=frozenset({1}), daily_loss_bp=500)
    told = limits_in_force(("AAPL", "MSFT"), limits, settled(Stops(STOP_BP, CASH), 1100, 850))
    shown = {Limit(one.limit): (one.value, list(one.tickers)) for one in told.limits}
    assert shown == {
        Limit.TICKER_HALTED: (0.0, ["MSFT"]),
        Limit.DRAWDOWN_STOP: (0.2, []),
        Limit.DAILY_LOSS: (0.05, []),
        Limit.POSITION_LIMIT: (0.2, []),
        Limit.GROSS_LIMIT: (1.5, []),
        Limit.NET_LIMIT: (1.0, []),
    }
    assert (told.halted, told.shorts_allowed, told.drawdown_stopped, told.loss_stopped) == (False, True, True, True)
    assert (told.drawdown, told.last_return) == (-0.227273, -0.227273)


def test_before_the_first_session_there_is_no_return() -> None:
    assert not limits_in_force((), Limits(0, 0, 0, 0, shorts_allowed=True), Stops(0, CASH)).HasField("last_return")
