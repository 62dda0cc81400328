"""Where the messages of one Subscribe call go: the browser, and the channel that they are on now. Says with it whether the source is there."""

from __future__ import annotations

from trademesh.edge.v1 import frame_pb2
from trademesh.gateway.v1 import feed_service_pb2
from trademesh_edge.browser import Browser
from trademesh_edge.hub import Hub
from trademesh_edge.lanes import Lane

REASON_BYTES = 200


class FeedChannel:
    """A call's own channel, and the lane's while it is in one."""

    __slots__ = ("_call_id", "_hub", "_own", "browser", "number")

    def __init__(self, call_id: int, hub: Hub, browser: Browser) -> None:
        self._call_id = call_id
        self._hub = hub
        self.browser = browser
        self._own = hub.channels.next()
        self.number = self._own

    @property
    def behind(self) -> bool:
        """True if so much is unsent that nothing should be added."""
        return self.browser.unsent_bytes > self._hub.settings.edge_slow_buffer_bytes

    async def open(self) -> None:
        """Puts the call on its own channel."""
        self.number = self._own
        for frame in self._opening_frames():
            await self.browser.send(frame)

    async def open_anew(self) -> None:
        """Puts the call on a new channel of its own: what is on it does not join what came before."""
        self._own = self._hub.channels.next()
        await self.open()

    def join_now(self, lane: Lane) -> None:
        """Puts the call on a lane's channel."""
        self.number = lane.channel
        for frame in self._opening_frames():
            self.browser.send_now(frame)

    async def send(self, payload: bytes) -> None:
        """Sends a SubscribeResponse, and waits while the browser is behind; raises BrowserGoneError."""
        await self.browser.send(self._message(payload))

    def send_now(self, payload: bytes) -> None:
        """Sends a small SubscribeResponse."""
        self.browser.send_now(self._message(payload))

    def tell_source_now(self) -> None:
        """Says that the feed's source is lost, or there again."""
        self.browser.send_now(self._source_frame())

    def _message(self, payload: bytes) -> bytes:
        return self.browser.form.message(self.number, feed_service_pb2.SubscribeResponse, payload)

    def _opening_frames(self) -> list[bytes]:
        """Where the call's messages come from now on; and that they cannot come, while the source is lost."""
        opened = frame_pb2.EdgeFrame(opened=frame_pb2.Opened(id=self._call_id, channel=self.number))
        return [self.browser.form.frame(opened), *([self._source_frame()] if self._hub.lost_because else [])]

    def _source_frame(self) -> bytes:
        reason = self._hub.lost_because
        state = frame_pb2.UPSTREAM_STATE_LOST if reason else frame_pb2.UPSTREAM_STATE_CONNECTED
        return self.browser.form.frame(
            frame_pb2.EdgeFrame(upstream=frame_pb2.Upstream(channel=self.number, state=state, reason=reason[:REASON_BYTES]))
        )
