"""What a source of live trades is to the rest of trading_service. Who speaks to one is in a module of its own, `finnhub.py`; what becomes
of trades is `live_quotes.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from trademesh_runs.wake import Wake


@dataclass(frozen=True, slots=True)
class Trade:
    """A trade, or a price that a provider tells without one (its volume is then 0)."""

    ticker: str
    price_micros: int
    traded_unix_ms: int
    volume_shares: int
    """Whole shares, rounded down."""


class QuoteListener(Protocol):
    """Who wants trades, and is told of them."""

    wanted_changed: Wake

    @property
    def wanted(self) -> frozenset[str]:
        """Tickers of which trades are wanted now."""

    def connected(self) -> None:
        """From now on trades of what is wanted arrive."""

    def disconnected(self, why: str) -> None:
        """None arrive, also where nothing is wanted any more. `why` is one line for people, without anything secret."""

    def heard(self, trades: Sequence[Trade], refused: int) -> None:
        """Trades in the order in which they arrived, and how many others beside them made no sense."""

    def bad_frame(self) -> None:
        """Something arrived that cannot be read, and was dropped."""


class QuoteProvider(Protocol):
    """A source of live trades."""

    @property
    def name(self) -> str:
        """What people call it."""

    async def run(self, listener: QuoteListener) -> None:
        """Connects while something is wanted, and again whenever the connection is lost. Until it is cancelled."""
