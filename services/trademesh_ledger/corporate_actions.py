"""What companies do to an account on the morning of an ex-date, before any order: dividends, splits, delistings.

Only for prices as traded: adjusted ones have these counted in, and would count them twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from trademesh_ledger.money import divide_half_even
from trademesh_ledger.portfolio import Portfolio


@dataclass(frozen=True, slots=True)
class Dividend:
    """Cash per share, paid on the shares held at the close before; shorts pay it. Per share of before a split of the same day."""

    ticker: str
    per_share_micros: int


@dataclass(frozen=True, slots=True)
class Split:
    """`old` shares become `new`."""

    ticker: str
    new: int
    old: int


@dataclass(frozen=True, slots=True)
class Delisting:
    """The ticker trades no more: what is held is closed, without a fee, at its last price; at 0 after a bankruptcy."""

    ticker: str
    price_micros: int


CorporateAction: TypeAlias = Dividend | Split | Delisting

_SEQUENCE: tuple[type[CorporateAction], ...] = (Dividend, Split, Delisting)


@dataclass(frozen=True, slots=True)
class ActionEffect:
    """What an action did to a position."""

    action: CorporateAction
    quantity_before: int
    quantity_after: int
    cash_micros: int
    """Dividend, cash in lieu of a fraction of a share, or proceeds; below zero if we paid."""
    realised_micros: int
    mark_micros: int = 0
    """The close before, in shares of before."""


def in_sequence(actions: Iterable[CorporateAction]) -> list[CorporateAction]:
    """The order in which actions of one ex-date are applied: dividends, splits, delistings, each by ticker."""
    return sorted(actions, key=lambda one: (_SEQUENCE.index(type(one)), one.ticker))


def restate_marks(actions: Iterable[CorporateAction], marks_micros: dict[str, int]) -> None:
    """Closes of before the splits of an ex-date become what they are in shares of after, rounded half to even."""
    for action in actions:
        if isinstance(action, Split) and marks_micros.get(action.ticker):
            marks_micros[action.ticker] = divide_half_even(marks_micros[action.ticker] * action.old, action.new)


def apply_actions(portfolio: Portfolio, actions: Iterable[CorporateAction], marks_micros: dict[str, int]) -> list[ActionEffect]:
    """Applies the actions of an ex-date to what was held at the close before: dividends, splits, delistings, each by ticker.

    `marks_micros` are the closes before, each held ticker has one; a split restates that of its ticker, rounded half to even, so that it
    values the new shares.
    Returns what was done to positions; an action on a ticker that is not held changes no more than its mark.
    """
    effects = list[ActionEffect]()
    for action in in_sequence(actions):
        before, cash, realised = portfolio.quantity(action.ticker), portfolio.cash_micros, portfolio.realised_micros
        mark = marks_micros[action.ticker] if before else marks_micros.get(action.ticker, 0)
        if isinstance(action, Dividend):
            portfolio.pay_dividend(action.ticker, action.per_share_micros)
        elif isinstance(action, Split):
            portfolio.split(action.ticker, action.new, action.old, mark)
            restate_marks([action], marks_micros)
        elif before:
            portfolio.apply_fill(action.ticker, -before, action.price_micros, 0)
        if before:
            after = portfolio.quantity(action.ticker)
            paid, gained = portfolio.cash_micros - cash, portfolio.realised_micros - realised
            effects.append(ActionEffect(action, before, after, paid, gained, mark))
    return effects
