"""Seeded universes: the same for everyone, whatever is read of them and in which order."""

from __future__ import annotations

import hashlib
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademesh_kernel.errors import DataAbsent
from trademesh_trading import mock_prices, mock_universe
from trademesh_trading.market_set import Bars, MarketSet
from trademesh_trading.mock_universe import MockWalk
from trademesh_trading.store import MarketStore

FIELDS = ("open_micros", "high_micros", "low_micros", "close_micros", "volume_plus_one", "quality")
WHOLE = range(8313)
# Of mock-20@7, all its bars: what another version of numpy, another machine or another change of ours must not move.
GOLDEN_BARS = "dd87b531d5f8f29f8b9aaa23eb99642f9967ae673dcbaf66a88a401e66829570"
GOLDEN_SNAPSHOT = "sha256:844b15b4a6f3645706551b1db0d5c8ecfa07213d56e2433ff6fdcfce98f035e9"


@pytest.fixture(scope="module")
def store() -> MarketStore:
    return MarketStore()


@pytest.fixture(scope="module")
def small(store: MarketStore) -> MarketSet:
    return store.get("mock-20@7")


def content(bars: Bars) -> bytes:
    """All fields in little-endian bytes."""
    matrices = [getattr(bars, field) for field in FIELDS]
    return b"".join(matrix.astype(matrix.dtype.newbyteorder("<")).tobytes() for matrix in matrices)


def published_pcg64(state: int, increment: int, count: int) -> list[int]:
    """PCG XSL-RR 128/64 after O'Neill 2014, with the multiplier of her library: step, then give out."""
    given_out = list[int]()
    for _ in range(count):
        state = (state * 0x2360ED051FC65DA44385DF649FCCF645 + increment) % 2**128
        word, turn = (state >> 64) ^ (state % 2**64), state >> 122
        given_out.append((word >> turn | word << (64 - turn)) % 2**64)
    return given_out


def test_words_are_those_of_pcg64_as_published() -> None:
    label = bytes(range(32))
    state, increment = int.from_bytes(label[:16], "little"), int.from_bytes(label[16:], "little") | 1
    expected = published_pcg64(state, increment, 60)
    stream = mock_universe._Stream(label)
    assert stream.words(0, 30).ravel().tolist() == expected
    assert stream.words(20, 10).ravel().tolist() == expected[40:]
    assert stream.words(5, 2).ravel().tolist() == expected[10:14]
    assert stream.words(7, 3).ravel().tolist() == expected[14:20]


def test_prices_are_powers_of_two_to_the_nearest_cent() -> None:
    logarithms = [(14 << 24) + 1, (26 << 24) + 9_876_543, (29 << 24) + 2**24 - 1, (30 << 24) + 4096, (35 << 24) + 123_456]
    found = mock_prices.prices(np.array(logarithms, np.int64)).tolist()
    with localcontext() as context:
        context.prec = 40
        for logarithm, micros in zip(logarithms, found, strict=True):
            exact = Decimal(2) ** (Decimal(logarithm) / 2**24)
            # The mantissa has 30 bits, of which rounding down twice costs two; half a cent is the rounding that is meant.
            assert abs(micros - exact) <= 5000 + exact / 2**28


def test_a_universe_is_the_same_to_the_byte(small: MarketSet) -> None:
    assert hashlib.sha256(content(small.window(WHOLE, range(20)))).hexdigest() == GOLDEN_BARS
    assert small.record.snapshot == GOLDEN_SNAPSHOT


def test_the_first_tickers_of_a_large_universe_are_those_of_a_small_one(store: MarketStore, small: MarketSet) -> None:
    large = store.get("mock-2000@7")
    assert content(large.window(WHOLE, range(20))) == content(small.window(WHOLE, range(20)))
    assert large.instruments[:20] == small.instruments
    assert len(large.instruments) == 2000
    assert large.record.snapshot != small.record.snapshot


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 8312), st.integers(1, 700), st.lists(st.integers(0, 19), min_size=1, max_size=20, unique=True))
def test_any_window_in_any_order_is_a_part_of_the_whole(first: int, length: int, columns: list[int]) -> None:
    rows = range(first, min(first + length, 8313))
    whole = MarketStore().get("mock-20@7").window(WHOLE, range(20))
    assert content(MarketStore().get("mock-20@7").window(rows, columns)) == content(whole.window(rows, columns))


@settings(max_examples=10, deadline=None)
@given(st.integers(1990, 2021))
def test_what_comes_later_changes_nothing_before(last_year: int) -> None:
    sessions = MarketStore().get("us20").sessions
    part = [session for session in sessions if session <= f"{last_year}-06-30"]
    of_year = [session for session in part if session.startswith(str(last_year))]
    cut, whole = (MockWalk(7, 5, known).read_year(last_year, range(5)) for known in (part, sessions))
    assert content(cut) == content(whole.window(range(len(of_year))))


@pytest.mark.parametrize("years", [(2005, 1991), (1990, 1991, 1992), (2022, 2005, 2006)])
def test_a_year_is_the_same_whatever_years_were_made_before_it(small: MarketSet, years: tuple[int, ...]) -> None:
    walk = MockWalk(7, 20, small.sessions)
    walk.read_year(years[0], [3, 7])
    for year in years:
        found = walk.read_year(year, range(20))
        assert content(found) == content(small.window(small.rows(f"{year}-01-01", f"{year}-12-31", 2**40), range(20)))


def test_another_seed_is_another_universe(store: MarketStore, small: MarketSet) -> None:
    other = store.get("mock-20@8")
    assert other.record.snapshot != small.record.snapshot
    ours, theirs = (one.window(WHOLE, range(20)).close_micros for one in (small, other))
    assert np.mean(ours == theirs) < 0.01


def test_tickers_move_each_in_its_own_way_and_a_little_with_the_market(small: MarketSet) -> None:
    moves = np.diff(np.log(small.window(WHOLE, range(20)).close_micros.astype(float)), axis=0)
    together = np.corrcoef(moves.T)[np.triu_indices(20, 1)]
    assert 0.02 < together.min() < together.mean() < 0.5
    assert together.max() < 0.8
    yearly = moves.std(axis=0) * 252**0.5
    assert np.all((yearly > 0.1) & (yearly < 0.7))


def test_bars_are_ordered_and_on_whole_cents(store: MarketStore) -> None:
    bars = store.get("mock-100@1").window(WHOLE, range(100))
    low, high = bars.low_micros, bars.high_micros
    for price in (bars.open_micros, bars.close_micros):
        assert np.all((low <= price) & (price <= high))
        assert np.all(price % 10_000 == 0)
    assert low.min() > 0
    assert bars.volume_plus_one.min() > 1
    assert np.array_equal(bars.quality == 2, bars.close_micros < 10_000_000)


@pytest.mark.parametrize("name", ["mock-0@1", "mock-5001@1", "mock-020@7", "mock-20@07", "mock-20", "mock-20@", "mock-20@x"])
def test_a_name_of_no_universe_is_said(store: MarketStore, name: str) -> None:
    with pytest.raises(DataAbsent, match=f"there is no set {name}"):
        store.get(name)


def test_a_universe_says_that_it_is_made_up_and_is_listed_only_if_named(store: MarketStore, small: MarketSet) -> None:
    assert small.record.source.startswith("seeded random walk: not real prices")
    assert store.names() == ["us20", "wiki5"]
