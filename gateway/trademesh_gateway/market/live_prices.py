"""Live quotes of a run's tickers, from trading_service by RPC: a stream that keeps them coming and shows them to readers of the feed, and the
trades around an open or a close on demand. What is done at those prices is `pipeline/paper_broker.py`'s.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.trading.v1 import market_data_service_pb2 as data
from trademesh.trading.v1 import market_data_service_pb2_grpc
from trademesh.trading.v1 import quote_pb2 as live
from trademesh_gateway.pipeline.paper_broker import TradesAround
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import TrademeshError
from trademesh_kernel.logs import get_logger

RETRY_S = 0.5
IDLE_TIMEOUT_S = 20.0
"""A stream that says nothing for so long hangs: it says a word each five seconds."""
ANSWER_TIMEOUT_S = 5.0

Quoted = Callable[[int, Mapping[str, int]], None]
"""Is told quotes: the second of the newest trade, and micro-dollars by ticker."""


class LivePrices:
    """The live quotes of one run."""

    def __init__(self, trading: ServiceClient, tickers: Sequence[str], quoted: Quoted) -> None:
        self._trading = trading
        self._stub = trading.stub(market_data_service_pb2_grpc.MarketDataServiceStub)
        self._tickers = tuple(tickers)
        self._quoted = quoted
        self._task: asyncio.Task[None] | None = None
        self._log = get_logger("live prices")
        self.lost = "not asked yet"
        """Why no trades arrive; empty if they do."""

    def start(self) -> None:
        """Begins to listen."""
        self._task = asyncio.create_task(self._listen(), name="live prices")

    async def close(self) -> None:
        """Ends the stream."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def around(self, unix_s: int, since_unix_s: int | None = None) -> TradesAround:
        """The trades around an open or a close, by column, and the prices since an open.

        Raises:
            TrademeshError: trading_service does not answer, or has no provider.
        """
        since = None if since_unix_s is None else Timestamp(seconds=since_unix_s)
        request = data.GetQuotesRequest(tickers=self._tickers, around=Timestamp(seconds=unix_s), since=since)
        answer = await self._trading.call(self._stub.GetQuotes, request, timeout_s=ANSWER_TIMEOUT_S)
        found: list[live.TradesAround] = list(answer.around)
        connected = answer.provider.link == live.QUOTE_LINK_CONNECTED and all(one.HasField("heard_since") for one in found)
        return TradesAround(
            before=[one.before.price_micros for one in found],
            before_unix_ms=[one.before.traded_at.ToMilliseconds() for one in found],
            after=[one.after.price_micros for one in found],
            after_unix_ms=[one.after.traded_at.ToMilliseconds() for one in found],
            highs=[one.high_micros for one in found],
            lows=[one.low_micros for one in found],
            heard_since_unix_s=max((one.heard_since.ToMilliseconds() / 1000 for one in found), default=0.0) if connected else None,
        )

    async def _listen(self) -> None:
        request = data.StreamQuotesRequest(tickers=self._tickers)
        while True:
            parts = self._trading.stream(self._stub.StreamQuotes, request, idle_timeout_s=IDLE_TIMEOUT_S)
            try:
                async for part in parts:
                    self._take(part)
                self._lose("trading_service ends its streams")
            except TrademeshError as error:
                self._lose(error.message)
            finally:
                await parts.aclose()  # type: ignore[attr-defined]  # ServiceClient.stream is an async generator
            await asyncio.sleep(RETRY_S)

    def _take(self, part: data.StreamQuotesResponse) -> None:
        match part.WhichOneof("part"):
            case "provider" if part.provider.link == live.QUOTE_LINK_CONNECTED:
                if self.lost:
                    self._log.info("live quotes arrive", provider=part.provider.name)
                self.lost = ""
            case "provider":
                self._lose(f"{part.provider.name}: {part.provider.reason or 'not connected'}")
            case "quotes":
                by_second = defaultdict[int, dict[str, int]](dict)
                for quote in part.quotes.quotes:
                    by_second[quote.traded_at.seconds][quote.ticker] = quote.price_micros
                for second, prices in sorted(by_second.items()):
                    self._quoted(second, prices)

    def _lose(self, why: str) -> None:
        if why != self.lost:
            self._log.warning("no live quotes", reason=why)
        self.lost = why
