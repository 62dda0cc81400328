"""A desk on paper: it waits for the decision, the open and the close by the clock of the wall, and fills at the trades of a live feed.

    OPEN    the first trade at or after the official open
    CLOSE   the last trade at or before the official close, of the same session; and the highest and the lowest price of the session

An order that limits and people let pass rests with the broker: who is paused or away at the moment finds it filled at that moment's price.
What was found at a moment is told first, and journaled before anything is done at it: quotes are gone after a restart, and a session that is
done again has to find the same prices. A ticker without a trade has no price at that moment, which is said, and never one that is made up.
Pure of RPC: `market/live_prices.py` asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from trademesh_gateway.market.clock import Clock
from trademesh_gateway.pipeline.broker import Moment, SessionBar, SessionTimes
from trademesh_gateway.pipeline.desk_run import DECISION_LEAD_S
from trademesh_kernel.errors import TrademeshError
from trademesh_kernel.logs import get_logger


@dataclass(frozen=True, slots=True)
class TradesAround:
    """The trades around an instant, by column: micro-dollars, 0 where there is none, and milliseconds since 1970."""

    before: Sequence[int]
    """The last at or before it."""
    before_unix_ms: Sequence[int]
    after: Sequence[int]
    """The first at or after it."""
    after_unix_ms: Sequence[int]
    highs: Sequence[int]
    """Highest prices from the instant that was asked with, if one was."""
    lows: Sequence[int]
    heard_since_unix_s: float | None
    """From when on every trade was heard; None: none is now."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Prices of a moment of a session, by column: micro-dollars, 0 where there is none."""

    prices: Sequence[int]
    highs: Sequence[int] = ()
    """Of the session, at its close."""
    lows: Sequence[int] = ()


class LiveTrades(Protocol):
    """Who knows the trades of a run's tickers."""

    async def around(self, unix_s: int, since_unix_s: int | None = None) -> TradesAround:
        """The trades around an instant, and the prices since an earlier one.

        Raises:
            TrademeshError: nobody can be asked.
        """


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited for trades that may still come, in seconds."""

    open_s: float = 60.0
    """After the open, while trades arrive, for the first of each ticker."""
    close_s: float = 15.0
    """After the close, for trades that are told late."""
    unheard_s: float = 300.0
    """After the close, for a service that does not answer. Then the session is settled with what is known."""
    poll_s: float = 1.0
    """At least so often the clock is looked at: it may be set, or the machine have slept."""


ObservedKey: TypeAlias = tuple[str, Moment]
Wait: TypeAlias = Callable[[float], Awaitable[None]]
Observe: TypeAlias = Callable[[SessionTimes, Moment, Observed], Awaitable[None]]
"""Is told the prices of a moment, and returns when they are durable."""


class PaperBroker:
    """Tells a session's prices once they are there."""

    def __init__(
        self,
        trades: LiveTrades,
        clock: Clock,
        wait: Wait,
        observe: Observe,
        observed: Mapping[ObservedKey, Observed],
        *,
        columns: int,
        other_columns: int = 0,
        patience: Patience | None = None,
    ) -> None:
        """
        Args:
            wait: waits at most so many seconds; raises Interrupted when the pipeline is to stand.
            observed: prices that earlier generations have journaled: they bind.
            columns: how many tickers are traded.
            other_columns: how many columns follow them of which no quotes are asked for, such as an index.
        """
        self._trades = trades
        self._clock = clock
        self._wait = wait
        self._observe = observe
        self._observed = dict(observed)
        self._columns = columns
        self._others = [0] * other_columns
        self._patience = patience or Patience()
        self._log = get_logger("paper broker")

    def is_time(self, session: SessionTimes, moment: Moment) -> bool:
        """True if the decision is due; and of the open and the close, if their prices are known and journaled."""
        if moment is Moment.DECISION:
            return self._clock.now_unix_s() >= session.open_unix_s - DECISION_LEAD_S
        return (session.date, moment) in self._observed

    def is_over(self, session: SessionTimes, moment: Moment) -> bool:
        """True if a moment has passed by the clock: who has not decided by then decides too late for it."""
        due_s = {
            Moment.DECISION: session.open_unix_s - DECISION_LEAD_S,
            Moment.OPEN: session.open_unix_s,
            Moment.CLOSE: session.close_unix_s,
        }
        return self._clock.now_unix_s() >= due_s[moment]

    async def until(self, session: SessionTimes, moment: Moment) -> None:
        """Waits for a moment. Raises Interrupted when the pipeline is to stand, to be asked again."""
        if moment is Moment.DECISION:
            await self._until_s(session.open_unix_s - DECISION_LEAD_S)
            return
        for one in (Moment.OPEN, Moment.CLOSE):
            if one <= moment and not self.is_time(session, one):
                found = await (self._opens(session) if one is Moment.OPEN else self._closes(session))
                await self._observe(session, one, found)
                self._observed[session.date, one] = found

    def bar(self, session: SessionTimes, moment: Moment) -> SessionBar:
        """What was found: opens, and at the close everything but volumes, which a feed that was not always heard does not know."""
        opens = self._whole(self._observed[session.date, Moment.OPEN].prices)
        if moment is Moment.OPEN:
            return SessionBar(opens)
        found = self._observed[session.date, Moment.CLOSE]
        return SessionBar(opens, self._whole(found.highs), self._whole(found.lows), self._whole(found.prices))

    def _whole(self, prices: Sequence[int]) -> Sequence[int]:
        """With the columns that are not traded."""
        return [*prices, *self._others] if prices else ()

    async def _until_s(self, unix_s: float) -> None:
        while (left_s := unix_s - self._clock.now_unix_s()) > 0:
            await self._wait(min(left_s, self._patience.poll_s))

    async def _opens(self, session: SessionTimes) -> Observed:
        """The first trades from the open on: all of them, or those that came in time. While nothing is heard it is waited until the close."""
        await self._until_s(session.open_unix_s)
        while True:
            now_s = self._clock.now_unix_s()
            found = await self._ask(session.open_unix_s)
            prices = [0] * self._columns
            if found is not None:
                in_session = (at_ms <= session.close_unix_s * 1000 for at_ms in found.after_unix_ms)
                prices = [price if fits else 0 for price, fits in zip(found.after, in_session, strict=True)]
                heard_s = now_s - max(session.open_unix_s, found.heard_since_unix_s) if found.heard_since_unix_s is not None else -1.0
                if all(prices) or heard_s >= self._patience.open_s:
                    return self._said(session, Moment.OPEN, prices)
            if now_s >= session.close_unix_s and (found is not None or now_s >= session.close_unix_s + self._patience.unheard_s):
                return self._said(session, Moment.OPEN, prices)
            await self._wait(self._patience.poll_s)

    async def _closes(self, session: SessionTimes) -> Observed:
        """The last trades up to the close, and what was traded since the open."""
        await self._until_s(session.close_unix_s + self._patience.close_s)
        while True:
            found = await self._ask(session.close_unix_s, session.open_unix_s)
            if found is not None:
                in_session = (at_ms >= session.open_unix_s * 1000 for at_ms in found.before_unix_ms)
                closes = [price if fits else 0 for price, fits in zip(found.before, in_session, strict=True)]
                return self._said(session, Moment.CLOSE, closes, found.highs, found.lows)
            if self._clock.now_unix_s() >= session.close_unix_s + self._patience.unheard_s:
                return self._said(session, Moment.CLOSE, [0] * self._columns)
            await self._wait(self._patience.poll_s)

    async def _ask(self, unix_s: int, since_unix_s: int | None = None) -> TradesAround | None:
        try:
            return await self._trades.around(unix_s, since_unix_s)
        except TrademeshError as error:
            self._log.warning("no prices can be asked for", reason=error.message)
            return None

    def _said(
        self, session: SessionTimes, moment: Moment, prices: list[int], highs: Sequence[int] = (), lows: Sequence[int] = ()
    ) -> Observed:
        missing = prices.count(0)
        if missing:
            self._log.warning("tickers without a trade", session=session.date, moment=moment.name, tickers=missing)
        return Observed(prices, highs, lows)
