"""Live quotes: who wants which tickers, the newest trade of each, and how the provider's connection stands. Only the newest counts: nothing is
queued, and a reader keeps one number, the version that it has seen. How quotes are told to clients is `quote_streams.py`'s.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from trademesh_kernel.errors import LimitReached
from trademesh_kernel.logs import get_logger
from trademesh_runs.wake import Wake
from trademesh_trading.quote_provider import QuoteProvider, Trade
from trademesh_trading.tape import Fate, Tape

AHEAD_MS = 60_000
"""A trade that is later than our clock by more makes no sense: it would make all that follow it late."""

_RESTART_S = 5.0
_SAY_EACH_S = 60.0


@dataclass
class Link:
    """How the provider's connection stands, and what arrived over it since this server began."""

    connected: bool = False
    since_unix_ns: int = 0
    why: str = "nothing was asked for yet"
    """Why it is not connected."""
    disconnects: int = 0
    """How often it was lost while somebody wanted quotes."""
    bad_frames: int = 0
    duplicates: int = 0
    late: int = 0
    refused: int = 0
    """Trades that make no sense, or of tickers that nobody wants."""
    version: int = 0
    """Moves with each connection and each loss."""


@dataclass
class Line:
    """What is known of one ticker."""

    tape: Tape = field(default_factory=Tape)
    received_unix_ns: int = 0
    version: int = 0
    heard_since_unix_ns: int | None = None
    """From when on every trade reached us, as far as we know; None: none does."""


class LiveQuotes:
    """The quotes of all tickers that somebody wants. Belongs to one event loop."""

    def __init__(
        self, provider: QuoteProvider, *, most_symbols: int = 50, linger_s: float = 300.0, clock: Callable[[], int] = time.time_ns
    ) -> None:
        """
        Args:
            most_symbols: how many tickers may be wanted at once; a provider's plan bounds them.
            linger_s: how long the trades of a ticker are still taken in after the last who wanted it has gone.
            clock: nanoseconds since 1970.
        """
        self._provider = provider
        self._most = most_symbols
        self._linger_s = linger_s
        self._clock = clock
        self._users = Counter[str]()
        self._lingering: dict[str, asyncio.TimerHandle] = {}
        self._lines: dict[str, Line] = {}
        self._task: asyncio.Task[None] | None = None
        self._log = get_logger("live quotes")
        self._said_at: dict[str, float] = {}
        self.link = Link(since_unix_ns=clock())
        self.version = 0
        """Counts the trades that were taken in."""
        self.moved = Wake()
        """Woken by trades, by changes of the connection, and when `draining` begins."""
        self.wanted_changed = Wake()
        self.draining = False

    @property
    def provider_name(self) -> str:
        """Who tells the trades."""
        return self._provider.name

    @property
    def wanted(self) -> frozenset[str]:
        """Tickers of which trades are wanted now."""
        return frozenset(self._lines)

    def start(self) -> None:
        """Begins to listen to the provider, once something is wanted."""
        self._task = asyncio.create_task(self._listen(), name="live quotes")

    def drain(self) -> None:
        """Every stream ends itself."""
        self.draining = True
        self.moved.wake()

    async def close(self) -> None:
        """Ends the connection."""
        task, self._task = self._task, None
        for timer in self._lingering.values():
            timer.cancel()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @contextmanager
    def wanted_by_one_more(self, tickers: Sequence[str]) -> Iterator[None]:
        """Trades of these tickers are taken in while this is open, and for a while after it.

        Raises:
            LimitReached: the provider's plan lets us have no more.
        """
        self._take(tickers)
        try:
            yield
        finally:
            self._release(tickers)

    def line(self, ticker: str) -> Line | None:
        """What is known of a ticker; None: it is not wanted."""
        return self._lines.get(ticker)

    def changed(self, since: int, tickers: Sequence[str]) -> list[tuple[str, Line]]:
        """Those of the tickers with a trade after a version, in the order given."""
        return [(ticker, line) for ticker in tickers if (line := self._lines.get(ticker)) is not None and line.version > since]

    def now_unix_ns(self) -> int:
        """What our clock shows."""
        return self._clock()

    # What a provider tells.

    def connected(self) -> None:
        """Trades of what is wanted arrive."""
        now = self._clock()
        if not self.link.connected:
            self.link.connected, self.link.since_unix_ns, self.link.why = True, now, ""
            self.link.version += 1
            self.moved.wake()
        for line in self._lines.values():
            if line.heard_since_unix_ns is None:
                line.heard_since_unix_ns = now

    def disconnected(self, why: str) -> None:
        """No trade arrives."""
        if self.link.connected:
            self.link.disconnects += bool(self._lines)
            self.link.since_unix_ns = self._clock()
        if self.link.connected or self.link.why != why:
            self.link.connected, self.link.why = False, why
            self.link.version += 1
            self.moved.wake()
        for line in self._lines.values():
            line.heard_since_unix_ns = None

    def heard(self, trades: Sequence[Trade], refused: int) -> None:
        """Takes in what arrived."""
        now, link = self._clock(), self.link
        taken = False
        link.refused += refused
        for trade in trades:
            line = self._lines.get(trade.ticker)
            if line is None or trade.traded_unix_ms > now // 1_000_000 + AHEAD_MS:
                refused += 1
                link.refused += 1
                continue
            fate = line.tape.take(trade)
            if fate is Fate.TAKEN:
                self.version += 1
                line.version, line.received_unix_ns = self.version, now
                taken = True
            elif fate is Fate.LATE:
                link.late += 1
            else:
                link.duplicates += 1
        if refused:
            self._say_seldom("trades that make no sense are left out", refused=link.refused)
        if taken:
            self.moved.wake()

    def bad_frame(self) -> None:
        """Counts what cannot be read."""
        self.link.bad_frames += 1
        self._say_seldom("messages that cannot be read are left out", bad_frames=self.link.bad_frames)

    def _say_seldom(self, text: str, **figures: int) -> None:
        now = time.monotonic()
        if now - self._said_at.get(text, -_SAY_EACH_S) >= _SAY_EACH_S:
            self._said_at[text] = now
            self._log.warning(text, provider=self._provider.name, **figures)

    async def _listen(self) -> None:
        while True:
            try:
                await self._provider.run(self)
            except Exception as error:  # a fault in it must not end quotes for good; its text may hold a key
                self._log.error("a fault of ours in the provider's connection", error=type(error).__name__)
                self.disconnected("a fault of ours: see the log")
            await asyncio.sleep(_RESTART_S)

    def _take(self, tickers: Sequence[str]) -> None:
        needed = self._users.keys() | set(tickers)
        if len(needed) > self._most:
            text = f"{len(self._users)} tickers are quoted for others, and {self._most} is the most (TRADEMESH_QUOTES_MAX_SYMBOLS)"
            raise LimitReached(text, limit="quotes_max_symbols", value=self._most, retry_after_s=10.0)
        # Who only lingers makes room, those first that were left first.
        for ticker in [one for one in self._lingering if one not in needed][: max(0, len(self._lines.keys() | needed) - self._most)]:
            self._forget(ticker)
        for ticker in tickers:
            self._users[ticker] += 1
            timer = self._lingering.pop(ticker, None)
            if timer is not None:
                timer.cancel()
            self._lines.setdefault(ticker, Line())
        self.wanted_changed.wake()

    def _release(self, tickers: Sequence[str]) -> None:
        loop = asyncio.get_running_loop()
        for ticker in tickers:
            self._users[ticker] -= 1
            if not self._users[ticker]:
                del self._users[ticker]
                self._lingering[ticker] = loop.call_later(self._linger_s, self._forget, ticker)

    def _forget(self, ticker: str) -> None:
        timer = self._lingering.pop(ticker, None)
        if timer is not None:
            timer.cancel()
        del self._lines[ticker]
        self.wanted_changed.wake()
