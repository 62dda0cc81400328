"""What is held and has no close: it is valued at its last one, said to be stale, and counted for who pauses the pipeline."""

from __future__ import annotations

from journaled_desk import Desk, config_of
from made_up_bars import DOLLAR, stage


def held_without_closes() -> Desk:
    """AAA is held, and has no close from the run's third session on but for one in its sixth."""
    desk = Desk(config_of(), stage({"AAA": [50, 50, 52, 0, 0, 0, 53, 0, 0, 0, 0, 0, 0], "BBB": [20] * 13}))
    desk.submit("held", "AAA", 100)
    return desk


def test_a_position_without_a_close_keeps_its_last_mark_and_is_said_to_be_stale() -> None:
    desk = held_without_closes()
    for _ in range(4):
        desk.run()
    settled = desk.told("settled")
    assert [list(one.stale_tickers) for one in settled] == [[], [], ["AAA"], ["AAA"]]
    assert [one.portfolio.positions[0].mark_micros for one in settled] == [50 * DOLLAR, 52 * DOLLAR, 52 * DOLLAR, 52 * DOLLAR]


def test_sessions_without_a_close_are_counted_from_the_last_one_that_had_it_also_by_who_begins_again() -> None:
    desk = held_without_closes()
    counted = list[list[str]]()
    for number in range(12):
        if number % 3 == 2:
            desk.open()
        desk.run()
        counted.append(desk.desk.stale(exactly=5))
    assert counted == [[]] * 10 + [["AAA"], []]


def test_what_is_not_held_is_never_stale() -> None:
    desk = Desk(config_of(), stage({"AAA": [50, 50, 0, 0, 0, 0, 0, 0], "BBB": [20] * 8}))
    for _ in range(7):
        desk.run()
    assert not any(one.stale_tickers for one in desk.told("settled"))
    assert desk.desk.stale(exactly=5) == []
