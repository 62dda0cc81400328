"""The worked examples of the accounting rules, to the micro-dollar: $100,000 at the start, fee 10 bp, no slippage."""

from __future__ import annotations

from trademesh_ledger.account import Account
from trademesh_ledger.corporate_actions import Dividend, Split
from trademesh_ledger.costs import CostModel
from trademesh_ledger.execution import Fill
from trademesh_ledger.maintenance import ForcedOrder, MarginCall, margin_call
from trademesh_ledger.margin import MarginRules
from trademesh_ledger.portfolio import LegKind, Portfolio
from trademesh_ledger.rejections import Refusal, Rejection

DOLLAR = 1_000_000


def account(dollars: int = 100_000, *, fee_bp: int = 10, borrow_bp: int = 0) -> Account:
    """An account with a market in X."""
    return Account(Portfolio(dollars * DOLLAR), CostModel(fee_bp=fee_bp, borrow_bp=borrow_bp), MarginRules())


def order(one: Account, delta: int, price_micros: int) -> Fill:
    """Fills an order in X; both identities hold afterwards."""
    filled = one.execution({"X": price_micros}).execute("X", delta, price_micros)
    assert isinstance(filled, Fill)
    balanced(one)
    return filled


def balanced(one: Account) -> None:
    book = one.portfolio
    result = book.initial_cash_micros + book.realised_micros - book.fees_micros - book.borrow_micros + book.dividends_micros
    assert book.cash_micros + sum(position.cost_micros for position in book.positions.values()) == result
    assert nav(one) == result + book.unrealised_micros(one.marks_micros)


def nav(one: Account, price_micros: int | None = None) -> int:
    return one.portfolio.net_asset_value(one.marks_micros if price_micros is None else {"X": price_micros})


def test_a_long_round_trip() -> None:
    one = account()
    filled = order(one, 100, 50_000_000)
    assert [leg.kind for leg in filled.effect.legs] == [LegKind.BUY]
    assert (filled.fee_micros, one.portfolio.cash_micros, one.portfolio.positions["X"].cost_micros) == (
        5_000_000,
        94_995_000_000,
        5_000_000_000,
    )
    assert nav(one, 55_000_000) == 100_495_000_000
    filled = order(one, -40, 55_000_000)
    assert (filled.effect.realised_micros, filled.fee_micros) == (200_000_000, 2_200_000)
    assert (one.portfolio.cash_micros, one.portfolio.positions["X"].cost_micros) == (97_192_800_000, 3_000_000_000)
    filled = order(one, -60, 48_000_000)
    assert (filled.effect.realised_micros, filled.fee_micros) == (-120_000_000, 2_880_000)
    assert one.portfolio.cash_micros == nav(one) == 100_069_920_000
    assert (one.portfolio.realised_micros, one.portfolio.fees_micros, one.portfolio.positions) == (80_000_000, 10_080_000, {})


def test_a_short_round_trip_with_borrow_and_dividend() -> None:
    one = account(borrow_bp=250)
    filled = order(one, -200, 30_000_000)
    assert (filled.fee_micros, [leg.kind for leg in filled.effect.legs]) == (6_000_000, [LegKind.SHORT])
    assert (one.portfolio.cash_micros, nav(one)) == (105_994_000_000, 99_994_000_000)
    settled = one.settle({"X": 31_000_000}, days_to_next_session=3)
    assert [charge.charge_micros for charge in settled.borrow] == [1_291_667]
    assert (settled.nav_micros, settled.margin_call) == (99_792_708_333, None)
    balanced(one)
    [effect] = one.open_session([Dividend("X", 250_000)])
    assert (effect.cash_micros, one.portfolio.dividends_micros) == (-50_000_000, -50_000_000)
    balanced(one)
    filled = order(one, 200, 28_000_000)
    assert [leg.kind for leg in filled.effect.legs] == [LegKind.COVER]
    assert (filled.effect.realised_micros, filled.fee_micros) == (400_000_000, 5_600_000)
    assert (one.portfolio.cash_micros, one.portfolio.fees_micros, one.portfolio.borrow_micros) == (
        100_337_108_333,
        11_600_000,
        1_291_667,
    )


def test_a_flip_is_one_fill_of_two_legs_and_one_fee() -> None:
    one = account()
    order(one, 100, 50_000_000)
    filled = order(one, -150, 52_000_000)
    assert [(leg.kind, leg.quantity) for leg in filled.effect.legs] == [(LegKind.SELL, 100), (LegKind.SHORT, 50)]
    assert (filled.effect.realised_micros, filled.fee_micros) == (200_000_000, 7_800_000)
    position = one.portfolio.positions["X"]
    assert (position.quantity, position.cost_micros) == (-50, -2_600_000_000)
    assert (one.portfolio.cash_micros, nav(one), one.portfolio.fees_micros) == (102_787_200_000, 100_187_200_000, 12_800_000)


def test_a_flip_beyond_the_margin_changes_nothing_neither_leg_of_it() -> None:
    one = account(10_000)
    order(one, 100, 50_000_000)
    before = one.portfolio.copy()
    rejected = one.execution({"X": 52_000_000}).execute("X", -600, 52_000_000)
    equity = 10_000_000_000 + 200_000_000 - 5_000_000 - 31_200_000
    assert rejected == Rejection("X", -600, Refusal.INSUFFICIENT_MARGIN, 13_000_000_000, equity)
    assert one.portfolio == before


def test_covering_in_parts_leaves_no_residue() -> None:
    one = account(fee_bp=0)
    order(one, -2, 10_000_000)
    order(one, -1, 10_010_000)
    assert one.portfolio.positions["X"].cost_micros == -30_010_000
    assert order(one, 1, 9_500_000).effect.realised_micros == 503_333
    assert one.portfolio.positions["X"].cost_micros == -20_006_667
    order(one, 2, 9_500_000)
    assert (one.portfolio.realised_micros, one.portfolio.cash_micros, one.portfolio.positions) == (1_510_000, 100_001_510_000, {})


def test_a_margin_call_is_answered_by_the_fewest_shares() -> None:
    one = account()
    assert order(one, -1300, 50_000_000).fee_micros == 65_000_000
    assert one.portfolio.cash_micros == 164_935_000_000
    call = one.settle({"X": 100_000_000}, days_to_next_session=1).margin_call
    assert call is not None
    assert (call.nav_micros, call.required_micros, call.amount_micros) == (34_935_000_000, 39_000_000_000, 4_065_000_000)
    still = margin_call(one.portfolio, {"X": 101_000_000}, one.rules)
    assert still is not None
    assert (still.nav_micros, still.required_micros) == (33_635_000_000, 39_390_000_000)

    fewer = one.portfolio.copy()
    fewer.apply_fill("X", 190, 101_000_000, one.costs.fee(190, 101_000_000))
    assert margin_call(fewer, {"X": 101_000_000}, one.rules) == MarginCall(33_615_810_000, 33_633_000_000)

    liquidated = one.liquidate({"X": 101_000_000})
    assert liquidated is not None
    [filled] = liquidated.fills
    assert (ForcedOrder(filled.ticker, filled.delta), liquidated.insolvent) == (ForcedOrder("X", 191), False)
    assert (filled.fee_micros, filled.effect.realised_micros) == (19_291_000, -9_741_000_000)
    assert (one.portfolio.cash_micros, one.portfolio.quantity("X"), nav(one)) == (145_624_709_000, -1109, 33_615_709_000)
    assert margin_call(one.portfolio, one.marks_micros, one.rules) is None
    assert 1109 * 101_000_000 * 3000 // 10_000 == 33_602_700_000
    balanced(one)


def test_a_split_pays_the_fraction_in_cash_and_keeps_net_asset_value() -> None:
    one = account(fee_bp=0)
    order(one, -15, 100_000_000)
    one.settle({"X": 90_000_000}, days_to_next_session=1)
    assert nav(one) == 100_150_000_000
    [effect] = one.open_session([Split("X", new=3, old=2)])
    assert (effect.quantity_before, effect.quantity_after, effect.cash_micros) == (-15, -22, -30_000_000)
    assert effect.realised_micros == -30_000_000 + 33_333_333
    assert one.portfolio.positions["X"].cost_micros == -1_500_000_000 + 33_333_333
    assert (one.marks_micros["X"], nav(one)) == (60_000_000, 100_150_000_000)
    balanced(one)
