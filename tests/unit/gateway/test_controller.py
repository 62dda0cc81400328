"""The controller of the pipeline: what pause, step, resume and stop do while others do the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway.pipeline.controller import Controller, Ended, Interrupted, Step, Stopped
from trademesh_gateway.pipeline.cycle import PHASES
from trademesh_gateway.pipeline.cycle_clock import CycleClock, CycleOverdue
from trademesh_kernel.errors import Draining, StateConflict
from trademesh_runs.journal import Draft
from waiting import until

APPROVAL, EXECUTION, SETTLEMENT = 7, 8, 9


class Phases:
    """Stands for a cycle: counts its phases, and waits in the approval phase as long as nobody answers."""

    def __init__(self, controller: Controller, answered: asyncio.Event, slow_in: int) -> None:
        self.asked = False
        self.may_give_up = True
        self._slow_in = slow_in
        self.run_phases = list[int]()
        self.given_up_in: int | None = None
        self.given_up_because = ""
        self._controller = controller
        self._answered = answered

    async def run(self, phase: int) -> None:
        if phase == 1:
            self.given_up_in = None
        if phase == self._slow_in and not self.given_up_because:
            await asyncio.sleep(60)
        while phase == APPROVAL and not self._answered.is_set():
            self.asked = True
            await self._controller.give_way(0.01)
        self.run_phases.append(phase)

    def is_void(self, phase: int) -> bool:
        return self.given_up_in is not None and self.given_up_in <= phase < SETTLEMENT

    def may_be_given_up(self, phase: int) -> bool:
        return self.may_give_up and phase < EXECUTION

    def give_up(self, phase: int, reason: str) -> None:
        self.given_up_in, self.given_up_because = phase, reason


@asynccontextmanager
async def running(
    state: int, *, answered: bool = True, deadline_s: float = 60.0, slow_in: int = 0, lease_held: Callable[[], bool] = lambda: True
) -> AsyncIterator[tuple[Controller, Phases, asyncio.Event, list[Draft]]]:
    drafts = list[Draft]()
    clock = CycleClock(deadline_s)
    controller = Controller("demo", drafts.append, state=state, reason="", pace=0.0, clock=clock, lease_held=lease_held)
    event = asyncio.Event()
    if answered:
        event.set()
    phases = Phases(controller, event, slow_in)

    async def cycles() -> None:
        while True:
            await controller.run_cycle(phases)  # type: ignore[arg-type]  # a stand-in

    task = asyncio.create_task(cycles())
    try:
        yield controller, phases, event, drafts
    finally:
        await controller.stop()
        with pytest.raises((Stopped, Ended)):
            await asyncio.wait_for(task, 5)


async def within(work: Any) -> Any:
    return await asyncio.wait_for(work, 5)


async def test_a_step_of_one_phase_runs_one_phase() -> None:
    async with running(events.PIPELINE_STATE_PAUSED) as (controller, phases, _, _):
        for number in range(1, 12):
            await within(controller.step(Step.PHASE))
            assert len(phases.run_phases) == number


async def test_a_step_of_a_cycle_ends_with_its_last_phase() -> None:
    async with running(events.PIPELINE_STATE_PAUSED) as (controller, phases, _, _):
        await within(controller.step(Step.PHASE))
        await within(controller.step(Step.CYCLE))
        assert phases.run_phases == list(PHASES)


async def test_a_step_that_a_resume_overtakes_returns() -> None:
    async with running(events.PIPELINE_STATE_PAUSED) as (controller, _, _, _):
        await within(asyncio.gather(controller.step(Step.CYCLE), controller.resume("ann"), return_exceptions=True))
        with pytest.raises(StateConflict):
            await within(controller.step(Step.CYCLE))


async def test_a_pause_does_not_wait_for_a_person() -> None:
    async with running(events.PIPELINE_STATE_RUNNING, answered=False) as (controller, phases, answered, _):
        await until(lambda: len(phases.run_phases) == APPROVAL - 1)
        await within(controller.pause("lunch"))
        assert phases.run_phases == list(range(1, APPROVAL))
        answered.set()
        await within(controller.step(Step.PHASE))
        assert phases.run_phases == list(range(1, APPROVAL + 1))


async def test_a_step_into_the_phase_of_approvals_waits_for_the_answer() -> None:
    async with running(events.PIPELINE_STATE_PAUSED, answered=False) as (controller, phases, answered, _):
        for _ in range(APPROVAL - 1):
            await within(controller.step(Step.PHASE))
        stepping = asyncio.create_task(controller.step(Step.PHASE))
        done, _ = await asyncio.wait({stepping}, timeout=0.1)
        assert not done
        answered.set()
        await within(stepping)
        assert phases.run_phases[-1] == APPROVAL


async def test_a_pause_after_a_step_and_a_resume_does_not_wait_for_a_person_either() -> None:
    async with running(events.PIPELINE_STATE_PAUSED, answered=False) as (controller, _, _, _):
        for _ in range(APPROVAL - 1):
            await within(controller.step(Step.PHASE))
        stepping = asyncio.create_task(controller.step(Step.PHASE))
        await asyncio.wait({stepping}, timeout=0.05)
        await controller.resume("ann")
        await within(controller.pause("lunch"))
        await within(stepping)


async def test_a_stop_ends_the_wait_for_another_try() -> None:
    controller = Controller("demo", lambda _draft: None, state=events.PIPELINE_STATE_RUNNING, reason="", pace=0.0)
    waiting = asyncio.create_task(controller.wait(3600))
    await asyncio.sleep(0)
    await controller.stop()
    with pytest.raises(Stopped):
        await within(waiting)


async def test_a_stop_does_not_wait_for_a_person() -> None:
    async with running(events.PIPELINE_STATE_RUNNING, answered=False) as (controller, _, _, _):
        await controller.stop()
        with pytest.raises(Interrupted):
            await within(controller.give_way(60))
        with pytest.raises(Draining):
            await controller.pause("late")


async def test_the_end_of_a_run_is_journaled_also_while_its_gateway_drains() -> None:
    drafts = list[Draft]()
    controller = Controller("demo", drafts.append, state=events.PIPELINE_STATE_RUNNING, reason="", pace=0.0)
    await controller.stop()
    await controller.finish("every session is settled")
    assert [draft.payload for draft in drafts] == [
        events.PipelineStateChanged(state=events.PIPELINE_STATE_FINISHED, reason="every session is settled")
    ]


async def test_a_stop_for_good_settles_the_session_in_hand_first() -> None:
    async with running(events.PIPELINE_STATE_RUNNING) as (controller, phases, _, drafts):
        await until(lambda: phases.run_phases)
        await within(controller.end("enough"))
        assert (controller.state, controller.reason) == (events.PIPELINE_STATE_STOPPED, "enough")
        assert phases.run_phases[-1] == SETTLEMENT
        journaled = len(drafts)
        await within(controller.end("again"))
        assert (controller.reason, len(drafts)) == ("enough", journaled)
        for call in (controller.start("ann"), controller.resume("ann"), controller.pause("ann"), controller.step(Step.CYCLE)):
            with pytest.raises(StateConflict, match="stopped for good"):
                await within(call)


async def test_a_stop_for_good_of_a_paused_pipeline_leaves_its_session_as_it_is() -> None:
    async with running(events.PIPELINE_STATE_PAUSED) as (controller, phases, _, _):
        for _ in range(3):
            await within(controller.step(Step.PHASE))
        await within(controller.end("enough"))
        assert phases.run_phases == [1, 2, 3]
        assert controller.state == events.PIPELINE_STATE_STOPPED


async def test_a_stop_for_good_of_a_pipeline_that_was_not_started_needs_no_cycle() -> None:
    async with running(events.PIPELINE_STATE_READY) as (controller, phases, _, _):
        await within(controller.end("enough"))
        assert not phases.run_phases


async def test_a_stop_for_good_makes_orders_void_that_wait_for_a_person() -> None:
    async with running(events.PIPELINE_STATE_RUNNING, answered=False) as (controller, phases, _, _):
        await until(lambda: len(phases.run_phases) == APPROVAL - 1)
        await within(controller.end("enough"))
        assert phases.given_up_in == APPROVAL
        assert phases.run_phases == [*range(1, APPROVAL), SETTLEMENT]


async def test_a_stop_for_good_whose_caller_has_left_is_carried_out() -> None:
    async with running(events.PIPELINE_STATE_PAUSED, answered=False) as (controller, phases, _, _):
        for _ in range(APPROVAL - 1):
            await within(controller.step(Step.PHASE))
        stepping = asyncio.create_task(controller.step(Step.PHASE))
        await until(lambda: phases.asked)
        ending = asyncio.create_task(controller.end("enough"))
        await asyncio.sleep(0)
        ending.cancel()
        await until(lambda: controller.state == events.PIPELINE_STATE_STOPPED)
        await within(stepping)


async def test_a_run_that_has_finished_is_not_stopped() -> None:
    controller = Controller("demo", lambda _draft: None, state=events.PIPELINE_STATE_FINISHED, reason="", pace=0.0)
    await within(controller.end("late"))
    assert controller.state == events.PIPELINE_STATE_FINISHED


async def test_a_gateway_that_drains_says_so_to_who_stops_its_pipeline() -> None:
    async with running(events.PIPELINE_STATE_RUNNING, answered=False) as (controller, phases, _, drafts):
        phases.may_give_up = False
        await until(lambda: phases.asked)
        ending = asyncio.create_task(controller.end("enough"))
        await asyncio.sleep(0)
        await controller.stop()
        with pytest.raises(Draining):
            await within(ending)
        assert not drafts


async def test_a_cycle_past_its_deadline_is_given_up_and_settled_and_the_next_one_runs() -> None:
    async with running(events.PIPELINE_STATE_RUNNING, deadline_s=0.3, slow_in=3) as (_, phases, _, _):
        await until(lambda: len(phases.run_phases) > 4)
        assert phases.run_phases[:3] == [1, 2, SETTLEMENT]
        assert phases.given_up_because == "the cycle took longer than 0.3 s"


async def test_pauses_and_people_are_not_counted_and_a_service_that_is_away_is() -> None:
    clock = CycleClock(0.2)
    clock.begin()
    async with clock.working(APPROVAL, limited=True):
        with clock.standing():
            # A person thinks for longer than the cycle may take.
            await asyncio.sleep(0.25)
    spent_s = clock.spent_s
    assert spent_s < 0.2
    await asyncio.sleep(0.01)
    assert clock.spent_s == spent_s

    async def away() -> None:
        async with clock.working(APPROVAL, limited=True):
            with clock.standing():
                pass
            await asyncio.sleep(60)

    with pytest.raises(CycleOverdue):
        await within(away())


async def test_a_phase_that_never_lets_go_is_overdue_when_it_is_done() -> None:
    clock = CycleClock(0.01)
    clock.begin()

    async def busy() -> None:
        async with clock.working(2, limited=True):
            while clock.left_s > 0:
                pass

    with pytest.raises(CycleOverdue):
        await busy()
    async with clock.working(SETTLEMENT, limited=False):
        assert clock.left_s < 0


async def test_a_time_out_of_a_phases_own_is_not_its_deadline() -> None:
    clock = CycleClock(60)
    clock.begin()
    with pytest.raises(TimeoutError):
        async with clock.working(2, limited=True):
            raise TimeoutError


async def test_the_disk_pauses_at_the_end_of_a_cycle_and_goes_on_by_itself() -> None:
    async with running(events.PIPELINE_STATE_RUNNING) as (controller, phases, _, drafts):
        await controller.hold_for_disk("full")
        await until(lambda: controller.state == events.PIPELINE_STATE_PAUSED)
        assert controller.reason == "disk: full"
        assert not phases.run_phases or phases.run_phases[-1] == SETTLEMENT
        await controller.hold_for_disk("")
        assert controller.state == events.PIPELINE_STATE_RUNNING
        assert len(drafts) == 2


async def test_a_pause_of_a_person_outlasts_one_of_the_disk_in_either_order() -> None:
    async with running(events.PIPELINE_STATE_RUNNING) as (controller, _, _, _):
        await controller.hold_for_disk("full")
        await until(lambda: controller.state == events.PIPELINE_STATE_PAUSED)
        await within(controller.pause("disk: lunch"))
        await controller.hold_for_disk("")
        assert (controller.state, controller.reason) == (events.PIPELINE_STATE_PAUSED, "PausePipeline: disk: lunch")
        await controller.hold_for_disk("full")
        await controller.hold_for_disk("")
        assert controller.state == events.PIPELINE_STATE_PAUSED


async def test_a_pause_of_the_disk_that_an_earlier_gateway_left_is_over_when_there_is_room() -> None:
    reason = "disk: full"
    controller = Controller("demo", lambda _draft: None, state=events.PIPELINE_STATE_PAUSED, reason=reason, pace=0.0)
    await controller.hold_for_disk("")
    assert controller.state == events.PIPELINE_STATE_RUNNING


async def test_without_a_lease_the_cycle_in_hand_is_finished_and_no_other_begins() -> None:
    held = True
    async with running(events.PIPELINE_STATE_RUNNING, answered=False, lease_held=lambda: held) as (controller, phases, answered, _):
        await until(lambda: phases.asked)
        held = False
        answered.set()
        await until(lambda: len(phases.run_phases) == SETTLEMENT)
        await until(lambda: controller.clock.began_unix_ns is None)
        held = True
        await controller.wake()
        await until(lambda: len(phases.run_phases) > SETTLEMENT)


async def test_between_cycles_a_pause_and_a_stop_for_good_wait_for_nobody() -> None:
    controller = Controller("demo", lambda _draft: None, state=events.PIPELINE_STATE_RUNNING, reason="", pace=0.0)
    missing = asyncio.create_task(controller.unless_ended(asyncio.sleep(3600)))
    await within(controller.pause("lunch"))
    await within(controller.end("enough"))
    with pytest.raises(Ended):
        await within(missing)


async def test_what_is_worked_at_between_cycles_tells_its_own_outcome() -> None:
    controller = Controller("demo", lambda _draft: None, state=events.PIPELINE_STATE_RUNNING, reason="", pace=0.0)
    assert await within(controller.unless_ended(asyncio.sleep(0, "done"))) == "done"
    await controller.stop()
    with pytest.raises(Stopped):
        await within(controller.unless_ended(asyncio.sleep(3600)))


async def test_a_disk_that_fills_between_cycles_pauses_at_once() -> None:
    controller = Controller("demo", lambda _draft: None, state=events.PIPELINE_STATE_RUNNING, reason="", pace=0.0)
    await controller.hold_for_disk("full")
    assert (controller.state, controller.reason) == (events.PIPELINE_STATE_PAUSED, "disk: full")


async def test_after_the_last_session_a_stop_for_good_comes_too_late() -> None:
    answered = asyncio.Event()
    controller = Controller("demo", lambda _draft: None, state=events.PIPELINE_STATE_RUNNING, reason="", pace=0.0)
    phases = Phases(controller, answered, 0)
    phases.may_give_up = False
    cycle = asyncio.create_task(controller.run_cycle(phases, last=True))  # type: ignore[arg-type]  # a stand-in
    await until(lambda: phases.asked)
    ending = asyncio.create_task(controller.end("enough"))
    await asyncio.sleep(0)
    answered.set()
    await within(cycle)
    await controller.finish("every session is settled")
    await within(ending)
    assert controller.state == events.PIPELINE_STATE_FINISHED
