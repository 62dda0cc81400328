"""Live trades from Finnhub, or whatever speaks its protocol: one connection while something is wanted, and another when it is lost or silent.

A key opens one connection at a time, so all of trading_service shares this one. The key is part of the address: neither is ever logged, and
no text of an exception is, since some of websockets' hold the address. What messages say is `finnhub_frames.py`'s.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from trademesh_kernel.logs import get_logger
from trademesh_kernel.settings import is_loopback
from trademesh_runs.wake import first_of
from trademesh_trading.finnhub_frames import BadFrame, read_frame, subscription
from trademesh_trading.quote_provider import QuoteListener

_LARGEST_FRAME_BYTES = 1024 * 1024
_SEND_TIMEOUT_S = 10.0
_LOOK_AGAIN_S = 60.0
_COMPLAIN_EACH_S = 60.0

# At DEBUG websockets writes the first line of its handshake, which holds the key.
_SILENT = logging.getLogger("trademesh.finnhub.websockets")
_SILENT.propagate = False
_SILENT.addHandler(logging.NullHandler())
_SILENT.setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class LinkTimers:
    """When a connection counts as lost, and how soon the next is tried."""

    idle_s: float = 150.0
    """Without a message for so long it is taken for dead. The provider says `ping` every one or two minutes."""
    open_s: float = 10.0
    """How long a handshake may take."""
    first_retry_s: float = 0.5
    """The wait before the first new try; doubled with each that fails."""
    longest_retry_s: float = 60.0
    steady_s: float = 30.0
    """A connection that held for so long was a good one: the next wait is the first again."""
    uniform: random.Random = field(default_factory=random.Random)
    """Spreads the waits, so that many clients of a provider that comes back do not all come at once."""

    def wait_s(self, failures: int) -> float:
        """How long to wait after so many failures in a row, at least one."""
        full_s = min(self.longest_retry_s, self.first_retry_s * 2.0 ** min(failures - 1, 30))
        return full_s * self.uniform.uniform(0.5, 1.0)


class Finnhub:
    """The connection to the provider."""

    name = "finnhub"

    def __init__(self, url: str, key: SecretStr, timers: LinkTimers | None = None) -> None:
        """`url` is the provider's address without the key."""
        self._host = urlsplit(url).hostname or ""
        self._address = SecretStr(f"{url}{'&' if '?' in url else '?'}token={quote(key.get_secret_value(), safe='')}")
        self._key = key
        self._timers = timers or LinkTimers()
        self._log = get_logger("finnhub")
        self._said = ""
        self._silent_until_s = 0.0

    async def run(self, listener: QuoteListener) -> None:
        """Connects while something is wanted, and again whenever the connection is lost. Until it is cancelled."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            while not listener.wanted:
                await first_of([listener.wanted_changed], _LOOK_AGAIN_S)
            began_s = loop.time()
            why = await self._connection(listener)
            if not why:
                failures = 0
                listener.disconnected("nobody asks for quotes")
                continue
            failures = 1 if loop.time() - began_s >= self._timers.steady_s else failures + 1
            listener.disconnected(why)
            if why != self._said:
                self._log.warning("no live quotes", provider=self.name, host=self._host, reason=why)
                self._said = why
            await asyncio.sleep(self._timers.wait_s(failures))

    async def _connection(self, listener: QuoteListener) -> str:
        """One connection, to its end: why it ended, or nothing if no ticker is wanted any more."""
        loopback = is_loopback(f"[{self._host}]:0" if ":" in self._host else f"{self._host}:0")
        try:
            async with connect(
                self._address.get_secret_value(),
                logger=_SILENT,
                compression=None,
                open_timeout=self._timers.open_s,
                close_timeout=2.0,
                max_size=_LARGEST_FRAME_BYTES,
                # A proxy for the web is the way out of many networks, and knows nothing of this machine.
                proxy=None if loopback else True,
            ) as socket:
                self._log.info("connected", provider=self.name, host=self._host)
                self._said = ""
                return await self._converse(socket, listener)
        except ConnectionClosed as error:
            closed = error.rcvd or error.sent
            return f"the provider closed the connection ({closed.code})" if closed is not None else "the connection was cut"
        except InvalidStatus as error:
            status = error.response.status_code
            if status in (401, 403):
                return f"the provider refuses the key (HTTP {status}): see TRADEMESH_FINNHUB_API_KEY"
            return f"the provider refuses the connection (HTTP {status})"
        except TimeoutError:
            return f"the provider did not answer within {self._timers.open_s:g} s"
        except (OSError, WebSocketException) as error:
            return f"the provider cannot be reached ({type(error).__name__})"

    async def _converse(self, socket: ClientConnection, listener: QuoteListener) -> str:
        """Reads messages, and keeps the provider's subscriptions those that are wanted."""
        reading = asyncio.create_task(self._read(socket, listener), name="finnhub reads")
        writing = asyncio.create_task(self._subscribe(socket, listener), name="finnhub subscribes")
        try:
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            # Both may be over: that nothing is wanted is told by the writer, that the connection is lost by either.
            done = writing if writing.done() else reading
            return done.result()
        finally:
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    async def _subscribe(self, socket: ClientConnection, listener: QuoteListener) -> str:
        """Returns when nothing is wanted any more."""
        asked = frozenset[str]()
        while wanted := listener.wanted:
            for symbol in sorted(asked - wanted):
                await self._send(socket, subscription(symbol, wanted=False))
            for symbol in sorted(wanted - asked):
                await self._send(socket, subscription(symbol, wanted=True))
            if wanted - asked or not asked:
                listener.connected()
            asked = wanted
            if listener.wanted == asked:
                await first_of([listener.wanted_changed], _LOOK_AGAIN_S)
        return ""

    async def _send(self, socket: ClientConnection, text: str) -> None:
        async with asyncio.timeout(_SEND_TIMEOUT_S):
            await socket.send(text)

    async def _read(self, socket: ClientConnection, listener: QuoteListener) -> str:
        """Returns when nothing was said for too long."""
        while True:
            try:
                async with asyncio.timeout(self._timers.idle_s):
                    # As bytes: a text that is no UTF-8 is a bad frame like others, and no reason to part.
                    data = await socket.recv(decode=False)
            except TimeoutError:
                return f"the provider said nothing for {self._timers.idle_s:g} s"
            try:
                frame = read_frame(data)
            except BadFrame:
                listener.bad_frame()
                continue
            if frame.error:
                self._pass_on(frame.error)
            if frame.trades or frame.refused:
                listener.heard(frame.trades, frame.refused)

    def _pass_on(self, complaint: str) -> None:
        """Writes down what the provider complains of: one that complains of each message is heard once a minute."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._silent_until_s:
            return
        self._silent_until_s = now_s + _COMPLAIN_EACH_S
        self._log.warning("the provider complains", provider=self.name, text=complaint.replace(self._key.get_secret_value(), "***"))
