"""Which runs may have a gateway now: so many at most, the others wait in the order in which they were accepted. What starts them is
`supervisor.py`'s; here is no I/O and no clock."""

from __future__ import annotations

import asyncio
from types import TracebackType

LAUNCHES_AT_ONCE = 2


class Places:
    """Places for gateways, and the queue for them. A run keeps its place until it has ended, also while it waits to be started again."""

    def __init__(self, limit: int, most_waiting: int) -> None:
        """`limit` is how many runs have a place, `most_waiting` how many wait for one."""
        self.limit = limit
        self.most_waiting = most_waiting
        self._held = set[str]()
        self._queue = dict[str, None]()
        """In order: a dict is an ordered set."""
        self._moved = asyncio.Event()
        self._launches = asyncio.Semaphore(LAUNCHES_AT_ONCE)

    @property
    def held(self) -> int:
        """How many runs have a place."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """How many runs wait for a place."""
        return len(self._queue)

    def room_for(self, more: int) -> bool:
        """True if so many more runs can be accepted."""
        return self.held + self.waiting + more <= self.limit + self.most_waiting

    def is_waiting(self, run_id: str) -> bool:
        """True if the run is in the queue."""
        return run_id in self._queue

    def keep(self, run_id: str) -> None:
        """Gives a place to a run that has a gateway already, however many there are."""
        self._queue.pop(run_id, None)
        self._held.add(run_id)

    def ask(self, run_id: str) -> None:
        """Gives the run a place, or puts it at the end of the queue. One that has either keeps it."""
        if run_id in self._held or run_id in self._queue:
            return
        self._queue[run_id] = None
        self._advance()

    def leave(self, run_id: str) -> None:
        """Takes the run's place, or takes it out of the queue: it has ended."""
        if run_id in self._held or run_id in self._queue:
            self._held.discard(run_id)
            self._queue.pop(run_id, None)
            self._advance()

    def start_of(self, run_id: str) -> Start:
        """What a start of the run goes through; `async with` waits until it may begin, and leaves once it serves or has failed."""
        return Start(self, run_id)

    def _advance(self) -> None:
        while self._queue and len(self._held) < self.limit:
            first = next(iter(self._queue))
            del self._queue[first]
            self._held.add(first)
        self._moved.set()
        self._moved = asyncio.Event()

    async def begin(self, run_id: str) -> bool:
        """Waits for the run's turn; False if it is not to have one: it was taken out of the queue."""
        while True:
            while run_id in self._queue:
                await self._moved.wait()
            if run_id not in self._held:
                return False
            await self._launches.acquire()
            if run_id in self._held:
                return True
            # It has left meanwhile, and may be in the queue again.
            self._launches.release()

    def ended(self) -> None:
        """A launch is over."""
        self._launches.release()


class Start:
    """One run's way through the queue: a place, and then one of few launches at once, since starts are costly. A run that was taken out of
    the queue passes: whoever starts it looks whether it is still wanted."""

    def __init__(self, places: Places, run_id: str) -> None:
        self._places = places
        self._run_id = run_id
        self._has_launch = False
        """A run has one start at a time."""

    async def __aenter__(self) -> None:
        self._has_launch = await self._places.begin(self._run_id)

    async def __aexit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        if self._has_launch:
            self._has_launch = False
            self._places.ended()
