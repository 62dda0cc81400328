"""GetQuotes and StreamQuotes: live quotes brought to clients. A subscriber is a number, the version that it has seen, so that a slow one costs
nothing and sees the newest when it looks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from google.protobuf.duration_pb2 import Duration

from trademesh.trading.v1 import market_data_service_pb2 as messages
from trademesh.trading.v1 import quote_pb2 as market_quote
from trademesh_kernel.errors import FieldViolation, InvalidRequest, NotConfigured
from trademesh_runs.wake import first_of
from trademesh_trading import wire
from trademesh_trading.live_quotes import Line, LiveQuotes
from trademesh_trading.tape import STEP_S

DEFAULT_INTERVAL_S = 0.1


class QuoteStreams:
    """Answers of one server with live quotes, or with none."""

    def __init__(self, quotes: LiveQuotes | None = None, *, stale_s: float = 60.0, checkpoint_s: float = 5.0) -> None:
        """
        Args:
            quotes: None: this server has no provider, and says so.
            stale_s: a quote of a trade before so long is stale.
            checkpoint_s: a stream says a word at least so often.
        """
        self._quotes = quotes
        self._stale_ms = round(stale_s * 1000)
        self._checkpoint_s = checkpoint_s

    async def get(self, request: messages.GetQuotesRequest) -> messages.GetQuotesResponse:
        """The newest trades.

        Raises:
            NotConfigured: there is no provider.
            InvalidRequest: `around` or `since` is no whole five minutes, or they are the wrong way round.
            LimitReached: more tickers are wanted than the provider's plan allows.
        """
        quotes = self._provided()
        around_s, since_s = _checked_instants(request)
        tickers = list(request.tickers)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + request.wait.ToTimedelta().total_seconds()
        with quotes.wanted_by_one_more(tickers):
            while not quotes.draining and len(quotes.changed(0, tickers)) < len(tickers) and (left_s := until_s - loop.time()) > 0:
                await first_of([quotes.moved], left_s)
            known = quotes.changed(0, tickers)
            found = {ticker for ticker, _ in known}
            return messages.GetQuotesResponse(
                quotes=self._quote_messages(quotes, known),
                missing=[ticker for ticker in tickers if ticker not in found],
                provider=wire.provider_message(quotes.provider_name, quotes.link),
                answered_at=wire.instant_ns(quotes.now_unix_ns()),
                around=[wire.around_message(ticker, quotes.line(ticker), around_s, since_s) for ticker in tickers if around_s is not None],
            )

    async def stream(self, request: messages.StreamQuotesRequest) -> AsyncIterator[messages.StreamQuotesResponse]:
        """The newest trades, then each change. Raises as `get`."""
        quotes, tickers = self._provided(), list(request.tickers)
        loop = asyncio.get_running_loop()
        interval_s = request.min_interval.ToTimedelta().total_seconds() if request.HasField("min_interval") else DEFAULT_INTERVAL_S
        seen, seen_link = 0, -1
        fresh = set[str]()
        """Tickers whose last quote was sent as one that is not stale."""
        quotes_due_s = checkpoint_due_s = loop.time()
        with quotes.wanted_by_one_more(tickers):
            while not quotes.draining:
                if quotes.link.version != seen_link:
                    seen_link = quotes.link.version
                    yield messages.StreamQuotesResponse(provider=wire.provider_message(quotes.provider_name, quotes.link))
                now_s = loop.time()
                turned = self._turned_stale(quotes, fresh) if now_s >= checkpoint_due_s else []
                if now_s >= quotes_due_s and (turned or quotes.changed(seen, tickers)):
                    moved = quotes.changed(seen, tickers)
                    found = {**dict(turned), **dict(moved)}
                    seen, quotes_due_s = quotes.version, now_s + interval_s
                    told = self._quote_messages(quotes, list(found.items()))
                    fresh = fresh - found.keys() | {quote.ticker for quote in told if not quote.stale}
                    yield messages.StreamQuotesResponse(quotes=messages.Quotes(quotes=told))
                elif now_s >= checkpoint_due_s:
                    checkpoint_due_s = now_s + self._checkpoint_s
                    checkpoint = messages.QuoteCheckpoint(at=wire.instant_ns(quotes.now_unix_ns()))
                    yield messages.StreamQuotesResponse(checkpoint=checkpoint)
                else:
                    due_s = min(checkpoint_due_s, quotes_due_s) if quotes.changed(seen, tickers) else checkpoint_due_s
                    await first_of([quotes.moved], max(0.001, due_s - now_s))
        yield messages.StreamQuotesResponse(end=messages.QuoteStreamEnd(retry_after=Duration(seconds=1)))

    def _provided(self) -> LiveQuotes:
        if self._quotes is None:
            text = (
                "trading_service has no provider of live quotes: set TRADEMESH_FINNHUB_API_KEY to a key of finnhub.io, and start it again"
            )
            raise NotConfigured(text, setting="TRADEMESH_FINNHUB_API_KEY")
        return self._quotes

    def _quote_messages(self, quotes: LiveQuotes, lines: Sequence[tuple[str, Line]]) -> list[market_quote.Quote]:
        now_ns = quotes.now_unix_ns()
        return [wire.quote_message(line, now_ns, stale=self._is_stale(quotes, line)) for _, line in lines]

    def _is_stale(self, quotes: LiveQuotes, line: Line) -> bool:
        last = line.tape.last
        too_old = last is None or quotes.now_unix_ns() // 1_000_000 - last.traded_unix_ms > self._stale_ms
        return too_old or not quotes.link.connected

    def _turned_stale(self, quotes: LiveQuotes, fresh: set[str]) -> list[tuple[str, Line]]:
        lines = [(ticker, line) for ticker in sorted(fresh) if (line := quotes.line(ticker)) is not None]
        return [(ticker, line) for ticker, line in lines if self._is_stale(quotes, line)]


def _checked_instants(request: messages.GetQuotesRequest) -> tuple[int | None, int | None]:
    """`around` and `since`, in Unix seconds."""
    told = {name: getattr(request, name) for name in ("around", "since") if request.HasField(name)}
    faults = [
        FieldViolation(name, "is no whole five minutes: an open or a close is one")
        for name, instant in told.items()
        if instant.nanos or instant.seconds % STEP_S
    ]
    if "since" in told and "around" not in told:
        faults.append(FieldViolation("since", "belongs to an instant: say `around`, too"))
    elif "since" in told and told["since"].seconds > told["around"].seconds:
        faults.append(FieldViolation("since", "is after `around`"))
    if faults:
        raise InvalidRequest(faults)
    return (told["around"].seconds if "around" in told else None), (told["since"].seconds if "since" in told else None)
