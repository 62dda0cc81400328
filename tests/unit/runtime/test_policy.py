"""The supervision policy: what it must never do, whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trademesh_runtime import policy
from trademesh_runtime.policy import Signal, State, Supervision, Timers, step

TIMERS = Timers()


def test_the_defaults_are_these() -> None:
    assert Timers() == Timers(30.0, 1.0, 1.0, 3, 0.5, 60.0, 1.0, 20.0, 5.0, 600.0, 5)


def test_the_longest_delays_do_not_outrun_the_crash_window() -> None:
    delays = sum(min(TIMERS.longest_delay_s, TIMERS.first_delay_s * 2**n) for n in range(TIMERS.crash_limit + 1))
    assert delays + (TIMERS.crash_limit + 1) * TIMERS.start_deadline_s < TIMERS.crash_window_s


class Gateways(RuleBasedStateMachine):
    """Plays the world around the policy: processes, clocks, people."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.live = 0
        self.pending_launch = False
        self.starts: list[float] = []
        self.stopped_by_person = False
        self.supervision = Supervision()
        self.tell(policy.Start())

    def tell(self, event: policy.Event) -> None:
        self.supervision, actions = step(self.now, self.supervision, event, TIMERS)
        for action in actions:
            match action:
                case policy.Launch():
                    assert self.live == 0, "a second gateway"
                    assert not self.stopped_by_person, "started after StopRun"
                    self.pending_launch = True
                case policy.Send():
                    assert self.live == 1, "a signal to nobody"

    @rule(seconds=st.floats(0.01, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell(policy.Tick())

    @precondition(lambda self: self.pending_launch and self.supervision.state is State.PENDING)
    @rule()
    def the_process_starts(self) -> None:
        self.pending_launch = False
        self.live = 1
        self.starts.append(self.now)
        self.tell(policy.Launched())

    @precondition(lambda self: self.live)
    @rule(alive=st.booleans(), ready=st.booleans())
    def a_probe_comes_back(self, alive: bool, ready: bool) -> None:
        self.tell(policy.Probed(alive, ready and alive, "probe"))

    @precondition(lambda self: self.live)
    @rule(code=st.sampled_from([0, 1, 65, 70, 75, None]), finished=st.booleans(), jitter=st.floats(0, 1))
    def the_process_ends(self, code: int | None, finished: bool, jitter: float) -> None:
        self.live = 0
        self.tell(policy.Exited(code, 9 if code is None else None, "", jitter, finished))

    @precondition(lambda self: self.live)
    @rule()
    def a_session_is_settled(self) -> None:
        self.starts.clear()
        self.tell(policy.SessionSettled())

    @precondition(lambda self: self.live)
    @rule()
    def the_gateway_has_drained(self) -> None:
        self.tell(policy.Drained())

    @rule()
    def a_person_stops_it(self) -> None:
        ended = self.supervision.state in policy.TERMINAL
        self.tell(policy.Stop("asked"))
        self.stopped_by_person = not ended or self.stopped_by_person
        if self.supervision.state is State.STOPPED:
            self.pending_launch = False

    @rule()
    def a_person_restarts_it(self) -> None:
        if self.supervision.state in policy.TERMINAL:
            self.stopped_by_person = False
            self.starts.clear()
        if self.supervision.state in (State.RUNNING, State.DEGRADED, State.BACKOFF) and not self.stopped_by_person:
            self.starts.clear()
        if self.supervision.state in policy.TERMINAL or self.supervision.state in (State.RUNNING, State.DEGRADED, State.BACKOFF):
            self.tell(policy.Restart("asked"))

    @invariant()
    def something_will_happen_or_it_is_over(self) -> None:
        state = self.supervision.state
        waiting = self.supervision.timer_at is not None or self.live or self.pending_launch
        assert state in policy.TERMINAL or waiting, state

    @invariant()
    def starts_without_progress_are_bounded(self) -> None:
        recent = [at for at in self.starts if self.now - at < TIMERS.crash_window_s]
        assert len(recent) <= TIMERS.crash_limit + 2

    @invariant()
    def a_live_process_is_never_forgotten(self) -> None:
        assert not (self.live and self.supervision.state in policy.TERMINAL)
        assert not (self.live and self.supervision.state is State.BACKOFF)


Gateways.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestGateways = Gateways.TestCase


@pytest.mark.parametrize("code", sorted(policy.NEVER_RESTARTED))
def test_what_a_restart_cannot_mend_is_not_restarted(code: int) -> None:
    running = Supervision(State.RUNNING)
    after, actions = step(0, running, policy.Exited(code, None, "words", 0.5), TIMERS)
    assert (after.state, actions) == (State.FAILED, [])
    assert str(code) in after.reason
    assert "words" in after.reason


def test_three_failed_checks_make_a_hang_and_then_a_kill_of_the_group() -> None:
    supervision = Supervision(State.RUNNING)
    for _ in range(3):
        supervision, actions = step(0, supervision, policy.Probed(False, False, "DEADLINE_EXCEEDED"), TIMERS)
    assert supervision.state is State.HUNG
    assert actions == [policy.Send(Signal.ABORT)]
    supervision, actions = step(1.1, supervision, policy.Tick(), TIMERS)
    assert actions == [policy.Send(Signal.KILL, group=True)]
    supervision, _ = step(1.2, supervision, policy.Exited(None, 9, "", 0.0), TIMERS)
    assert supervision.state is State.BACKOFF
    assert "DEADLINE_EXCEEDED" in supervision.reason


@pytest.mark.parametrize(("first", "state"), [(policy.Launched(), State.STARTING), (policy.Found(), State.ADOPTING)])
def test_a_gateway_that_lives_and_waits_for_another_service_is_degraded_and_left_alone(first: policy.Event, state: State) -> None:
    supervision, _ = step(0, Supervision(), first, TIMERS)
    assert supervision.state is state
    supervision, _ = step(29, supervision, policy.Probed(True, False, "market data: trading_service does not answer"), TIMERS)
    assert supervision.state is state
    supervision, actions = step(30, supervision, policy.Tick(), TIMERS)
    assert (supervision.state, list(actions)) == (State.DEGRADED, [])
    assert "trading_service" in supervision.reason
    supervision, _ = step(40, supervision, policy.Probed(True, True), TIMERS)
    assert supervision.state is State.RUNNING


def test_a_gateway_that_was_alive_and_then_hangs_while_it_starts_is_killed() -> None:
    supervision, _ = step(0, Supervision(), policy.Launched(), TIMERS)
    for alive in (True, False):
        supervision, _ = step(10, supervision, policy.Probed(alive, False, "DEADLINE_EXCEEDED"), TIMERS)
    supervision, actions = step(30, supervision, policy.Tick(), TIMERS)
    assert (supervision.state, list(actions)) == (State.HUNG, [policy.Send(Signal.ABORT)])


def test_a_crash_loop_is_given_up_and_said() -> None:
    supervision, now = Supervision(), 0.0
    for _ in range(20):
        if supervision.state in policy.TERMINAL:
            break
        if supervision.state is State.PENDING:
            supervision, _ = step(now, supervision, policy.Launched(), TIMERS)
            supervision, _ = step(now, supervision, policy.Exited(1, None, "boom", 1.0), TIMERS)
        now = supervision.timer_at or now
        supervision, _ = step(now, supervision, policy.Tick(), TIMERS)
    assert supervision.state is State.FAILED
    assert supervision.reason.startswith("crash_loop")
    assert supervision.restarts == 5
