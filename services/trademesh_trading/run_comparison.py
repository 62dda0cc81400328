"""Where two runs part, and why: fingerprints of what each desk did, session by session, are compared, not the events themselves.

Of approvals only the answers count: their names and times are each run's own. What people say to agents changes nothing, and is left out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh.trading.v1 import portfolio_service_pb2 as messages
from trademesh_kernel.front_matter import split_front_matter
from trademesh_runs.account_history import AccountHistory
from trademesh_runs.bootstrap import write_bootstrap
from trademesh_runs.journal import KIND_NUMBERS

MOST_SETTINGS = 100
_LONGEST_VALUE = 200
_OWN_TO_EACH_RUN = ("run_id", "pipeline", "supervision")
_NOT_COMPARED = ("approval_requested", "message_sent", "message_answered")
COMPARED_KINDS = tuple(name for name, number in KIND_NUMBERS.items() if number >= 40 and name not in _NOT_COMPARED)


class Print(NamedTuple):
    """A fingerprint of what one agent, or the desk, did in one phase."""

    phase: int
    agent_id: str
    hash: int


class RunFacts:
    """What of a run is compared; events are taken in as they come."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.started = events.RunStarted()
        self.history = AccountHistory()
        self.sessions: dict[str, tuple[Print, ...]] = {}
        """Fingerprints of each settled session, by phase and agent."""
        self.decisions: dict[str, int] = {}
        self.navs: dict[str, int] = {}
        self.fills = 0
        self.through = 0
        self._open: dict[tuple[int, str], int] = {}
        self._actors: dict[tuple[int, str], tuple[int, str]] = {}

    def add(self, event: events.Event) -> None:
        """Takes in one event, oldest first."""
        kind = event.WhichOneof("payload") or ""
        if kind == "run_started":
            self.started.CopyFrom(event.run_started)
        self.history.add(event)
        if not event.session_date or kind in _NOT_COMPARED:
            return
        key = (event.phase, event.agent_id)
        did = hash((kind, _content(kind, event)))
        self._open[key] = hash((self._open.get(key, 0), did))
        if kind == "decisions":
            self.decisions[event.session_date] = did
        elif kind == "order_filled":
            self.fills += 1
        elif kind == "settled":
            self.navs[event.session_date] = event.settled.nav_micros
            # Most sessions have the same phases and agents: the keys are kept once.
            prints = (Print(*self._actors.setdefault(key, key), value) for key, value in sorted(self._open.items()))
            self.sessions[event.session_date] = tuple(prints)
            self._open.clear()


def _content(kind: str, event: events.Event) -> bytes:
    payload: Any = getattr(event, kind)
    if kind == "approval_resolved":
        payload = events.ApprovalResolved(order_id=payload.order_id, approved=payload.approved, reason=payload.reason)
    content: bytes = payload.SerializeToString(deterministic=True)
    return content


def compared_run(run_id: str, facts: RunFacts) -> messages.ComparedRun:
    """What a run is and came to, as its message."""
    dates = list(facts.navs)
    return messages.ComparedRun(
        run_id=run_id,
        as_of_sequence=facts.through,
        first_session=dates[0] if dates else "",
        last_session=dates[-1] if dates else "",
        sessions=len(dates),
        initial_cash_micros=facts.started.initial_cash_micros,
        nav_micros=facts.navs[dates[-1]] if dates else facts.started.initial_cash_micros,
        fills=facts.fills,
        config_sha256=facts.started.config_sha256,
        data_sha256=facts.started.data_sha256,
    )


def figure_rows(figures: list[messages.GetPerformanceResponse]) -> list[messages.FigureRow]:
    """Figures of some runs, a row for each that may be undefined, and its difference from the first run's."""
    names = [one.name for one in messages.GetPerformanceResponse.DESCRIPTOR.fields if one.has_presence]
    given = [{one.name: float(value) for one, value in each.ListFields() if one.name in names} for each in figures]
    rows = list[messages.FigureRow]()
    for name in names:
        values = [one.get(name) for one in given]
        row = messages.FigureRow(name=name)
        for value, one in zip(values, figures, strict=True):
            difference = value - values[0] if value is not None and values[0] is not None else None
            row.cells.add(value=value, difference=difference, undefined=one.undefined.get(name, ""))
        rows.append(row)
    return rows


def divergence(run_id: str, first: RunFacts, other: RunFacts) -> messages.RunDivergence:
    """Where a run parts from the first one, up to the last session that both have settled, and why."""
    found = messages.RunDivergence(run_id=run_id, configuration=setting_differences(first.config, other.config))
    common = min(max(first.navs, default=""), max(other.navs, default=""))
    for session in sorted(first.sessions.keys() | other.sessions.keys()):
        ours, theirs = first.sessions.get(session), other.sessions.get(session)
        if session > common:
            break
        if ours != theirs:
            found.first_session = session
            _name_place(found, ours or (), theirs or ())
            break
    found.first_decisions_session = _first_difference(first.decisions, other.decisions, common)
    found.first_nav_session = _first_difference(first.navs, other.navs, common)
    if found.first_session:
        if first.started.config_sha256 != other.started.config_sha256:
            found.causes.append(messages.DIVERGENCE_CAUSE_CONFIGURATION)
        if first.started.data_sha256 != other.started.data_sha256:
            found.causes.append(messages.DIVERGENCE_CAUSE_DATA)
        if not found.causes:
            found.causes.append(messages.DIVERGENCE_CAUSE_DECISIONS)
    found.explanation = _in_words(found, common)
    return found


def _name_place(found: messages.RunDivergence, ours: tuple[Print, ...], theirs: tuple[Print, ...]) -> None:
    if not ours or not theirs:
        return
    differing = sorted({(one.phase, one.agent_id) for one in set(ours) ^ set(theirs)})
    found.first_phase = events.Phase.ValueType(differing[0][0])
    found.agent_ids.extend(agent_id for phase, agent_id in differing if phase == differing[0][0] and agent_id)


def _first_difference(ours: dict[str, int], theirs: dict[str, int], common: str) -> str:
    sessions = (session for session in ours.keys() | theirs.keys() if session <= common and ours.get(session) != theirs.get(session))
    return min(sessions, default="")


def setting_differences(first: RunConfig, other: RunConfig) -> list[messages.SettingDifference]:
    """Settings that decide the outcome and differ, by their place in BOOTSTRAP.md; at most 100."""
    ours, theirs = _settings(first), _settings(other)
    paths = sorted(path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path))
    return [messages.SettingDifference(path=path, first=ours.get(path, ""), other=theirs.get(path, "")) for path in paths[:MOST_SETTINGS]]


def _settings(config: RunConfig) -> dict[str, str]:
    front, prompt = split_front_matter(write_bootstrap(config))
    found = {"prompt": prompt[:_LONGEST_VALUE]} if prompt else {}
    _flatten("", {key: value for key, value in yaml.safe_load(front).items() if key not in _OWN_TO_EACH_RUN}, found)
    return found


def _flatten(path: str, value: Any, found: dict[str, str]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _flatten(f"{path}.{key}" if path else str(key), inner, found)
    else:
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        found[path] = text[:_LONGEST_VALUE]


def _in_words(found: messages.RunDivergence, common: str) -> str:
    if not found.first_session:
        return f"nothing differs up to {common}, the last session that both have settled" if common else "no session is settled in both"
    words = list[str]()
    if messages.DIVERGENCE_CAUSE_CONFIGURATION in found.causes:
        settings = ", ".join(f"{one.path} ({one.first or 'not set'}, {one.other or 'not set'})" for one in found.configuration[:5])
        words.append(f"the configurations differ in {settings}" if settings else "the configurations differ")
    if messages.DIVERGENCE_CAUSE_DATA in found.causes:
        words.append("the market data differ")
    if messages.DIVERGENCE_CAUSE_DECISIONS in found.causes:
        words.append("configuration and data are the same, and somebody decided otherwise")
    where = f"the first difference is in session {found.first_session}"
    if found.first_phase:
        phase = events.Phase.Name(found.first_phase).removeprefix("PHASE_")
        who = f" by {', '.join(found.agent_ids)}" if found.agent_ids else ""
        words.append(f"{where}, phase {phase}{who}")
    else:
        words.append(f"{where}, which only one of them has")
    return "; ".join(words)
