"""The hubs of all runs that browsers follow: made for the first browser, kept a while after the last has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trademesh_edge.hub import Channels, Hub
from trademesh_edge.settings import EdgeSettings
from trademesh_edge.upstream import Upstream
from trademesh_kernel.errors import LimitReached


class Hubs:
    """Hubs by run. End with `close`."""

    def __init__(self, upstream: Upstream, settings: EdgeSettings, channels: Channels) -> None:
        self._upstream = upstream
        self._settings = settings
        self._channels = channels
        self._opening: dict[str, asyncio.Task[Hub]] = {}
        self._reapers = set[asyncio.Task[None]]()

    @asynccontextmanager
    async def following(self, run_id: str) -> AsyncIterator[Hub]:
        """The hub of a run, opened if there is none; raises as `Hub.open`."""
        hub = await self._get(run_id)
        hub.users += 1
        try:
            yield hub
        finally:
            hub.users -= 1
            self._reap_unused(hub)

    def _reap_unused(self, hub: Hub) -> None:
        if hub.users == 0:
            reaper = asyncio.create_task(self._reap(hub))
            self._reapers.add(reaper)
            reaper.add_done_callback(self._reapers.discard)

    async def _get(self, run_id: str) -> Hub:
        hub = await self._opened(run_id)
        if hub.ended and await hub.is_restarted():
            self._forget(hub)
            hub = await self._opened(run_id)
        return hub

    async def _opened(self, run_id: str) -> Hub:
        opening = self._opening.get(run_id)
        if opening is None and len(self._opening) >= self._settings.edge_max_runs:
            most = self._settings.edge_max_runs
            raise LimitReached(f"{most} runs are followed here: try again later", limit="runs", value=most, retry_after_s=5.0)
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception() or opening.result().failure is not None)):
            opening = self._opening[run_id] = asyncio.create_task(self._open(run_id))
            # Also if everyone who waited has left meanwhile: a run that cannot be followed takes nobody's place.
            opening.add_done_callback(lambda done: self._forget_failed(run_id, done))
        # One browser that leaves must not take the hub from others who wait for it.
        return await asyncio.shield(opening)

    def _forget_failed(self, run_id: str, opening: asyncio.Task[Hub]) -> None:
        if (opening.cancelled() or opening.exception() is not None) and self._opening.get(run_id) is opening:
            del self._opening[run_id]

    async def _open(self, run_id: str) -> Hub:
        hub = Hub(run_id, self._upstream, self._settings, self._channels)
        await hub.open()
        # The browser that asked may have left meanwhile: then nobody's leaving would ever end it.
        asyncio.get_running_loop().call_soon(self._reap_unused, hub)
        return hub

    async def _reap(self, hub: Hub) -> None:
        if hub.failure is None:
            await asyncio.sleep(self._settings.edge_hub_linger_s)
        if hub.users > 0:
            return
        self._forget(hub)
        await hub.close()

    def _forget(self, hub: Hub) -> None:
        """Who comes now gets another hub."""
        known = self._opening.get(hub.run_id)
        if known is not None and known.done() and not known.cancelled() and known.exception() is None and known.result() is hub:
            del self._opening[hub.run_id]

    async def close(self) -> None:
        """Closes every hub."""
        for task in list(self._reapers):
            task.cancel()
        await asyncio.gather(*self._reapers, return_exceptions=True)
        for opening in self._opening.values():
            opening.cancel()
        for outcome in await asyncio.gather(*self._opening.values(), return_exceptions=True):
            if isinstance(outcome, Hub):
                await outcome.close()
        self._opening.clear()
