"""The newest trade of a ticker, and the trades around instants."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trademesh_trading.quote_provider import Trade
from trademesh_trading.tape import KEPT_STEPS, STEP_S, Fate, Tape

OPEN_S = 1_795_789_800  # 2026-11-27 09:30 in New York
assert OPEN_S % STEP_S == 0


def trade(at_ms: int, price_micros: int = 1_000_000, volume: int = 1) -> Trade:
    return Trade("AAPL", price_micros, at_ms, volume)


def test_a_trade_that_was_told_before_is_a_duplicate_and_another_of_the_same_millisecond_is_not() -> None:
    tape = Tape()
    assert tape.take(trade(5)) is Fate.TAKEN
    assert tape.take(trade(5)) is Fate.DUPLICATE
    assert tape.take(trade(5, volume=2)) is Fate.TAKEN
    assert tape.take(trade(5)) is Fate.DUPLICATE


def test_a_trade_older_than_the_newest_is_late_and_changes_nothing() -> None:
    tape = Tape()
    tape.take(trade(10, 7))
    assert tape.take(trade(9, 8)) is Fate.LATE
    assert tape.last == trade(10, 7)


def test_an_instant_itself_is_at_or_before_and_at_or_after() -> None:
    tape = Tape()
    tape.take(trade(OPEN_S * 1000))
    assert tape.first_from(OPEN_S) == tape.last_until(OPEN_S) == trade(OPEN_S * 1000)


def test_a_millisecond_decides_on_which_side_of_an_instant_a_trade_is() -> None:
    tape = Tape()
    before, after = trade(OPEN_S * 1000 - 1, 5), trade(OPEN_S * 1000 + 1, 6)
    tape.take(before)
    assert tape.first_from(OPEN_S) is None
    tape.take(after)
    assert (tape.last_until(OPEN_S), tape.first_from(OPEN_S)) == (before, after)


@given(
    st.lists(st.tuples(st.integers((OPEN_S - 2000) * 1000, (OPEN_S + 2000) * 1000), st.integers(1, 3)), max_size=60),
    st.integers(-6, 6),
)
def test_around_an_instant_is_what_a_whole_record_would_say(told: list[tuple[int, int]], step: int) -> None:
    tape, taken, instant_s = Tape(), list[Trade](), OPEN_S + step * STEP_S
    for at_ms, price in sorted(told, key=lambda one: one[0]):
        if tape.take(trade(at_ms, price)) is Fate.TAKEN:
            taken.append(trade(at_ms, price))
    assert tape.first_from(instant_s) == next((one for one in taken if one.traded_unix_ms >= instant_s * 1000), None)
    assert tape.last_until(instant_s) == next((one for one in reversed(taken) if one.traded_unix_ms <= instant_s * 1000), None)


@given(
    st.lists(st.tuples(st.integers((OPEN_S - 1000) * 1000, (OPEN_S + 2000) * 1000), st.integers(1, 9)), max_size=60),
    st.integers(-3, 3),
    st.integers(0, 5),
)
def test_the_range_between_two_instants_is_that_of_a_whole_record(told: list[tuple[int, int]], first: int, steps: int) -> None:
    tape, taken = Tape(), list[Trade]()
    for at_ms, price in sorted(told, key=lambda one: one[0]):
        if tape.take(trade(at_ms, price)) is Fate.TAKEN:
            taken.append(trade(at_ms, price))
    begin_s = OPEN_S + first * STEP_S
    end_s = begin_s + steps * STEP_S
    prices = [one.price_micros for one in taken if begin_s * 1000 <= one.traded_unix_ms < end_s * 1000]
    assert tape.range_between(begin_s, end_s) == ((max(prices), min(prices)) if prices else None)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 3)), max_size=80))
def test_the_newest_never_goes_back_in_time(told: list[tuple[int, int]]) -> None:
    tape, newest = Tape(), 0
    for at_ms, price in told:
        tape.take(trade(at_ms, price))
        assert tape.last is not None
        assert tape.last.traded_unix_ms >= newest
        newest = tape.last.traded_unix_ms


def test_a_tape_keeps_a_day_and_no_more() -> None:
    tape = Tape()
    for step in range(3 * KEPT_STEPS):
        tape.take(trade((OPEN_S + step * STEP_S) * 1000 + 1))
    assert tape.last_until(OPEN_S + KEPT_STEPS * STEP_S) is None
    first = tape.first_from(OPEN_S)
    assert first is not None
    assert first.traded_unix_ms == (OPEN_S + 2 * KEPT_STEPS * STEP_S) * 1000 + 1
