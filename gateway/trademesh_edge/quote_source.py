"""The quotes of one run for all browsers that want them: one upstream subscription, and only while somebody does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trademesh.gateway.v1 import feed_service_pb2
from trademesh_edge.formats import Format
from trademesh_edge.methods import SUBSCRIBE
from trademesh_edge.settings import EdgeSettings
from trademesh_edge.upstream import Upstream, is_lost, stream
from trademesh_edge.wire import FeedEnd, FeedQuotes, RingQuote, quotes_payload, quotes_request, read_feed
from trademesh_kernel.errors import TrademeshError
from trademesh_kernel.logs import get_logger
from trademesh_runs.conflation import Conflated

RETRY_S = 0.5
MOST_FRAMES = 32


class QuoteSource:
    """Conflated quotes of a run, read while there are users."""

    def __init__(self, run_id: str, upstream: Upstream, settings: EdgeSettings) -> None:
        self._run_id = run_id
        self._upstream = upstream
        self._settings = settings
        self._users = 0
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._frames: dict[tuple[int, frozenset[str], Format, int], bytes] = {}
        self.board = Conflated[RingQuote]()

    @asynccontextmanager
    async def wanted(self) -> AsyncIterator[None]:
        """Quotes are read from the first user's coming to the last one's going."""
        self._users += 1
        if self._task is None:
            self.board = Conflated[RingQuote]()
            self._task = asyncio.create_task(self._read())
        try:
            yield
        finally:
            self._users -= 1
            if self._users == 0:
                await self.close()

    async def close(self) -> None:
        """Ends the upstream subscription."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def changed(self, beyond: int) -> None:
        """Returns when there is a quote after this version."""
        while self.board.version <= beyond:
            await self._changed.wait()

    def frame(self, since: int, tickers: frozenset[str], form: Format, channel: int) -> bytes | None:
        """What moved since a version, as a frame, encoded once for all who are equally far; None if nothing did."""
        key = (since, tickers, form, channel)
        frame = self._frames.get(key)
        if frame is None:
            quotes = self.board.since(since, tickers)
            if not quotes:
                return None
            if len(self._frames) >= MOST_FRAMES:
                # While no price moves, everyone who comes asks for all prices on a channel of its own.
                self._frames.clear()
            frame = self._frames[key] = form.message(
                channel, feed_service_pb2.SubscribeResponse, quotes_payload(quote for _, quote in quotes)
            )
        return frame

    async def _read(self) -> None:
        log = get_logger("quotes").bind(run_id=self._run_id)
        while True:
            try:
                if await self._read_once():
                    return
            except TrademeshError as error:
                if not is_lost(error):
                    log.warning("no quotes", error=error.message)
                    return
            self._upstream.forget(self._run_id)
            await asyncio.sleep(RETRY_S)

    async def _read_once(self) -> bool:
        """True if the run has ended."""
        run = await self._upstream.run(self._run_id)
        request = quotes_request(self._run_id, self._settings.edge_quote_interval_s)
        async with self._upstream.client(run.feed_target) as client:
            async for payload in stream(client, SUBSCRIBE, request, idle_timeout_s=self._settings.edge_upstream_idle_s):
                part = read_feed(payload)
                if isinstance(part, FeedEnd):
                    return part.run_ended
                if isinstance(part, FeedQuotes):
                    for quote in part.quotes:
                        self.board.put(quote.ticker, quote)
                    self._frames.clear()
                    waiter, self._changed = self._changed, asyncio.Event()
                    waiter.set()
        return False
