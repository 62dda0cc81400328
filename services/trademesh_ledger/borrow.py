"""What short positions cost at a settlement: the fee for borrowed shares, actual/360."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from trademesh_ledger.portfolio import Portfolio


@dataclass(frozen=True, slots=True)
class BorrowCharge:
    """The cost of one short position until the next session."""

    ticker: str
    charge_micros: int


def calendar_days(session: str, next_session: str) -> int:
    """Days from a session to the next, of the calendar: 3 over a plain weekend. Both are ISO dates; raises ValueError."""
    return (date.fromisoformat(next_session) - date.fromisoformat(session)).days


def charge_borrow(portfolio: Portfolio, marks_micros: Mapping[str, int], borrow_bp: int, days: int) -> list[BorrowCharge]:
    """Takes the cost of borrowing all short positions for some calendar days, at their marks; tickers ascending."""
    if borrow_bp == 0:
        return []
    shorts = sorted([ticker for ticker, position in portfolio.positions.items() if position.quantity < 0])
    return [BorrowCharge(ticker, portfolio.charge_borrow(ticker, marks_micros[ticker], borrow_bp, days)) for ticker in shorts]
