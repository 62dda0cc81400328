"""Bars in memory: what was told later is seen from then on, and what is too far back is forgotten without a change to anything that is read."""

from __future__ import annotations

from datetime import date, timedelta
from operator import attrgetter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademesh_gateway.agents.indicators import momentum, volatility, z_score
from trademesh_gateway.market.bar_window import CLOSE, LONGEST_WINDOW, Revision
from trademesh_gateway.market.point_in_time import MarketHistory

TICKERS = ["AAA", "BBB", "INDEX"]
DAY_S = 86_400


def days(count: int) -> list[str]:
    return [(date(1990, 1, 1) + timedelta(days=number)).isoformat() for number in range(count)]


def closes_of(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    steps = np.random.Generator(np.random.PCG64(3)).integers(-900, 1000, (count, len(TICKERS)))
    return 50_000_000 + steps.cumsum(axis=0)


def known_at(count: int) -> list[int]:
    """Each session's close: a day after the one before."""
    return [DAY_S * (number + 1) for number in range(count)]


REVISIONS = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 2), st.integers(1, 6 * DAY_S), st.integers(1, 10**9)), max_size=8)


@given(revisions=REVISIONS, block=st.integers(1, 20), at=st.integers(0, 26 * DAY_S), count=st.integers(1, 25))
def test_a_view_shows_each_bar_in_the_newest_form_that_was_known_then(
    revisions: list[tuple[int, int, int, int]], block: int, at: int, count: int
) -> None:
    sessions, closes, known = days(20), closes_of(20), known_at(20)
    told = [Revision(known[row] + later, row, column, {CLOSE: price}) for row, column, later, price in revisions]
    told.sort(key=attrgetter("known_at_unix_s"))
    history = MarketHistory(TICKERS)
    for first in range(0, 20, block):
        last = min(first + block, 20)
        own = [one._replace(row=one.row - first) for one in told if first <= one.row < last]
        history.add_sessions(sessions[first:last], known[first:last], closes[first:last], None, own)
    expected = closes.copy()
    for one in told:
        if one.known_at_unix_s <= at:
            expected[one.row, one.column] = one.values[CLOSE]
    closed = sum(moment <= at for moment in known)
    view = history.as_of(at)
    assert view.last_closes(count).tolist() == expected[max(0, closed - count) : closed].tolist()
    assert view.of_first(2).last_closes(count).tolist() == expected[max(0, closed - count) : closed, :2].tolist()


def test_a_bar_that_is_told_again_moves_indicators_from_then_on_and_not_before() -> None:
    history, sessions = MarketHistory(TICKERS), 30
    told = [Revision(known_at(sessions)[-1] + 60, sessions - 1, 0, {CLOSE: 99_000_000})]
    history.add_sessions(days(sessions), known_at(sessions), closes_of(sessions), None, told)
    before, after = history.as_of(known_at(sessions)[-1] + 59), history.as_of(known_at(sessions)[-1] + 60)
    assert volatility(after, 20)[0] > 10 * volatility(before, 20)[0]
    assert z_score(after, 20)[0] > 4 > z_score(before, 20)[0]
    assert volatility(after, 20)[1] == volatility(before, 20)[1]


@pytest.mark.parametrize("block", [1, 100, 700])
def test_what_is_forgotten_changes_nothing_that_is_read_and_memory_stays_what_a_window_takes(block: int) -> None:
    count = 3_000
    sessions, closes, known = days(count), closes_of(count), known_at(count)
    volumes = {"volume_plus_one": closes // 1000}
    whole, trimmed = MarketHistory(TICKERS), MarketHistory(TICKERS)
    whole.add_sessions(sessions, known, closes, volumes)
    told = [Revision(known[row] + 1, row, 1, {CLOSE: 7_000_000}) for row in range(0, count, 500)]
    whole.bars.revisions = told
    most = 0
    for first in range(0, count, block):
        last = min(first + block, count)
        own = [one._replace(row=one.row - first) for one in told if first <= one.row < last]
        trimmed.add_sessions(
            sessions[first:last], known[first:last], closes[first:last], {"volume_plus_one": closes[first:last] // 1000}, own
        )
        for row in range(first, last, 50):
            trimmed.forget_before(sessions[row])
            most = max(most, len(trimmed))
            seen, truth = trimmed.as_of(known[row]), whole.as_of(known[row])
            assert seen.last_closes(253).tolist() == truth.last_closes(253).tolist()
            assert seen.last_session() == truth.last_session() == sessions[row]
            for one, other in zip((seen, truth), (truth, seen), strict=True):
                found, expected = one.last("volume_plus_one", 20), other.last("volume_plus_one", 20)
                assert found is not None
                assert expected is not None
                assert found.tolist() == expected.tolist()
            assert np.array_equal(momentum(seen, 231, 21), momentum(truth, 231, 21), equal_nan=True)
    assert most <= 2 * LONGEST_WINDOW + block
    assert trimmed.bars.forgotten + len(trimmed) == count


def test_nothing_is_forgotten_of_a_short_run() -> None:
    history = MarketHistory(TICKERS)
    history.add_sessions(days(600), known_at(600), closes_of(600))
    history.forget_before(days(600)[-1])
    assert len(history) == 600
