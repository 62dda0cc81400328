"""The calls of NewsService over a real server, on news that were imported: as of any instant, page by page, and as they become known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from conftest import StartServer
from trademesh.news.v1 import news_service_pb2 as messages
from trademesh.news.v1 import news_service_pb2_grpc
from trademesh.trading.v1 import market_data_service_pb2, market_data_service_pb2_grpc
from trademesh_gateway.market.bar_source import BarSource
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import RemoteError
from trademesh_kernel.server import registration
from trademesh_news.importer import import_news
from trademesh_news.news_service import NewsServicer
from trademesh_news.store import NewsStore
from trademesh_trading.market_data_service import MarketDataServicer
from trademesh_trading.store import MarketStore

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
LATE = "2026-01-01T00:00:00Z"


def at(text: str) -> Timestamp:
    """An instant."""
    instant = Timestamp()
    instant.FromJsonString(text)
    return instant


def news_line(news_id: str, published_at: str, headline: str, **fields: Any) -> str:
    return json.dumps({"id": news_id, "published_at": published_at, "headline": headline, **fields})


LINES = [
    news_line("dull", "2008-09-01T12:00:00Z", "Annual meeting in Atlanta", tickers=["KO"], source="Wire", url="https://example.org/1"),
    news_line("up", "2008-09-10T12:00:00Z", "Coca-Cola profit beats estimates", tickers=["KO", "PEP"], body="Strong growth. " * 50),
    news_line("down", "2008-09-12T12:00:00Z", "Warning on sugar prices", tickers=["KO"], direction=-1),
    news_line("up", "2008-09-10T12:00:00Z", "CORRECTED: profit misses estimates", tickers=["KO"], updated_at="2008-09-14T12:00:00Z"),
    news_line("else", "2008-09-13T12:00:00Z", "Profit of a bank", tickers=["BAC"], direction=1),
]


@dataclass
class Newsroom:
    """A news_service whose clock stands where it is set, and the folder that it reads."""

    folder: Path
    client: ServiceClient
    servicer: NewsServicer
    now: list[int] = field(default_factory=list)

    async def ask(self, method: str, request: Any) -> Any:
        """A unary call."""
        return await self.client.call(getattr(self.client.stub(news_service_pb2_grpc.NewsServiceStub), method), request)

    def stream(self, **fields: Any) -> AsyncIterator[messages.StreamNewsResponse]:
        """StreamNews."""
        request = messages.StreamNewsRequest(set="mine", **fields)
        return self.client.stream(self.client.stub(news_service_pb2_grpc.NewsServiceStub).StreamNews, request, timeout_s=30)

    async def add(self, *lines: str) -> None:
        """Imports lines."""
        path = self.folder / "lines.jsonl"
        path.write_text("\n".join(lines))
        await asyncio.to_thread(import_news, path, "mine", self.folder / "news", NOW)

    def set_clock(self, text: str) -> None:
        self.now[:] = [at(text).seconds]


@pytest_asyncio.fixture
async def room(tmp_path: Path, start_server: StartServer) -> AsyncIterator[Newsroom]:
    """A news_service with a few imported items."""
    clock = [at(LATE).seconds]
    servicer = NewsServicer(NewsStore(tmp_path / "news"), now_unix_s=lambda: clock[0], checkpoint_s=0.2)
    server = await start_server(
        [registration(news_service_pb2_grpc.add_NewsServiceServicer_to_server, servicer, messages.DESCRIPTOR, "NewsService")]
    )
    async with ServiceClient(server.target, "news_service") as client:
        found = Newsroom(tmp_path, client, servicer, clock)
        await found.add(*LINES)
        yield found
        servicer.drain()


async def listed(room: Newsroom, as_of: str, **fields: Any) -> list[messages.NewsItem]:
    answer = await room.ask("ListNews", messages.ListNewsRequest(set="mine", as_of=at(as_of), **fields))
    return list(answer.items)


async def test_an_item_is_told_as_it_was_known(room: Newsroom) -> None:
    before = {one.news_id: one for one in await listed(room, "2008-09-14T11:59:59Z")}
    after = {one.news_id: one for one in await listed(room, "2008-09-14T12:00:00Z")}
    assert (before["up"].headline, before["up"].revision, before["up"].direction) == ("Coca-Cola profit beats estimates", 1, 1)
    assert (after["up"].headline, after["up"].revision, after["up"].direction) == ("CORRECTED: profit misses estimates", 2, -1)
    assert after["up"].published_at == before["up"].published_at == before["up"].known_at
    assert after["up"].known_at == at("2008-09-14T12:00:00Z")
    assert (before["up"].direction_method, before["down"].direction_method) == (
        messages.DIRECTION_METHOD_WORDS,
        messages.DIRECTION_METHOD_STATED,
    )
    dull = before["dull"]
    assert (dull.source, dull.kind) == (messages.NEWS_SOURCE_IMPORTED, messages.NEWS_KIND_ARTICLE)
    assert (dull.publisher, dull.url, dull.session_date) == ("Wire", "https://example.org/1", "")


async def test_every_revision_is_told_if_asked_for_and_those_that_came_later_are_not(room: Newsroom) -> None:
    assert [(one.news_id, one.revision) for one in await listed(room, LATE, every_revision=True)] == [
        *[("dull", 1), ("up", 1), ("down", 1), ("else", 1), ("up", 2)]
    ]
    assert [(one.news_id, one.revision) for one in await listed(room, "2008-09-14T00:00:00Z", every_revision=True, tickers=["PEP"])] == [
        ("up", 1)
    ]
    # The corrected item is not about Pepsi any more.
    assert await listed(room, LATE, tickers=["PEP"]) == []
    assert [one.news_id for one in await listed(room, LATE, published_after=at("2008-09-13T12:00:00Z"))] == ["up"]


async def test_pages_join_while_more_is_imported(room: Newsroom) -> None:
    request = messages.ListNewsRequest(set="mine", as_of=at(LATE), page_size=2)
    first = await room.ask("ListNews", request)
    await room.add(news_line("old", "2001-01-01T00:00:00Z", "Long ago"), news_line("new", "2009-01-01T00:00:00Z", "Later"))
    request.page_token = first.next_page_token
    second = await room.ask("ListNews", request)
    request.page_token = second.next_page_token
    third = await room.ask("ListNews", request)
    assert [[one.news_id for one in page.items] for page in (first, second, third)] == [["dull", "down"], ["else", "up"], ["new"]]
    assert third.next_page_token == ""
    request.page_token = "AAAA"
    with pytest.raises(RemoteError) as wrong:
        await room.ask("ListNews", request)
    assert wrong.value.remote_reason == "PAGE_TOKEN_INVALID"


async def test_one_item_is_told_with_its_text_and_its_versions(room: Newsroom) -> None:
    early = await room.ask("GetNewsItem", messages.GetNewsItemRequest(set="mine", news_id="up", as_of=at("2008-09-11T00:00:00Z")))
    assert (early.item.revision, early.body, len(early.revisions)) == (1, ("Strong growth. " * 50).strip(), 1)
    late = await room.ask("GetNewsItem", messages.GetNewsItemRequest(set="mine", news_id="up", as_of=at(LATE)))
    assert (late.item.headline, late.body) == ("CORRECTED: profit misses estimates", "")
    assert [(one.revision, one.known_at) for one in late.revisions] == [(1, at("2008-09-10T12:00:00Z")), (2, at("2008-09-14T12:00:00Z"))]


@pytest.mark.parametrize(("news_id", "as_of"), [("up", "2008-09-10T11:59:59Z"), ("nothing", LATE)])
async def test_an_item_that_is_not_known_yet_is_not_found_like_one_that_never_is(room: Newsroom, news_id: str, as_of: str) -> None:
    with pytest.raises(RemoteError) as refused:
        await room.ask("GetNewsItem", messages.GetNewsItemRequest(set="mine", news_id=news_id, as_of=at(as_of)))
    assert (refused.value.remote_code, refused.value.metadata) == (grpc.StatusCode.NOT_FOUND, {"type": "news item", "name": news_id})


async def test_items_of_derived_news_are_found_by_their_names_too(room: Newsroom) -> None:
    request = messages.GetNewsItemRequest(set="us20", news_id="2008-10-13/CVX/large_move", as_of=at(LATE))
    found = await room.ask("GetNewsItem", request)
    assert found.item.direction_method == messages.DIRECTION_METHOD_FIGURES
    assert (found.body, len(found.revisions)) == ("", 1)


async def hits(room: Newsroom, query: str, as_of: str, **fields: Any) -> messages.SearchNewsResponse:
    request = messages.SearchNewsRequest(set="mine", query=query, as_of=at(as_of), **fields)
    answer: messages.SearchNewsResponse = await room.ask("SearchNews", request)
    return answer


async def test_search_finds_what_was_known_with_its_rank(room: Newsroom) -> None:
    early = await hits(room, "profit", "2008-09-13T12:00:00Z")
    assert [hit.item.news_id for hit in early.hits] == ["else", "up"]
    assert early.hits[0].rank > early.hits[1].rank > 0
    assert early.total == 2
    assert [hit.item.revision for hit in (await hits(room, "profit misses", LATE)).hits] == [2]
    assert (await hits(room, "profit beats", LATE)).total == 0
    assert [hit.item.news_id for hit in (await hits(room, "growth", "2008-09-11T00:00:00Z")).hits] == ["up"]
    assert [hit.item.news_id for hit in (await hits(room, "profit", LATE, tickers=["BAC"])).hits] == ["else"]
    assert (await hits(room, "profit", LATE, published_after=at("2008-09-13T12:00:00Z"))).total == 0


async def test_pages_of_hits_join(room: Newsroom) -> None:
    first = await hits(room, "profit", LATE, page_size=1)
    second = await hits(room, "profit", LATE, page_size=1, page_token=first.next_page_token)
    assert [*first.hits, *second.hits] == list((await hits(room, "profit", LATE)).hits)
    assert (first.total, second.total, second.next_page_token) == (2, 2, "")


async def test_a_query_without_a_word_is_refused(room: Newsroom) -> None:
    with pytest.raises(RemoteError) as refused:
        await hits(room, '"?!"', LATE)
    assert refused.value.violations[0].field == "query"


async def sentiments(room: Newsroom, as_of: str, **fields: Any) -> messages.ListSentimentResponse:
    request = messages.ListSentimentRequest(**{"set": "mine"} | fields, as_of=at(as_of))
    answer: messages.ListSentimentResponse = await room.ask("ListSentiment", request)
    return answer


async def test_sentiment_is_of_what_was_known_and_names_its_methods(room: Newsroom) -> None:
    (early,) = (await sentiments(room, "2008-09-13T12:00:00Z", tickers=["KO"])).sentiments
    weights = [0.5 ** (days / 3) for days in (11, 2, 0)]
    assert early.score == pytest.approx((weights[1] * 1 - weights[2]) / sum(weights))
    assert (early.items, early.positive, early.negative, early.by_words, early.by_statement) == (3, 1, 1, 2, 1)
    assert early.label == messages.SENTIMENT_LABEL_NEGATIVE
    assert list(early.news_ids) == ["down", "up", "dull"]
    (late,) = (await sentiments(room, "2008-09-14T12:00:00Z", tickers=["KO"])).sentiments
    assert late.score < early.score
    (stated,) = (await sentiments(room, LATE, tickers=["KO"], methods=[messages.DIRECTION_METHOD_STATED])).sentiments
    assert not stated.HasField("score")
    assert stated.undefined == "the window has 0 items, and 3 are needed"


async def test_the_window_and_the_half_life_are_the_callers(room: Newsroom) -> None:
    (all_alike,) = (await sentiments(room, "2008-09-13T12:00:00Z", tickers=["KO"], half_life=Duration(seconds=315_360_000))).sentiments
    assert all_alike.score == pytest.approx(0, abs=0.01)
    assert all_alike.label == messages.SENTIMENT_LABEL_NEUTRAL
    (short,) = (await sentiments(room, "2008-09-13T12:00:00Z", tickers=["KO"], published_after=at("2008-09-01T12:00:00Z"))).sentiments
    assert short.items == 2


async def test_pages_of_sentiments_join_and_without_tickers_are_of_those_with_news(room: Newsroom) -> None:
    first = await sentiments(room, "2008-09-13T12:00:00Z", page_size=2)
    second = await sentiments(room, "2008-09-13T12:00:00Z", page_size=2, page_token=first.next_page_token)
    assert [one.ticker for one in (*first.sentiments, *second.sentiments)] == ["BAC", "KO", "PEP"]
    assert second.next_page_token == ""
    named = await sentiments(room, LATE, tickers=["KO", "XOM", "BAC"])
    assert [one.ticker for one in named.sentiments] == ["KO", "XOM", "BAC"]
    derived = await sentiments(room, "2008-10-14T00:00:00Z", set="us20", tickers=["CVX"])
    assert derived.sentiments[0].by_figures == derived.sentiments[0].items > 0


async def read_until(stream: AsyncIterator[messages.StreamNewsResponse], kind: str) -> tuple[list[str], messages.StreamNewsResponse]:
    """Names and versions until a message of a kind, and that message."""
    seen = list[str]()
    async with asyncio.timeout(20):
        async for one in stream:
            seen += [f"{item.news_id}/{item.revision}" for item in one.batch.items]
            if one.WhichOneof("kind") == kind:
                return seen, one
    raise AssertionError(f"the stream ended without a {kind}")


ALL = ["dull/1", "up/1", "down/1", "else/1", "up/2"]


async def test_a_stream_of_the_past_tells_every_version_that_was_known_and_ends(room: Newsroom) -> None:
    seen, end = await read_until(room.stream(as_of=at("2008-09-14T11:00:00Z")), "end")
    assert seen == ALL[:-1]
    assert end.end.reason == messages.NEWS_STREAM_END_REASON_COMPLETE
    assert not end.end.HasField("retry_after")
    seen, _ = await read_until(room.stream(as_of=at(LATE), tickers=["BAC", "PEP"], published_after=at("2008-09-10T12:00:00Z")), "end")
    assert seen == ["else/1"]


async def test_a_stream_tells_what_is_then_what_becomes_known_and_checkpoints_while_idle(room: Newsroom) -> None:
    room.set_clock("2008-09-13T00:00:00Z")
    stream = room.stream()
    seen, checkpoint = await read_until(stream, "checkpoint")
    assert seen == ALL[:3]
    assert checkpoint.checkpoint.at == at("2008-09-13T00:00:00Z")
    idle, _ = await read_until(stream, "checkpoint")
    assert idle == []
    room.set_clock("2008-09-13T12:00:00Z")
    seen, _ = await read_until(stream, "batch")
    assert seen == ["else/1"]
    await read_until(stream, "checkpoint")
    # Imported only now, and known for long.
    await room.add(news_line("old", "2001-01-01T00:00:00Z", "Long ago"), news_line("soon", "2008-09-14T00:00:00Z", "Not yet"))
    seen, _ = await read_until(stream, "batch")
    assert seen == ["old/1"]
    room.set_clock(LATE)
    seen, _ = await read_until(stream, "batch")
    assert seen == ["soon/1", "up/2"]


async def test_a_stream_goes_on_behind_its_cursor_without_a_gap_or_a_repeat(room: Newsroom) -> None:
    room.set_clock("2008-09-13T00:00:00Z")
    _, checkpoint = await read_until(room.stream(), "checkpoint")
    room.set_clock("2008-09-13T12:00:00Z")
    await room.add(news_line("old", "2001-01-01T00:00:00Z", "Long ago"))
    seen, later = await read_until(room.stream(resume_after=checkpoint.checkpoint.cursor), "checkpoint")
    assert seen == ["old/1", "else/1"]
    room.set_clock(LATE)
    seen, _ = await read_until(room.stream(resume_after=later.checkpoint.cursor), "checkpoint")
    assert seen == ["up/2"]
    with pytest.raises(RemoteError) as wrong:
        await read_until(room.stream(resume_after=later.checkpoint.cursor, tickers=["KO"]), "checkpoint")
    assert wrong.value.remote_reason == "PAGE_TOKEN_INVALID"


async def test_a_server_that_drains_ends_streams_with_their_cursor(room: Newsroom) -> None:
    room.set_clock("2008-09-13T00:00:00Z")
    stream = room.stream()
    await read_until(stream, "checkpoint")
    room.servicer.drain()
    seen, end = await read_until(stream, "end")
    assert seen == []
    assert end.end.reason == messages.NEWS_STREAM_END_REASON_DRAINING
    assert end.end.retry_after.seconds == 1
    assert end.end.cursor


async def test_long_histories_come_in_parts_that_a_client_can_receive(room: Newsroom) -> None:
    text = "word " * 99
    await room.add(*(news_line(f"n{number:05}", "2008-09-20T00:00:00Z", text, url="https://x/" + "y" * 1900) for number in range(3000)))
    async with asyncio.timeout(30):
        sizes = [len(one.batch.items) async for one in room.stream(as_of=at(LATE)) if one.WhichOneof("kind") == "batch"]
    assert sum(sizes) == 3005
    assert len(sizes) > 5
    request, seen = messages.ListNewsRequest(set="mine", as_of=at(LATE), page_size=5000), list[str]()
    while True:
        page = await room.ask("ListNews", request)
        seen += [one.news_id for one in page.items]
        assert page.ByteSize() < 1.2 * 1024 * 1024
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert len(seen) == len(set(seen)) == 3004


async def test_a_desk_sees_an_item_as_it_was_first_told_and_from_then_on(tmp_path: Path, start_server: StartServer) -> None:
    lines = tmp_path / "lines.jsonl"
    late_first = news_line("late", "2008-09-02T12:00:00Z", "Told late", tickers=["KO"], direction=1, updated_at="2008-09-16T12:00:00Z")
    lines.write_text("\n".join([*LINES, late_first]))
    import_news(lines, "mine", tmp_path / "news", NOW)
    # As if they were news of a set that comes with the program.
    (tmp_path / "news" / "mine").rename(tmp_path / "news" / "us20")
    store = NewsStore(tmp_path / "news", root=tmp_path)
    registrations = [
        registration(news_service_pb2_grpc.add_NewsServiceServicer_to_server, NewsServicer(store), messages.DESCRIPTOR, "NewsService"),
        registration(
            market_data_service_pb2_grpc.add_MarketDataServiceServicer_to_server,
            MarketDataServicer(MarketStore()),
            market_data_service_pb2.DESCRIPTOR,
            "MarketDataService",
        ),
    ]
    server = await start_server(registrations)
    async with ServiceClient(server.target, "trading_service") as trading, ServiceClient(server.target, "news_service") as news:
        source = BarSource(trading, news, "us20", "2008-09-01", "2008-09-30")
        await source.open(["KO"])
        await source.close()
        known = {day: facts_known(source, f"2008-09-{day}T13:00:00Z") for day in ("11", "15", "17")}
    dull, up, down, late = (at(f"2008-09-{day}T12:00:00Z").seconds for day in ("01", "10", "12", "16"))
    assert known["11"] == [(dull, 0), (up, 1)]
    assert known["15"] == [(dull, 0), (up, 1), (down, -1)]
    assert known["17"] == [(dull, 0), (up, 1), (down, -1), (late, 1)]


def facts_known(source: BarSource, as_of: str) -> list[tuple[int, int]]:
    """When each fact about KO became known, and which way it points, as agents see it at an instant."""
    found = source.history.as_of(at(as_of).seconds).news_since(0)
    return [(one.published_unix_s, one.direction) for one in found if one.ticker == "KO"]
