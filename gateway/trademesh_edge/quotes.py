"""The newest quote of every ticker of a run. Pure: no I/O, no clock, no messages.

A reader keeps one integer, the version that it has; what it misses is what moved since, each ticker once, however slow it reads.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RingQuote:
    """A quote, and its bytes as they stand in a batch."""

    ticker: str
    encoded: bytes


class QuoteBoard:
    """Quotes by ticker, those that moved last come last."""

    def __init__(self) -> None:
        self._quotes: dict[str, tuple[int, RingQuote]] = {}
        self.version = 0

    def put(self, quote: RingQuote) -> None:
        """Takes in a quote."""
        self.version += 1
        self._quotes.pop(quote.ticker, None)
        self._quotes[quote.ticker] = (self.version, quote)

    def since(self, version: int, tickers: frozenset[str]) -> list[RingQuote]:
        """Quotes that moved after a version, those that moved last come last; no tickers: all."""
        found = list[RingQuote]()
        for at, quote in reversed(self._quotes.values()):
            if at <= version:
                break
            if not tickers or quote.ticker in tickers:
                found.append(quote)
        found.reverse()
        return found
