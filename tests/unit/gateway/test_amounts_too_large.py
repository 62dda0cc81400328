"""Amounts that 64 bits do not hold: nothing of them is journaled, cut or wrapped, and the gateway ends for good, saying which."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from journaled_desk import Desk, config_of
from made_up_bars import DOLLAR, stage
from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway import launch
from trademesh_gateway.exit_codes import exit_of
from trademesh_ledger.corporate_actions import Split
from trademesh_ledger.money import MOST_MICROS, AmountTooLarge
from trademesh_runs.fold import replay_journal

CASH = 1_000_000 * DOLLAR


def a_desk(closes: list[float], *, held: int = 0, sold: bool = False, cash_micros: int = CASH) -> Desk:
    """A desk in the session of the last close, which holds shares of AAA since the first and may sell them now."""
    desk = Desk(config_of(), stage({"AAA": closes, "BBB": [1.0] * len(closes)}), cash_micros=cash_micros)
    if held:
        desk.submit("held", "AAA", held)
    for _ in closes[2:]:
        desk.run()
    if sold:
        desk.submit("sold", "AAA", -held)
    return desk


def refusal(desk: Desk) -> Exception:
    """What ends the session in hand, of which nothing is settled. The journal is proved to be as it was."""
    settled = desk.desk.sessions_settled
    with pytest.raises((AmountTooLarge, ValueError)) as refused:
        desk.run()
    assert replay_journal("demo", desk.store.reader()).sessions_settled == settled
    return refused.value


def test_an_account_that_is_worth_more_ends_the_run_for_good() -> None:
    error = refusal(a_desk([0.0001, 0.0001, 1000], held=10**10))
    assert exit_of(error)[0] == launch.EXIT_DATA
    assert re.match(r"the net asset value in micro-dollars would be 10,000,\S+, which 64 bits do not hold", exit_of(error)[1])


def test_so_does_a_margin_call_for_more() -> None:
    # A short share under 5 dollars asks for 2.50, whatever it is worth (FINRA rule 4210).
    code, reason = exit_of(refusal(a_desk([0.000001, 0.000001], held=-(5 * 10**12), cash_micros=10 * CASH)))
    assert (code, reason.partition(" would be ")[0]) == (launch.EXIT_DATA, "the maintenance margin in micro-dollars")


def test_so_does_a_baseline_that_would_be_worth_more() -> None:
    code, reason = exit_of(refusal(a_desk([0.0001, 0.0001, 10_000])))
    assert (code, reason.partition(" would be ")[0]) == (launch.EXIT_DATA, "the baseline equal_weight in micro-dollars")


def test_and_a_fill_whose_fee_or_result_cannot_be_told() -> None:
    code, reason = exit_of(refusal(a_desk([0.0001, 0.0001, 1000], held=10**10, sold=True)))
    assert (code, reason.partition(", and ")[0]) == (launch.EXIT_DATA, "a figure of the run is more than 64 bits hold")


def test_what_a_message_says_to_a_number_that_does_not_fit_is_understood() -> None:
    events.Settled(nav_micros=MOST_MICROS)
    for message, field in ((events.Settled, "nav_micros"), (events.OrderFilled, "fee_micros"), (events.Position, "quantity")):
        for number in (MOST_MICROS + 1, -MOST_MICROS - 2, 10**30):
            with pytest.raises(ValueError, match="out of range") as refused:
                message(**{field: number})
            assert exit_of(refused.value)[0] == launch.EXIT_DATA
    assert exit_of(ValueError("something else"))[0] == launch.EXIT_BUG


@given(st.integers(1, 10**15), st.integers(1, 10**12), st.integers(1, 10**12))
def test_prices_and_volumes_in_shares_of_after_a_split_are_exact_or_refused(number: int, new: int, old: int) -> None:
    history = stage({"AAA": [1.0] * 3}, volumes={"AAA": [number] * 3}, actions=[(2, Split("AAA", new, old))]).history
    history.bars.closes()[0, 0] = number
    view = history.as_of(2**40, "2020-01-08")
    price, volume = int(Fraction(number * old, new) + Fraction(1, 2)), number * new // old
    if max(price, volume + 1) > MOST_MICROS:
        with pytest.raises(AmountTooLarge, match=f"of AAA in shares of after {new} for {old}"):
            (view.last_closes(3), view.last("volume_plus_one", 3))
        return
    volumes = view.last("volume_plus_one", 3)
    assert volumes is not None
    assert view.last_closes(3)[0].tolist() == [price]
    assert volumes[0].tolist() == [volume + 1]
    assert {view.last_closes(3).dtype, volumes.dtype} == {np.dtype(np.int64)}
