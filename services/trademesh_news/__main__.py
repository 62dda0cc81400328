"""`python -m trademesh_news`: runs news_service until SIGTERM."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from pydantic import Field

from trademesh.news.v1 import explain_service_pb2, explain_service_pb2_grpc, news_service_pb2, news_service_pb2_grpc
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.health import Readiness
from trademesh_kernel.server import Assembly, MeshServer, registration, run_service
from trademesh_kernel.settings import ListenValidator, ServerSettings, load_settings
from trademesh_news.explain_service import ExplainServicer
from trademesh_news.news_service import NewsServicer
from trademesh_news.settings import NewsDataSettings
from trademesh_news.store import NewsStore


class NewsSettings(ListenValidator, NewsDataSettings, ServerSettings):
    """Settings of news_service."""

    service: ClassVar[str] = "news"

    news_listen: str = "127.0.0.1:8002"
    news_metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port of the Prometheus counters on 127.0.0.1; 0 = off."""


async def assemble(settings: NewsSettings) -> Assembly:
    """The service's parts, inside the running loop. trading_service may be down: then only explanations are not to be had."""
    store = NewsStore(settings.imported_news())
    news = NewsServicer(store)
    trading = ServiceClient(settings.trading_target, "trading_service")
    readiness = Readiness("news")

    async def started(_server: MeshServer) -> None:
        # The set that the demo uses is in memory before we say that we serve.
        await asyncio.to_thread(store.get, "us20")
        await readiness.hold("news")

    return Assembly(
        [
            registration(news_service_pb2_grpc.add_NewsServiceServicer_to_server, news, news_service_pb2.DESCRIPTOR, "NewsService"),
            registration(
                explain_service_pb2_grpc.add_ExplainServiceServicer_to_server,
                ExplainServicer(store, trading),
                explain_service_pb2.DESCRIPTOR,
                "ExplainService",
            ),
        ],
        readiness=readiness,
        started=started,
        drain_hooks=[news.drain],
        closers=[trading.close],
    )


def main() -> None:
    """Entry point."""
    settings = load_settings(NewsSettings)
    run_service("news_service", settings, lambda: assemble(settings))


if __name__ == "__main__":
    main()
