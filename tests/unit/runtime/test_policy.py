"""The supervision policy: what it must never do, whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trademesh_runtime import policy
from trademesh_runtime.policy import Restarts, Signal, State, Supervision, Timers
from trademesh_runtime.policy_transitions import PIPELINE_STOPPED, step
from trademesh_runtime.settings import RuntimeSettings

TIMERS = Timers()


def test_the_defaults_are_these() -> None:
    assert Timers() == Timers(
        start_deadline_s=30.0,
        start_cap_s=300.0,
        adopt_s=5.0,
        probe_interval_s=1.0,
        probe_timeout_s=1.0,
        probe_failures=3,
        good_probes=2,
        tolerated_lag_s=0.25,
        report_s=1.0,
        first_delay_s=0.5,
        longest_delay_s=60.0,
        settle_s=60.0,
        ending_s=5.0,
        abort_s=1.0,
        drain_s=20.0,
        terminate_s=5.0,
        kill_s=2.0,
        crash_window_s=600.0,
        crash_limit=5,
        lease_s=60.0,
        orphan_s=900.0,
    )
    assert {64, 65, 77, 78, 80} == policy.NEVER_RESTARTED


def test_timers_are_the_defaults_unless_they_are_scaled() -> None:
    assert RuntimeSettings().timers() == TIMERS
    scaled = RuntimeSettings(runtime_timer_scale=0.1).timers()
    assert (scaled.drain_s, scaled.lease_s, scaled.probe_failures, scaled.crash_limit) == (2.0, 6.0, 3, 5)
    assert scaled.probe_timeout_s == 0.3, "a tenth of a second would tell how busy the machine is"


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
        """Without a session settled since."""
        self.own_starts: list[float] = []
        """That no person has asked for."""
        self.asked_for_start = True
        self.stopped_by_person = False
        self.finished = False
        self.supervision = Supervision()

    @initialize(restarts=st.sampled_from(Restarts))
    def begin(self, restarts: Restarts) -> None:
        self.supervision = Supervision(restart_policy=restarts)
        self.tell(policy.Start())

    def tell(self, event: policy.Event) -> None:
        self.supervision, actions = step(self.now, self.supervision, event, TIMERS)
        for action in actions:
            match action:
                case policy.Launch():
                    assert self.live == 0, "a second gateway"
                    assert not self.pending_launch, "a second launch"
                    assert not self.stopped_by_person, "started after StopRun"
                    self.pending_launch = True
                case policy.Send() | policy.Drain():
                    assert self.live == 1, "a signal to nobody"
                case policy.Alert(text=text):
                    assert text

    @rule(seconds=st.floats(0.01, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell(policy.Tick())

    @precondition(lambda self: self.supervision.timer_at is not None)
    @rule()
    def the_timer_comes(self) -> None:
        self.now = max(self.now, self.supervision.timer_at or 0.0)
        self.tell(policy.Tick())

    def is_launching(self) -> bool:
        return self.pending_launch and self.supervision.state is State.PENDING

    @precondition(is_launching)
    @rule()
    def the_process_starts(self) -> None:
        self.pending_launch = False
        self.live = 1
        self.starts.append(self.now)
        if not self.asked_for_start:
            self.own_starts.append(self.now)
        self.asked_for_start = False
        self.tell(policy.Launched())

    @precondition(is_launching)
    @rule(passing=st.booleans(), jitter=st.floats(0, 1))
    def the_process_cannot_be_started(self, passing: bool, jitter: float) -> None:
        self.pending_launch = self.asked_for_start = False
        self.tell(policy.LaunchFailed("no more processes", passing, jitter))

    @precondition(is_launching)
    @rule(jitter=st.floats(0, 1))
    def the_lock_is_held(self, jitter: float) -> None:
        self.pending_launch = self.asked_for_start = False
        self.tell(policy.LockBusy("process 7 (stranger)", jitter))

    @precondition(is_launching)
    @rule()
    def a_living_gateway_is_found(self) -> None:
        self.pending_launch = self.asked_for_start = False
        self.live = 1
        self.tell(policy.Found())

    @precondition(lambda self: self.live)
    @rule(alive=st.booleans(), ready=st.booleans(), lag_s=st.sampled_from([0.0, 0.2, 0.3, 10.0]), refused=st.booleans())
    def a_probe_comes_back(self, alive: bool, ready: bool, lag_s: float, refused: bool) -> None:
        before = self.supervision.failed_probes
        self.tell(policy.Probed(alive, ready and alive, "probe", lag_s, refused and not alive))
        assert alive or lag_s <= 0.25 or self.supervision.failed_probes == before

    @precondition(lambda self: self.live)
    @rule()
    def the_gateway_says_what_it_does(self) -> None:
        self.tell(policy.Progress("reads the journal"))

    @rule()
    def the_machine_slept(self) -> None:
        self.tell(policy.Suspended())
        assert self.supervision.failed_probes == 0

    @precondition(lambda self: self.live)
    @rule(
        how=st.sampled_from([(0, None), (1, None), (65, None), (70, None), (75, None), (None, 9), (None, None)]),
        finished=st.booleans(),
        jitter=st.floats(0, 1),
    )
    def the_process_ends(self, how: tuple[int | None, int | None], finished: bool, jitter: float) -> None:
        self.live = 0
        restart_asked = self.supervision.wanted is State.PENDING
        self.tell(policy.Exited(*how, "", jitter, finished))
        if restart_asked:
            self.asked_for_start = True
            self.starts.clear()
        if how == (0, None) and finished and not restart_asked:
            assert self.supervision.state is State.SUCCEEDED

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
        state = self.supervision.state
        if state in policy.TERMINAL:
            self.stopped_by_person = False
        if state in policy.TERMINAL or (state is State.BACKOFF and not self.stopped_by_person):
            self.asked_for_start = True
            self.starts.clear()
        self.tell(policy.Restart("asked"))

    @invariant()
    def something_will_happen_or_it_is_over(self) -> None:
        state = self.supervision.state
        waiting = self.supervision.timer_at is not None or self.live or self.pending_launch
        assert state in policy.TERMINAL or waiting, state

    @invariant()
    def a_process_that_is_being_ended_or_started_has_a_deadline(self) -> None:
        if self.supervision.state in policy.ENDING | {State.STARTING, State.ADOPTING, State.BACKOFF}:
            assert self.supervision.timer_at is not None

    @invariant()
    def starts_without_progress_are_bounded(self) -> None:
        recent = [at for at in self.starts if self.now - at < TIMERS.crash_window_s]
        assert len(recent) <= TIMERS.crash_limit + 2

    @invariant()
    def starts_that_nobody_asked_for_are_bounded_also_with_progress(self) -> None:
        # Delays of at least 0.25, 0.5, 1, 2, 4, 8, 16, 30, 30 … s, which begin anew only after a minute of health.
        recent = [at for at in self.own_starts if self.now - at < 30]
        assert len(recent) <= 8

    @invariant()
    def a_person_can_read_why(self) -> None:
        if self.supervision.state in {State.FAILED, State.BACKOFF, State.STOPPED, State.SUCCEEDED} | policy.ENDING:
            assert self.supervision.reason, self.supervision.state
            assert len(self.supervision.reason) < 500

    @invariant()
    def a_live_process_is_never_forgotten(self) -> None:
        assert not self.live or self.supervision.state in policy.WITH_PROCESS


Gateways.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestGateways = Gateways.TestCase


@pytest.mark.parametrize("code", sorted(policy.NEVER_RESTARTED))
def test_what_a_restart_cannot_mend_is_not_restarted(code: int) -> None:
    running = Supervision(State.RUNNING)
    after, actions = step(0, running, policy.Exited(code, None, "words", 0.5), TIMERS)
    assert (after.state, actions) == (State.FAILED, [])
    assert str(code) in after.reason
    assert "words" in after.reason


@pytest.mark.parametrize(
    ("restarts", "code", "finished", "state"),
    [
        (Restarts.NEVER, 1, False, State.FAILED),
        (Restarts.NEVER, 0, False, State.STOPPED),
        (Restarts.ON_FAILURE, 1, False, State.BACKOFF),
        (Restarts.ON_FAILURE, 0, False, State.STOPPED),
        (Restarts.ALWAYS, 1, False, State.BACKOFF),
        (Restarts.ALWAYS, 0, False, State.BACKOFF),
        *((restarts, 0, True, State.SUCCEEDED) for restarts in Restarts),
    ],
)
def test_what_follows_an_end_is_as_the_run_asks(restarts: Restarts, code: int, finished: bool, state: State) -> None:
    running = Supervision(State.RUNNING, restart_policy=restarts)
    after, _ = step(0, running, policy.Exited(code, None, "", 0.5, finished), TIMERS)
    assert after.state is state
    assert after.reason


@pytest.mark.parametrize("restarts", Restarts)
def test_a_pipeline_that_a_person_has_ended_is_not_started_again_by_any_policy(restarts: Restarts) -> None:
    words = f"{PIPELINE_STOPPED}: asked"
    running = Supervision(State.RUNNING, restart_policy=restarts)
    after, actions = step(0, running, policy.Exited(0, None, words, 0.5), TIMERS)
    assert (after.state, after.reason, actions) == (State.STOPPED, words, [])
    # It had to be ended by us, or ended badly, whatever it had meant to do.
    for state, code in ((State.HUNG, 0), (State.RUNNING, 70)):
        after, _ = step(0, Supervision(state, "why"), policy.Exited(code, None, words, 0.5), TIMERS)
        assert after.state is State.BACKOFF


def test_three_failed_checks_make_a_hang_and_then_a_kill_of_the_group() -> None:
    supervision = Supervision(State.RUNNING)
    for _ in range(3):
        supervision, actions = step(0, supervision, policy.Probed(False, False, "DEADLINE_EXCEEDED"), TIMERS)
    assert supervision.state is State.HUNG
    assert actions == [policy.Send(Signal.ABORT)]
    supervision, actions = step(1.1, supervision, policy.Tick(), TIMERS)
    assert supervision.state is State.KILLING
    assert actions == [policy.Send(Signal.KILL, group=True)]
    supervision, _ = step(1.2, supervision, policy.Exited(None, 9, "", 0.0), TIMERS)
    assert supervision.state is State.BACKOFF
    assert "DEADLINE_EXCEEDED" in supervision.reason


def test_what_not_even_a_kill_ends_is_told_and_killed_again_and_nothing_is_started_beside_it() -> None:
    supervision = Supervision(State.KILLING, "3 health checks failed", timer_at=2.0)
    supervision, actions = step(2, supervision, policy.Tick(), TIMERS)
    assert supervision.state is State.UNKILLABLE
    assert [type(action) for action in actions] == [policy.Send, policy.Alert]
    for at in (4, 6, 8):
        supervision, actions = step(at, supervision, policy.Tick(), TIMERS)
        assert (supervision.state, list(actions)) == (State.UNKILLABLE, [policy.Send(Signal.KILL, group=True)])
    supervision, actions = step(8, supervision, policy.Restart("asked"), TIMERS)
    assert (supervision.state, list(actions)) == (State.UNKILLABLE, [])
    supervision, _ = step(9, supervision, policy.Exited(None, 9, "", 0.0), TIMERS)
    assert supervision.state is State.BACKOFF


def test_a_stop_that_needs_a_kill_says_that_it_was_forced() -> None:
    supervision, now = Supervision(State.RUNNING), 0.0
    supervision, actions = step(now, supervision, policy.Stop("asked"), TIMERS)
    seen = [*actions]
    while supervision.state is not State.KILLING:
        now = supervision.timer_at or now
        supervision, actions = step(now, supervision, policy.Tick(), TIMERS)
        seen += actions
    assert seen == [policy.Drain(), policy.Send(Signal.TERMINATE), policy.Send(Signal.KILL, group=True)]
    assert now == 25
    supervision, _ = step(now, supervision, policy.Exited(None, 9, "", 0.0), TIMERS)
    assert (supervision.state, supervision.reason) == (State.STOPPED, "asked; killed: it had not ended 5 s after SIGTERM")


def test_a_gateway_that_lives_and_says_what_it_waits_for_is_degraded_and_left_alone() -> None:
    supervision, _ = step(0, Supervision(), policy.Launched(), TIMERS)
    for at in (10, 20, 29):
        supervision, _ = step(at, supervision, policy.Probed(True, False, "readiness: NOT_SERVING"), TIMERS)
        supervision, _ = step(at, supervision, policy.Progress("market data: trading_service does not answer"), TIMERS)
        assert supervision.state is State.STARTING
    supervision, _ = step(supervision.timer_at or 0, supervision, policy.Tick(), TIMERS)
    assert supervision.state is State.DEGRADED
    assert "trading_service" in supervision.reason


def test_a_gateway_that_lives_and_neither_serves_nor_says_why_is_started_again() -> None:
    supervision, _ = step(0, Supervision(), policy.Launched(), TIMERS)
    supervision, _ = step(29, supervision, policy.Probed(True, False, "readiness: NOT_SERVING"), TIMERS)
    supervision, actions = step(30, supervision, policy.Tick(), TIMERS)
    assert (supervision.state, list(actions)) == (State.HUNG, [policy.Send(Signal.ABORT)])
    assert supervision.reason == "start_deadline: not serving after 30 s; it said last: readiness: NOT_SERVING"


def test_progress_gives_a_start_more_time_up_to_a_limit() -> None:
    supervision, _ = step(0, Supervision(), policy.Launched(), TIMERS)
    for at in range(25, 300, 25):
        supervision, _ = step(at, supervision, policy.Progress("reads the journal"), TIMERS)
        assert supervision.timer_at == min(at + 30, 300)
    supervision, _ = step(300, supervision, policy.Tick(), TIMERS)
    assert supervision.state is State.HUNG
    assert "reads the journal" in supervision.reason


@pytest.mark.parametrize(("alive", "state"), [(True, State.DEGRADED), (False, State.HUNG)])
def test_a_gateway_that_was_found_is_judged_within_five_seconds(alive: bool, state: State) -> None:
    supervision, _ = step(0, Supervision(), policy.Found(), TIMERS)
    supervision, _ = step(1, supervision, policy.Probed(alive, False, "NOT_SERVING"), TIMERS)
    supervision, _ = step(5, supervision, policy.Tick(), TIMERS)
    assert supervision.state is state


def test_a_gateway_that_was_found_is_drained_by_a_stop_as_one_that_runs() -> None:
    supervision, _ = step(0, Supervision(), policy.Found(), TIMERS)
    supervision, actions = step(1, supervision, policy.Stop("asked"), TIMERS)
    assert (supervision.state, list(actions), supervision.timer_at) == (State.DRAINING, [policy.Drain()], 21)
    supervision, actions = step(2, supervision, policy.Drained(), TIMERS)
    assert (supervision.state, list(actions)) == (State.TERMINATING, [policy.Send(Signal.TERMINATE)])


def test_readiness_comes_back_after_two_good_checks_and_its_flapping_restarts_nothing() -> None:
    supervision = Supervision(State.RUNNING)
    for _ in range(20):
        for ready in (False, True):
            supervision, actions = step(0, supervision, policy.Probed(True, ready, "no data"), TIMERS)
            assert (supervision.state, list(actions)) == (State.DEGRADED, [])
    supervision, _ = step(0, supervision, policy.Probed(True, True), TIMERS)
    assert supervision.state is State.RUNNING


def test_checks_that_failed_while_the_machine_slept_or_we_were_late_do_not_count() -> None:
    supervision = Supervision(State.RUNNING)
    for _ in range(2):
        supervision, _ = step(0, supervision, policy.Probed(False, False, "DEADLINE_EXCEEDED"), TIMERS)
    for _ in range(10):
        supervision, _ = step(0, supervision, policy.Probed(False, False, "DEADLINE_EXCEEDED", 0.3), TIMERS)
    supervision, _ = step(0, supervision, policy.Suspended(), TIMERS)
    for _ in range(2):
        supervision, _ = step(0, supervision, policy.Probed(False, False, "DEADLINE_EXCEEDED", 0.2), TIMERS)
    assert supervision.state is State.RUNNING


def test_a_process_that_refuses_calls_gets_time_to_end_by_itself() -> None:
    supervision = Supervision(State.RUNNING)
    for now in range(5):
        supervision, actions = step(now, supervision, policy.Probed(False, False, "UNAVAILABLE", refused=True), TIMERS)
        assert (supervision.state, list(actions)) == (State.RUNNING, [])
    supervision, _ = step(5, supervision, policy.Probed(False, False, "UNAVAILABLE", refused=True), TIMERS)
    assert (supervision.state, supervision.reason) == (State.HUNG, "6 health checks failed: UNAVAILABLE")


def crash(supervision: Supervision, now: float, serves_s: float = 0.0) -> tuple[Supervision, float]:
    """A start that fails after it has served for a while; returns what then is and the delay before the next."""
    supervision, _ = step(now, supervision, policy.Launched(), TIMERS)
    supervision, _ = step(now, supervision, policy.Probed(True, True), TIMERS)
    supervision, _ = step(now, supervision, policy.SessionSettled(), TIMERS)
    supervision, _ = step(now + serves_s, supervision, policy.Exited(1, None, "boom", 1.0), TIMERS)
    delay_s = (supervision.timer_at or 0) - now - serves_s
    supervision, _ = step(supervision.timer_at or 0, supervision, policy.Tick(), TIMERS)
    return supervision, delay_s


def test_delays_double_up_to_a_minute_and_begin_anew_after_a_time_of_health() -> None:
    supervision, now, delays = Supervision(), 0.0, []
    for _ in range(9):
        supervision, delay_s = crash(supervision, now)
        now += delay_s
        delays.append(delay_s)
    assert delays == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    supervision, delay_s = crash(supervision, now, serves_s=119)
    assert delay_s == 60
    supervision, delay_s = crash(supervision, now + 179, serves_s=120)
    assert delay_s == 0.5


def test_jitter_shortens_a_delay_by_half_at_most() -> None:
    running = Supervision(State.RUNNING)
    timers = [step(0, running, policy.Exited(1, None, "", jitter), TIMERS)[0].timer_at for jitter in (0.0, 0.5, 1.0)]
    assert timers == [0.25, 0.375, 0.5]


def test_a_lock_that_is_held_is_waited_for_and_its_holder_named() -> None:
    supervision = Supervision()
    for _ in range(20):
        supervision, _ = step(supervision.timer_at or 0, supervision, policy.LockBusy("process 7 (stranger)", 1.0), TIMERS)
        assert supervision.state is State.BACKOFF
        assert "process 7 (stranger)" in supervision.reason
        supervision, actions = step(supervision.timer_at or 0, supervision, policy.Tick(), TIMERS)
        assert (supervision.state, list(actions)) == (State.PENDING, [policy.Launch()])
    assert supervision.restarts == 0


@pytest.mark.parametrize(("passing", "state"), [(True, State.BACKOFF), (False, State.FAILED)])
def test_a_start_that_may_succeed_another_time_is_tried_again(passing: bool, state: State) -> None:
    supervision, _ = step(0, Supervision(), policy.LaunchFailed("no more processes", passing, 0.5), TIMERS)
    assert (supervision.state, supervision.reason) == (state, "no more processes")


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
    assert supervision.reason == "crash_loop: 6 starts without a settled session; exit 1; boom"
    assert supervision.restarts == 5
