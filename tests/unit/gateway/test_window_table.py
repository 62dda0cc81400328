"""Indicators of many sessions at once are, to the last bit, what each window gives alone, in whatever order they are asked for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademesh_gateway.agents.example_managers import LONG_WINDOW, SHORT_WINDOW, _trend
from trademesh_gateway.agents.indicators import momentum, volatility, z_score
from trademesh_gateway.market import window_table
from trademesh_gateway.market.point_in_time import Column, MarketHistory, PointInTimeView
from trademesh_gateway.market.window_table import WindowTable
from trademesh_ledger.corporate_actions import Split

ROWS, TICKERS = 700, 5


def closes(seed: int, rows: int = ROWS) -> npt.NDArray[np.int64]:
    """Random closes, some of which are missing."""
    numbers = np.random.default_rng(seed)
    prices = (50_000_000 * np.exp(numbers.normal(0, 0.02, (rows, TICKERS)).cumsum(axis=0))).astype(np.int64)
    prices[numbers.random((rows, TICKERS)) < 0.002] = 0
    return prices


def history_of(prices: npt.NDArray[np.int64]) -> MarketHistory:
    """A session a second."""
    found = MarketHistory([f"T{column}" for column in range(TICKERS)])
    found.add_sessions([f"{row:06}" for row in range(len(prices))], range(len(prices)), prices)
    return found


def trend(view: PointInTimeView) -> Column:
    """What the example manager looks at."""
    found = view.windowed(f"trend {SHORT_WINDOW} {LONG_WINDOW}", LONG_WINDOW, _trend)
    return np.full(len(view.tickers), np.nan) if found is None else found


INDICATORS = {
    "momentum": lambda view: momentum(view, 231, 21),
    "z_score": lambda view: z_score(view, 20),
    "volatility": lambda view: volatility(view, 60),
    "trend": trend,
}


@pytest.mark.parametrize("name", INDICATORS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10), asked=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=12))
def test_any_order_of_sessions_gives_what_each_gives_alone(name: str, seed: int, asked: list[int]) -> None:
    prices = closes(seed)
    whole, indicator = history_of(prices), INDICATORS[name]
    for row in asked:
        alone = history_of(prices[: row + 1])
        assert indicator(whole.as_of(row)).tobytes() == indicator(alone.as_of(row)).tobytes()


@pytest.mark.parametrize("name", INDICATORS)
def test_every_session_in_turn_gives_what_each_gives_alone_wherever_a_stretch_begins(name: str) -> None:
    prices, indicator = closes(3), INDICATORS[name]
    whole = history_of(prices)
    for row in range(ROWS):
        alone = history_of(prices[max(0, row - 252) : row + 1])
        assert indicator(whole.as_of(row)).tobytes() == indicator(alone.as_of(min(row, 252))).tobytes(), row


def test_a_history_that_grows_gives_the_same_as_one_that_was_there_at_once() -> None:
    prices, growing = closes(1), MarketHistory([f"T{column}" for column in range(TICKERS)])
    whole = history_of(prices)
    for row in range(300):
        growing.add_sessions([f"{row:06}"], [row], prices[row : row + 1])
        assert z_score(growing.as_of(row), 20).tobytes() == z_score(whole.as_of(row), 20).tobytes()


def test_after_a_split_windows_are_of_restated_closes() -> None:
    """The same market without the split, told in shares of after it, has the same values."""
    prices = closes(2, 300) // 2 * 2
    split, told = history_of(prices), prices.copy()
    split.add_actions([("000200", Split("T1", 2, 1))])
    told[:200, 1] //= 2
    plain = history_of(told)
    for row in (199, 200, 210, 299):
        seen = split.as_of(row, f"{row + 1:06}")
        assert z_score(seen, 20).tobytes() == z_score(plain.as_of(row), 20).tobytes()
    before = split.as_of(199, "000199")
    assert z_score(before, 20).tobytes() == z_score(history_of(prices).as_of(199), 20).tobytes()


def test_many_sessions_are_computed_by_one_call() -> None:
    calls = list[int]()

    def compute(window: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        calls.append(len(window))
        return window[2:].astype(np.float64)

    prices = closes(0)
    table = WindowTable(3, compute)
    for row in range(2, 2 + window_table.STRETCH):
        assert table.row(prices, row).tolist() == prices[row].tolist()
    assert calls == [window_table.STRETCH + 2]
