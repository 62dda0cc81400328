"""Waiting for the first of several things that happen in this event loop. Says that something changed, never what."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class Wake:
    """Wakes whoever waits for it; costs nothing while nobody does."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def wake(self) -> None:
        """Something changed."""
        if self._waiting:
            waiting, self._waiting = self._waiting, set()
            for future in waiting:
                _settle(future)

    def join(self, future: asyncio.Future[None]) -> None:
        """The next `wake` settles a future."""
        self._waiting.add(future)

    def leave(self, future: asyncio.Future[None]) -> None:
        """Nobody waits for that future any more."""
        self._waiting.discard(future)


async def first_of(wakes: Iterable[Wake], within_s: float) -> None:
    """Returns once one of them is woken, or after a while.

    It waits from the moment that it is called: between a look at what is waited for and this call there must be no other `await`, and
    then no change is missed.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    for wake in wakes:
        wake.join(future)
    timer = loop.call_later(within_s, _settle, future)
    try:
        await future
    finally:
        timer.cancel()
        for wake in wakes:
            wake.leave(future)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
