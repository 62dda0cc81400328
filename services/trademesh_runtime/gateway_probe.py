"""Looks after one gateway from the moment that it serves to its end: checks its health, and renews its lease. What follows from what is
found is the policy's (`policy_transitions.py`); what is shown of it is `supervisor.py`'s."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Protocol

from trademesh.gateway.v1.supervision_service_pb2 import HeartbeatResponse
from trademesh.runtime.v1 import runtime_pb2 as wire
from trademesh_kernel.logs import get_logger
from trademesh_runtime import policy
from trademesh_runtime.gateway_link import Answer, GatewayLink
from trademesh_runtime.launcher import Handle
from trademesh_runtime.policy import State, Timers

FAST_PROBE_S = 0.05
"""Between checks of a gateway that starts, and at least between any two."""
FRESH_WORD_S = 5.0
"""For so long the newest word of a gateway says why it is not ready."""
ASLEEP_PERIODS = 3
"""A machine that was suspended for so many periods of checks is said to have been."""


class Finder(Protocol):
    """Who is told what is found."""

    @property
    def state(self) -> State:
        """Where the run stands."""

    def feed(self, event: policy.Event) -> None:
        """Takes in what happened."""

    def found_health(self, health: wire.GatewayHealth.ValueType) -> None:
        """Takes in the newest health."""

    def found_progress(self, answer: HeartbeatResponse) -> None:
        """Takes in how far the gateway is."""


class GatewayProbe:
    """Checks one gateway."""

    def __init__(self, handle: Handle, link: GatewayLink, timers: Timers, finder: Finder) -> None:
        self._handle = handle
        self._link = link
        self._timers = timers
        self._finder = finder
        self._log = get_logger("supervisor")
        self._said, self._said_at = "", 0.0
        self._heartbeat_at = -timers.probe_interval_s

    def hear(self, word: str) -> None:
        """Keeps what the gateway says that it does."""
        self._said, self._said_at = word, time.monotonic()

    async def run(self) -> None:
        """Checks again and again, and at once when the gateway hints that something has changed; returns when it has ended."""
        hint = asyncio.Event()
        watch = asyncio.create_task(self._link.hint_at_changes(hint))
        asleep_s = time_asleep_s()
        try:
            while not self._handle.ended:
                hint.clear()
                began = time.monotonic()
                before_s, asleep_s = asleep_s, time_asleep_s()
                if asleep_s - before_s > ASLEEP_PERIODS * self._timers.probe_interval_s:
                    self._finder.feed(policy.Suspended())
                try:
                    await self._check()
                except Exception:
                    # Whatever it is: a gateway that nobody looks at any more is worse.
                    self._log.exception("a probe failed by a fault of ours")
                starts = self._finder.state in (State.STARTING, State.ADOPTING)
                # From beginning to beginning: one that took its whole time-out is followed by the next at once.
                next_at = began + (FAST_PROBE_S if starts else self._timers.probe_interval_s)
                with suppress(TimeoutError):
                    await asyncio.wait_for(hint.wait(), max(FAST_PROBE_S, next_at - time.monotonic()))
        finally:
            watch.cancel()

    async def _check(self) -> None:
        life = await self._link.is_alive()
        readiness = await self._link.is_ready() if life.serving else life
        if self._handle.ended:
            return
        alive, ready = life.serving, readiness.serving
        why_not = self._why_not(readiness, alive)
        if alive or readiness.own_lag_s <= self._timers.tolerated_lag_s:
            self._finder.found_health(
                wire.GATEWAY_HEALTH_SERVING if ready else wire.GATEWAY_HEALTH_NOT_SERVING if alive else wire.GATEWAY_HEALTH_UNREACHABLE
            )
        self._finder.feed(policy.Probed(alive, ready, why_not, readiness.own_lag_s, readiness.refused))
        # One that has stopped between two answers is not waited for once more: the next check is to be the first that counts.
        answers = alive and readiness.in_time
        if not answers or time.monotonic() - self._heartbeat_at < self._timers.probe_interval_s / 2:
            return
        self._heartbeat_at = time.monotonic()
        answer = await self._link.heartbeat()
        if answer is not None:
            self._finder.found_progress(answer)

    def _why_not(self, answer: Answer, alive: bool) -> str:
        """Why a check failed, with what is known of the process, or of what it waits for."""
        if answer.serving:
            return ""
        if alive:
            return self._said if self._said and time.monotonic() - self._said_at < FRESH_WORD_S else answer.why_not
        condition = self._handle.condition()
        return f"{answer.why_not}; the process is {condition}" if condition else answer.why_not


def time_asleep_s() -> float:
    """For how long the machine was suspended since it was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
