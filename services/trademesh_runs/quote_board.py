"""The newest price of every ticker, for readers who need no more than that: quotes are conflated, never queued and never journaled.

Each move has a number. A reader keeps one number, that of the newest move it has seen, and walks back to it from the newest: so nothing is
held for it, and what it gets is picked when it is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh_kernel.wire_format import delimited
from trademesh_runs.conflation import Conflated
from trademesh_runs.wake import Wake

MOST_BYTES = 256 * 1024
"""A message with quotes ends here; the rest follows in the next."""

_QUOTES_FIELD = feed.QuoteBatch.DESCRIPTOR.fields_by_name["quotes"].number
_BATCH_FIELD = feed.SubscribeResponse.DESCRIPTOR.fields_by_name["quotes"].number


@dataclass(frozen=True, slots=True)
class _Update:
    session_date: str
    observed_unix_s: int
    prices: Mapping[str, int]


class QuoteBoard:
    """Takes updates in, and tells each reader what moved since it last looked. Belongs to one event loop."""

    def __init__(self) -> None:
        self.moved = Wake()
        self._newest: _Update | None = None
        """Not on the board yet: in a backtest a thousand come in a second, and nobody looks."""
        self._quotes = Conflated[bytes]()
        """Encoded quotes by ticker; its version counts moves."""

    def update(self, session_date: str, observed_unix_s: int, prices: Mapping[str, int]) -> None:
        """New prices, micro-dollars by ticker, seen at a second of the run's own clock. The board keeps the mapping: it must not change."""
        if self._newest is not None and not prices.keys() >= self._newest.prices.keys():
            self._post()
        self._newest = _Update(session_date, observed_unix_s, prices)
        self.moved.wake()

    def has_moved(self, since: int) -> bool:
        """True if anything moved after a move of that number."""
        return self._newest is not None or self._quotes.version > since

    def message(self, since: int, tickers: Set[str]) -> tuple[int, bytes]:
        """The encoded SubscribeResponse of what moved after a move, and the number to ask with next time; no bytes: nothing did.

        `tickers` are those that are wanted; empty: all.
        """
        self._post()
        pieces, size_bytes = list[bytes](), 0
        for move, data in self._quotes.since(since, tickers):
            if size_bytes + len(data) > MOST_BYTES:
                # The oldest moves go first, so that the number of the last of them says what is still to come.
                return move - 1, delimited(_BATCH_FIELD, b"".join(pieces))
            pieces.append(data)
            size_bytes += len(data)
        return self._quotes.version, delimited(_BATCH_FIELD, b"".join(pieces)) if pieces else b""

    def _post(self) -> None:
        """Puts the newest update on the board."""
        update, self._newest = self._newest, None
        if update is None:
            return
        quote = feed.Quote(session_date=update.session_date)
        quote.observed_at.seconds = update.observed_unix_s
        for ticker, price_micros in update.prices.items():
            quote.ticker, quote.price_micros = ticker, price_micros
            self._quotes.put(ticker, delimited(_QUOTES_FIELD, quote.SerializeToString()))
