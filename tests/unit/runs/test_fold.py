"""What the ledger holds a settled event against: whatever it tells wrong is found, and named with its sequence."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from random_journals import Session, drafts_of, write
from trademesh.gateway.v1 import event_pb2 as events
from trademesh_ledger.portfolio import Portfolio
from trademesh_runs.fold import Fold, LedgerMismatchError, portfolio_message
from trademesh_runs.journal import SETTLED, StoredEvent
from trademesh_runs.journal_memory import MemoryStore
from trademesh_runs.told_accounts import ToldPositions, amounts_told, positions_told

SESSIONS = [Session([(0, 5, 10), (2, -7, 30)]), Session([(0, 2, 11), (1, 4, 20)])]
Change = Callable[[events.Settled], object]


def swap(settled: events.Settled) -> None:
    """The first two positions in the other order."""
    one, other = events.Position(), events.Position()
    one.CopyFrom(settled.portfolio.positions[0])
    other.CopyFrom(settled.portfolio.positions[1])
    settled.portfolio.positions[0].CopyFrom(other)
    settled.portfolio.positions[1].CopyFrom(one)


def raise_by_one(name: str) -> Change:
    """One micro-dollar more of something in the account."""

    def change(settled: events.Settled) -> None:
        setattr(settled.portfolio, name, getattr(settled.portfolio, name) + 1)

    return change


ACCOUNT: dict[str, Change] = {
    "a quantity": lambda settled: setattr(settled.portfolio.positions[1], "quantity", 1),
    "a cost": lambda settled: setattr(settled.portfolio.positions[2], "cost_micros", 1),
    "a ticker": lambda settled: setattr(settled.portfolio.positions[0], "ticker", "AAPM"),
    "a position too few": lambda settled: settled.portfolio.positions.pop(),
    "a position too many": lambda settled: settled.portfolio.positions.add(ticker="ZZZ", quantity=1, cost_micros=0, mark_micros=0),
    "a position of nothing": lambda settled: settled.portfolio.positions.add(ticker="ZZZ"),
    "a position twice": lambda settled: settled.portfolio.positions.insert(0, settled.portfolio.positions[0]),
    "another order": swap,
}
ACCOUNT |= {
    name: raise_by_one(name)
    for name in ("initial_cash_micros", "cash_micros", "realised_micros", "fees_micros", "borrow_micros", "dividends_micros")
}
OTHERS: dict[str, tuple[Change, str]] = {
    "a mark": (lambda settled: setattr(settled.portfolio.positions[0], "mark_micros", 1), "net asset value"),
    "the value": (lambda settled: setattr(settled, "nav_micros", 1), "net asset value"),
    "a charge": (lambda settled: settled.borrow.add(ticker="XOM", rate_bp=100, days=1, charge_micros=1), "borrow"),
}


async def told(change: Change) -> tuple[list[StoredEvent], int]:
    """A run whose last settled event was changed before it was written, and the sequence of that."""
    drafts = drafts_of(SESSIONS)
    settled = drafts[-1].payload
    assert isinstance(settled, events.Settled)
    change(settled)
    published = await write(MemoryStore(), drafts)
    return published, published[-1].sequence


async def test_an_account_that_is_told_right_is_taken() -> None:
    published, _ = await told(lambda _settled: None)
    fold = Fold("demo").apply_all(published)
    assert (fold.sessions_settled, len(fold.equity)) == (2, 2)


@pytest.mark.parametrize("wrong", ACCOUNT)
async def test_an_account_that_is_told_wrong_is_found(wrong: str) -> None:
    published, sequence = await told(ACCOUNT[wrong])
    with pytest.raises(LedgerMismatchError, match=f"event {sequence}: the account is ") as found:
        Fold("demo").apply_all(published)
    assert found.value.sequence == sequence


@pytest.mark.parametrize("wrong", OTHERS)
async def test_what_else_a_settled_event_tells_wrong_is_found(wrong: str) -> None:
    change, what = OTHERS[wrong]
    published, sequence = await told(change)
    with pytest.raises(LedgerMismatchError, match=f"event {sequence}: {what} is "):
        Fold("demo").apply_all(published)


def test_an_account_is_compared_as_its_message_would_be() -> None:
    account = Portfolio(1_000)
    account.apply_fill("KO", 5, 10, 1)
    account.apply_fill("AAPL", -3, 20, 1)
    marks = {"AAPL": 21, "KO": 9}
    message = portfolio_message(account, marks)
    assert positions_told(message.positions, account.positions) == ToldPositions(marks, True, 5 * 9 - 3 * 21)
    assert amounts_told(message, account)
    assert positions_told([], account.positions) == ToldPositions({}, False, 0)
    assert positions_told([], {}) == ToldPositions({}, True, 0)


async def test_an_event_that_is_parsed_already_is_taken_as_it_is() -> None:
    published, _ = await told(lambda _settled: None)
    fold = Fold("demo")
    for stored in published:
        fold.apply(stored, stored.parse())
    assert fold.state() == Fold("demo").apply_all(published).state()
    assert published[-1].kind == SETTLED
