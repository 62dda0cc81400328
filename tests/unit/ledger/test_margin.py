"""The cash and margin checks at the fill, at their very edges."""

from __future__ import annotations

import pytest

from trademesh_ledger.account import Account
from trademesh_ledger.costs import CostModel, Tick
from trademesh_ledger.execution import Fill
from trademesh_ledger.margin import MarginRules
from trademesh_ledger.portfolio import Portfolio
from trademesh_ledger.rejections import Refusal, Rejection

DOLLAR = 1_000_000
DEBIT = MarginRules(allow_debit=True)


def outcome(rules: MarginRules, delta: int, *, cash_micros: int, held: int = 0, price_micros: int = 10 * DOLLAR) -> Fill | Rejection:
    """What comes of one order in X, with a position bought for nothing."""
    portfolio = Portfolio(cash_micros)
    if held:
        portfolio.apply_fill("X", held, 0, 0)
    return Account(portfolio, CostModel(), rules).execution({"X": price_micros}).execute("X", delta, price_micros)


def refusal(found: Fill | Rejection) -> tuple[Refusal, int, int] | None:
    return (found.refusal, found.required_micros, found.available_micros) if isinstance(found, Rejection) else None


def test_a_short_may_be_as_large_as_twice_the_equity_and_no_larger() -> None:
    assert refusal(outcome(MarginRules(), -20, cash_micros=100 * DOLLAR)) is None
    assert refusal(outcome(MarginRules(), -20, cash_micros=100 * DOLLAR - 1)) == (
        Refusal.INSUFFICIENT_MARGIN,
        100 * DOLLAR,
        100 * DOLLAR - 1,
    )
    found = refusal(outcome(MarginRules(), -21, cash_micros=100 * DOLLAR))
    assert found == (Refusal.INSUFFICIENT_MARGIN, 105 * DOLLAR, 100 * DOLLAR)


def test_cash_pays_for_what_is_bought_unless_a_debit_is_allowed() -> None:
    assert refusal(outcome(MarginRules(), 10, cash_micros=100 * DOLLAR)) is None
    assert refusal(outcome(MarginRules(), 10, cash_micros=100 * DOLLAR - 1)) == (Refusal.INSUFFICIENT_CASH, 0, -1)
    assert refusal(outcome(DEBIT, 20, cash_micros=100 * DOLLAR)) is None
    assert refusal(outcome(DEBIT, 21, cash_micros=100 * DOLLAR)) == (Refusal.INSUFFICIENT_MARGIN, 105 * DOLLAR, 100 * DOLLAR)


def test_proceeds_of_short_sales_buy_nothing() -> None:
    account = Account(Portfolio(100 * DOLLAR), CostModel(), MarginRules())
    moment = account.execution({"S": 10 * DOLLAR, "L": 10 * DOLLAR})
    assert isinstance(moment.execute("S", -8, 10 * DOLLAR), Fill)
    assert refusal(moment.execute("L", 11, 10 * DOLLAR)) == (Refusal.INSUFFICIENT_CASH, 80 * DOLLAR, 70 * DOLLAR)
    assert isinstance(moment.execute("L", 10, 10 * DOLLAR), Fill)


def test_a_reduction_passes_even_where_cash_is_below_zero_and_margin_is_missing() -> None:
    assert isinstance(outcome(MarginRules(), -3, cash_micros=-1_000 * DOLLAR, held=5), Fill)
    assert isinstance(outcome(MarginRules(), 5, cash_micros=-1_000 * DOLLAR, held=-5), Fill)
    assert isinstance(outcome(MarginRules(), 6, cash_micros=-1_000 * DOLLAR, held=-5), Rejection)


def test_without_margin_nothing_is_sold_short_and_nothing_bought_on_credit() -> None:
    cash_only = MarginRules(enabled=False)
    assert refusal(outcome(cash_only, -6, cash_micros=DOLLAR, held=5)) == (Refusal.SHORT_DISABLED, 0, 0)
    assert refusal(outcome(cash_only, -5, cash_micros=DOLLAR, held=5)) is None
    assert refusal(outcome(cash_only, 1, cash_micros=10 * DOLLAR)) is None
    assert refusal(outcome(cash_only, 1, cash_micros=10 * DOLLAR - 1)) == (Refusal.INSUFFICIENT_CASH, 10 * DOLLAR, 10 * DOLLAR - 1)


def test_a_sale_under_the_smallest_tick_has_no_price() -> None:
    account = Account(Portfolio(100 * DOLLAR), CostModel(tick=Tick.US_EQUITY), MarginRules())
    assert account.execution({"X": 99}).execute("X", -1, 99) == Rejection("X", -1, Refusal.NO_PRICE)


@pytest.mark.parametrize(
    ("ticker", "delta", "price_micros", "expected"),
    [("Y", 1, DOLLAR, Refusal.UNKNOWN_TICKER), ("X", 0, DOLLAR, Refusal.BAD_QUANTITY), ("X", 1, 0, Refusal.NO_PRICE)],
)
def test_an_order_that_means_nothing_is_rejected_with_its_reason(ticker: str, delta: int, price_micros: int, expected: Refusal) -> None:
    account = Account(Portfolio(100 * DOLLAR), CostModel(), MarginRules())
    before = account.portfolio.copy()
    assert account.execution({"X": DOLLAR}).execute(ticker, delta, price_micros) == Rejection(ticker, delta, expected)
    assert account.portfolio == before
