"""Recorded bars as a broker tells them: at the open no more than the open, at the close everything, and never a price that is not there."""

from __future__ import annotations

from made_up_bars import DOLLAR, Stage, stage
from trademesh.trading.v1 import market_data_service_pb2 as data
from trademesh_gateway.market.bar_source import _times
from trademesh_gateway.pipeline.broker import BarBroker, Moment, SessionBar, SessionTimes

CLOSES = {"AAA": [10.0, 12.0], "BBB": [20.0, 0.0]}


def full() -> Stage:
    """Bars with everything, of which BBB has none in session 1."""
    return stage(
        CLOSES,
        opens={"AAA": [10.0, 11.0], "BBB": [20.0, 0.0]},
        highs={"AAA": [10.0, 13.0], "BBB": [20.0, 0.0]},
        lows={"AAA": [10.0, 9.0], "BBB": [20.0, 0.0]},
        volumes={"AAA": [100, 200], "BBB": [100, -1]},
    )


def test_at_the_open_neither_range_nor_close_is_told() -> None:
    bars = full()
    bar = BarBroker(bars.history).bar(bars.times(1), Moment.OPEN)
    assert (bar.opens, bar.highs, bar.lows, bar.closes) == ([11 * DOLLAR, 0], (), (), ())
    assert not bar.has_range(0)


def test_at_the_close_everything_is_told_and_nothing_where_there_is_no_bar() -> None:
    bars = full()
    bar = BarBroker(bars.history).bar(bars.times(1), Moment.CLOSE)
    assert bar == SessionBar([11 * DOLLAR, 0], [13 * DOLLAR, 0], [9 * DOLLAR, 0], [12 * DOLLAR, 0], [201, 0])
    assert [bar.has_range(column) for column in (0, 1)] == [True, False]


def test_a_field_that_no_bar_has_is_absent_and_not_zero() -> None:
    bars = stage(CLOSES)
    bar = BarBroker(bars.history).bar(bars.times(1), Moment.CLOSE)
    assert (bar.opens, bar.highs, bar.lows, bar.volumes_plus_one) == ((), (), (), ())
    assert not bar.has_range(0)


def test_a_session_without_bars_has_no_price_of_any_ticker() -> None:
    bars = full()
    bar = BarBroker(bars.history).bar(SessionTimes("2031-01-02", 1, 2), Moment.CLOSE)
    assert (bar.closes, bar.opens) == ([0, 0], ())


async def test_every_moment_of_a_recorded_session_has_come() -> None:
    bars = full()
    broker = BarBroker(bars.history)
    assert all(broker.is_time(bars.times(1), moment) for moment in Moment)
    await broker.until(bars.times(1), Moment.CLOSE)


def test_a_session_knows_the_calendar_days_to_the_next_one_and_the_last_one_none() -> None:
    """Over a plain night, over a weekend with a holiday behind it."""
    told = [data.Session(session_date=date) for date in ("2024-01-11", "2024-01-12", "2024-01-16")]
    assert [one.days_to_next for one in _times(told)] == [1, 4, 0]
