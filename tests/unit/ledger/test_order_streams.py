"""What holds for any stream of orders, with random prices, splits, dividends, borrow, rejections, margin calls and forced liquidations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from plain_margin import refusal_of
from trademesh_ledger.account import Account, ForcedLiquidation
from trademesh_ledger.corporate_actions import CorporateAction, Delisting, Dividend, Split
from trademesh_ledger.costs import CostModel, Tick
from trademesh_ledger.execution import Fill
from trademesh_ledger.maintenance import margin_call
from trademesh_ledger.margin import MarginRules
from trademesh_ledger.money import BASIS_POINTS
from trademesh_ledger.portfolio import Portfolio
from trademesh_ledger.rejections import Refusal, Rejection

DOLLAR = 1_000_000
CENT = 10_000
TICKERS = ("A", "B", "C")
FIRST_PRICE_MICROS = 50 * DOLLAR
MOST_SPLITS = 5
"""Of up to 4:1 in a stream. Cost keeps the sign of the shares as long as an average share costs a micro-dollar; from a cent on, it does."""

Prices = dict[str, int]


@dataclass(frozen=True)
class Morning:
    """The actions of an ex-date, and the prices of the day."""

    actions: list[CorporateAction]
    prices: Prices


@dataclass(frozen=True)
class Order:
    ticker: str
    delta: int


@dataclass(frozen=True)
class Close:
    prices: Prices
    days: int


Step: TypeAlias = Morning | Order | Close

PRICE = st.one_of(st.integers(20 * DOLLAR, 120 * DOLLAR), st.integers(CENT, 200 * DOLLAR))
PRICES = st.fixed_dictionaries({}, optional=dict.fromkeys(TICKERS, PRICE))
ACTIONS: st.SearchStrategy[CorporateAction] = st.one_of(
    st.builds(Dividend, st.sampled_from(TICKERS), st.integers(1, DOLLAR)),
    st.builds(Split, st.sampled_from(TICKERS), new=st.integers(1, 4), old=st.integers(1, 4)),
    st.builds(Delisting, st.sampled_from(TICKERS), st.integers(0, 100 * DOLLAR)),
)
STEPS = st.lists(
    st.one_of(
        st.builds(Order, st.sampled_from(TICKERS), st.integers(-600, 600)),
        st.builds(Order, st.sampled_from(TICKERS), st.integers(-2_000, -300)),
        st.builds(Close, PRICES, st.integers(1, 7)),
        st.builds(Morning, st.lists(ACTIONS, max_size=2), PRICES),
    ),
    min_size=10,
    max_size=40,
)
CASH_DOLLARS = st.one_of(st.integers(10_000, 200_000), st.integers(1, 1_000_000))
COSTS = st.builds(
    CostModel,
    fee_bp=st.integers(0, 100),
    min_fee_micros=st.sampled_from([0, DOLLAR]),
    slippage_bp=st.integers(0, 50),
    tick=st.sampled_from(Tick),
    borrow_bp=st.integers(0, 1000),
)
RULES = st.builds(
    MarginRules, enabled=st.sampled_from([True, True, True, False]), initial_bp=st.sampled_from([5000, 10_000]), allow_debit=st.booleans()
)


@dataclass
class Seen:
    """What happened in a stream: enough to do it again."""

    replay: list[Callable[[Portfolio], object]] = field(default_factory=list)
    fills: int = 0
    rejections: int = 0
    forced: int = 0
    splits: int = 0


def identities_hold(account: Account) -> None:
    """Both, from the amounts themselves."""
    book, marks = account.portfolio, account.marks_micros
    result = book.initial_cash_micros + book.realised_micros - book.fees_micros - book.borrow_micros + book.dividends_micros
    costs = sum(position.cost_micros for position in book.positions.values())
    values = sum(position.quantity * marks[ticker] for ticker, position in book.positions.items())
    assert book.cash_micros + costs == result
    assert book.cash_micros + values == result + (values - costs) == book.net_asset_value(marks)
    assert all((position.quantity > 0) == (position.cost_micros > 0) for position in book.positions.values())
    assert all(position.quantity for position in book.positions.values())


def fill_is_exact(before: Portfolio, account: Account, filled: Fill) -> None:
    """q grows by delta; at marks, net asset value falls by the fee and what the price is worse than the mark."""
    book, marks = account.portfolio, account.marks_micros
    assert book.quantity(filled.ticker) == before.quantity(filled.ticker) + filled.delta
    slippage = filled.delta * (filled.price_micros - marks[filled.ticker])
    assert slippage >= 0
    assert book.net_asset_value(marks) == before.net_asset_value(marks) - filled.fee_micros - slippage
    assert filled.fee_micros == account.costs.fee(filled.delta, filled.price_micros)
    assert sum(leg.quantity for leg in filled.effect.legs) == abs(filled.delta)
    flips = before.quantity(filled.ticker) * book.quantity(filled.ticker) < 0
    assert [leg.quantity > 0 for leg in filled.effect.legs] == [True] * (2 if flips else 1)


def enlarging_fill_keeps_both_checks(before: Portfolio, account: Account, filled: Fill) -> None:
    """Worked out here from the state after the fill, not by the code that let it pass."""
    held, after = before.quantity(filled.ticker), account.portfolio.quantity(filled.ticker)
    if held * after >= 0 and abs(after) < abs(held):
        return
    marks = {**account.marks_micros, filled.ticker: filled.price_micros}
    values = [position.quantity * marks[ticker] for ticker, position in account.portfolio.positions.items()]
    cash = account.portfolio.cash_micros
    if not account.rules.enabled:
        assert after >= 0
        assert cash >= 0
    else:
        assert BASIS_POINTS * (cash + sum(values)) >= account.rules.initial_bp * sum(map(abs, values))
        assert account.rules.allow_debit or cash + sum(value for value in values if value < 0) >= 0


def run(steps: list[Step], account: Account) -> Seen:
    """Takes an account through the steps and asserts all that must hold after each."""
    seen = Seen()
    account.marks_micros.update(dict.fromkeys(TICKERS, FIRST_PRICE_MICROS))
    for step in steps:
        before = account.portfolio.copy()
        if isinstance(step, Order):
            _order(step, before, account, seen)
        elif isinstance(step, Close):
            settled = account.settle(step.prices, step.days)
            charges = [(charge.ticker, charge.charge_micros) for charge in settled.borrow]
            seen.replay.append(lambda book, charges=charges: [_charge(book, amount) for _, amount in charges])
            nav_before = before.net_asset_value(account.marks_micros)
            assert settled.nav_micros == nav_before - sum(amount for _, amount in charges)
            assert all(before.quantity(ticker) < 0 <= amount for ticker, amount in charges)
        else:
            _morning(step, account, seen)
        identities_hold(account)
    return seen


def _order(step: Order, before: Portfolio, account: Account, seen: Seen) -> None:
    outcome = account.execution({}).execute(step.ticker, step.delta, account.marks_micros[step.ticker])
    if isinstance(outcome, Rejection):
        seen.rejections += 1
        assert account.portfolio == before
        assert (outcome.refusal is Refusal.BAD_QUANTITY) == (step.delta == 0)
        reduces = before.quantity(step.ticker) * step.delta < 0 and abs(step.delta) <= abs(before.quantity(step.ticker))
        assert not reduces
        return
    _filled(before, account, outcome, seen)
    enlarging_fill_keeps_both_checks(before, account, outcome)


def _filled(before: Portfolio, account: Account, filled: Fill, seen: Seen) -> None:
    fill_is_exact(before, account, filled)
    seen.fills += 1
    seen.replay.append(lambda book: book.apply_fill(filled.ticker, filled.delta, filled.price_micros, filled.fee_micros))


def _charge(book: Portfolio, amount: int) -> None:
    book.cash_micros -= amount
    book.borrow_micros += amount


def _morning(step: Morning, account: Account, seen: Seen) -> None:
    marks, actions = dict(account.marks_micros), list[CorporateAction]()
    for action in step.actions:
        seen.splits += isinstance(action, Split)
        if not isinstance(action, Split) or seen.splits <= MOST_SPLITS:
            actions.append(action)
    account.open_session(actions)
    identities_hold(account)
    again = Account(Portfolio(0), account.costs, account.rules)

    def act(book: Portfolio) -> None:
        again.portfolio, again.marks_micros = book, dict(marks)
        again.open_session(actions)

    seen.replay.append(act)
    before = account.portfolio.copy()
    forced = account.liquidate(step.prices)
    if forced is None:
        assert account.portfolio == before
        return
    _forced(before, account, step.prices, forced, seen)


def _forced(before: Portfolio, account: Account, prices: Prices, forced: ForcedLiquidation, seen: Seen) -> None:
    seen.forced += 1
    state = before.copy()
    for filled in forced.fills:
        held = state.quantity(filled.ticker)
        assert held * filled.delta < 0
        assert abs(filled.delta) <= abs(held)
        state.apply_fill(filled.ticker, filled.delta, filled.price_micros, filled.fee_micros)
        seen.replay.append(lambda book, one=filled: book.apply_fill(one.ticker, one.delta, one.price_micros, one.fee_micros))
    assert state == account.portfolio
    tradable = [ticker for ticker in account.portfolio.positions if ticker in prices]
    enough = margin_call(account.portfolio, account.marks_micros, account.rules) is None
    assert not tradable or (enough and not forced.insolvent)


@settings(max_examples=300, deadline=None)
@given(STEPS, CASH_DOLLARS, COSTS, RULES)
def test_every_promise_of_the_ledger_holds_after_every_step(
    steps: list[Step], cash_dollars: int, costs: CostModel, rules: MarginRules
) -> None:
    """Identities; q grows by delta; a fill costs its fee and slippage and no more; a rejection changes nothing; reductions pass; enlarging
    fills keep both initial checks; forced liquidation ends with enough or with nothing; what happened, done again, gives the same account.
    """
    account = Account(Portfolio(cash_dollars * DOLLAR), costs, rules)
    seen = run(steps, account)
    again = Portfolio(cash_dollars * DOLLAR)
    for act in seen.replay:
        act(again)
    assert again == account.portfolio


def test_streams_reach_fills_rejections_and_forced_liquidations() -> None:
    """So that the property above is not one of empty streams."""
    account = Account(Portfolio(100_000 * DOLLAR), CostModel(fee_bp=10, borrow_bp=250), MarginRules())
    steps: list[Step] = [
        Order("A", -1300),
        Order("B", 4000),
        Close({"A": 100 * DOLLAR}, 3),
        Morning([Split("A", 3, 2)], {"A": 67 * DOLLAR}),
        Close({}, 1),
    ]
    seen = run(steps, account)
    assert (seen.fills, seen.rejections, seen.forced) == (1, 1, 1)


ORDERS = st.lists(st.tuples(st.sampled_from("AB"), st.integers(-500, 500).filter(bool), st.integers(CENT, 500 * DOLLAR)), max_size=30)


@given(ORDERS, st.integers(1, 500), st.integers(1, 500), st.integers(CENT, 500 * DOLLAR), st.integers(CENT, 500 * DOLLAR), COSTS)
def test_reductions_of_different_tickers_commute(
    orders: list[tuple[str, int, int]], shares_a: int, shares_b: int, price_a: int, price_b: int, costs: CostModel
) -> None:
    one = Portfolio(DOLLAR)
    for ticker, delta, price in [("A", 500, DOLLAR), ("B", -500, DOLLAR), *orders]:
        one.apply_fill(ticker, delta, price, costs.fee(delta, price))
    other = one.copy()

    def reduction(ticker: str, shares: int, price: int) -> tuple[str, int, int, int]:
        held = one.quantity(ticker)
        delta = -min(shares, held) if held > 0 else min(shares, -held)
        return ticker, delta, price, costs.fee(delta, price)

    reductions = [reduction("A", shares_a, price_a), reduction("B", shares_b, price_b)]
    for fill in [fill for fill in reductions if fill[1]]:
        one.apply_fill(*fill)
    for fill in [fill for fill in reversed(reductions) if fill[1]]:
        other.apply_fill(*fill)
    assert one == other


@given(st.integers(-400, 400).filter(bool), st.integers(CENT, 100 * DOLLAR), st.integers(CENT, 100 * DOLLAR), st.data())
def test_closing_at_one_price_in_any_parts_gives_the_same_result_and_cash(
    quantity: int, opened: int, closed: int, data: st.DataObject
) -> None:
    whole = Portfolio(0)
    whole.apply_fill("X", quantity, opened, 0)
    whole.apply_fill("X", quantity, opened + 1, 0)
    parts = whole.copy()
    whole.apply_fill("X", -2 * quantity, closed, 0)
    while held := parts.quantity("X"):
        part = data.draw(st.integers(1, abs(held)))
        parts.apply_fill("X", -part if held > 0 else part, closed, 0)
    assert whole == parts


@given(ORDERS, COSTS, RULES, st.integers(1, 1_000_000))
def test_an_execution_that_keeps_sums_says_what_looking_at_each_position_says(
    orders: list[tuple[str, int, int]], costs: CostModel, rules: MarginRules, cash_dollars: int
) -> None:
    marks = {"A": 10 * DOLLAR, "B": 20 * DOLLAR}
    portfolio = Portfolio(cash_dollars * DOLLAR)
    moment = Account(portfolio, costs, rules).execution(marks)
    for ticker, delta, price in orders:
        rejection = moment.rejection_of(ticker, delta, price)
        refusal = refusal_of(portfolio, ticker, delta, price, costs, rules, marks)
        assert refusal is (None if rejection is None else rejection.refusal)
        part = moment.largest_fill(ticker, delta, price)
        assert (part == delta) == (rejection is None)
        if part:
            moment.fill(ticker, part, price)
