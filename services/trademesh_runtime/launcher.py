"""How supervision has gateways started, found again, signalled and waited for, whatever they run in. `process.py` does it with processes of
this machine; nothing outside a launcher knows that a gateway is one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from trademesh_runs.layout import RunLayout
from trademesh_runtime.policy import Signal


@dataclass(frozen=True)
class Exit:
    """How a gateway ended; both None if that cannot be known, since somebody else started it."""

    code: int | None
    signal: int | None


@dataclass(frozen=True)
class Bound:
    """A starting gateway says where it serves."""

    target: str


@dataclass(frozen=True)
class Doing:
    """A starting gateway says what it does."""

    what: str


class LockHeldError(Exception):
    """Something that is not ours to end holds the run's lock. The message names it."""


class LaunchError(Exception):
    """No gateway could be started; `passing` if it may be another time."""

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


class Handle(Protocol):
    """One gateway, started or found."""

    @property
    def pid(self) -> int:
        """Its process id; 0 if the launcher has no such thing."""

    @property
    def ended(self) -> bool:
        """True once it has ended."""

    async def wait(self) -> Exit:
        """How it ended, as soon as it has."""

    def send(self, signal: Signal, *, group: bool) -> None:
        """Signals it, or it and all that it started. Nothing if it has ended."""

    def reports(self) -> AsyncIterator[Bound | Doing]:
        """What it says of its start, until it says no more. Nothing if it was found."""

    def condition(self) -> str:
        """A word on why it does not run, for people: `stopped (T)`; empty if it does, or if that cannot be known."""

    async def end_rest(self) -> None:
        """Ends what it started and left behind."""

    def close(self) -> None:
        """Lets it go, without ending it."""


@dataclass(frozen=True)
class Found:
    """A gateway of an earlier runtime_service that lives."""

    handle: Handle
    nonce: str
    target: str


class Launcher(Protocol):
    """Starts and finds gateways."""

    async def make_room(self, layout: RunLayout) -> None:
        """Ends what is left of earlier gateways of the run; raises LockHeldError if the run's lock is not free then."""

    async def launch(self, layout: RunLayout, generation: int, ticket: dict[str, Any]) -> Handle:
        """Starts a gateway; raises LaunchError."""

    def find(self, layout: RunLayout, generation: int) -> Found | None:
        """The living gateway of this generation; None if there is none. Never anything else that has taken its place."""
