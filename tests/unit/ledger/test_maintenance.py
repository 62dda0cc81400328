"""Maintenance margin after FINRA 4210, and what is closed by force."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademesh_ledger.account import Account
from trademesh_ledger.costs import CostModel, Tick
from trademesh_ledger.maintenance import ForcedOrder, LiquidationPlan, MarginCall, liquidation_plan, margin_call, required_per_share
from trademesh_ledger.margin import MarginRules
from trademesh_ledger.money import BASIS_POINTS
from trademesh_ledger.portfolio import Portfolio, Position

DOLLAR = 1_000_000
RULES = MarginRules()
FREE = CostModel()


def book(cash_dollars: int, **positions: int) -> Portfolio:
    """An account with positions; what they cost does not matter here."""
    portfolio = Portfolio(cash_dollars * DOLLAR)
    portfolio.positions = {ticker: Position(quantity, 0) for ticker, quantity in positions.items()}
    return portfolio


@pytest.mark.parametrize(
    ("quantity", "mark_micros", "per_share_micros"),
    [
        (1, 40 * DOLLAR, 10 * DOLLAR),  # 25 % of a long
        (1, 2 * DOLLAR, DOLLAR // 2),
        (-1, 100 * DOLLAR, 30 * DOLLAR),  # 30 % of a short
        (-1, 16_666_667, 5_000_000.1),  # where 30 % passes $5.00
        (-1, 16_666_666, 5 * DOLLAR),
        (-1, 5 * DOLLAR, 5 * DOLLAR),  # $5.00 per share from $5.00 on
        (-1, 4_999_999, 4_999_999),  # under $5.00 all of it
        (-1, 2_500_001, 2_500_001),
        (-1, 2 * DOLLAR, 2_500_000),  # but $2.50 at least
        (-1, 1, 2_500_000),
    ],
)
def test_maintenance_margin_of_a_share_is_finras(quantity: int, mark_micros: int, per_share_micros: float) -> None:
    assert required_per_share(quantity, mark_micros, RULES) == round(per_share_micros * BASIS_POINTS)


def test_a_margin_call_comes_one_micro_dollar_below_the_requirement_and_not_at_it() -> None:
    at = book(0, X=3)
    at.cash_micros = -9 * DOLLAR // 4 * 3
    marks = {"X": 3 * DOLLAR}
    assert margin_call(at, marks, RULES) is None
    at.cash_micros -= 1
    assert margin_call(at, marks, RULES) == MarginCall(2_249_999, 2_250_000)


def test_a_requirement_of_parts_of_a_micro_dollar_is_rounded_up() -> None:
    one = book(0, X=1)
    one.cash_micros = -1
    assert margin_call(one, {"X": 1}, RULES) == MarginCall(0, 1)


def test_without_margin_there_are_no_calls() -> None:
    assert margin_call(book(-1000, X=1), {"X": DOLLAR}, MarginRules(enabled=False)) is None


def test_the_largest_requirement_is_closed_first_and_ties_go_by_ticker() -> None:
    marks = {"A": 10 * DOLLAR, "B": 10 * DOLLAR, "C": 30 * DOLLAR}
    plan = liquidation_plan(book(-4_900, A=100, B=100, C=100), marks, marks, FREE, RULES)
    assert [order.ticker for order in plan.orders] == ["C", "A", "B"]
    assert (plan.orders[0].delta, plan.orders[1].delta, plan.insolvent) == (-100, -100, False)


def test_a_position_that_does_not_trade_today_is_passed_over() -> None:
    marks = {"A": 10 * DOLLAR, "C": 30 * DOLLAR}
    plan = liquidation_plan(book(-3_200, A=100, C=100), marks, {"A": 10 * DOLLAR}, FREE, RULES)
    assert plan.orders == (ForcedOrder("A", -80),)


def test_nothing_is_closed_where_enough_is_there() -> None:
    assert liquidation_plan(book(0, X=1), {"X": DOLLAR}, {"X": DOLLAR}, FREE, RULES) == LiquidationPlan((), insolvent=False)


def test_an_account_without_value_is_closed_whole_and_insolvent() -> None:
    marks = {"L": 10 * DOLLAR, "S": 100 * DOLLAR}
    plan = liquidation_plan(book(9_000, L=100, S=-100), marks, marks, FREE, RULES)
    assert plan == LiquidationPlan((ForcedOrder("S", 100), ForcedOrder("L", -100)), insolvent=True)


def test_an_account_without_value_at_its_marks_is_closed_whole_though_prices_are_better() -> None:
    plan = liquidation_plan(book(9_999, S=-100), {"S": 100 * DOLLAR}, {"S": 50 * DOLLAR}, FREE, RULES)
    assert plan == LiquidationPlan((ForcedOrder("S", 100),), insolvent=True)


def test_fees_that_eat_the_rest_make_an_account_insolvent() -> None:
    marks = {"S": 100 * DOLLAR}
    plan = liquidation_plan(book(10_001, S=-100), marks, marks, CostModel(min_fee_micros=2 * DOLLAR), RULES)
    assert plan == LiquidationPlan((ForcedOrder("S", 100),), insolvent=True)


def test_a_call_that_the_market_has_answered_closes_nothing() -> None:
    account = Account(Portfolio(100_000 * DOLLAR), FREE, RULES)
    account.execution({"X": 50 * DOLLAR}).execute("X", -1300, 50 * DOLLAR)
    assert account.settle({"X": 100 * DOLLAR}, 1).margin_call is not None
    assert account.liquidate({"X": 60 * DOLLAR}) is None


def test_nothing_is_closed_before_a_settlement_has_called() -> None:
    account = Account(Portfolio(100_000 * DOLLAR), FREE, RULES)
    account.execution({"X": 50 * DOLLAR}).execute("X", -1300, 50 * DOLLAR)
    assert account.settle({"X": 50 * DOLLAR}, 1).margin_call is None
    assert account.liquidate({"X": 100 * DOLLAR}) is None


PRICE = st.integers(10_000, 500 * DOLLAR)
COSTS = st.builds(
    CostModel,
    fee_bp=st.integers(0, 100),
    min_fee_micros=st.sampled_from([0, DOLLAR]),
    slippage_bp=st.integers(0, 50),
    tick=st.sampled_from(Tick),
)


@given(
    st.dictionaries(st.sampled_from("ABCD"), st.tuples(st.integers(-1000, 1000).filter(bool), PRICE), min_size=1),
    st.integers(-2_000_000, 2_000_000),
    COSTS,
)
def test_after_a_forced_liquidation_enough_is_there_or_nothing_is_held(
    positions: dict[str, tuple[int, int]], nav_dollars: int, costs: CostModel
) -> None:
    portfolio = book(0, **{ticker: quantity for ticker, (quantity, _) in positions.items()})
    marks = {ticker: price for ticker, (_, price) in positions.items()}
    portfolio.cash_micros = nav_dollars * DOLLAR - portfolio.net_asset_value(marks)
    plan = liquidation_plan(portfolio, marks, marks, costs, RULES)
    assert bool(plan.orders) == (margin_call(portfolio, marks, RULES) is not None or nav_dollars <= 0)

    def apply(orders: tuple[ForcedOrder, ...]) -> Portfolio:
        after = portfolio.copy()
        for order in orders:
            held = after.quantity(order.ticker)
            assert held * order.delta < 0
            assert abs(order.delta) <= abs(held)
            price = costs.fill_price(marks[order.ticker], order.delta)
            after.apply_fill(order.ticker, order.delta, price, costs.fee(order.delta, price))
        return after

    after = apply(plan.orders)
    assert not after.positions or margin_call(after, marks, RULES) is None
    assert plan.insolvent == (nav_dollars <= 0 or after.net_asset_value(marks) <= 0)
    if plan.insolvent:
        assert not after.positions
    elif plan.orders:
        *earlier, last = plan.orders
        fewer = ForcedOrder(last.ticker, last.delta - (1 if last.delta > 0 else -1))
        short_of = apply((*earlier, fewer) if fewer.delta else tuple(earlier))
        assert margin_call(short_of, marks, RULES) is not None
