"""Indicators of whole series: equal to TA-Lib's where the definitions are the same, causal to the last bit, and silent where there is too little."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from trademesh_gateway.agents import indicators
from trademesh_gateway.agents.series import labels
from trademesh_gateway.agents.series.averages import ema, macd, wilder
from trademesh_gateway.agents.series.oscillators import bollinger, rsi, z_score
from trademesh_gateway.agents.series.ranges import atr, true_range
from trademesh_gateway.agents.series.returns import mean_momentum, momentum, volatility
from trademesh_gateway.agents.series.windows import Series, deviation, sma
from trademesh_gateway.market.point_in_time import MarketHistory
from trademesh_trading.store import EMBEDDED_SETS, load_set

ONE_PRICE: dict[str, tuple[Callable[[Series], Series], int]] = {
    "sma": (lambda prices: sma(prices, 20), 20),
    "sma 200": (lambda prices: sma(prices, 200), 200),
    "ema": (lambda prices: ema(prices, 12), 12),
    "wilder": (lambda prices: wilder(prices, 14), 14),
    "macd line": (lambda prices: macd(prices).line, 26),
    "macd signal": (lambda prices: macd(prices).signal, 34),
    "macd histogram": (lambda prices: macd(prices).histogram, 34),
    "rsi": (rsi, 15),
    "bollinger lower": (lambda prices: bollinger(prices).lower, 20),
    "bollinger upper": (lambda prices: bollinger(prices).upper, 20),
    "bollinger percent b": (lambda prices: bollinger(prices).percent_b, 20),
    "momentum": (lambda prices: momentum(prices, 5), 6),
    "mean momentum": (mean_momentum, 21),
    "volatility": (lambda prices: volatility(prices, 20), 21),
    "z-score": (z_score, 20),
    "atr": (lambda prices: atr(prices * 1.01, prices * 0.98, prices), 15),
}
"""By name: a function of prices, and how many it needs for a value."""


@cache
def closes() -> Series:
    """Real closes in dollars, thirty-three years of 20 stocks; NaN where there is none."""
    micros = load_set(EMBEDDED_SETS / "us20").close_micros[:, :20]
    return np.where(micros == 0, np.nan, micros / 1e6)


@cache
def ranges(name: str) -> tuple[Series, Series, Series]:
    """Real highs, lows and closes of one stock in dollars, of the sessions that have all three."""
    data = load_set(EMBEDDED_SETS / "wiki5")
    (place,) = data.columns([name])
    assert data.high_micros is not None
    assert data.low_micros is not None
    fields = [field[:, [place]] for field in (data.high_micros, data.low_micros, data.close_micros)]
    whole = np.logical_and.reduce([field[:, 0] > 0 for field in fields])
    high, low, close = (field[whole] / 1e6 for field in fields)
    return high, low, close


def by_ticker(function: Callable[..., object], *fields: Series) -> Series:
    """A function of TA-Lib, which knows one series at a time, for each column."""
    return np.column_stack(
        [function(*(np.ascontiguousarray(field[:, column]) for field in fields)) for column in range(fields[0].shape[1])]
    )


def column(*prices: float) -> Series:
    return np.array(prices, float)[:, np.newaxis]


AGREEING: dict[str, tuple[Callable[[Series], Series], Callable[[Series], object]]] = {
    "SMA 20": (lambda prices: sma(prices, 20), lambda one: talib.SMA(one, 20)),
    "SMA 50": (lambda prices: sma(prices, 50), lambda one: talib.SMA(one, 50)),
    "SMA 200": (lambda prices: sma(prices, 200), lambda one: talib.SMA(one, 200)),
    "EMA 12": (lambda prices: ema(prices, 12), lambda one: talib.EMA(one, 12)),
    "Bollinger lower": (lambda prices: bollinger(prices).lower, lambda one: talib.BBANDS(one, 20, 2, 2)[2]),
    "Bollinger middle": (lambda prices: bollinger(prices).middle, lambda one: talib.BBANDS(one, 20, 2, 2)[1]),
    "Bollinger upper": (lambda prices: bollinger(prices).upper, lambda one: talib.BBANDS(one, 20, 2, 2)[0]),
    "momentum 5": (lambda prices: momentum(prices, 5), lambda one: talib.ROCP(one, 5)),
    "momentum": (mean_momentum, lambda one: (talib.ROCP(one, 5) + talib.ROCP(one, 10) + talib.ROCP(one, 20)) / 3),
}


@pytest.mark.parametrize("name", AGREEING)
def test_values_are_those_of_ta_lib(name: str) -> None:
    ours, theirs = AGREEING[name]
    np.testing.assert_allclose(ours(closes()), by_ticker(theirs, closes()), rtol=1e-9, atol=1e-9)


def test_the_relative_strength_index_is_that_of_ta_lib_wherever_a_price_has_moved_at_all() -> None:
    """One of the real series begins with sessions at one price: TA-Lib makes that 0."""
    moved = np.logical_or.accumulate(closes() != closes()[0], axis=0)
    ours, theirs = rsi(closes()), by_ticker(lambda one: talib.RSI(one, 14), closes())
    np.testing.assert_allclose(ours[moved], theirs[moved], rtol=1e-9, atol=1e-9)
    still = ~moved & ~np.isnan(ours)
    assert still.any()
    assert set(ours[still]) == {50}
    assert set(theirs[still]) == {0}


@pytest.mark.parametrize("ticker", [one.ticker for one in load_set(EMBEDDED_SETS / "wiki5").instruments])
def test_the_true_range_and_its_average_are_those_of_ta_lib(ticker: str) -> None:
    fields = ranges(ticker)
    assert len(fields[0]) > 150
    np.testing.assert_allclose(true_range(*fields), by_ticker(talib.TRANGE, *fields), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(atr(*fields), by_ticker(lambda *one: talib.ATR(*one, 14), *fields), rtol=1e-9, atol=1e-9)


def test_deviations_of_a_sample_are_ta_libs_of_a_population_times_a_root() -> None:
    """TA-Lib divides by n, we by n - 1: it is asked for so many of its deviations. Its sums of squares that run on lose some digits of a
    deviation that is small beside the price."""
    n = 20
    ratio = math.sqrt(n / (n - 1))
    theirs = by_ticker(lambda one: talib.STDDEV(np.log(one[1:] / one[:-1]), n, math.sqrt(252) * ratio), closes())
    np.testing.assert_allclose(volatility(closes(), n)[1:], theirs, rtol=1e-9, atol=1e-9)
    theirs = by_ticker(lambda one: talib.STDDEV(one, n, ratio), closes())
    np.testing.assert_allclose(deviation(closes(), n, ddof=1), theirs, rtol=1e-9, atol=1e-6)
    moved = theirs > 0.01
    distance = closes() - by_ticker(lambda one: talib.SMA(one, n), closes())
    np.testing.assert_allclose(z_score(closes(), n)[moved], distance[moved] / theirs[moved], rtol=1e-9, atol=1e-9)


def test_macd_is_made_of_ta_libs_averages_and_meets_its_macd() -> None:
    """TA-Lib's MACD seeds the quick average with prices 15 to 26, to begin with the slow one; ours is EMA12 itself, from 1 to 12. What that
    makes shrinks by 11/13 a session."""
    line = by_ticker(lambda one: talib.EMA(one, 12) - talib.EMA(one, 26), closes())
    ours = macd(closes())
    np.testing.assert_allclose(ours.line, line, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.signal[25:], by_ticker(lambda one: talib.EMA(one, 9), line[25:]), rtol=1e-9, atol=1e-9)
    for place, mine in enumerate(ours):
        theirs = by_ticker(lambda one, place=place: talib.MACD(one, 12, 26, 9)[place], closes())
        np.testing.assert_allclose(mine[250:], theirs[250:], rtol=1e-9, atol=1e-9)
    assert abs(ours.line[33] - by_ticker(lambda one: talib.MACD(one, 12, 26, 9)[0], closes())[33]).max() > 1e-6


def test_a_price_that_does_not_move_is_in_the_middle_where_ta_lib_calls_it_oversold() -> None:
    flat = np.full((60, 1), 0.1)
    assert talib.RSI(flat[:, 0], 14)[-1] == 0
    assert rsi(flat)[-1, 0] == 50
    assert bollinger(flat).percent_b[-1, 0] == 0.5
    assert z_score(flat)[-1, 0] == 0
    assert volatility(flat, 20)[-1, 0] == 0


def test_an_exponential_average_begins_with_the_mean_of_the_first() -> None:
    np.testing.assert_allclose(ema(column(10, 11, 12, 11, 13, 14), 3)[:, 0], [np.nan, np.nan, 11, 11, 12, 13])


def test_a_rise_every_session_is_an_index_of_100_and_a_fall_of_0() -> None:
    steps = np.arange(1, 40, dtype=float)[:, np.newaxis]
    assert rsi(steps)[-1, 0] == 100
    assert rsi(steps[::-1])[-1, 0] == 0


def test_the_newest_row_is_what_analysts_read_over_a_view() -> None:
    data = load_set(EMBEDDED_SETS / "us20")
    history = MarketHistory([one.ticker for one in data.instruments[:20]])
    history.add_sessions(data.sessions, data.close_unix_s.tolist(), data.close_micros[:, :20])
    for row in (300, 4000, 8000):
        view = history.as_of(int(data.close_unix_s[row]))
        known = closes()[: row + 1]
        np.testing.assert_allclose(momentum(known, 20)[-1], indicators.momentum(view, 20), rtol=1e-12)
        np.testing.assert_allclose(volatility(known, 60)[-1], indicators.volatility(view, 60), rtol=1e-9)
        np.testing.assert_allclose(z_score(known, 20)[-1], indicators.z_score(view, 20), rtol=1e-9, atol=1e-9)


prices = arrays.arrays(
    float,
    st.tuples(st.integers(0, 90), st.integers(1, 3)),
    elements=st.one_of(st.just(math.nan), st.floats(0.01, 10_000), st.integers(1, 5).map(float)),
    fill=st.floats(1, 2),
)


@settings(deadline=None)
@pytest.mark.parametrize("name", ONE_PRICE)
@given(prices=prices, data=st.data())
def test_on_a_prefix_an_indicator_gives_the_prefix_to_the_last_bit(name: str, prices: Series, data: st.DataObject) -> None:
    function, _ = ONE_PRICE[name]
    cut = data.draw(st.integers(0, len(prices)))
    np.testing.assert_array_equal(function(prices)[:cut], function(prices[:cut]))


@pytest.mark.parametrize("cut", [1, 33, 200, 1000, 4001])
@pytest.mark.parametrize("name", ONE_PRICE)
def test_on_a_prefix_of_real_closes_an_indicator_gives_the_prefix_to_the_last_bit(name: str, cut: int) -> None:
    function, _ = ONE_PRICE[name]
    np.testing.assert_array_equal(function(closes())[:cut], function(closes()[:cut]))


@pytest.mark.parametrize("name", ONE_PRICE)
@given(late=st.integers(0, 30))
@settings(deadline=None, max_examples=20)
def test_the_first_value_comes_with_the_observation_that_completes_the_window(name: str, late: int) -> None:
    function, least = ONE_PRICE[name]
    listed_late = closes()[: least + late, :1].copy()
    listed_late[:late] = np.nan
    found = function(listed_late)[:, 0]
    assert np.isnan(found[:-1]).all()
    assert not np.isnan(found[-1])


@pytest.mark.parametrize("name", [name for name in ONE_PRICE if name not in ("momentum", "mean momentum")])
def test_after_a_missing_price_a_ticker_waits_for_a_whole_window_again(name: str) -> None:
    """Momentum reads two prices alone, and is not in this."""
    function, least = ONE_PRICE[name]
    gap = 400
    with_gap = closes()[: gap + least + 50, :2].copy()
    with_gap[gap, 0] = np.nan
    found = function(with_gap)
    assert np.isnan(found[gap : gap + least, 0]).all()
    np.testing.assert_array_equal(found[gap + 1 :, 0], function(with_gap[gap + 1 :])[:, 0])
    np.testing.assert_array_equal(found[:, 1], function(with_gap[:, 1:])[:, 0])


def test_momentum_is_missing_where_one_of_its_two_prices_is() -> None:
    assert np.isnan(momentum(column(1, math.nan, 3, 4), 1)[:, 0]).tolist() == [True, True, True, False]


def test_the_deviation_of_equal_values_is_zero_to_the_last_bit() -> None:
    assert deviation(np.full((30, 1), 0.1), 3, ddof=1)[2:].tolist() == [[0.0]] * 28


def test_values_beyond_their_cuts_are_named_and_missing_ones_are_not() -> None:
    nothing = math.nan
    assert labels.rsi(column(70.1, 70, 30, 29.9, nothing))[:, 0].tolist() == ["overbought", "neutral", "neutral", "oversold", ""]
    assert labels.macd(column(0.1, 0, -0.1, nothing))[:, 0].tolist() == ["rising", "level", "falling", ""]
    assert labels.percent_b(column(1.01, 1, 0, -0.01, nothing))[:, 0].tolist() == [
        "above the band",
        "inside",
        "inside",
        "below the band",
        "",
    ]
    found = labels.momentum(column(0.021, 0.02, 0, -0.02, -0.021, nothing))[:, 0].tolist()
    assert found == ["strong up", "up", "none", "down", "strong down", ""]
    assert labels.volatility(column(0.51, 0.5, 0.25, nothing))[:, 0].tolist() == ["high", "moderate", "low", ""]
    assert labels.z_score(column(2.1, 2, -2, -2.1, nothing))[:, 0].tolist() == ["stretched up", "usual", "usual", "stretched down", ""]
    assert labels.price_against_average(column(2, 1, 0, 1), column(1, 1, 1, nothing))[:, 0].tolist() == ["above", "at", "below", ""]


def test_a_crossing_is_told_in_the_session_that_it_happens_in() -> None:
    fast, slow = column(math.nan, 1, 3, 3, 2, 1), column(2, 2, 2, 2, 2, 2)
    assert labels.averages_crossed(fast, slow)[:, 0].tolist() == ["", "below", "crossed above", "above", "at", "crossed below"]


def test_labels_are_causal_too() -> None:
    words = labels.averages_crossed(sma(closes(), 50), sma(closes(), 200))
    for cut in (100, 201, 3000):
        part = closes()[:cut]
        assert (labels.averages_crossed(sma(part, 50), sma(part, 200)) == words[:cut]).all()
    assert {"crossed above", "crossed below"} <= set(np.unique(words))
