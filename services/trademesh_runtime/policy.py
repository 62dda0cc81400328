"""When a gateway is started, ended, started again or given up. Pure: no I/O, no clock, no chance; all three come with the events.

PENDING ── launched ──▶ STARTING ── serving ──▶ RUNNING ◀──▶ DEGRADED (alive, waits for another service)
   ▲                       │                       │
   │                       ▼                       ▼ three checks failed
BACKOFF ◀──────────── exit, deadline ◀──────────  HUNG
   │
   └─ too many ─▶ FAILED        stop ─▶ DRAINING ─▶ TERMINATING ─▶ STOPPED        exit 0 ─▶ SUCCEEDED
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

NEVER_RESTARTED = frozenset({64, 65, 77, 78, 80})
"""Exit statuses that a restart cannot mend: usage, bad data, permission, configuration, fenced."""


class State(enum.IntEnum):
    """Where a run stands; values are those of runtime.v1.RunState."""

    PENDING = 1
    STARTING = 2
    RUNNING = 3
    DEGRADED = 4
    HUNG = 5
    BACKOFF = 6
    DRAINING = 7
    TERMINATING = 8
    ADOPTING = 9
    STOPPED = 10
    SUCCEEDED = 11
    FAILED = 12


TERMINAL = frozenset({State.STOPPED, State.SUCCEEDED, State.FAILED})
WITH_PROCESS = frozenset({State.STARTING, State.RUNNING, State.DEGRADED, State.HUNG, State.DRAINING, State.TERMINATING, State.ADOPTING})


@dataclass(frozen=True)
class Timers:
    """Every time-out of the policy, in seconds. Tests run with smaller ones; one test pins these."""

    start_deadline_s: float = 30.0
    probe_interval_s: float = 1.0
    probe_timeout_s: float = 1.0
    probe_failures: int = 3
    first_delay_s: float = 0.5
    longest_delay_s: float = 60.0
    abort_s: float = 1.0
    drain_s: float = 20.0
    terminate_s: float = 5.0
    crash_window_s: float = 600.0
    crash_limit: int = 5


class Signal(enum.Enum):
    """What a gateway can be sent."""

    ABORT = "SIGABRT"
    TERMINATE = "SIGTERM"
    KILL = "SIGKILL"


# Events


@dataclass(frozen=True)
class Start:
    """The run was accepted, or is to be started again by RestartRun."""


@dataclass(frozen=True)
class Stop:
    """StopRun was called."""

    reason: str


@dataclass(frozen=True)
class Restart:
    """RestartRun was called."""

    reason: str


@dataclass(frozen=True)
class Launched:
    """The process was started."""


@dataclass(frozen=True)
class LaunchFailed:
    """The process could not be started."""

    reason: str


@dataclass(frozen=True)
class Probed:
    """A health check came back: `alive` is liveness within the time-out, `ready` is readiness."""

    alive: bool
    ready: bool
    detail: str = ""


@dataclass(frozen=True)
class SessionSettled:
    """The gateway has settled a session since it was started."""


@dataclass(frozen=True)
class Drained:
    """The gateway has answered Drain, or cannot."""


@dataclass(frozen=True)
class Exited:
    """The process has ended. `jitter` is chance from 0 to 1. Neither code nor signal: unknown."""

    code: int | None
    signal: int | None
    words: str
    jitter: float
    finished: bool = False
    """True if the run had settled every session."""


@dataclass(frozen=True)
class Found:
    """A living gateway of an earlier runtime_service was found."""


@dataclass(frozen=True)
class Tick:
    """A timer that the policy asked for has come."""


Event = Start | Stop | Restart | Launched | LaunchFailed | Probed | SessionSettled | Drained | Exited | Found | Tick


# Actions


@dataclass(frozen=True)
class Launch:
    """Start the next generation."""


@dataclass(frozen=True)
class Drain:
    """Ask the gateway to finish what it does, and report Drained."""


@dataclass(frozen=True)
class Send:
    """Send a signal to the gateway's process, or to its whole group."""

    signal: Signal
    group: bool = False


Action = Launch | Drain | Send


@dataclass(frozen=True)
class Supervision:
    """The state of the policy for one run. `timer_at` is when a Tick is wanted, on the caller's clock."""

    state: State = State.PENDING
    reason: str = ""
    timer_at: float | None = None
    failed_probes: int = 0
    alive: bool = False
    """Whether the last probe of a start or an adoption found it alive, if not ready yet."""
    wanted: State | None = None
    """STOPPED or PENDING while the process is being ended on purpose."""
    starts: tuple[float, ...] = field(default=())
    """When it was started without a session settled since."""
    restarts: int = 0
    restart_on_failure: bool = True


def step(now: float, supervision: Supervision, event: Event, timers: Timers) -> tuple[Supervision, Sequence[Action]]:
    """The state after an event, and what is to be done."""
    state = supervision.state
    match event:
        case Start() | Restart() if state in TERMINAL or (state is State.PENDING and isinstance(event, Start)):
            fresh = replace(supervision, state=State.PENDING, starts=(), wanted=None, restarts=0, failed_probes=0, timer_at=None)
            return replace(fresh, reason=getattr(event, "reason", "")), [Launch()]
        case Restart(reason=reason) if state in (State.RUNNING, State.DEGRADED):
            return _drain(now, supervision, State.PENDING, reason or "RestartRun", timers)
        case Restart() if state is State.BACKOFF:
            return replace(supervision, state=State.PENDING, timer_at=None, starts=()), [Launch()]
        case Stop(reason=reason) if state in (State.PENDING, State.BACKOFF):
            return replace(supervision, state=State.STOPPED, reason=reason, timer_at=None, wanted=None), []
        case Stop(reason=reason) if state in (State.DRAINING, State.TERMINATING, State.HUNG):
            return replace(supervision, wanted=State.STOPPED, reason=reason), []
        case Stop(reason=reason) if state in (State.STARTING, State.ADOPTING):
            return _terminate(now, replace(supervision, wanted=State.STOPPED, reason=reason), timers)
        case Stop(reason=reason) if state in WITH_PROCESS:
            return _drain(now, supervision, State.STOPPED, reason, timers)
        case Launched() if state is State.PENDING:
            starts = (*(at for at in supervision.starts if now - at < timers.crash_window_s), now)
            deadline = now + timers.start_deadline_s
            return replace(supervision, state=State.STARTING, timer_at=deadline, starts=starts, failed_probes=0, alive=False, reason=""), []
        case LaunchFailed(reason=reason) if state is State.PENDING:
            return replace(supervision, state=State.FAILED, reason=reason, timer_at=None), []
        case Found() if state is State.PENDING:
            deadline = now + timers.start_deadline_s
            return replace(supervision, state=State.ADOPTING, timer_at=deadline, alive=False, reason="found alive"), []
        case Probed():
            return _probed(now, supervision, event, timers)
        case SessionSettled():
            return replace(supervision, starts=()), []
        case Drained() if state is State.DRAINING:
            return _terminate(now, supervision, timers)
        case Exited() if state in WITH_PROCESS:
            return _exited(now, supervision, event, timers)
        case Tick() if supervision.timer_at is not None and now >= supervision.timer_at:
            return _timer(now, supervision, timers)
    return supervision, []


def _drain(now: float, supervision: Supervision, wanted: State, reason: str, timers: Timers) -> tuple[Supervision, Sequence[Action]]:
    after = replace(supervision, state=State.DRAINING, wanted=wanted, reason=reason, timer_at=now + timers.drain_s)
    return after, [Drain()]


def _terminate(now: float, supervision: Supervision, timers: Timers) -> tuple[Supervision, Sequence[Action]]:
    return replace(supervision, state=State.TERMINATING, timer_at=now + timers.terminate_s), [Send(Signal.TERMINATE)]


def _probed(now: float, supervision: Supervision, event: Probed, timers: Timers) -> tuple[Supervision, Sequence[Action]]:
    state = supervision.state
    if state in (State.STARTING, State.ADOPTING):
        # Not ready yet is no failure here: the start deadline is the judge.
        if event.ready:
            return replace(supervision, state=State.RUNNING, timer_at=None, failed_probes=0, reason=""), []
        return replace(supervision, alive=event.alive, reason=event.detail if event.alive else supervision.reason), []
    if state not in (State.RUNNING, State.DEGRADED):
        return supervision, []
    if not event.alive:
        failed = supervision.failed_probes + 1
        if failed < timers.probe_failures:
            return replace(supervision, failed_probes=failed), []
        reason = f"{failed} health checks failed: {event.detail}"
        return replace(supervision, state=State.HUNG, reason=reason, timer_at=now + timers.abort_s), [Send(Signal.ABORT)]
    wanted = State.RUNNING if event.ready else State.DEGRADED
    reason = "" if event.ready else event.detail or "not ready"
    return replace(supervision, state=wanted, failed_probes=0, reason=reason), []


def _exited(now: float, supervision: Supervision, event: Exited, timers: Timers) -> tuple[Supervision, Sequence[Action]]:
    ended = replace(supervision, timer_at=None, failed_probes=0, wanted=None)
    if event.finished and event.code in (0, None) and event.signal is None and supervision.wanted is not State.PENDING:
        return replace(ended, state=State.SUCCEEDED, reason="every session is settled"), []
    if supervision.wanted is State.STOPPED:
        return replace(ended, state=State.STOPPED), []
    if supervision.wanted is State.PENDING:
        return replace(ended, state=State.PENDING, starts=()), [Launch()]
    how = f"signal {event.signal}" if event.signal is not None else f"exit {event.code}" if event.code is not None else "ended unseen"
    why = supervision.reason if supervision.state is State.HUNG else ""
    reason = "; ".join(part for part in (why, how, event.words) if part)
    if event.code in NEVER_RESTARTED or not supervision.restart_on_failure:
        return replace(ended, state=State.FAILED, reason=reason), []
    recent = tuple(at for at in supervision.starts if now - at < timers.crash_window_s)
    if len(recent) > timers.crash_limit:
        return replace(ended, state=State.FAILED, reason=f"crash_loop: {len(recent)} starts without a settled session; {reason}"), []
    longest = min(timers.longest_delay_s, timers.first_delay_s * 2 ** max(0, len(recent) - 1))
    delay = longest * (0.5 + event.jitter / 2)
    return replace(ended, state=State.BACKOFF, reason=reason, timer_at=now + delay, restarts=supervision.restarts + 1), []


def _timer(now: float, supervision: Supervision, timers: Timers) -> tuple[Supervision, Sequence[Action]]:
    match supervision.state:
        case State.BACKOFF:
            return replace(supervision, state=State.PENDING, timer_at=None), [Launch()]
        case State.STARTING | State.ADOPTING if supervision.alive:
            # It lives and waits for something, as a rule another service: to start it again would not help.
            return replace(supervision, state=State.DEGRADED, timer_at=None, failed_probes=0), []
        case State.STARTING | State.ADOPTING:
            reason = f"start_deadline: not serving after {timers.start_deadline_s:g} s"
            return replace(supervision, state=State.HUNG, reason=reason, timer_at=now + timers.abort_s), [Send(Signal.ABORT)]
        case State.DRAINING:
            return _terminate(now, supervision, timers)
        case State.HUNG | State.TERMINATING:
            # The timer comes again: a process that is still there is killed again, never forgotten.
            return replace(supervision, timer_at=now + timers.abort_s), [Send(Signal.KILL, group=True)]
    return replace(supervision, timer_at=None), []
