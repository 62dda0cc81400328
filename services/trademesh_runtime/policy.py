"""What supervision of a gateway is made of: its states, what happens to it, what can be done, and how long anything may take.
Which follows from which is `policy_transitions.py`. Both are pure: no I/O, no clock, no chance; all three come with the events.

PENDING ── launched ──▶ STARTING ── serving ──▶ RUNNING ◀──▶ DEGRADED (alive, waits for another service)
   ▲                       │                       │
   │                       ▼                       ▼ three checks failed
BACKOFF ◀──────────── exit, deadline ◀──────────  HUNG ─▶ KILLING ─▶ UNKILLABLE (killed again and again)
   │
   └─ too many ─▶ FAILED     stop ─▶ DRAINING ─▶ TERMINATING ─▶ KILLING     each ends as STOPPED     run's end ─▶ SUCCEEDED
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

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
    KILLING = 13
    UNKILLABLE = 14


TERMINAL = frozenset({State.STOPPED, State.SUCCEEDED, State.FAILED})
ENDING = frozenset({State.HUNG, State.DRAINING, State.TERMINATING, State.KILLING, State.UNKILLABLE})
"""The process lives and is being ended."""
WITH_PROCESS = ENDING | {State.STARTING, State.RUNNING, State.DEGRADED, State.ADOPTING}


class Restarts(enum.IntEnum):
    """When a gateway that ended is started again; values are those of runtime.v1.RestartPolicy."""

    NEVER = 1
    ON_FAILURE = 2
    ALWAYS = 3


@dataclass(frozen=True)
class Timers:
    """Every time-out of supervision, in seconds. Tests run with smaller ones; one test pins these."""

    start_deadline_s: float = 30.0
    """From the launch, or from the newest word of progress, to SERVING."""
    start_cap_s: float = 300.0
    """Longer than this no start lasts, whatever it says."""
    adopt_s: float = 5.0
    probe_interval_s: float = 1.0
    probe_timeout_s: float = 1.0
    probe_failures: int = 3
    good_probes: int = 2
    """So many make a DEGRADED gateway RUNNING."""
    tolerated_lag_s: float = 0.25
    """A check that failed while we were later than this ourselves does not count."""
    report_s: float = 1.0
    """A changed health is told at most so often."""
    first_delay_s: float = 0.5
    longest_delay_s: float = 60.0
    settle_s: float = 60.0
    """After so long SERVING, or twice the last delay, delays begin anew."""
    ending_s: float = 5.0
    """A process that refuses calls gets so long to end by itself before it counts as hung."""
    abort_s: float = 1.0
    drain_s: float = 20.0
    terminate_s: float = 5.0
    kill_s: float = 2.0
    crash_window_s: float = 600.0
    crash_limit: int = 5
    lease_s: float = 60.0
    """Without a heartbeat for so long a gateway begins no new cycle. It is told when it is launched, as the next one."""
    orphan_s: float = 900.0
    """Without a heartbeat for so long a gateway ends."""


class Signal(enum.Enum):
    """What a gateway can be sent. Whatever it is, a gateway that was stopped is woken, or it would not notice."""

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
    """The process could not be started; `passing` if it may be another time. `jitter` is chance from 0 to 1, here and below."""

    reason: str
    passing: bool = False
    jitter: float = 1.0


@dataclass(frozen=True)
class LockBusy:
    """Something holds the run's lock that is not ours to end: a second gateway must not be started beside it."""

    holder: str
    jitter: float


@dataclass(frozen=True)
class Progress:
    """A gateway that is not serving yet has said what it does."""

    what: str


@dataclass(frozen=True)
class Probed:
    """A health check came back: `alive` is liveness within the time-out, `ready` is readiness."""

    alive: bool
    ready: bool
    detail: str = ""
    own_lag_s: float = 0.0
    """How much later than its time-out we ourselves were to notice."""
    refused: bool = False
    """True if nobody takes calls where it serves, though the process lives: as a rule it is about to end by itself."""


@dataclass(frozen=True)
class Suspended:
    """The machine slept: what was not answered meanwhile says nothing."""


@dataclass(frozen=True)
class SessionSettled:
    """The gateway has settled a session since it was started."""


@dataclass(frozen=True)
class Drained:
    """The gateway has answered Drain, or cannot."""


@dataclass(frozen=True)
class Exited:
    """The process has ended. Neither code nor signal: unknown."""

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


Event = (
    Start
    | Stop
    | Restart
    | Launched
    | LaunchFailed
    | LockBusy
    | Progress
    | Probed
    | Suspended
    | SessionSettled
    | Drained
    | Exited
    | Found
    | Tick
)


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


@dataclass(frozen=True)
class Alert:
    """Tell the people who look after the machine."""

    text: str


Action = Launch | Drain | Send | Alert


@dataclass(frozen=True)
class Supervision:
    """The state of the policy for one run. Times are on the caller's clock."""

    state: State = State.PENDING
    reason: str = ""
    timer_at: float | None = None
    """When a Tick is wanted."""
    failed_probes: int = 0
    failing_since: float | None = None
    good_probes: int = 0
    """Good checks in a row."""
    alive: bool = False
    """Whether the last probe of a start or an adoption found it alive, if not ready yet."""
    wanted: State | None = None
    """STOPPED or PENDING while the process is being ended on purpose."""
    began_at: float = 0.0
    """When the process was started or found."""
    progress_at: float | None = None
    """When it last said what it does while it starts."""
    serving_since: float | None = None
    starts: tuple[float, ...] = field(default=())
    """When it was started without a session settled since."""
    failures: int = 0
    """Ends without a time of health between them: they decide how long the next delay is."""
    last_delay_s: float = 0.0
    restarts: int = 0
    restart_policy: Restarts = Restarts.ON_FAILURE
