"""Who may come in: how many sockets and handshakes there may be, in all and from one address. No I/O: connections are told what to do.

A connection *knocks* from its first packet until its request is in. Who knocks and says nothing holds memory for free; when too many do,
the oldest are cut. One that means it says so within milliseconds, so that it is never among them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol

from trademesh_edge.settings import EdgeSettings

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "local"})
GRACE_S = 0.5
"""Nobody is cut so soon, unless there are several times too many."""
MOST_TIMES_TOO_MANY = 4


class Knocker(Protocol):
    """A connection that has not been let in yet."""

    @property
    def has_asked(self) -> bool:
        """True if its request is in."""

    @property
    def waits_for_us(self) -> bool:
        """True if it has sent something that we have not read yet."""

    def cut(self) -> None:
        """Ends it without an answer."""


class Admission:
    """Counts connections. Every `knocked` is followed by `answered` or `left`, every `enter` that returned None by `left`."""

    def __init__(self, settings: EdgeSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._knocking: dict[Knocker, float] = {}
        self._inside: dict[Knocker, str] = {}
        self._per_address: Counter[str] = Counter()
        self._recent: deque[tuple[float, str]] = deque()
        self._recent_per_address: Counter[str] = Counter()

    @property
    def sockets(self) -> int:
        """How many are inside."""
        return len(self._inside)

    @property
    def knocking(self) -> int:
        """How many have not sent their request yet."""
        return len(self._knocking)

    def knocked(self, who: Knocker) -> None:
        """A connection was accepted; cuts the oldest that say nothing if there are too many."""
        now = self._clock()
        self._knocking[who] = now
        most = self._settings.edge_max_open_handshakes
        for oldest, since in list(self._knocking.items())[: max(0, len(self._knocking) - most)]:
            bearable = len(self._knocking) <= most * MOST_TIMES_TOO_MANY
            if bearable and now - since < GRACE_S:
                return
            if bearable and oldest.waits_for_us:
                # On a busy machine it is we who are late, not it.
                continue
            del self._knocking[oldest]
            if not oldest.has_asked:
                oldest.cut()

    def answered(self, who: Knocker) -> None:
        """Its request is in."""
        self._knocking.pop(who, None)

    def enter(self, who: Knocker, address: str) -> str | None:
        """Gives a connection its place, or says why there is none."""
        settings, now = self._settings, self._clock()
        while self._recent and self._recent[0][0] <= now - 1:
            _forget_one(self._recent_per_address, self._recent.popleft()[1])
        if len(self._inside) >= settings.edge_max_sockets or len(self._recent) >= settings.edge_max_handshakes_per_s:
            return "the edge is full: try again later"
        limited = not is_local(address) and address not in settings.trusted_proxies
        if limited and self._per_address[address] >= settings.edge_max_sockets_per_address:
            return "too many sockets from this address"
        if limited and self._recent_per_address[address] >= settings.edge_max_handshakes_per_s_per_address:
            return "too many handshakes from this address: try again later"
        self._recent.append((now, address))
        self._recent_per_address[address] += 1
        self._inside[who] = address
        self._per_address[address] += 1
        return None

    def left(self, who: Knocker) -> None:
        """The connection has ended."""
        self._knocking.pop(who, None)
        address = self._inside.pop(who, None)
        if address is not None:
            _forget_one(self._per_address, address)

    def cut_knocking(self) -> None:
        """Cuts everyone who has not sent a request."""
        for who in list(self._knocking):
            who.cut()

    def cut_inside(self) -> None:
        """Cuts everyone who is still there: half closed, as after a fault of the protocol."""
        for who in list(self._inside):
            who.cut()


def is_local(address: str) -> bool:
    """True for addresses of this machine."""
    return address in LOCAL_HOSTS or address.startswith("127.")


def _forget_one(counts: Counter[str], name: str) -> None:
    counts[name] -= 1
    if counts[name] <= 0:
        del counts[name]
