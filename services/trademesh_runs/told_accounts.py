"""Accounts and corporate actions as events tell them: taken from their messages, and held against the ledger's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_ledger.corporate_actions import CorporateAction, Delisting, Dividend, Split
from trademesh_ledger.portfolio import Portfolio, Position

_TOLD = attrgetter("ticker", "quantity", "cost_micros", "mark_micros")


class ToldPositions(NamedTuple):
    """Positions as an account is told with them."""

    marks: dict[str, int]
    """By ticker, in micro-dollars."""
    as_held: bool
    """Whether they are those that are held, by ticker."""
    worth_micros: int
    """At their marks."""


def positions_told(said: Sequence[events.Position], held: Mapping[str, Position]) -> ToldPositions:
    """What positions tell, in one pass: every session of a run has some.

    This and `amounts_told` take a fifth of the time of making a message and comparing.
    """
    marks, as_held, earlier, worth = dict[str, int](), True, "", 0
    # A slice of a message's rows is there in three quarters of the time that going through them takes.
    for ticker, quantity, cost_micros, mark_micros in map(_TOLD, said[:]):
        marks[ticker] = mark_micros
        worth += quantity * mark_micros
        position = held.get(ticker)
        if position is None or position.quantity != quantity or position.cost_micros != cost_micros or ticker <= earlier:
            as_held = False
        earlier = ticker
    # None is told twice, and all that are told are held: as many are all.
    return ToldPositions(marks, as_held and len(marks) == len(held), worth)


def amounts_told(said: events.PortfolioState, portfolio: Portfolio) -> bool:
    """True if a message tells the amounts of this account."""
    return (
        said.cash_micros == portfolio.cash_micros
        and said.realised_micros == portfolio.realised_micros
        and said.fees_micros == portfolio.fees_micros
        and said.borrow_micros == portfolio.borrow_micros
        and said.dividends_micros == portfolio.dividends_micros
        and said.initial_cash_micros == portfolio.initial_cash_micros
    )


def corporate_action_of(message: events.CorporateActionApplied) -> CorporateAction:
    """A corporate action from its message."""
    match message.WhichOneof("action"):
        case "split":
            return Split(message.ticker, message.split.new, message.split.old)
        case "delisted_at_micros":
            return Delisting(message.ticker, message.delisted_at_micros)
        case _:
            return Dividend(message.ticker, message.dividend_per_share_micros)


def portfolio_of(message: events.PortfolioState) -> Portfolio:
    """An account from its message."""
    portfolio = Portfolio(message.initial_cash_micros)
    portfolio.cash_micros = message.cash_micros
    portfolio.realised_micros = message.realised_micros
    portfolio.fees_micros = message.fees_micros
    portfolio.borrow_micros = message.borrow_micros
    portfolio.dividends_micros = message.dividends_micros
    portfolio.positions = {position.ticker: Position(position.quantity, position.cost_micros) for position in message.positions}
    return portfolio
