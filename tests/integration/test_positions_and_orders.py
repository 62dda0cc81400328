"""ListPositions and ListOrders over real servers: the same answers from a gateway and from its journal, at any sequence, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from conftest import StartServer
from real_closes import CASH, FIRST, SESSIONS, cycle_of, history, new_desk, run_phase, us20
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.runtime.v1 import runtime_pb2
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh.trading.v1 import portfolio_service_pb2 as messages
from trademesh_gateway.pipeline.cycle import PHASES
from trademesh_kernel.errors import RemoteError
from trademesh_runs.compaction import compact
from trademesh_runs.journal import Draft
from trademesh_runs.journal_sqlite import SqliteStore
from trading_bench import PORTFOLIO, Bench, trading_bench, write_journal

BOTH = pytest.mark.parametrize("live", [True, False])


@pytest_asyncio.fixture
async def bench(tmp_path: Path, start_server: StartServer) -> AsyncIterator[Bench]:
    """Servers on free ports."""
    async with trading_bench(tmp_path, start_server) as one:
        yield one


async def real_desk(sessions: int = SESSIONS) -> list[Draft]:
    """What the built-in desk does on real closes, under limits so narrow that orders are cut and refused, too."""
    config = RunConfig()
    config.risk.position, config.risk.orders = 0.05, 4
    desk, market = new_desk(config), history(FIRST + sessions)
    drafts = [Draft("run_started", events.RunStarted(initial_cash_micros=CASH, sessions=sessions, tickers=desk.tickers))]
    for number in range(1, sessions + 1):
        cycle = cycle_of(desk, market, number, drafts.append)
        for phase in PHASES:
            await run_phase(cycle, phase)
    return drafts


async def begin(bench: Bench, drafts: list[Draft], live: bool) -> None:
    """A run, in its gateway or finished."""
    if live:
        await bench.gateway("run", iter(drafts))
    else:
        await write_journal(bench.runs, "run", iter(drafts))
        bench.runtime.say("run", runtime_pb2.RUN_STATE_SUCCEEDED)


async def positions(bench: Bench, **fields: Any) -> messages.ListPositionsResponse:
    request = messages.ListPositionsRequest(run_id="run", **fields)
    answer: messages.ListPositionsResponse = await bench.trading.call(bench.trading.stub(PORTFOLIO).ListPositions, request)
    return answer


async def orders(bench: Bench, **fields: Any) -> messages.ListOrdersResponse:
    request = messages.ListOrdersRequest(run_id="run", **fields)
    answer: messages.ListOrdersResponse = await bench.trading.call(bench.trading.stub(PORTFOLIO).ListOrders, request)
    return answer


async def all_orders(bench: Bench, size: int, **fields: Any) -> list[messages.OrderRecord]:
    """Every page."""
    found, token = list[messages.OrderRecord](), ""
    while True:
        page = await orders(bench, page_size=size, page_token=token, **fields)
        assert len(page.orders) <= size
        found += page.orders
        token = page.next_page_token
        if not token:
            return found


def told(drafts: list[Draft], kind: str) -> Iterator[Any]:
    return (draft.payload for draft in drafts if draft.kind == kind)


@BOTH
async def test_positions_agree_with_the_account_and_their_sums_with_its_value(bench: Bench, live: bool) -> None:
    await begin(bench, await real_desk(), live)
    found = await positions(bench)
    account = await bench.trading.call(bench.trading.stub(PORTFOLIO).GetPortfolio, messages.GetPortfolioRequest(run_id="run"))
    assert [(one.ticker, one.quantity, one.cost_micros, one.mark_micros) for one in found.positions] == [
        (one.ticker, one.quantity, one.cost_micros, one.mark_micros) for one in account.portfolio.positions
    ]
    assert (found.as_of_sequence, found.session_date) == (account.as_of_sequence, account.session_date)
    assert len(found.positions) > 5
    assert account.portfolio.cash_micros + sum(one.value_micros for one in found.positions) == account.nav_micros
    for one in found.positions:
        assert one.value_micros == one.quantity * one.mark_micros
        assert one.unrealised_micros == one.value_micros - one.cost_micros
        assert abs(one.average_cost_micros * one.quantity - one.cost_micros) * 2 <= abs(one.quantity)


async def test_positions_of_the_past_and_pages_of_them_are_those_of_their_sequence(bench: Bench) -> None:
    drafts = await real_desk(60)
    gateway = await bench.gateway("run", iter(drafts[:-60]))
    first = await positions(bench, page_size=2)
    whole = await positions(bench, at_sequence=first.as_of_sequence)
    gateway.add(iter(drafts[-60:]))
    await gateway.writer.flush()
    second = await positions(bench, page_size=2, page_token=first.next_page_token)
    assert second.as_of_sequence == first.as_of_sequence < (await positions(bench)).as_of_sequence
    assert [*first.positions, *second.positions] == whole.positions[:4]
    ticker = whole.positions[2].ticker
    assert list((await positions(bench, ticker=ticker, at_sequence=first.as_of_sequence)).positions) == [whole.positions[2]]
    assert list((await positions(bench, at_sequence=1)).positions) == []


async def test_a_short_position_has_costs_and_values_below_zero(bench: Bench) -> None:
    account = events.PortfolioState(
        initial_cash_micros=CASH, positions=[events.Position(ticker="KO", quantity=-3, cost_micros=-31_000_001, mark_micros=10_000_000)]
    )
    settled = Draft("settled", events.Settled(session_number=1, portfolio=account), "2008-09-15", 9)
    later = Draft("session_opened", events.SessionOpened(session_number=2), "2008-09-16", 1)
    await bench.gateway("run", iter([settled, later]))
    (found,) = (await positions(bench, at_sequence=2)).positions
    assert (found.average_cost_micros, found.value_micros, found.unrealised_micros) == (10_333_334, -30_000_000, 1_000_001)


@BOTH
async def test_every_order_is_listed_once_with_what_became_of_it(bench: Bench, live: bool) -> None:
    drafts = await real_desk()
    await begin(bench, drafts, live)
    found = await all_orders(bench, 37)
    gated = [result for payload in told(drafts, "orders_gated") for result in payload.results]
    assert [one.order.order_id for one in found] == [result.order.order_id for result in gated]
    fills = {one.order_id: one for one in told(drafts, "order_filled")}
    for one, result in zip(found, gated, strict=True):
        assert one.order.quantity == result.requested_quantity
        assert one.filled_quantity == (fills[one.order.order_id].quantity if one.order.order_id in fills else 0)
        assert one.remaining_quantity == 0
        assert one.filled_quantity == one.allowed_quantity
        assert (one.limit == 0) == (one.allowed_quantity == one.order.quantity)
    states = {one.state for one in found}
    assert states == {messages.ORDER_STATE_FILLED, messages.ORDER_STATE_REJECTED}
    assert await all_orders(bench, 1000) == found


@BOTH
async def test_orders_of_the_past_are_as_they_stood_then(bench: Bench, live: bool) -> None:
    drafts = await real_desk()
    await begin(bench, drafts, live)
    place = next(place for place, draft in enumerate(drafts) if draft.kind == "order_filled")
    filled = drafts[place].payload
    assert isinstance(filled, events.OrderFilled)
    before, after = [{one.order.order_id: one.state for one in (await orders(bench, at_sequence=at)).orders} for at in (place, place + 1)]
    assert (before[filled.order_id], after[filled.order_id]) == (messages.ORDER_STATE_NEW, messages.ORDER_STATE_FILLED)
    assert list((await orders(bench, at_sequence=1)).orders) == []
    with pytest.raises(RemoteError) as refused:
        await orders(bench, at_sequence=len(drafts) + 1)
    assert refused.value.remote_reason == "SEQUENCE_AHEAD"


async def test_orders_are_filtered_and_a_page_token_belongs_to_its_filter(bench: Bench) -> None:
    await begin(bench, await real_desk(), live=False)
    every = await all_orders(bench, 1000)
    ticker = every[0].order.ticker
    refused = await all_orders(bench, 5, states=[messages.ORDER_STATE_REJECTED], ticker=ticker)
    assert refused == [one for one in every if one.state == messages.ORDER_STATE_REJECTED and one.order.ticker == ticker]
    start, end = us20().sessions[FIRST + 10], us20().sessions[FIRST + 20]
    some = await all_orders(bench, 1000, start=start, end=end)
    assert some == [one for one in every if start <= one.last_session <= end]
    assert 0 < len(some) < len(every)
    assert await all_orders(bench, 1000, origin=messages.ORDER_ORIGIN_PERSON) == []
    token = (await orders(bench, page_size=1, ticker=ticker)).next_page_token
    with pytest.raises(RemoteError) as wrong:
        await orders(bench, page_size=1, page_token=token)
    assert wrong.value.remote_reason == "PAGE_TOKEN_INVALID"


async def test_pages_of_orders_are_of_the_moment_of_the_first_while_events_arrive(bench: Bench) -> None:
    drafts = await real_desk(60)
    gateway = await bench.gateway("run", iter(drafts[:-200]))
    first = await orders(bench, page_size=3)
    whole = await all_orders(bench, 1000)
    gateway.add(iter(drafts[-200:]))
    await gateway.writer.flush()
    second = await orders(bench, page_size=1000, page_token=first.next_page_token)
    assert [*first.orders, *second.orders] == whole
    assert second.as_of_sequence == first.as_of_sequence == len(drafts) - 200
    assert len(await all_orders(bench, 1000)) > len(whole)


async def test_what_was_ordered_in_a_cycle_that_was_given_up_is_found_in_its_decisions(bench: Bench) -> None:
    drafts = await real_desk()
    place = next(place for place, draft in enumerate(drafts) if draft.kind == "orders_gated")
    gated, day = drafts[place].payload, drafts[place].session_date
    assert isinstance(gated, events.OrdersGated)
    wanted = {one.order.order_id: one for one in gated.results}
    failed = events.CycleFailed(phase=events.PHASE_GATE, reason="late", void_order_ids=list(wanted))
    await begin(bench, [*drafts[:place], Draft("cycle_failed", failed, day, 6)], live=False)
    found = (await orders(bench)).orders
    assert {one.order.order_id: (one.order.ticker, one.order.side, one.order.quantity) for one in found} == {
        name: (one.order.ticker, one.order.side, one.requested_quantity) for name, one in wanted.items()
    }
    assert {(one.state, one.reason) for one in found} == {(messages.ORDER_STATE_CANCELED, "late")}


async def test_orders_of_a_compacted_journal_are_said_to_be_gone(bench: Bench) -> None:
    drafts = await real_desk()
    path = await write_journal(bench.runs, "run", iter(drafts))
    compact("run", SqliteStore(path), len(drafts) // 2)
    bench.runtime.say("run", runtime_pb2.RUN_STATE_SUCCEEDED)
    with pytest.raises(RemoteError) as gone:
        await orders(bench)
    assert (gone.value.remote_code, gone.value.remote_reason) == (grpc.StatusCode.OUT_OF_RANGE, "HISTORY_COMPACTED")
    assert len((await positions(bench)).positions) > 5
