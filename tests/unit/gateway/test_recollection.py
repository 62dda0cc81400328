"""What agents know of their work when they are asked: what the journal tells, the newest of it, and of orders only their own."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway import wire
from trademesh_gateway.agents.records import Book, Decisions, Signals, Stance, abstention
from trademesh_gateway.agents.work import Fate, Headroom, Passage
from trademesh_gateway.pipeline.execution import Filled
from trademesh_gateway.pipeline.order_book import OrderType, SessionOrder, WorkingOrder
from trademesh_gateway.recollection import _UNITS, Known, recall
from trademesh_gateway.risk.gate import Gated, Limit, Limits
from trademesh_gateway.risk.limits import UNITS, UNKNOWN_MARKET, Unit
from trademesh_gateway.risk_notes import risk_notes
from trademesh_ledger.execution import Fill
from trademesh_ledger.portfolio import Portfolio
from trademesh_runs.journal import Draft
from trademesh_runs.journal_memory import MemoryStore

TICKERS = ("AAPL", "GE", "KO")
BEFORE, DAY = "2008-09-12", "2008-09-15"
ANALYSTS = ("technical_analyst", "valuation_analyst")


def signals_of(day: str, score: float) -> Draft:
    found = Signals(
        [score, 0.0, 0.0],
        [0.5, 0.4, 0.0],
        [False, False, True],
        21,
        [("momentum", "return_231_skip_21", [0.25, math.nan, math.nan])],
    )
    return Draft("signals", wire.signals(TICKERS, found), day, events.PHASE_ANALYSIS, "technical_analyst")


def decisions_of(day: str, *deltas: int) -> Draft:
    count = len(deltas)
    wanted = Decisions(deltas, [0.5] * count, [0.1 * place for place in range(count)], [0.2] * count)
    return Draft("decisions", wire.decisions(TICKERS, wanted), day, events.PHASE_DECISION, "portfolio_manager")


def gated(day: str, *rows: Gated, of_a_person: Gated | None = None) -> Draft:
    orders = [(SessionOrder(wire.order_id(day, TICKERS[row.column]), row.column, row.requested), row) for row in rows]
    if of_a_person is not None:
        working = WorkingOrder("of-a-person", TICKERS[of_a_person.column], of_a_person.requested, OrderType.MARKET, 0, False, 1)
        orders.append((SessionOrder("of-a-person", of_a_person.column, of_a_person.requested, working), of_a_person))
    return Draft("orders_gated", wire.orders_gated(TICKERS, orders), day, events.PHASE_GATE)


def filled(day: str, ticker: str, delta: int, price: int, account: Portfolio, order_id: str = "") -> Draft:
    order = order_id or wire.order_id(day, ticker)
    fill = Fill(ticker, delta, price, 0, account.apply_fill(ticker, delta, price, 0))
    told = Filled(order, fill, account.quantity(ticker), account.cash_micros)
    return Draft("order_filled", wire.order_filled(order, told), day, events.PHASE_EXECUTION, item=order)


def settled(day: str) -> Draft:
    return Draft("settled", events.Settled(session_number=1, nav_micros=1), day, events.PHASE_SETTLEMENT)


async def known_of(*drafts: Draft) -> Known:
    store = MemoryStore()
    writer = store.writer("demo", 1, lambda _group: None)
    for draft in drafts:
        assert writer.append(draft)
    await writer.close()
    return recall(store.reader(), ANALYSTS)


async def test_a_journal_that_tells_of_no_work_is_no_knowledge() -> None:
    assert await known_of(settled(DAY)) == Known()


async def test_an_analysts_newest_signals_are_known_with_the_figures_that_there_are() -> None:
    silent = Draft(
        "signals", wire.signals(TICKERS, abstention("no statements in the data")), BEFORE, events.PHASE_ANALYSIS, "valuation_analyst"
    )
    # In the middle of ANALYSIS: one has spoken of the new session, the other has not.
    known = await known_of(signals_of(BEFORE, -0.5), silent, settled(BEFORE), signals_of(DAY, 0.5))
    technical, valuation = known.analysts["technical_analyst"], known.analysts["valuation_analyst"]
    assert technical.session == DAY
    assert [(ticker, view.stance, view.score) for ticker, view in technical.views.items()] == [
        ("AAPL", Stance.BULLISH, 0.5),
        ("GE", Stance.NEUTRAL, 0.0),
        ("KO", Stance.ABSTAIN, 0.0),
    ]
    assert technical.views["AAPL"].figures == (("return_231_skip_21", 0.25),)
    assert (technical.views["GE"].figures, technical.views["KO"].note) == ((), "not enough history")
    assert (valuation.session, valuation.abstained_because, valuation.views) == (BEFORE, "no statements in the data", {})


async def test_the_risk_managers_newest_notes_are_known() -> None:
    limits = Limits(2_000, 15_000, 10_000, 5_000, shorts_allowed=True)
    book = Book(1_000_000_000, 4_000_000_000, [10, 30, 0], [10_000_000, 10_000_000, 0])
    free = Book(1_000_000_000, 1_000_000_000, [10, 30, 0], [10_000_000, 10_000_000, 0])
    levels = [0.25, math.nan, math.nan]

    def notes(day: str, of: Book) -> Draft:
        return Draft("risk_notes", risk_notes(TICKERS, of, limits, levels, UNKNOWN_MARKET), day, events.PHASE_RISK, "risk_manager")

    known = (await known_of(notes(BEFORE, book), notes(DAY, free))).risk
    assert known is not None
    assert (known.session, known.nav_micros, known.gross, known.net, known.drawdown) == (DAY, 1_000_000_000, 0.4, 0.4, 0.0)
    assert known.headroom == {"AAPL": Headroom(10, 30, 0.25), "GE": Headroom(0, 50, warned=True), "KO": Headroom(0, 0)}
    stopped = (await known_of(notes(DAY, book))).risk
    assert stopped is not None
    assert {(note.bound_by, note.warned) for note in stopped.headroom.values()} == {("drawdown stop", True)}


async def test_what_became_of_each_order_is_known_and_that_of_other_sessions_and_people_is_not() -> None:
    account = Portfolio(10**12)
    answer = SimpleNamespace(approval_id="", approved=True, decided_by="ann", reason="fine")
    approved = Draft("approval_resolved", wire.approval_resolved(answer, f"{DAY}/AAPL"), DAY, events.PHASE_APPROVAL, item=f"{DAY}/AAPL")
    cash = wire.order_rejected(f"{DAY}/AAPL", "AAPL", events.LIMIT_CODE_INSUFFICIENT_CASH, 30)
    before = (
        decisions_of(BEFORE, 7, 7, 7),
        gated(BEFORE, Gated(2, 7, 7, Limit.NONE)),
        filled(BEFORE, "KO", 7, 1, account),
        settled(BEFORE),
    )
    day = (
        decisions_of(DAY, 120, -40, 0),
        gated(
            DAY,
            Gated(1, -40, -40, Limit.NONE),
            Gated(0, 120, 80, Limit.POSITION_LIMIT, 2_000, 2_340),
            of_a_person=Gated(0, 5, 5, Limit.NONE),
        ),
        approved,
        Draft("order_rejected", cash, DAY, events.PHASE_EXECUTION, item=f"{DAY}/AAPL"),
        filled(DAY, "AAPL", 50, 10_000_000, account),
        filled(DAY, "AAPL", 5, 9_000_000, account, order_id="of-a-person"),
    )
    known = (await known_of(*before, *day)).manager
    assert known is not None
    assert (known.session, known.settled, known.given_up_because) == (DAY, False, "")
    apple, electric, cola = known.choices.values()
    assert (apple.delta, apple.score, apple.target_weight) == (120, 0.0, 0.2)
    assert apple.passage == Passage(120, 80, "position limit", "20.0 %", "23.4 %", "of net asset value")
    assert apple.fate == Fate(["approved by ann (fine)", "30 were not filled: insufficient cash"], 50, 10_000_000, 50)
    assert (electric.delta, electric.passage, electric.fate) == (-40, Passage(40, 40), Fate())
    assert (cola.delta, cola.passage, cola.fate) == (0, None, Fate())
    # The next session was given up before anything was decided in it.
    next_one = Draft(
        "cycle_failed", events.CycleFailed(phase=events.PHASE_ANALYSIS, reason="too slow"), "2008-09-16", events.PHASE_ANALYSIS
    )
    after = (await known_of(*before, *day, settled(DAY), next_one)).manager
    assert after is not None
    assert (after.settled, after.given_up_because) == (True, "")
    assert after.choices == known.choices


async def test_an_order_that_people_or_time_have_ended_is_known_as_such() -> None:
    order_id = f"{DAY}/AAPL"
    nobody = SimpleNamespace(approval_id="", approved=False, decided_by="", reason="", expired=True)
    no = SimpleNamespace(approval_id="", approved=False, decided_by="bob", reason="too large", expired=False)
    sayings = []
    for answer in (nobody, no):
        resolved = Draft("approval_resolved", wire.approval_resolved(answer, order_id), DAY, events.PHASE_APPROVAL, item=order_id)
        rejected = Draft("order_rejected", wire.approval_rejection(order_id, "AAPL", answer, 9), DAY, events.PHASE_APPROVAL, item=order_id)
        known = (await known_of(decisions_of(DAY, 9, 0, 0), resolved, rejected)).manager
        assert known is not None
        sayings.append(known.choices["AAPL"].fate.sayings)
    assert sayings == [
        ["nobody decided on it in time", "9 were not filled: approval expired"],
        ["refused by bob (too large)", "9 were not filled: approval denied"],
    ]
    canceled = events.OrderCanceled(order_id=order_id, ticker="AAPL", canceled_by="cy")
    known = (await known_of(decisions_of(DAY, 9, 0, 0), Draft("order_canceled", canceled, item=order_id))).manager
    assert known is not None
    assert known.choices["AAPL"].fate.sayings == ["taken back by cy"]
    failed = Draft("cycle_failed", events.CycleFailed(phase=events.PHASE_APPROVAL, reason="too slow"), DAY, events.PHASE_APPROVAL)
    known = (await known_of(decisions_of(DAY, 9, 0, 0), failed, settled(DAY))).manager
    assert known is not None
    assert (known.given_up_because, known.settled) == ("too slow", True)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (Gated(0, 9, 5, Limit.ORDER_LIMIT, 50, 51), ("order limit", "50", "51", "orders")),
        (Gated(0, 9, 5, Limit.CONCENTRATION, 2_500, 3_100), ("concentration", "0.25", "0.31", "as the sum of squared weights")),
        (Gated(0, 9, 5, Limit.LIQUIDITY, 500, 700), ("liquidity", "5.0 %", "7.0 %", "of the usual volume")),
        (Gated(0, 9, 0, Limit.DAILY_LOSS, 500, 620), ("daily loss", "5.0 %", "6.2 %", "lost in a session")),
        (Gated(0, 9, 5, Limit.SECTOR_LIMIT, 4_000, 4_100, "banks"), ("sector limit of banks", "40.0 %", "41.0 %", "of net asset value")),
        (Gated(0, 9, 0, Limit.TICKER_HALTED), ("ticker halted", "", "", "")),
    ],
    ids=lambda one: one.limit.name if isinstance(one, Gated) else "",
)
async def test_a_limit_is_told_in_its_own_unit(row: Gated, told: tuple[str, str, str, str]) -> None:
    known = (await known_of(decisions_of(DAY, 9, 0, 0), gated(DAY, row))).manager
    assert known is not None
    assert known.choices["AAPL"].passage == Passage(9, row.allowed, *told)


def test_every_unit_of_a_limit_has_words() -> None:
    in_use = {int(unit) for unit in UNITS.values() if unit is not Unit.NONE}
    assert in_use == set(_UNITS)
