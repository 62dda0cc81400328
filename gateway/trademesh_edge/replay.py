"""A replay of one browser's own: the run's events at the browser's pace, counted in sessions, noticed by nobody else.

It reads the hub's ring where that reaches, and pages of history where it does not, so that a replay that stands still holds no stream.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import grpc

from trademesh_edge.hub import LIST_EVENTS, Hub
from trademesh_edge.pace import Pace
from trademesh_edge.ring import EVERYTHING, MAX_BATCH_EVENTS, RingEvent
from trademesh_edge.upstream import is_lost, unary
from trademesh_edge.wire import page_request, read_page
from trademesh_kernel.errors import LimitReached, RemoteError, TrademeshError

END_OF_SESSION = "settled"
RETRY_AFTER_S = 5.0


class ReplayReader:
    """Events after a cursor, a piece of a session at a time. Bounded per run: `with` raises LimitReached when there are too many."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._page: deque[RingEvent] = deque()

    def __enter__(self) -> ReplayReader:
        most = self._hub.settings.edge_max_replays
        if self._hub.replays >= most:
            text = f"{most} browsers replay this run at a pace of their own: try again later"
            raise LimitReached(text, limit="replays", value=most, retry_after_s=RETRY_AFTER_S)
        self._hub.replays += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._hub.replays -= 1

    async def after(self, cursor: int) -> Sequence[RingEvent]:
        """What follows a cursor, to the end of its session or the next batch's bound; nothing at the head, or while the source is lost.

        Raises:
            RemoteError: HISTORY_COMPACTED, or what else the feed says.
        """
        hub = self._hub
        if hub.ring.covers(cursor):
            self._page.clear()
            return _one_session(hub.ring.slice(cursor, hub.ring.last, EVERYTHING).events)
        if not self._page or self._page[0].sequence != cursor + 1:
            self._page = deque(await self._read_page(cursor))
        part = _one_session(tuple(self._page))
        for _ in part:
            self._page.popleft()
        return part

    async def _read_page(self, cursor: int) -> Sequence[RingEvent]:
        hub = self._hub
        try:
            async with hub.history_slots:
                run = await hub.upstream.run(hub.run_id)
                async with hub.upstream.client(run.feed_target) as client:
                    request = page_request(hub.run_id, cursor, MAX_BATCH_EVENTS)
                    page = read_page(await unary(client, LIST_EVENTS, request, hub.settings.edge_unary_timeout_s))
        except TrademeshError as error:
            if not is_lost(error):
                raise
            hub.upstream.forget(hub.run_id)
            return ()
        if hub.lost_because or hub.failure is not None:
            # Pages say no epoch: one that comes while the source changes may be of the next.
            return ()
        if page.compacted_through > cursor:
            raise RemoteError(
                f"events up to {page.compacted_through} are no longer kept: begin with the snapshot",
                remote_code=grpc.StatusCode.OUT_OF_RANGE,
                remote_reason="HISTORY_COMPACTED",
                metadata={"sequence": str(cursor), "compacted_through": str(page.compacted_through)},
            )
        return page.events


def _one_session(events: Sequence[RingEvent]) -> Sequence[RingEvent]:
    for place, event in enumerate(events, 1):
        if event.kind == END_OF_SESSION:
            return events[:place]
    return events


async def pace_or_events(hub: Hub, pace: Pace, within_s: float) -> None:
    """Returns when the pace changes, when something comes or ends, or after a while."""
    waiting = [asyncio.create_task(pace.wait()), asyncio.create_task(hub.changed(hub.ring.last, within_s))]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
