"""Tells watchers where the pipeline stands: what is, then changes, the newest only. A watcher holds one number and no queue, and all of them
share each message, so that neither many nor slow ones cost the pipeline anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from google.protobuf.duration_pb2 import Duration

from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh.gateway.v1.pipeline_service_pb2 import WatchPipelineResponse
from trademesh.gateway.v1.state_pb2 import Pipeline

LEAST_INTERVAL_S = 0.1
MOST_MESSAGES_PER_S = 1000
"""To all watchers together: with more than a hundred of them each gets less than ten a second."""
CHECKPOINT_S = 5.0
RETRY_AFTER_S = 0.5


class PipelineWatch:
    """The changes of one pipeline."""

    def __init__(self, now: Callable[[], Pipeline]) -> None:
        self._now = now
        self._version = 0
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()
        self._end_reason = feed.STREAM_END_REASON_UNSPECIFIED
        self._made_of = -1
        self._made = WatchPipelineResponse()
        self._watchers = 0

    def touch(self) -> None:
        """Something may have changed."""
        self._version += 1
        wake, self._wake = self._wake, asyncio.Event()
        wake.set()

    def end(self, reason: feed.StreamEndReason.ValueType) -> None:
        """Ends every watch, after what is newest; the first reason holds."""
        if not self._ended.is_set():
            self._end_reason = reason
            self._ended.set()
            self.touch()

    async def watch(self) -> AsyncIterator[WatchPipelineResponse]:
        """What one watcher is sent."""
        self._watchers += 1
        try:
            told: Pipeline | None = None
            seen, told_at = -1, 0.0
            while True:
                # The event is taken before the version is read: a change between the two is not missed.
                wake = self._wake
                if seen != self._version:
                    seen = self._version
                    response = self._newest()
                    if told is None or response.pipeline != told:
                        yield response
                        told, told_at = response.pipeline, time.monotonic()
                    await self._rest()
                elif self._ended.is_set():
                    yield self._last_word()
                    return
                elif not await _set_within(wake, told_at + CHECKPOINT_S - time.monotonic()):
                    head = self._now().head_sequence
                    yield WatchPipelineResponse(checkpoint=feed.Checkpoint(through_sequence=head, head_sequence=head))
                    told_at = time.monotonic()
        finally:
            self._watchers -= 1

    def _newest(self) -> WatchPipelineResponse:
        if self._made_of != self._version:
            self._made, self._made_of = WatchPipelineResponse(pipeline=self._now()), self._version
        return self._made

    async def _rest(self) -> None:
        await _set_within(self._ended, max(LEAST_INTERVAL_S, self._watchers / MOST_MESSAGES_PER_S))

    def _last_word(self) -> WatchPipelineResponse:
        retry_after = Duration()
        if self._end_reason != feed.STREAM_END_REASON_RUN_ENDED:
            retry_after.FromMilliseconds(round(RETRY_AFTER_S * 1000))
        head = self._now().head_sequence
        return WatchPipelineResponse(end=feed.StreamEnd(reason=self._end_reason, resume_after_sequence=head, retry_after=retry_after))


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True
