"""Search: the same ranks as SQLite's over what was known, and nothing of what was not."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademesh_news.imported_sets import numbered
from trademesh_news.news_items import DirectionMethod, NewsRecord, NewsSet
from trademesh_news.search import SearchIndex, terms_of
from trademesh_news.words import words_of

WORDS = ("oil", "profit", "warning", "beats", "estimates", "bank", "chief")


def record(news_id: str, known: int, headline: str, body: str = "", published: int | None = None) -> NewsRecord:
    """A version of an item."""
    first = known if published is None else published
    return NewsRecord(news_id, 5, ("KO",), "", first, known, 0, headline, 0, DirectionMethod.STATED, {}, body, arrival=1)


def anything(_item: NewsRecord) -> bool:
    return True


TEXT = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)
RECORDS = st.lists(
    st.builds(record, st.sampled_from("abcdefgh"), st.integers(1, 60), TEXT, TEXT), min_size=1, max_size=25, unique_by=lambda one: one.key
).map(
    lambda found: [
        replace(one, published_unix_s=min(other.known_unix_s for other in found if other.news_id == one.news_id)) for one in found
    ]
)
QUERY = st.lists(st.one_of(st.sampled_from(WORDS), st.just('"profit warning"')), min_size=1, max_size=3, unique=True).map(" ".join)


def ranks(news: NewsSet, query: str, as_of: int) -> list[tuple[str, int, float]]:
    """What is found, with its version and its rank."""
    hits = SearchIndex(news).search(query, as_of, anything)
    return [(news.items[hit.place].news_id, news.items[hit.place].known_unix_s, hit.rank) for hit in hits]


def sqlite_ranks(news: NewsSet, query: str, as_of: int) -> dict[str, float]:
    """What SQLite's FTS5 makes of what was known at an instant, and holds nothing else."""
    with sqlite3.connect(":memory:") as database:
        database.execute("create virtual table news using fts5 (news_id unindexed, headline, body)")
        current = news.current(as_of)
        for place, item in enumerate(news.items):
            if current[place]:
                database.execute("insert into news values (?, ?, ?)", (item.news_id, item.headline, item.body))
        expression = " ".join('"' + " ".join(term) + '"' for term in terms_of(query))
        return {name: -rank for name, rank in database.execute("select news_id, bm25(news) from news where news match ?", (expression,))}


@settings(deadline=None)
@given(RECORDS, QUERY, st.integers(0, 61))
def test_ranks_are_those_of_sqlite_over_what_was_known(records: list[NewsRecord], query: str, as_of: int) -> None:
    news = numbered(records)
    ours = ranks(news, query, as_of)
    theirs = sqlite_ranks(news, query, as_of)
    assert {name: rank for name, _, rank in ours} == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    assert [rank for _, _, rank in ours] == sorted((rank for _, _, rank in ours), reverse=True)


@settings(deadline=None)
@given(RECORDS, QUERY, st.integers(0, 61))
def test_what_becomes_known_later_moves_no_rank_and_no_version(records: list[NewsRecord], query: str, as_of: int) -> None:
    whole = numbered(records)
    until_then = numbered([one for one in records if one.known_unix_s <= as_of])
    assert ranks(whole, query, as_of) == ranks(until_then, query, as_of)


def test_words_are_compared_without_case_and_accents() -> None:
    assert words_of("Nestlé's CAFÉ-chain, up 3_2%") == ["nestle", "s", "cafe", "chain", "up", "3", "2"]
    news = numbered([record("a", 1, "Nestlé warns")])
    assert [name for name, _, _ in ranks(news, "NESTLE", 2)] == ["a"]


def test_quoted_words_and_words_joined_by_a_hyphen_must_follow_each_other() -> None:
    assert terms_of('profit "Chief Executive" re-sign "open end profit') == [
        ("profit",),
        ("chief", "executive"),
        ("re", "sign"),
        ("open", "end", "profit"),
    ]
    news = numbered([record("a", 1, "profit warning"), record("b", 1, "warning of profit"), record("c", 1, "profit", "warning")])
    assert {name for name, _, _ in ranks(news, '"profit warning"', 1)} == {"a"}
    assert {name for name, _, _ in ranks(news, "profit-warning", 1)} == {"a"}
    assert {name for name, _, _ in ranks(news, "profit warning", 1)} == {"a", "b", "c"}


def test_of_equal_ranks_the_newest_comes_first() -> None:
    news = numbered([record(name, known, "oil profit") for name, known in (("a", 3), ("b", 9), ("c", 6))])
    assert [name for name, _, _ in ranks(news, "oil", 10)] == ["b", "c", "a"]


def test_a_query_without_a_word_has_no_terms() -> None:
    assert terms_of(' "" - ?') == []


def test_what_is_not_wanted_is_left_out_and_still_counts_for_rarity() -> None:
    news = numbered([record("a", 1, "oil"), record("b", 2, "oil"), record("c", 3, "bank"), record("d", 4, "bank chief profit")])
    (only,) = SearchIndex(news).search("oil", 9, lambda item: item.news_id == "a")
    assert only.rank == {name: rank for name, _, rank in ranks(news, "oil", 9)}["a"]
