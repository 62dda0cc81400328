"""A message that is filled again and again says each time what one that is filled for the first time says."""

from __future__ import annotations

import math
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway import row_templates, wire
from trademesh_gateway.agents.records import Book, Decisions, Signals
from trademesh_gateway.risk.limits import UNKNOWN_MARKET, Limits
from trademesh_gateway.risk_notes import risk_notes
from trademesh_gateway.row_templates import RowTemplate
from trademesh_ledger.account import Account, Settlement
from trademesh_ledger.costs import CostModel
from trademesh_ledger.margin import MarginRules
from trademesh_ledger.portfolio import Portfolio

Entry = TypeVar("Entry")
TICKERS = ("AAPL", "GE", "KO")
COUNT = len(TICKERS)
FRACTIONS = st.sampled_from([0.0, 0.25, -0.5, 1.0])
LIMITS = (Limits(2000, 10_000, 10_000, 0, shorts_allowed=True), Limits(1000, 10_000, 10_000, 0, shorts_allowed=False, halted=True))


def columns(of: st.SearchStrategy[Entry]) -> st.SearchStrategy[list[Entry]]:
    return st.lists(of, min_size=COUNT, max_size=COUNT)


def shares(least: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.sampled_from([0, 7, 200, least]), min_size=COUNT, max_size=COUNT)


SIGNALS = st.builds(Signals, columns(FRACTIONS), columns(FRACTIONS.map(abs)), columns(st.booleans()), st.sampled_from([5, 21]), st.just(()))
DECISIONS = st.builds(Decisions, shares(-7), columns(FRACTIONS), columns(FRACTIONS), columns(FRACTIONS))
BOOKS = st.builds(Book, st.sampled_from([1000, -1]), st.just(2000), shares(-7), shares(0))
NOTES = st.tuples(BOOKS, st.sampled_from(LIMITS), columns(st.sampled_from([0.2, math.nan])))


def told(what: Signals | Decisions | tuple[Book, Limits, list[float]] | Account) -> list[bytes]:
    """All that is made of one of them."""
    match what:
        case Signals():
            made = [wire.signals(TICKERS, what), wire.predictions(TICKERS, what)]
        case Decisions():
            made = [wire.decisions(TICKERS, what)]
        case Account():
            made = [wire.settled(1, Settlement(5, [], None), what, 1, [])]
        case (book, limits, levels):
            made = [risk_notes(TICKERS, book, limits, levels, UNKNOWN_MARKET)]
    return [one.SerializeToString() for one in made]


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    portfolio = Portfolio(10**6)
    for ticker, delta in zip(TICKERS, draw(shares(-7)), strict=True):
        if delta:
            portfolio.apply_fill(ticker, delta, draw(st.sampled_from([3, 5])), 0)
    account = Account(portfolio, CostModel(), MarginRules())
    account.marks_micros.update(zip(TICKERS, draw(st.lists(st.sampled_from([3, 9]), min_size=COUNT, max_size=COUNT)), strict=True))
    return account


@settings(deadline=None)
@given(st.lists(st.one_of(SIGNALS, DECISIONS, NOTES, accounts()), min_size=2, max_size=8))
def test_what_was_said_before_is_not_said_again(
    sequence: list[Signals | Decisions | tuple[Book, Limits, list[float]] | Account],
) -> None:
    in_turn = [told(one) for one in sequence]
    for one, said in zip(sequence, in_turn, strict=True):
        row_templates.template_of.cache_clear()
        wire.decisions.cache_clear()
        assert told(one) == said


def test_a_column_that_is_the_same_is_not_set_again() -> None:
    template = RowTemplate(events.Decisions, "decisions", TICKERS)
    template.fill("quantity", [1, 2, 3])
    template.rows[0].quantity = 9
    template.fill("quantity", [1, 2, 3])
    assert [row.quantity for row in template.rows] == [9, 2, 3]
    template.fill("quantity", [1, 2, 4])
    assert [row.quantity for row in template.rows] == [1, 2, 4]


def test_a_list_that_its_owner_changes_is_seen_as_changed() -> None:
    template, values = RowTemplate(events.Decisions, "decisions", TICKERS), [1, 2, 3]
    template.fill("quantity", values)
    values[1] = 5
    template.fill("quantity", values)
    assert [row.quantity for row in template.rows] == [1, 5, 3]
