"""Messages of a stream that are made in threads while those before them are sent. What is in them is `wire.py`'s."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable

MADE_AHEAD = 2
"""Messages of a stream that are being made, or wait until their client has taken the one before: two cores are busy while a third sends. Of
StreamBars' they are 4 MiB; more would be memory that clients hold who have stopped reading."""


async def made_ahead(makers: Iterable[Callable[[], bytes]]) -> AsyncGenerator[bytes, None]:
    """What each of some functions returns, in their order. They are called in threads, a few at a time; what one raises is raised here."""
    under_way = deque[asyncio.Task[bytes]]()
    try:
        for make in makers:
            under_way.append(asyncio.create_task(asyncio.to_thread(make)))
            if len(under_way) > MADE_AHEAD:
                yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        # Taken note of, or asyncio would report what one of them raised.
        await asyncio.gather(*under_way, return_exceptions=True)
