"""Prices at which a desk is valued are the same for a gateway that begins again, also where a session had an open and no close: a feed was
lost, or the ticker was not traded any more."""

from __future__ import annotations

import pytest

from journaled_desk import Desk, config_of
from made_up_bars import DOLLAR, stage
from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh_gateway.pipeline.cycle import OpenSession

CASH = 100_000 * DOLLAR


def lost_close() -> Desk:
    """AAA opens at 12 in session 1 and has no close there; BBB has neither in session 2."""
    bars = stage(
        {"AAA": [10, 0, 11, 11], "BBB": [20, 21, 0, 21]},
        opens={"AAA": [10, 12, 11, 11], "BBB": [20, 20, 0, 21]},
    )
    return Desk(config_of(contract.FILL_POLICY_NEXT_OPEN, manager="monthly-equal-weight"), bars, cash_micros=CASH)


def test_what_was_bought_at_an_open_without_a_close_is_valued_at_that_open_ever_after() -> None:
    desk = lost_close()
    desk.submit("mine", "AAA", 100)
    desk.run()
    assert desk.told("settled")[0].portfolio.positions[0].mark_micros == 12 * DOLLAR
    marks = dict(desk.desk.account.marks_micros)
    desk.open()
    held = desk.desk.portfolio.positions
    assert {ticker: desk.desk.account.marks_micros[ticker] for ticker in held} == {ticker: marks[ticker] for ticker in held}


@pytest.mark.parametrize("orders", [[], [("other", "BBB", 1)], [("mine", "AAA", 100), ("back", "AAA", -4_183)]])
def test_a_gateway_that_begins_again_decides_and_settles_as_one_that_lived(orders: list[tuple[str, str, int]]) -> None:
    stories = list[list[bytes]]()
    for dies in (False, True):
        desk = lost_close()
        for order in orders:
            desk.submit(*order)
        for _ in range(desk.stage.sessions):
            desk.run()
            if dies:
                desk.open()
            desk.earlier = OpenSession()
        stories.append([one.data[: one.core_length] for one in desk.store.events])
    assert stories[0] == stories[1]


def test_the_baselines_value_what_they_bought_at_such_an_open_too() -> None:
    desk = lost_close()
    desk.run()
    told = {one.name: one.nav_micros for one in desk.told("settled")[0].baselines}
    assert told["equal_weight"] == (50_000 - 4_166 * 12 + 4_166 * 12 + 2_500 * 21) * DOLLAR
