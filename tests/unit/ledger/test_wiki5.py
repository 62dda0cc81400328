"""Corporate actions and borrow on real prices as traded: 13 years of the set `wiki5`, with its 3 splits and 92 dividends, to the cent.

A desk that is long AAPL and MSFT and short IBM, and that later turns some of it around, goes through the ledger and, in this file, through
plain fractions. The fractions round nothing; the ledger rounds each fee, each night of borrow and each cost of a part to a micro-dollar, so
the two are never further apart than half a micro-dollar for each time that it rounded: less than half a cent in all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache

import polars as pl

from trademesh_ledger.account import Account, Settlement
from trademesh_ledger.borrow import calendar_days
from trademesh_ledger.corporate_actions import CorporateAction, Dividend, Split
from trademesh_ledger.costs import CostModel, Tick
from trademesh_ledger.execution import Fill
from trademesh_ledger.maintenance import margin_call
from trademesh_ledger.margin import MarginRules
from trademesh_ledger.portfolio import Portfolio
from trademesh_trading.market_set import LoadedSet
from trademesh_trading.set_files import load_set
from trademesh_trading.store import EMBEDDED_SETS

DOLLAR = 1_000_000
CENT = 10_000
CASH_MICROS = 1_000_000 * DOLLAR
COSTS = CostModel(fee_bp=10, borrow_bp=250, tick=Tick.US_EQUITY)

ORDERS = {
    "2000-03-01": [("AAPL", 1_000), ("IBM", -1_001), ("MSFT", 1_500)],
    "2001-09-17": [("IBM", 334)],  # the first session after a week without one
    "2003-02-19": [("MSFT", -777)],  # ex-date of MSFT's first dividend, the day after its split
    "2004-08-19": [("GOOG", 333)],
    "2007-05-08": [("IBM", 1_001)],  # an ex-date: short the night before, so we pay, and long from here
    "2008-09-15": [("MSFT", -3_001), ("GOOG", -500)],  # flips to short
    "2010-03-10": [("MSFT", 111), ("GOOG", 100)],
    "2012-05-18": [("FB", -1_001)],
    "2012-08-09": [("AAPL", -4_500)],  # ex-date of AAPL's first dividend: long the night before, short from here
    "2012-11-07": [("AAPL", 250)],  # its second, paid by us
    "2013-02-28": [("FB", 1_001)],
}


@cache
def wiki5() -> tuple[LoadedSet, dict[str, list[CorporateAction]]]:
    """Prices as traded, and actions by ex-date."""
    folder = EMBEDDED_SETS / "wiki5"
    actions = defaultdict[str, list[CorporateAction]](list)
    for session, ticker, new, old, dividend in pl.read_parquet(folder / "actions.parquet").iter_rows():
        actions[session.isoformat()].append(Dividend(ticker, dividend) if dividend is not None else Split(ticker, new, old))
    return load_set(folder), dict(actions)


@dataclass
class Fractions:
    """An account of fractions of a dollar. Knows average cost, as the ledger does, but rounds nothing."""

    cash: Fraction
    shares: dict[str, Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    average: dict[str, Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    realised: Fraction = Fraction(0)
    dividends: Fraction = Fraction(0)
    borrow: Fraction = Fraction(0)
    fees: Fraction = Fraction(0)

    def act(self, action: CorporateAction) -> None:
        held = self.shares[action.ticker]
        if isinstance(action, Dividend):
            self.cash += held * Fraction(action.per_share_micros, DOLLAR)
            self.dividends += held * Fraction(action.per_share_micros, DOLLAR)
        elif isinstance(action, Split):
            self.shares[action.ticker] = held * action.new / action.old
            self.average[action.ticker] *= Fraction(action.old, action.new)

    def trade(self, ticker: str, delta: int, close: Fraction) -> None:
        cents = close * 100
        price = Fraction(-(-cents.numerator // cents.denominator) if delta > 0 else cents.numerator // cents.denominator, 100)
        held = self.shares[ticker]
        closed = min(abs(delta), abs(held)) if held * delta < 0 else Fraction(0)
        self.realised += (1 if held > 0 else -1) * closed * (price - self.average[ticker])
        after = held + delta
        if held * after < 0:
            self.average[ticker] = price
        elif not closed:
            self.average[ticker] = (held * self.average[ticker] + delta * price) / after
        self.shares[ticker] = after
        fee = abs(delta) * price * Fraction(10, 10_000)
        self.fees += fee
        self.cash -= delta * price + fee

    def night(self, closes: dict[str, Fraction], days: int) -> None:
        short = sum(-held * closes[ticker] for ticker, held in self.shares.items() if held < 0)
        charge = short * Fraction(250, 10_000) * Fraction(days, 360)
        self.borrow += charge
        self.cash -= charge

    def value(self, closes: dict[str, Fraction]) -> Fraction:
        return self.cash + sum(held * closes[ticker] for ticker, held in self.shares.items() if held)


@dataclass
class Demo:
    """Both accounts after the last session, and what happened on the way."""

    account: Account
    fractions: Fractions
    last: Settlement
    actions: Counter[str]
    widest_micros: Fraction
    roundings: int


@cache
def demo() -> Demo:
    """Takes both through the set, session by session; the identity holds and the values agree after each."""
    data, actions = wiki5()
    tickers = [instrument.ticker for instrument in data.instruments]
    account, exact = Account(Portfolio(CASH_MICROS), COSTS, MarginRules()), Fractions(Fraction(CASH_MICROS, DOLLAR))
    counted, widest, roundings = Counter[str](), Fraction(0), 0
    following = [*data.sessions[1:], "2013-03-04"]
    for session, next_session, row in zip(data.sessions, following, data.close_micros.tolist(), strict=True):
        closes = {ticker: close for ticker, close in zip(tickers, row, strict=True) if close}
        dollars = {ticker: Fraction(close, DOLLAR) for ticker, close in closes.items()}
        for effect in account.open_session(actions.get(session, [])):
            counted[type(effect.action).__name__] += 1
        for action in actions.get(session, []):
            exact.act(action)
        assert account.liquidate(closes) is None
        moment = account.execution(closes)
        for ticker, delta in ORDERS.get(session, []):
            assert isinstance(moment.execute(ticker, delta, closes[ticker]), Fill)
            exact.trade(ticker, delta, dollars[ticker])
            roundings += 2
        days = calendar_days(session, next_session)
        last = account.settle(closes, days)
        exact.night(dollars, days)
        roundings += len(last.borrow)
        assert account.portfolio.balances()
        assert last.margin_call is None
        apart = abs(last.nav_micros - exact.value(dollars) * DOLLAR)
        assert apart <= Fraction(roundings, 2)
        widest = max(widest, apart)
    return Demo(account, exact, last, counted, widest, roundings)


def test_wiki5_has_92_dividends_and_three_splits() -> None:
    _, actions = wiki5()
    kinds = Counter(type(action).__name__ for day in actions.values() for action in day)
    assert kinds == {"Dividend": 92, "Split": 3}


def test_13_years_with_every_action_and_a_short_with_borrow_agree_with_fractions_to_the_cent() -> None:
    found = demo()
    assert found.actions == {"Dividend": 92, "Split": 3}
    assert found.widest_micros < CENT // 2
    book, exact = found.account.portfolio, found.fractions
    for mine, theirs in (
        (book.cash_micros, exact.cash),
        (book.realised_micros, exact.realised),
        (book.fees_micros, exact.fees),
        (book.borrow_micros, exact.borrow),
        (book.dividends_micros, exact.dividends),
    ):
        assert abs(mine - theirs * DOLLAR) <= Fraction(found.roundings, 2)
    assert {ticker: position.quantity for ticker, position in book.positions.items()} == {
        ticker: shares for ticker, shares in exact.shares.items() if shares
    }


def test_the_figures_of_the_demo_are_these() -> None:
    found = demo()
    book = found.account.portfolio
    assert (found.last.nav_micros, book.cash_micros, book.realised_micros) == (3_464_131_461_080, 3_576_634_401_080, 2_418_591_420_000)
    assert (book.fees_micros, book.borrow_micros, book.dividends_micros) == (3_910_527_600, 23_965_801_320, 18_278_110_000)


def test_a_short_that_runs_away_is_closed_in_parts_before_the_account_is_lost() -> None:
    """GOOG from its first session at $100.34 to $806.19, sold short for 1.8 times the money: each call closes just enough, 58 times, and in the end the short and the money are gone."""
    data, _ = wiki5()
    column = [instrument.ticker for instrument in data.instruments].index("GOOG")
    closes = [(session, close) for session, close in zip(data.sessions, data.close_micros[:, column].tolist(), strict=True) if close]
    account, forced = Account(Portfolio(CASH_MICROS), COSTS, MarginRules()), list[int]()
    for (session, close), (next_session, _) in zip(closes, [*closes[1:], ("2013-03-04", 0)], strict=True):
        prices = {"GOOG": close}
        liquidated = account.liquidate(prices)
        if liquidated is not None:
            forced += [filled.delta for filled in liquidated.fills]
            assert not liquidated.insolvent
            assert margin_call(account.portfolio, account.marks_micros, account.rules) is None
        if session == closes[0][0]:
            assert isinstance(account.execution(prices).execute("GOOG", -18_000, close), Fill)
        nav = account.settle(prices, calendar_days(session, next_session)).nav_micros
    assert (len(forced), sum(forced), account.portfolio.quantity("GOOG"), nav) == (58, 17_999, -1, 333_271_781)
