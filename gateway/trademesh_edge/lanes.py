"""The fast lanes of a hub: all browsers that want the same events, in the same form, and have everything up to the same place.

A frame is encoded once for a lane and put into every socket's buffer. How one browser gets to its lane, or falls behind, is in
`subscriber.py`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from trademesh_edge.browser import Browser, send_to_all
from trademesh_edge.formats import Format
from trademesh_edge.ring import Filter

BROWSERS_PER_BREATH = 200
"""After a frame to so many browsers the loop gets to do other things."""


@dataclass(eq=False, slots=True)
class Member:
    """A browser in a lane. `expelled` is done when it is no longer in it: it fell behind, has a pace of its own, or the hub ended."""

    browser: Browser
    expelled: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    cursor: int = 0


@dataclass(eq=False)
class Lane:
    """Browsers that want the same events and have all up to `cursor`; they were told so up to `told`."""

    channel: int
    form: Format
    chosen: Filter
    cursor: int
    told: int
    members: set[Member] = field(default_factory=set)
    last_sent_at: float = 0.0

    def expel(self, member: Member) -> None:
        """Takes a browser out; it goes on by itself from the lane's cursor."""
        member.cursor = self.told
        self.members.discard(member)
        if not member.expelled.done():
            member.expelled.set_result(None)

    def expel_all(self) -> None:
        """Takes everyone out."""
        for member in list(self.members):
            self.expel(member)

    def expel_slow(self, most_unsent_bytes: int) -> None:
        """Takes out who is behind."""
        # Not by `unsent_bytes`: this is asked of everyone, for each frame.
        behind = [one for one in self.members if one.browser.connection.transport.get_write_buffer_size() > most_unsent_bytes]
        for member in behind:
            self.expel(member)

    async def send(self, frame: bytes, cursor: int) -> None:
        """Sends a frame to everyone. The cursor moves first: who joins while we breathe is not sent what the frame holds, and does not need
        it."""
        members = list(self.members)
        self.cursor = self.told = cursor
        send_to_all((member.browser for member in members[:BROWSERS_PER_BREATH]), frame, self.form)
        for start in range(BROWSERS_PER_BREATH, len(members), BROWSERS_PER_BREATH):
            await asyncio.sleep(0)
            part = members[start : start + BROWSERS_PER_BREATH]
            send_to_all((member.browser for member in part if member in self.members), frame, self.form)
