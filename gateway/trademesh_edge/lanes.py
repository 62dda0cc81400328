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
    """How far it was told when it came; and when it is expelled, where it goes on."""


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
    uneven: bool = False
    """True if some were told more than others: up to `cursor`, where nothing came through the filter."""
    _unsent: set[Member] = field(default_factory=set)
    """Those whom the frame in hand has not reached yet, while we breathe;"""
    _told_before: int = 0
    """and how far those were told before it."""

    def expel(self, member: Member) -> None:
        """Takes a browser out; it goes on by itself from where it was told last."""
        member.cursor = max(member.cursor, self._told_before if member in self._unsent else self.told)
        self.members.discard(member)
        if not member.expelled.done():
            member.expelled.set_result(None)

    def expel_all(self) -> None:
        """Takes everyone out."""
        for member in list(self.members):
            self.expel(member)

    def expel_slow(self, most_unsent_bytes: int) -> None:
        """Takes out who is behind."""
        # This is asked of everyone, for each frame. Whose buffer is so full has been told to pause (`write_limit` in server.py).
        paused = [one for one in self.members if one.browser.connection.paused]
        for member in paused:
            if member.browser.unsent_bytes > most_unsent_bytes:
                self.expel(member)

    async def send(self, frame: bytes, cursor: int) -> None:
        """Sends a frame to everyone. The cursor moves first: who joins while we breathe is not sent what the frame holds, and does not need
        it; who leaves before the frame has reached it goes on from before it.
        """
        if len(self.members) <= BROWSERS_PER_BREATH:
            self.cursor = self.told = cursor
            send_to_all([member.browser for member in self.members], frame, self.form)
            return
        members = list(self.members)
        self._told_before, self.cursor, self.told = self.told, cursor, cursor
        self._unsent.update(members)
        for start in range(0, len(members), BROWSERS_PER_BREATH):
            part = [member for member in members[start : start + BROWSERS_PER_BREATH] if member in self.members]
            send_to_all([member.browser for member in part], frame, self.form)
            self._unsent.difference_update(members[start : start + BROWSERS_PER_BREATH])
            if self._unsent:
                await asyncio.sleep(0)
