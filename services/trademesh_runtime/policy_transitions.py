"""When a gateway is started, ended, started again or given up: the state after an event, and what is to be done. Pure; the parts are in
`policy.py`, and what carries them out is `supervisor.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trademesh_runtime.policy import (
    ENDING,
    NEVER_RESTARTED,
    TERMINAL,
    WITH_PROCESS,
    Action,
    Alert,
    Drain,
    Drained,
    Event,
    Exited,
    Found,
    Launch,
    Launched,
    LaunchFailed,
    LockBusy,
    Probed,
    Progress,
    Restart,
    Restarts,
    Send,
    SessionSettled,
    Signal,
    Start,
    State,
    Stop,
    Supervision,
    Suspended,
    Tick,
    Timers,
)

Outcome = tuple[Supervision, Sequence[Action]]

PIPELINE_STOPPED = "PIPELINE_STOPPED"
"""How the last words of a gateway begin whose pipeline StopPipeline has ended."""
_FORCED = "; killed: "
_MOST_DOUBLINGS = 30


def step(now: float, supervision: Supervision, event: Event, timers: Timers) -> Outcome:
    """The state after an event, and what is to be done."""
    match event:
        case Start() | Stop() | Restart():
            return _asked(now, supervision, event, timers)
        case Launched() | LaunchFailed() | LockBusy() | Found() if supervision.state is State.PENDING:
            return _launch_ended(now, supervision, event, timers)
        case Progress() if supervision.state is State.STARTING:
            return _progressed(now, supervision, event, timers), []
        case Probed():
            return _probed(now, supervision, event, timers)
        case Suspended():
            return _unfailing(supervision), []
        case SessionSettled():
            return replace(supervision, starts=()), []
        case Drained() if supervision.state is State.DRAINING:
            return _terminate(now, supervision, timers)
        case Exited() if supervision.state in WITH_PROCESS:
            return _exited(now, supervision, event, timers)
        case Tick() if supervision.timer_at is not None and now >= supervision.timer_at:
            return _timer(now, supervision, timers)
    return supervision, []


def _asked(now: float, supervision: Supervision, event: Start | Stop | Restart, timers: Timers) -> Outcome:
    """What people ask for."""
    state = supervision.state
    match event:
        case Start() | Restart() if state in TERMINAL or (state is State.PENDING and isinstance(event, Start)):
            return Supervision(reason=getattr(event, "reason", ""), restart_policy=supervision.restart_policy), [Launch()]
        case Restart(reason=reason) if state in (State.RUNNING, State.DEGRADED):
            return _drain(now, supervision, State.PENDING, reason or "RestartRun", timers)
        case Restart() if state is State.BACKOFF:
            return replace(supervision, state=State.PENDING, timer_at=None, starts=(), failures=0), [Launch()]
        case Stop(reason=reason) if state in (State.PENDING, State.BACKOFF):
            return replace(supervision, state=State.STOPPED, reason=reason, timer_at=None, wanted=None), []
        case Stop(reason=reason) if state in (State.DRAINING, State.TERMINATING):
            return replace(supervision, wanted=State.STOPPED, reason=reason), []
        case Stop(reason=reason) if state in ENDING:
            again = supervision.wanted is State.STOPPED
            why = supervision.reason if again else f"{reason}{_FORCED}{supervision.reason}"
            return replace(supervision, wanted=State.STOPPED, reason=why), []
        case Stop(reason=reason) if state is State.STARTING:
            return _terminate(now, replace(supervision, wanted=State.STOPPED, reason=reason), timers)
        case Stop(reason=reason) if state in WITH_PROCESS:
            return _drain(now, supervision, State.STOPPED, reason, timers)
    return supervision, []


def _launch_ended(now: float, supervision: Supervision, event: Launched | LaunchFailed | LockBusy | Found, timers: Timers) -> Outcome:
    """What came of a launch, or of the search for a gateway that lives already."""
    with_process = replace(_unfailing(supervision), began_at=now, progress_at=None, serving_since=None, alive=False, reason="")
    match event:
        case Launched():
            starts = (*_recent(now, supervision, timers), now)
            return replace(with_process, state=State.STARTING, timer_at=now + timers.start_deadline_s, starts=starts), []
        case Found():
            return replace(with_process, state=State.ADOPTING, timer_at=now + timers.adopt_s, reason="found alive"), []
        case LockBusy(holder=holder, jitter=jitter):
            reason = f"no second gateway is started: {holder} holds the run's lock"
            return _back_off(now, supervision, reason, jitter, timers), []
        case LaunchFailed(reason=reason, passing=True, jitter=jitter):
            tried = replace(supervision, starts=(*_recent(now, supervision, timers), now))
            return _back_off_or_give_up(now, tried, reason, jitter, timers), []
    return replace(supervision, state=State.FAILED, reason=event.reason, timer_at=None), []


def _progressed(now: float, supervision: Supervision, event: Progress, timers: Timers) -> Supervision:
    after = replace(supervision, progress_at=now, reason=event.what)
    if supervision.alive:
        # It has come as far as to wait for somebody else: there is nothing to be patient for.
        return after
    return replace(after, timer_at=min(now + timers.start_deadline_s, supervision.began_at + timers.start_cap_s))


def _drain(now: float, supervision: Supervision, wanted: State, reason: str, timers: Timers) -> Outcome:
    return replace(supervision, state=State.DRAINING, wanted=wanted, reason=reason, timer_at=now + timers.drain_s), [Drain()]


def _terminate(now: float, supervision: Supervision, timers: Timers) -> Outcome:
    return replace(supervision, state=State.TERMINATING, timer_at=now + timers.terminate_s), [Send(Signal.TERMINATE)]


def _hang(now: float, supervision: Supervision, reason: str, timers: Timers) -> Outcome:
    # SIGABRT first: the gateway's last act is to write where it stood.
    return replace(supervision, state=State.HUNG, reason=reason, timer_at=now + timers.abort_s), [Send(Signal.ABORT)]


def _kill(now: float, supervision: Supervision, reason: str, timers: Timers) -> Outcome:
    return replace(supervision, state=State.KILLING, reason=reason, timer_at=now + timers.kill_s), [Send(Signal.KILL, group=True)]


def _probed(now: float, supervision: Supervision, event: Probed, timers: Timers) -> Outcome:
    state = supervision.state
    if state in (State.STARTING, State.ADOPTING):
        # Not ready yet is no failure here: the deadline is the judge.
        if event.ready:
            return _runs(now, supervision), []
        return replace(supervision, alive=event.alive, reason=event.detail if event.alive else supervision.reason), []
    if state not in (State.RUNNING, State.DEGRADED):
        return supervision, []
    if not event.alive:
        if event.own_lag_s > timers.tolerated_lag_s:
            return supervision, []
        failed = supervision.failed_probes + 1
        since = now if supervision.failing_since is None else supervision.failing_since
        if failed < timers.probe_failures or (event.refused and now - since < timers.ending_s):
            return replace(supervision, failed_probes=failed, failing_since=since, good_probes=0), []
        return _hang(now, supervision, f"{failed} health checks failed: {event.detail}", timers)
    if not event.ready:
        reason = event.detail or "not ready"
        return replace(_unfailing(supervision), state=State.DEGRADED, reason=reason, serving_since=None), []
    good = supervision.good_probes + 1
    if state is State.RUNNING or good >= timers.good_probes:
        return _runs(now, supervision), []
    return replace(_unfailing(supervision), good_probes=good), []


def _runs(now: float, supervision: Supervision) -> Supervision:
    since = now if supervision.serving_since is None else supervision.serving_since
    return replace(_unfailing(supervision), state=State.RUNNING, timer_at=None, reason="", serving_since=since)


def _unfailing(supervision: Supervision) -> Supervision:
    return replace(supervision, failed_probes=0, failing_since=None, good_probes=0)


def _exited(now: float, supervision: Supervision, event: Exited, timers: Timers) -> Outcome:
    healthy_s = now - supervision.serving_since if supervision.serving_since is not None else 0.0
    settled = healthy_s >= max(timers.settle_s, 2 * supervision.last_delay_s)
    failures = 0 if settled else supervision.failures
    ended = replace(_unfailing(supervision), timer_at=None, wanted=None, serving_since=None, failures=failures)
    ended_well = event.signal is None and event.code == 0
    if event.finished and (ended_well or (event.code is None and event.signal is None)) and supervision.wanted is not State.PENDING:
        return replace(ended, state=State.SUCCEEDED, reason="every session is settled"), []
    if supervision.wanted is State.STOPPED:
        return replace(ended, state=State.STOPPED, reason=supervision.reason or "StopRun"), []
    if supervision.wanted is State.PENDING:
        return replace(ended, state=State.PENDING, starts=(), failures=0), [Launch()]
    ended_by_us = supervision.state in (State.HUNG, State.KILLING, State.UNKILLABLE)
    how = f"signal {event.signal}" if event.signal is not None else f"exit {event.code}" if event.code is not None else "ended unseen"
    reason = "; ".join(part for part in (supervision.reason if ended_by_us else "", how, event.words) if part)
    if ended_well and not ended_by_us and event.words.startswith(PIPELINE_STOPPED):
        # The pipeline has ended, if not the run's sessions: no policy starts it again.
        return replace(ended, state=State.STOPPED, reason=event.words), []
    if ended_well and not ended_by_us and supervision.restart_policy is not Restarts.ALWAYS:
        return replace(ended, state=State.STOPPED, reason=f"it ended by itself before the run's end: {reason}"), []
    if event.code in NEVER_RESTARTED or supervision.restart_policy is Restarts.NEVER:
        return replace(ended, state=State.FAILED, reason=reason), []
    return _back_off_or_give_up(now, ended, reason, event.jitter, timers), []


def _recent(now: float, supervision: Supervision, timers: Timers) -> tuple[float, ...]:
    return tuple(at for at in supervision.starts if now - at < timers.crash_window_s)


def _back_off_or_give_up(now: float, supervision: Supervision, reason: str, jitter: float, timers: Timers) -> Supervision:
    recent = _recent(now, supervision, timers)
    if len(recent) > timers.crash_limit:
        text = f"crash_loop: {len(recent)} starts without a settled session; {reason}"
        return replace(supervision, state=State.FAILED, reason=text, timer_at=None)
    waiting = _back_off(now, supervision, reason, jitter, timers)
    return replace(waiting, restarts=supervision.restarts + 1)


def _back_off(now: float, supervision: Supervision, reason: str, jitter: float, timers: Timers) -> Supervision:
    longest_s = min(timers.longest_delay_s, timers.first_delay_s * 2 ** min(supervision.failures, _MOST_DOUBLINGS))
    delay_s = longest_s * (0.5 + jitter / 2)
    return replace(
        supervision,
        state=State.BACKOFF,
        reason=reason,
        timer_at=now + delay_s,
        last_delay_s=delay_s,
        failures=supervision.failures + 1,
    )


def _timer(now: float, supervision: Supervision, timers: Timers) -> Outcome:
    match supervision.state:
        case State.BACKOFF:
            return replace(supervision, state=State.PENDING, timer_at=None), [Launch()]
        case State.STARTING if supervision.alive and _speaks(now, supervision, timers):
            # It lives, and says that it waits, as a rule for another service: to start it again would not help.
            return replace(_unfailing(supervision), state=State.DEGRADED, timer_at=None), []
        case State.ADOPTING if supervision.alive:
            return replace(_unfailing(supervision), state=State.DEGRADED, timer_at=None), []
        case State.STARTING | State.ADOPTING:
            waited_s = now - supervision.began_at
            said = f"; it said last: {supervision.reason}" if supervision.reason and supervision.state is State.STARTING else ""
            return _hang(now, supervision, f"start_deadline: not serving after {waited_s:.3g} s{said}", timers)
        case State.DRAINING:
            return _terminate(now, supervision, timers)
        case State.HUNG:
            return _kill(now, supervision, supervision.reason, timers)
        case State.TERMINATING:
            reason = f"{supervision.reason}{_FORCED}it had not ended {timers.terminate_s:g} s after SIGTERM"
            return _kill(now, supervision, reason, timers)
        case State.KILLING:
            reason = f"{supervision.reason}; not even SIGKILL ended it within {timers.kill_s:g} s"
            overdue = replace(supervision, state=State.UNKILLABLE, reason=reason, timer_at=now + timers.kill_s)
            return overdue, [Send(Signal.KILL, group=True), Alert(reason)]
        case State.UNKILLABLE:
            return replace(supervision, timer_at=now + timers.kill_s), [Send(Signal.KILL, group=True)]
    return replace(supervision, timer_at=None), []


def _speaks(now: float, supervision: Supervision, timers: Timers) -> bool:
    return supervision.progress_at is not None and now - supervision.progress_at <= timers.start_deadline_s
