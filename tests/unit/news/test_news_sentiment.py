"""Sentiment: a mean by age of what items say, of as many as are needed, each told once."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademesh_news.news_items import DirectionMethod, NewsRecord
from trademesh_news.sentiment import HALF_LIFE_S, sentiment_of
from trademesh_news.words import NEGATIVE, POSITIVE, tally

DAY = 86_400


def item(
    day: float, direction: int = 1, headline: str = "", method: DirectionMethod = DirectionMethod.STATED, words: tuple[int, int] = (0, 0)
) -> NewsRecord:
    """An item of some day."""
    published = int(day * DAY)
    figures = {"positive_words": float(words[0]), "negative_words": float(words[1])}
    return NewsRecord(
        f"{day}/{headline}", 5, ("KO",), "", published, published, 1, headline or f"item {day}", direction, method, figures, arrival=1
    )


def test_each_half_life_of_age_halves_a_weight() -> None:
    found = sentiment_of([item(0, -1), item(3, 1), item(6, 1)], HALF_LIFE_S)
    assert found.score == pytest.approx((1 + 0.5 - 0.25) / 1.75)
    assert (found.count(1), found.count(-1)) == (2, 1)


def test_fewer_than_three_items_have_no_figure() -> None:
    found = sentiment_of([item(0), item(1)], HALF_LIFE_S)
    assert (found.score, len(found.items)) == (None, 2)


def test_a_headline_that_is_told_twice_counts_once_as_it_was_told_first() -> None:
    told = [item(3, 1, "Coke: Up!"), item(0, -1, "coke up"), item(1, 1), item(2, 1)]
    found = sentiment_of(told, HALF_LIFE_S)
    assert [one.published_unix_s for one in found.items] == [0, DAY, 2 * DAY]
    assert found.count(-1) == 1


def test_words_point_by_their_balance() -> None:
    assert item(0, 1, "x", DirectionMethod.WORDS, (3, 1)).tone == 0.5
    assert item(0, 0, "x", DirectionMethod.WORDS, (0, 0)).tone == 0
    assert item(0, -1, "x", DirectionMethod.WORDS, (0, 2)).tone == -1


def test_only_items_of_the_methods_asked_for_are_used() -> None:
    told = [item(day, 1) for day in range(3)] + [item(4, -1, "w", DirectionMethod.WORDS, (0, 1))]
    assert sentiment_of(told, HALF_LIFE_S, {DirectionMethod.STATED}).score == 1
    assert sentiment_of(told, HALF_LIFE_S, {DirectionMethod.WORDS}).score is None
    assert sentiment_of(told, HALF_LIFE_S).count_by(DirectionMethod.WORDS) == 1


def test_items_that_are_all_old_have_a_figure_too() -> None:
    assert sentiment_of([item(day, 1) for day in range(3)], 60.0).score == 1
    assert sentiment_of([item(0, -1), item(10_000, 1), item(20_000, 1)], 60.0).score == 1


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(-1, 1)), min_size=3, max_size=20, unique_by=lambda one: one[0]))
def test_the_figure_is_between_the_extremes_and_does_not_depend_on_the_order(told: list[tuple[int, int]]) -> None:
    items = [item(day, direction) for day, direction in told]
    score = sentiment_of(items, HALF_LIFE_S).score
    assert score is not None
    assert min(one for _, one in told) - 1e-12 <= score <= max(one for _, one in told) + 1e-12
    assert math.isclose(score, sentiment_of(items[::-1], HALF_LIFE_S).score or 0.0, abs_tol=1e-12)


def test_the_lists_of_words_have_nothing_in_common_and_are_counted_as_often_as_they_come() -> None:
    assert not POSITIVE & NEGATIVE
    assert tally("Profit SURGES, surges; lawsuit looms") == (2, 1)
    assert (tally("surges").direction, tally("lawsuit").direction, tally("surges, lawsuit").direction) == (1, -1, 0)
