"""The cycle of the built-in desk on real closes: no look-ahead, limits, and a fold that agrees."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_closes import CASH, FIRST, SESSIONS, cycle_of, history, new_desk, no_one, run_phase, times_of, us20
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_gateway.agents.indicators import momentum, volatility, z_score
from trademesh_gateway.agents.records import Book
from trademesh_gateway.market.point_in_time import MarketHistory
from trademesh_gateway.pipeline.cycle import PHASES, ApprovalAnswer, ApprovalQuestion, Ask, Cycle, Emit, OpenSession
from trademesh_gateway.pipeline.desk_run import DeskRun
from trademesh_gateway.risk.gate import Limit, Limits, apply_limits
from trademesh_ledger.money import divide_half_even
from trademesh_ledger.portfolio import Portfolio
from trademesh_runs.fold import Fold
from trademesh_runs.journal import Draft, Encoder, StoredEvent


def drafts_of(market: MarketHistory, sessions: int, ask: Ask = no_one, config: RunConfig | None = None) -> list[Draft]:
    """What the desk does in the sessions from FIRST on."""
    desk = new_desk(config)
    drafts = list[Draft]()

    async def run() -> None:
        for number in range(1, sessions + 1):
            cycle = cycle_of(desk, market, number, drafts.append, ask)
            for phase in PHASES:
                await run_phase(cycle, phase)

    asyncio.run(run())
    return drafts


@settings(max_examples=8, deadline=None)
@given(cut=st.integers(1, SESSIONS - 2), factor=st.sampled_from([0.5, 0.97, 1.3]))
def test_what_comes_later_changes_nothing_that_was_decided_before(cut: int, factor: float) -> None:
    """Session D = FIRST + cut is the first whose close differs: everything up to its decisions is the same, byte for byte."""
    truth = drafts_of(history(FIRST + SESSIONS), cut + 1)
    other = drafts_of(history(FIRST + SESSIONS, later_factor=factor, cut=FIRST + cut), cut + 1)
    day = us20().sessions[FIRST + cut]

    def decided(drafts: list[Draft]) -> list[tuple[object, ...]]:
        kept = (draft for draft in drafts if draft.session_date < day or (draft.session_date == day and draft.phase <= 7))
        return [(draft.session_date, draft.kind, draft.agent_id, draft.payload.SerializeToString()) for draft in kept]

    assert decided(truth) == decided(other)
    assert len(decided(truth)) > 8 * cut


@settings(max_examples=8, deadline=None)
@given(sessions=st.integers(1, SESSIONS - 1))
def test_cutting_the_data_after_any_session_changes_nothing_up_to_it(sessions: int) -> None:
    whole = drafts_of(history(FIRST + SESSIONS), sessions)
    short = drafts_of(history(FIRST + sessions), sessions)
    assert [(draft.kind, draft.agent_id, draft.payload) for draft in whole] == [
        (draft.kind, draft.agent_id, draft.payload) for draft in short
    ]


@pytest.mark.parametrize("row", [0, 5, 20, 21, 252, 253, 400])
def test_indicators_on_a_prefix_give_the_prefix(row: int) -> None:
    long, short = history(420), history(max(row, 1))
    at = int(us20().close_unix_s[row]) - 1
    for indicator in (lambda view: momentum(view, 231, 21), lambda view: z_score(view, 20), lambda view: volatility(view, 60)):
        np.testing.assert_array_equal(indicator(long.as_of(at)), indicator(short.as_of(at)))


def test_an_indicator_without_enough_history_has_no_value() -> None:
    view = history(60).as_of(int(us20().close_unix_s[19]))
    assert view.rows == 20
    assert not np.isnan(z_score(view, 20)[:20]).any()
    assert np.isnan(volatility(view, 20)).all()
    assert np.isnan(momentum(view, 231, 21)).all()


def test_the_fold_of_what_the_desk_journals_agrees_with_the_ledger() -> None:
    encoder, fold = Encoder("demo", 1), Fold("demo")
    drafts = drafts_of(history(FIRST + SESSIONS), SESSIONS)
    fold.portfolio = Portfolio(CASH)
    for place, draft in enumerate(drafts):
        stored: StoredEvent = encoder.encode(draft, place + 1, encoder.event_id(draft))
        fold.apply(stored)
    assert fold.sessions_settled == SESSIONS
    assert fold.fills > 20
    assert len({encoder.event_id(draft) for draft in drafts}) == len(drafts)


def test_orders_over_the_policys_size_wait_for_a_person_who_may_say_no() -> None:
    asked = list[ApprovalQuestion]()

    async def deny(question: ApprovalQuestion, _emit: Emit) -> ApprovalAnswer:
        asked.append(question)
        return ApprovalAnswer("", False, "ada", "too large", False)

    config = RunConfig()
    config.approvals.orders_over_nav = 0.0
    drafts = drafts_of(history(FIRST + SESSIONS), 3, deny, config)
    kinds = [draft.kind for draft in drafts]
    assert asked
    assert kinds.count("approval_resolved") == kinds.count("order_rejected") == len(asked)
    assert "order_filled" not in kinds


def one_cycle(earlier: OpenSession | None, drafts: list[Draft]) -> tuple[Cycle, DeskRun]:
    """A session on which the desk wants to trade."""
    desk = new_desk()
    return cycle_of(desk, history(FIRST + SESSIONS), 1, drafts.append, earlier=earlier), desk


async def test_a_cycle_that_is_given_up_fills_nothing_names_what_is_void_and_is_settled() -> None:
    drafts = list[Draft]()
    cycle, desk = one_cycle(None, drafts)
    for phase in range(1, 7):
        await run_phase(cycle, phase)
    cycle.give_up(7, "too slow")
    assert [phase for phase in PHASES if cycle.is_void(phase)] == [7, 8]
    await run_phase(cycle, 9)
    assert [draft.kind for draft in drafts[-2:]] == ["cycle_failed", "settled"]
    gated = next(draft.payload for draft in drafts if draft.kind == "orders_gated")
    assert isinstance(gated, events.OrdersGated)
    ids = [result.order.order_id for result in gated.results if result.order.quantity]
    assert ids
    assert drafts[-2].payload == events.CycleFailed(phase=events.PHASE_APPROVAL, reason="too slow", void_order_ids=ids)
    assert desk.sessions_settled == 1
    assert not desk.portfolio.positions


async def test_a_cycle_that_is_given_up_before_the_gate_names_what_was_decided() -> None:
    drafts = list[Draft]()
    cycle, _ = one_cycle(None, drafts)
    for phase in range(1, 6):
        await run_phase(cycle, phase)
    cycle.give_up(6, "too slow")
    failed, decided = drafts[-1].payload, drafts[-2].payload
    assert isinstance(failed, events.CycleFailed)
    told = events.Decisions.FromString(decided.SerializeToString())
    wanted = {row.ticker for row in told.decisions if row.quantity}
    assert wanted
    assert {one.partition("/")[2] for one in failed.void_order_ids} == wanted


def test_what_the_journal_holds_of_a_session_binds_the_gateway_that_does_it_again() -> None:
    day = us20().sessions[FIRST]
    given_up, _ = one_cycle(OpenSession(day, given_up_in=4), [])
    assert [phase for phase in PHASES if given_up.is_void(phase)] == [4, 5, 6, 7, 8]
    executed, _ = one_cycle(OpenSession(day, executed_orders=frozenset({"a"})), [])
    assert not any(executed.may_be_given_up(phase) for phase in PHASES)
    other, _ = one_cycle(OpenSession("1999-01-04", given_up_in=4, executed_orders=frozenset({"a"})), [])
    assert not any(other.is_void(phase) for phase in PHASES)
    assert [phase for phase in PHASES if other.may_be_given_up(phase)] == list(range(2, 8))


def test_closes_are_told_when_their_session_is_settled() -> None:
    told = list[tuple[str, int, dict[str, int]]]()
    data, market, times = us20(), history(FIRST + 1), times_of(FIRST)

    def hear(session: str, close_unix_s: int, closes: Mapping[str, int]) -> None:
        told.append((session, close_unix_s, dict(closes)))

    cycle = cycle_of(new_desk(), market, 1, lambda _draft: None, closes_known=hear)
    for phase in PHASES:
        asyncio.run(run_phase(cycle, phase))
    ((session, at, closes),) = told
    assert (session, at) == (times.date, times.close_unix_s)
    assert closes == dict(zip(market.tickers, data.close_micros[FIRST][[*range(20), 25]].tolist(), strict=True))


LIMITS = Limits(position_bp=2000, gross_bp=15000, net_bp=10000, drawdown_stop_bp=5000, shorts_allowed=True)


@given(
    quantity=st.lists(st.integers(-300, 300), min_size=4, max_size=4),
    orders=st.lists(st.tuples(st.integers(0, 3), st.integers(-2000, 2000).filter(bool)), max_size=4, unique_by=lambda order: order[0]),
    nav=st.integers(1, 10**6),
    peak=st.integers(1, 10**6),
)
def test_the_gate_only_shrinks_and_lets_reductions_pass(quantity: list[int], orders: list[tuple[int, int]], nav: int, peak: int) -> None:
    price = 10_000_000
    book = Book(nav * 1_000_000, max(nav, peak) * 1_000_000, quantity, [price] * 4)
    for result in apply_limits(orders, book, LIMITS):
        held = quantity[result.column]
        assert abs(result.allowed) <= abs(result.requested)
        assert result.allowed * result.requested >= 0
        assert (result.allowed == result.requested) == (result.limit is Limit.NONE)
        if held * result.requested < 0 and abs(result.requested) <= abs(held):
            assert result.allowed == result.requested
        after = held + result.allowed
        if abs(after) > abs(held) and result.allowed:
            assert abs(after) * price <= LIMITS.position_bp * book.nav_micros // 10_000


def test_a_run_in_deep_drawdown_may_only_reduce() -> None:
    book = Book(40, 100, [10, 0], [1, 1])
    results = {result.column: result for result in apply_limits([(0, -5), (1, 5)], book, LIMITS)}
    assert results[0].allowed == -5
    assert (results[1].allowed, results[1].limit) == (0, Limit.DRAWDOWN_STOP)


def test_a_settled_session_tells_its_closes_and_the_first_one_those_before_it() -> None:
    told = [draft.payload for draft in drafts_of(history(FIRST + 3), 3) if isinstance(draft.payload, events.Settled)]
    closes = us20().close_micros[:, :20]
    assert [list(one.close_micros) for one in told] == [closes[FIRST + place].tolist() for place in range(3)]
    assert [list(one.earlier_close_micros) for one in told] == [closes[FIRST - 1].tolist(), [], []]


def test_the_momentum_baseline_is_the_rule_done_by_hand_on_the_closes_before_each_month() -> None:
    """Twenty intervals up to the session before, the better half in equal parts, at that session's close, with the desk's fee."""
    told = [draft for draft in drafts_of(history(FIRST + SESSIONS), SESSIONS) if isinstance(draft.payload, events.Settled)]
    closes, tickers = us20().close_micros[:, :20], history(1).tickers
    cash, shares, month = CASH, [0] * 20, ""
    for place, draft in enumerate(told):
        row = FIRST + place
        prices = [int(price) for price in closes[row]]
        if draft.session_date[:7] != month:
            month = draft.session_date[:7]
            rises = [(-closes[row - 1][column] / closes[row - 21][column], tickers[column], column) for column in range(20)]
            chosen = [column for _, _, column in sorted(rises)[:10]]
            value = cash + sum(map(int.__mul__, shares, prices))
            goal = [value * 10_000 // (10 * prices[column] * 10_001) if column in chosen else 0 for column in range(20)]
            for sign in (-1, 1):
                for column in range(20):
                    delta = goal[column] - shares[column]
                    if delta * sign > 0:
                        delta = min(delta, cash * 10_000 // (prices[column] * 10_001)) if delta > 0 else delta
                        cash -= delta * prices[column] + divide_half_even(abs(delta) * prices[column], 10_000)
                        shares[column] += delta
        (momentum,) = [one.nav_micros for one in draft.payload.baselines if one.name == "momentum"]
        assert momentum == cash + sum(map(int.__mul__, shares, prices))
    assert month != told[0].session_date[:7]
