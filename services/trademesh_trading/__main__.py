"""`python -m trademesh_trading`: runs trading_service until SIGTERM."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from pydantic import Field

from trademesh.gateway.v1 import feed_service_pb2, feed_service_pb2_grpc
from trademesh.trading.v1 import (
    market_data_service_pb2,
    market_data_service_pb2_grpc,
    portfolio_service_pb2,
    portfolio_service_pb2_grpc,
)
from trademesh_kernel.health import Readiness
from trademesh_kernel.server import Assembly, MeshServer, registration, run_service
from trademesh_kernel.settings import ListenValidator, ServerSettings, load_settings
from trademesh_runs.feed_service import FeedServicer
from trademesh_trading.finnhub import Finnhub, LinkTimers
from trademesh_trading.live_quotes import LiveQuotes
from trademesh_trading.market_data_service import MarketDataServicer
from trademesh_trading.portfolio_service import PortfolioServicer
from trademesh_trading.quote_streams import QuoteStreams
from trademesh_trading.run_feeds import RunFeeds
from trademesh_trading.run_readers import RunReaders
from trademesh_trading.settings import DataSettings, QuoteSettings
from trademesh_trading.store import MarketStore


class TradingSettings(ListenValidator, DataSettings, QuoteSettings, ServerSettings):
    """Settings of trading_service."""

    service: ClassVar[str] = "trading"

    trading_listen: str = "127.0.0.1:8001"
    trading_metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port of the Prometheus counters on 127.0.0.1; 0 = off."""


def live_quotes(settings: QuoteSettings) -> LiveQuotes | None:
    """Quotes of the provider that there is a key for; None: there is none."""
    key = settings.finnhub_api_key
    if key is None:
        return None
    provider = Finnhub(settings.quotes_url, key, LinkTimers(idle_s=settings.quotes_idle_s))
    return LiveQuotes(provider, most_symbols=settings.quotes_max_symbols, linger_s=settings.quotes_linger_s)


async def assemble(settings: TradingSettings) -> Assembly:
    """The service's parts, inside the running loop."""
    store = MarketStore(settings.imported_sets())
    feeds = RunFeeds(settings.runs_dir, settings.runtime_target)
    readers = RunReaders(feeds)
    readiness = Readiness("market data")
    quotes = live_quotes(settings)

    async def started(_server: MeshServer) -> None:
        # The set that the demo uses is in memory before we say that we serve.
        await asyncio.to_thread(store.get, "us20")
        await readiness.hold("market data")
        if quotes is not None:
            quotes.start()

    return Assembly(
        [
            registration(
                market_data_service_pb2_grpc.add_MarketDataServiceServicer_to_server,
                MarketDataServicer(store, QuoteStreams(quotes, stale_s=settings.quotes_stale_s)),
                market_data_service_pb2.DESCRIPTOR,
                "MarketDataService",
            ),
            registration(
                portfolio_service_pb2_grpc.add_PortfolioServiceServicer_to_server,
                PortfolioServicer(readers),
                portfolio_service_pb2.DESCRIPTOR,
                "PortfolioService",
            ),
            registration(
                feed_service_pb2_grpc.add_FeedServiceServicer_to_server,
                FeedServicer(feeds.finished),
                feed_service_pb2.DESCRIPTOR,
                "FeedService",
            ),
        ],
        readiness=readiness,
        started=started,
        drain_hooks=[feeds.drain, *([quotes.drain] if quotes is not None else [])],
        closers=[readers.close, feeds.close, *([quotes.close] if quotes is not None else [])],
    )


def main() -> None:
    """Entry point."""
    settings = load_settings(TradingSettings)
    run_service("trading_service", settings, lambda: assemble(settings))


if __name__ == "__main__":
    main()
