"""A provider of live quotes on this machine: it speaks Finnhub's messages as a server does, and fails as one, when a test says so."""

from __future__ import annotations

import json
from contextlib import suppress
from http import HTTPStatus
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from waiting import until

KEY = "key-of-the-test"


class FinnhubServer:
    """The server. `async with` starts and stops it."""

    def __init__(self) -> None:
        self.connections = set[ServerConnection]()
        self.accepted = 0
        self.refused = 0
        self.subscribed: dict[ServerConnection, set[str]] = {}
        self.refuse_with: HTTPStatus | None = None
        """What the next handshakes are answered."""
        self.said = list[str]()
        """What clients sent, in order."""
        self._server: Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Its address, without a key."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def symbols(self) -> set[str]:
        """What somebody is subscribed to."""
        return {symbol for symbols in self.subscribed.values() for symbol in symbols}

    async def __aenter__(self) -> FinnhubServer:
        await self.start()
        return self

    async def __aexit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        await self.stop()

    async def start(self) -> None:
        """Serves; on the port that it had before, if it had one."""
        self._server = await serve(self._converse, "127.0.0.1", self.port, process_request=self._admit, close_timeout=1)
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        """Ends, and cuts every connection."""
        server, self._server = self._server, None
        if server is not None:
            server.close(close_connections=False)
            self.cut()
            await server.wait_closed()

    def cut(self) -> None:
        """Cuts every connection in the middle, as a network does."""
        for connection in list(self.connections):
            connection.transport.abort()

    async def close_politely(self, code: int = 1001) -> None:
        """Closes every connection, as a server does that is started anew."""
        for connection in list(self.connections):
            await connection.close(code)

    async def has(self, *symbols: str) -> None:
        """Waits until somebody is subscribed to exactly these symbols."""
        await until(lambda: self.symbols == set(symbols))

    async def trades(self, *trades: tuple[str, str, int, str]) -> None:
        """Tells trades: symbol, price and volume as the text that goes out, milliseconds."""
        parts = [f'{{"c":["1"],"p":{price},"s":"{symbol}","t":{at_ms},"v":{volume}}}' for symbol, price, at_ms, volume in trades]
        await self.say(f'{{"data":[{",".join(parts)}],"type":"trade"}}')

    async def ping(self) -> None:
        """What the provider says when there is nothing to say."""
        await self.say('{"type":"ping"}')

    async def say(self, text: str | bytes) -> None:
        """Sends a message to every client."""
        for connection in list(self.connections):
            await connection.send(text)

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.refuse_with is not None:
            self.refused += 1
            return connection.respond(self.refuse_with, "no\n")
        if parse_qs(urlsplit(request.path).query).get("token") != [KEY]:
            self.refused += 1
            return connection.respond(HTTPStatus.UNAUTHORIZED, "invalid API key\n")
        return None

    async def _converse(self, connection: ServerConnection) -> None:
        self.connections.add(connection)
        self.subscribed[connection] = set()
        self.accepted += 1
        try:
            # However a client goes, it has gone.
            with suppress(ConnectionClosed):
                async for text in connection:
                    self.said.append(str(text))
                    message = json.loads(text)
                    symbols = self.subscribed[connection]
                    if message["type"] == "subscribe":
                        symbols.add(message["symbol"])
                    elif message["type"] == "unsubscribe":
                        symbols.discard(message["symbol"])
                    else:
                        await connection.send(json.dumps({"type": "error", "msg": f"Unknown message {message['type']}"}))
        finally:
            self.connections.discard(connection)
            del self.subscribed[connection]
