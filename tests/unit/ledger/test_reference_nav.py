"""Net asset value of two strategies over 33 years, equal to the micro-dollar to that of an independent reference program.

The figures are those of `peers/reference.py`: plain Python that shares no line with the ledger. Its conventions and ours, compared:

    subject             reference                               ledger
    ------------------  --------------------------------------  ----------------------------------------------------------------
    unit of money       integer micro-dollars                   the same
    prices              closes with 3 decimals, x 1,000,000     the same closes, as the embedded set keeps them
    unit of shares      whole, signed                           the same
    initial money       $1,000,000                              the same
    fee                 1 bp of the traded value, half to even  `CostModel(fee_bp=1)`: the same rounding, once per order
    least fee           none                                    `min_fee_micros=0`
    slippage, tick      none                                    `slippage_bp=0`, `Tick.NONE`
    fill, "same"        at close(t), decided on closes <= t     `same_close`
    fill, "next"        at close(t + 1), decided on <= t        `next_close`; orders of the last session are never filled
    sequence            sales first (A), else that of the data  the caller's: the ledger fills in the sequence it is given
    sizing              floor divisions of integers             the same, in the strategy
    averages (B)        sums of 20 and 60 closes, compared      the same integers: 3 x sum of 20 against the sum of 60
                        after cross-multiplication
    cash                may go below zero unnoticed             checked at each fill that opens or enlarges; never fails here
    margin              none                                    Regulation T on, 50 % of gross: never binds, gross is <= NAV
    maintenance         none                                    checked at each settlement: never calls, there are no shorts
    short positions     never                                   never
    borrow              none                                    `borrow_bp=0`
    dividends, splits   in the adjusted closes                  none booked: they would be counted twice
    interest on cash    none                                    none
    cost basis          not kept                                average cost: changes realised and unrealised, never NAV
    mark                last close                              the same
    NAV                 cash + shares x close                   the same, and initial cash + realised + unrealised - fees
    calendar            the data's rows                         the same
    missing closes      none in the data                        would keep the last mark
"""

from __future__ import annotations

import pytest

from reference_works import WORKS, Outcome, market, run

FIGURES = {
    ("A", "same"): Outcome(196_149_615_194_990, 7_917, 81_134_523_010, 4_118_569_814_990),
    ("A", "next"): Outcome(195_765_984_995_053, 7_919, 80_709_181_947, 4_102_026_955_053),
    ("B", "same"): Outcome(4_071_734_585_817, 3_144, 12_875_696_183, 3_411_401_140_817),
    ("B", "next"): Outcome(3_990_190_973_258, 3_143, 12_877_322_742, 3_285_820_577_258),
}


@pytest.mark.parametrize(("work", "policy"), FIGURES)
def test_reference_nav_of_the_pure_core_is_equal_to_the_micro_dollar(work: str, policy: str) -> None:
    assert run(WORKS[work], market(), same_close=policy == "same") == FIGURES[work, policy]
