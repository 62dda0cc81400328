"""Mode PAPER: sessions by the clock, filled at live quotes, and gone on with after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from conftest import StartServer
from paper_run import Generation, PaperMesh, PaperRun, paper_config, paper_mesh, unix_s
from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1 import pipeline_service_pb2 as pipeline
from trademesh.runtime.v1 import run_config_pb2 as contract
from waiting import until

pytestmark = pytest.mark.filterwarnings(
    "ignore:Series.values returning:DeprecationWarning"
)  # exchange-calendars uses what pandas 3 deprecates

NEXT_OPEN, NEXT_CLOSE = contract.FILL_POLICY_NEXT_OPEN, contract.FILL_POLICY_NEXT_CLOSE
FRIDAY, MONDAY = "2026-11-27", "2026-11-30"
BEFORE = "2026-11-27T13:00:00"
DECISION = unix_s("2026-11-27T14:00:00")
OPEN = unix_s("2026-11-27T14:30:00")
CLOSE = unix_s("2026-11-27T18:00:00")
"""The day after Thanksgiving: New York closes at one."""

Begin = Callable[..., Awaitable[PaperRun]]


@pytest_asyncio.fixture
async def begin(start_server: StartServer, tmp_path: Path) -> AsyncIterator[Begin]:
    """Starts the services at an instant, and has a run ready."""
    async with AsyncExitStack() as running:

        async def start(
            now: str = BEFORE, *, last: str = FRIDAY, fill: contract.FillPolicy.ValueType = NEXT_OPEN, deadline_s: float = 300.0
        ) -> PaperRun:
            mesh = await running.enter_async_context(paper_mesh(start_server, tmp_path, now))
            return PaperRun(mesh, paper_config(mesh, FRIDAY, last, fill), tmp_path, deadline_s)

        yield start


async def until_journaled(run: PaperRun, kind: str, count: int = 1) -> list[events.Event]:
    """Waits for events of a kind."""
    async with asyncio.timeout(20):
        while len(found := run.of_kind(kind)) < count:  # noqa: ASYNC110  # the journal is another's
            await asyncio.sleep(0.02)
    return found


async def until_listening(mesh: PaperMesh) -> None:
    """Waits until the provider is asked for the run's tickers."""
    await mesh.provider.has("AAPL", "MSFT")
    await until(lambda: mesh.quotes.link.connected)


async def decided(run: PaperRun) -> dict[str, int]:
    """Moves the clock to the decision; the orders that pass, signed shares by ticker."""
    await until_listening(run.mesh)
    run.mesh.clock.unix_s = DECISION
    (gated,) = await until_journaled(run, "orders_gated")
    orders = [one.order for one in gated.orders_gated.results]
    return {order.ticker: order.quantity if order.side == words.SIDE_LONG else -order.quantity for order in orders if order.quantity}


async def test_a_whole_session_is_decided_filled_and_settled_by_the_clock(begin: Begin) -> None:
    run = await begin()
    mesh = run.mesh
    async with run.gateway() as gateway:
        await until_listening(mesh)
        await until(lambda: gateway.readiness.ready)
        assert run.of_kind("session_opened") == []
        orders = await decided(run)
        assert orders
        await mesh.trade(("AAPL", "230"), ("MSFT", "310"))
        assert run.of_kind("order_filled") == []
        mesh.clock.unix_s = OPEN + 0.5
        await mesh.trade(("AAPL", "231.25"), ("MSFT", "309.5"))
        fills = await until_journaled(run, "order_filled", len(orders))
        prices = {"AAPL": 231_250_000, "MSFT": 309_500_000}
        assert {one.order_filled.ticker: one.order_filled.price_micros for one in fills} == {ticker: prices[ticker] for ticker in orders}
        mesh.clock.unix_s = OPEN + 600
        await mesh.trade(("AAPL", "240"), ("MSFT", "300"))
        await until(lambda: (FRIDAY, OPEN + 600, {"AAPL": 240_000_000, "MSFT": 300_000_000}) in gateway.quoted)
        mesh.clock.unix_s = CLOSE - 1
        await mesh.trade(("AAPL", "235.5"))
        mesh.clock.unix_s = CLOSE + 1
        await mesh.trade(("AAPL", "999"))
        assert run.of_kind("settled") == []
        mesh.clock.unix_s = CLOSE + 15
        (settled,) = await until_journaled(run, "settled")
        assert list(settled.settled.close_micros) == [235_500_000, 300_000_000]
        await gateway.task
        assert gateway.controller.state == events.PIPELINE_STATE_FINISHED
    fold = run.fold()
    assert fold.sessions_settled == 1
    assert fold.fills == len(orders)


async def test_orders_of_next_close_are_filled_at_the_last_trade_up_to_the_close_of_a_half_day(begin: Begin) -> None:
    run = await begin(fill=NEXT_CLOSE)
    mesh = run.mesh
    async with run.gateway() as gateway:
        orders = await decided(run)
        mesh.clock.unix_s = OPEN + 5
        await mesh.trade(("AAPL", "231"), ("MSFT", "310"))
        mesh.clock.unix_s = CLOSE
        await mesh.trade(("AAPL", "236"), ("MSFT", "305"))
        mesh.clock.unix_s = CLOSE + 15
        fills = await until_journaled(run, "order_filled", len(orders))
        prices = {"AAPL": 236_000_000, "MSFT": 305_000_000}
        assert {one.order_filled.ticker: one.order_filled.price_micros for one in fills} == {ticker: prices[ticker] for ticker in orders}
        await gateway.task
    assert run.fold().sessions_settled == 1


async def test_a_restart_between_the_decision_and_the_open_neither_repeats_nor_loses_an_order(begin: Begin) -> None:
    run = await begin()
    async with run.gateway():
        orders = await decided(run)
    assert orders
    run.mesh.clock.unix_s = OPEN - 60
    async with run.gateway():
        await until(lambda: run.mesh.quotes.link.connected)
        run.mesh.clock.unix_s = OPEN + 1
        await run.mesh.trade(("AAPL", "231"), ("MSFT", "310"))
        await until_journaled(run, "order_filled", len(orders))
        run.mesh.clock.unix_s = CLOSE + 15
        await until_journaled(run, "settled")
    filled = [one.order_filled for one in run.of_kind("order_filled")]
    assert {one.ticker: one.quantity if one.side == words.SIDE_LONG else -one.quantity for one in filled} == orders
    ids = [event.event_id for event in run.events()]
    assert len(ids) == len(set(ids))
    assert len(run.of_kind("decisions")) == len(run.of_kind("orders_gated")) == 1
    assert len(run.of_kind("gateway_started")) == 2


async def test_a_gateway_that_was_away_at_the_open_fills_what_was_decided_before_at_the_opens_price(begin: Begin) -> None:
    run = await begin()
    async with run.gateway():
        orders = await decided(run)
    run.mesh.clock.unix_s = OPEN + 1
    await run.mesh.trade(("AAPL", "231"), ("MSFT", "310"))
    run.mesh.clock.unix_s = OPEN + 900
    await run.mesh.trade(("AAPL", "250"), ("MSFT", "290"))
    async with run.gateway():
        fills = await until_journaled(run, "order_filled", len(orders))
    prices = {"AAPL": 231_000_000, "MSFT": 310_000_000}
    assert {one.order_filled.ticker: one.order_filled.price_micros for one in fills} == {ticker: prices[ticker] for ticker in orders}


async def test_a_restart_in_mid_session_goes_on_from_the_journal_when_the_quotes_are_gone(begin: Begin) -> None:
    run = await begin(last=MONDAY)
    mesh = run.mesh
    async with run.gateway():
        orders = await decided(run)
        mesh.clock.unix_s = OPEN + 1
        await mesh.trade(("AAPL", "231"), ("MSFT", "310"))
        await until_journaled(run, "order_filled", len(orders))
        before = run.fold().portfolio
    mesh.forget_quotes()
    async with run.gateway() as gateway:
        await until(lambda: gateway.readiness.ready)
        mesh.clock.unix_s = CLOSE - 5
        await mesh.trade(("AAPL", "240"), ("MSFT", "300"))
        mesh.clock.unix_s = CLOSE + 15
        await until_journaled(run, "settled")
    fold = run.fold()
    assert (fold.portfolio.cash_micros, fold.portfolio.positions.keys()) == (before.cash_micros, before.positions.keys())
    assert len(run.of_kind("order_filled")) == len(orders)
    mesh.forget_quotes()
    mesh.clock.unix_s = unix_s("2026-11-30T14:00:00")
    async with run.gateway():
        await until_journaled(run, "decisions", 2)
        mesh.clock.unix_s = unix_s("2026-11-30T14:30:01")
        await mesh.trade(("AAPL", "241"), ("MSFT", "299"))
        mesh.clock.unix_s = unix_s("2026-11-30T21:00:15")
        await until_journaled(run, "run_finished")
    closes = [list(one.settled.close_micros) for one in run.of_kind("settled")]
    assert closes == [[240_000_000, 300_000_000], [241_000_000, 299_000_000]]
    assert run.fold().sessions_settled == 2


async def test_the_desk_decides_on_the_closes_that_the_run_itself_has_seen(begin: Begin) -> None:
    run = await begin(last=MONDAY)
    mesh = run.mesh
    async with run.gateway():
        await decided(run)
        mesh.clock.unix_s = OPEN + 1
        await mesh.trade(("AAPL", "231"), ("MSFT", "310"))
        mesh.clock.unix_s = CLOSE + 15
        await until_journaled(run, "settled")
        mesh.clock.unix_s = unix_s("2026-11-30T14:00:00")
        await until_journaled(run, "orders_gated", 2)
    first, second = run.of_kind("settled")[0], run.of_kind("orders_gated")[1]
    fold = run.fold()
    # What limits work with is the last close, of Friday.
    assert dict(zip(["AAPL", "MSFT"], first.settled.close_micros, strict=True)) == {"AAPL": 231_000_000, "MSFT": 310_000_000}
    assert second.session_date == MONDAY
    assert fold.sessions_settled == 1


async def test_a_ticker_that_does_not_trade_is_not_filled_and_keeps_its_last_mark(begin: Begin) -> None:
    run = await begin(last=MONDAY)
    mesh = run.mesh
    async with run.gateway():
        orders = await decided(run)
        mesh.clock.unix_s = OPEN + 1
        await mesh.trade(("AAPL", "231"), ("MSFT", "310"))
        await until_journaled(run, "order_filled", len(orders))
        mesh.clock.unix_s = CLOSE + 15
        await until_journaled(run, "settled")
        mesh.clock.unix_s = unix_s("2026-11-30T14:00:00")
        await until_journaled(run, "decisions", 2)
        mesh.clock.unix_s = unix_s("2026-11-30T14:30:01")
        await mesh.trade(("AAPL", "300"))
        mesh.clock.unix_s = unix_s("2026-11-30T21:00:15")
        await until_journaled(run, "run_finished")
    second = run.of_kind("settled")[1].settled
    assert list(second.close_micros) == [300_000_000, 0]
    marks = {position.ticker: position.mark_micros for position in second.portfolio.positions}
    assert marks.get("MSFT", 310_000_000) == 310_000_000
    rejected = [one.order_rejected for one in run.of_kind("order_rejected") if one.session_date == MONDAY]
    assert all(one.reason == events.LIMIT_CODE_NO_PRICE for one in rejected if one.ticker == "MSFT")
    assert not [one for one in run.of_kind("order_filled") if one.session_date == MONDAY and one.order_filled.ticker == "MSFT"]


async def test_a_provider_that_is_down_is_said_and_the_session_is_settled_with_the_last_marks(begin: Begin) -> None:
    run = await begin()
    mesh = run.mesh
    async with run.gateway() as gateway:
        orders = await decided(run)
        await mesh.provider.stop()
        await until(lambda: not mesh.quotes.link.connected)
        mesh.clock.unix_s = OPEN + 3600
        await until(lambda: "live quotes" in gateway.readiness.reason)
        assert "finnhub" in gateway.readiness.reason
        assert run.of_kind("order_filled") == run.of_kind("settled") == []
        mesh.clock.unix_s = CLOSE + 15
        await until_journaled(run, "settled")
        await gateway.task
        assert gateway.readiness.ready
    rejected = [one.order_rejected for one in run.of_kind("order_rejected")]
    assert {one.ticker: one.reason for one in rejected} == dict.fromkeys(orders, events.LIMIT_CODE_NO_PRICE)
    assert list(run.of_kind("settled")[0].settled.close_micros) == [0, 0]


async def test_a_provider_that_is_back_in_the_session_lets_it_go_on(begin: Begin) -> None:
    run = await begin()
    mesh = run.mesh
    async with run.gateway() as gateway:
        orders = await decided(run)
        await mesh.provider.stop()
        await until(lambda: not mesh.quotes.link.connected)
        mesh.clock.unix_s = OPEN + 3600
        await until(lambda: "live quotes" in gateway.readiness.reason)
        await mesh.provider.start()
        await until_listening(mesh)
        await until(lambda: gateway.readiness.ready)
        await mesh.trade(("AAPL", "231"), ("MSFT", "310"))
        await until_journaled(run, "order_filled", len(orders))


async def test_time_that_is_waited_is_no_time_of_the_cycle(begin: Begin) -> None:
    run = await begin(deadline_s=0.4)
    async with run.gateway() as gateway:
        orders = await decided(run)
        began = asyncio.get_running_loop().time()
        await until(lambda: asyncio.get_running_loop().time() - began > 0.8)
        assert gateway.controller.clock.left_s > 0
        run.mesh.clock.unix_s = OPEN + 1
        await run.mesh.trade(("AAPL", "231"), ("MSFT", "310"))
        await until_journaled(run, "order_filled", len(orders))
    assert run.of_kind("cycle_failed") == []


@pytest.mark.parametrize("now", [DECISION - 600, OPEN - 600, CLOSE - 600])
async def test_a_pause_stands_at_once_whatever_is_waited_for_and_a_resume_goes_on(begin: Begin, now: int) -> None:
    run = await begin()
    mesh = run.mesh
    async with run.gateway() as gateway:
        await until_listening(mesh)
        await until(lambda: gateway.controller.state == events.PIPELINE_STATE_RUNNING)
        if now > DECISION:
            await decided(run)
        if now > OPEN:
            mesh.clock.unix_s = OPEN + 1
            await mesh.trade(("AAPL", "231"), ("MSFT", "310"))
            await until_journaled(run, "order_filled")
        mesh.clock.unix_s = now
        await asyncio.wait_for(gateway.controller.pause("lunch"), 5)
        await gateway.controller.resume("ann")
        if now <= OPEN:
            await decided(run)
            mesh.clock.unix_s = OPEN + 1
            await mesh.trade(("AAPL", "231"), ("MSFT", "310"))
        mesh.clock.unix_s = CLOSE + 15
        await until_journaled(run, "run_finished")
    assert len(run.of_kind("order_filled")) == len(run.of_kind("orders_gated")[0].orders_gated.results)


async def test_a_pause_over_the_open_makes_the_decision_too_late_and_the_session_is_settled_without_orders(begin: Begin) -> None:
    run = await begin()
    mesh = run.mesh
    async with run.gateway() as gateway:
        await until_listening(mesh)
        await until(lambda: gateway.controller.state == events.PIPELINE_STATE_RUNNING)
        await gateway.controller.pause("a long night")
        mesh.clock.unix_s = OPEN + 60
        await mesh.trade(("AAPL", "231"), ("MSFT", "310"))
        await gateway.controller.resume("ann")
        (failed,) = await until_journaled(run, "cycle_failed")
        assert "had passed before they were decided" in failed.cycle_failed.reason
        mesh.clock.unix_s = CLOSE + 15
        await until_journaled(run, "run_finished")
    assert run.of_kind("order_filled") == run.of_kind("orders_gated") == []
    assert list(run.of_kind("settled")[0].settled.close_micros) == [231_000_000, 310_000_000]


async def test_a_gateway_that_begins_after_the_open_trades_the_next_session(begin: Begin) -> None:
    run = await begin("2026-11-27T15:00:00", last=MONDAY)
    mesh = run.mesh
    async with run.gateway():
        await until_journaled(run, "cycle_failed")
        mesh.clock.unix_s = CLOSE + 15
        await until_journaled(run, "settled")
        mesh.clock.unix_s = unix_s("2026-11-30T14:00:00")
        (decisions,) = await until_journaled(run, "decisions")
    assert decisions.session_date == MONDAY
    assert [one.session_date for one in run.of_kind("cycle_failed")] == [FRIDAY]


@pytest.mark.parametrize("now", [DECISION - 3600, OPEN - 600])
async def test_a_drain_does_not_wait_for_the_clock(begin: Begin, now: int) -> None:
    run = await begin()
    async with run.gateway() as gateway:
        await until_listening(run.mesh)
        if now > DECISION:
            await decided(run)
        run.mesh.clock.unix_s = now
        await gateway.controller.stop()
        await asyncio.wait_for(gateway.task, 5)
    assert run.of_kind("settled") == []


async def test_a_pipeline_that_is_stopped_between_two_sessions_ends_at_once(begin: Begin) -> None:
    run = await begin()
    async with run.gateway() as gateway:
        await until_listening(run.mesh)
        await until(lambda: gateway.controller.state == events.PIPELINE_STATE_RUNNING)
        await asyncio.wait_for(gateway.controller.end("enough"), 5)
        await asyncio.wait_for(gateway.task, 5)
        assert gateway.controller.state == events.PIPELINE_STATE_STOPPED
    assert run.of_kind("session_opened") == []


async def test_prices_are_journaled_before_anything_is_filled_at_them(begin: Begin) -> None:
    run = await begin()
    async with run.gateway():
        orders = await decided(run)
        run.mesh.clock.unix_s = OPEN + 1
        await run.mesh.trade(("AAPL", "231"), ("MSFT", "310"))
        fills = await until_journaled(run, "order_filled", len(orders))
    (observed,) = run.of_kind("prices_observed")
    assert (observed.prices_observed.moment, list(observed.prices_observed.price_micros)) == (
        events.SESSION_MOMENT_OPEN,
        [231_000_000, 310_000_000],
    )
    assert observed.sequence < min(fill.sequence for fill in fills)


AT_THE_CLOSE = pipeline.SubmitOrderRequest(
    run_id="paper", ticker="AAPL", side=words.SIDE_LONG, quantity=7, time_in_force=events.TIME_IN_FORCE_AT_THE_CLOSE
)


@pytest.mark.parametrize("restarts", [False, True])
async def test_orders_of_the_open_and_of_the_close_are_each_filled_once_whatever_interrupts_in_between(
    begin: Begin, restarts: bool
) -> None:
    run = await begin()
    mesh = run.mesh

    async def go_on_to_the_close(gateway: Generation) -> None:
        await until(lambda: gateway.controller.state == events.PIPELINE_STATE_RUNNING)
        mesh.clock.unix_s = CLOSE - 1
        await mesh.trade(("AAPL", "240"), ("MSFT", "300"))
        mesh.clock.unix_s = CLOSE + 15
        await until_journaled(run, "run_finished")

    async with run.gateway() as gateway:
        await until_listening(mesh)
        await until(lambda: gateway.controller.state == events.PIPELINE_STATE_RUNNING)
        submitted = (await gateway.orders.submit(AT_THE_CLOSE)).order.order.order_id
        await decided(run)
        own = len(run.of_kind("orders_gated")[0].orders_gated.results) - 1
        mesh.clock.unix_s = OPEN + 1
        await mesh.trade(("AAPL", "231"), ("MSFT", "310"))
        await until_journaled(run, "order_filled", own)
        if not restarts:
            await gateway.controller.pause("lunch")
            await gateway.controller.resume("ann")
            await go_on_to_the_close(gateway)
    if restarts:
        async with run.gateway() as gateway:
            await go_on_to_the_close(gateway)
    filled = [one.order_filled for one in run.of_kind("order_filled")]
    assert len({one.order_id for one in filled}) == len(filled) == own + 1
    (of_person,) = [one for one in filled if one.order_id == submitted]
    assert (of_person.quantity, of_person.price_micros) == (7, 240_000_000)
    # The fold holds each fill against the account that the gateway told, to the micro-dollar.
    assert run.fold().sessions_settled == 1


async def test_a_limit_order_of_a_person_is_executed_within_the_session_when_a_price_beyond_it_was_traded(begin: Begin) -> None:
    run = await begin()
    mesh = run.mesh
    async with run.gateway() as gateway:
        await until_listening(mesh)
        await until(lambda: gateway.controller.state == events.PIPELINE_STATE_RUNNING)
        limits = {
            price: (
                await gateway.orders.submit(
                    pipeline.SubmitOrderRequest(run_id="paper", ticker="AAPL", side=words.SIDE_LONG, quantity=3, limit_price_micros=price)
                )
            ).order.order.order_id
            for price in (220_000_000, 210_000_000)
        }
        await decided(run)
        mesh.clock.unix_s = OPEN + 1
        await mesh.trade(("AAPL", "231"), ("MSFT", "310"))
        await until_journaled(run, "prices_observed")
        mesh.clock.unix_s = OPEN + 3600
        await mesh.trade(("AAPL", "219.99"))
        mesh.clock.unix_s = CLOSE - 1
        await mesh.trade(("AAPL", "240"))
        mesh.clock.unix_s = CLOSE + 15
        await until_journaled(run, "run_finished")
    filled = {one.order_filled.order_id: one.order_filled.price_micros for one in run.of_kind("order_filled")}
    assert filled.get(limits[220_000_000]) == 220_000_000
    assert limits[210_000_000] not in filled
    assert [one.order_expired.order_id for one in run.of_kind("order_expired")] == [limits[210_000_000]]
    closing = run.of_kind("prices_observed")[1].prices_observed
    assert (closing.high_micros[0], closing.low_micros[0]) == (240_000_000, 219_990_000)


async def test_a_pipeline_that_is_paused_in_a_session_and_stopped_ends_at_once_and_fills_nothing(begin: Begin) -> None:
    run = await begin()
    async with run.gateway() as gateway:
        await decided(run)
        await gateway.controller.pause("no more")
        await asyncio.wait_for(gateway.controller.end("enough"), 5)
        await asyncio.wait_for(gateway.task, 5)
        assert gateway.controller.state == events.PIPELINE_STATE_STOPPED
    assert run.of_kind("order_filled") == run.of_kind("settled") == []


async def test_a_stop_in_a_session_settles_it_at_its_close(begin: Begin) -> None:
    run = await begin(last=MONDAY)
    mesh = run.mesh
    async with run.gateway() as gateway:
        orders = await decided(run)
        ending = asyncio.create_task(gateway.controller.end("enough"))
        mesh.clock.unix_s = OPEN + 1
        await mesh.trade(("AAPL", "231"), ("MSFT", "310"))
        await until_journaled(run, "order_filled", len(orders))
        assert not ending.done()
        mesh.clock.unix_s = CLOSE + 15
        await asyncio.wait_for(ending, 10)
        await asyncio.wait_for(gateway.task, 5)
        assert gateway.controller.state == events.PIPELINE_STATE_STOPPED
    assert run.fold().sessions_settled == 1
