"""The controller of the pipeline: what pause, step, resume and stop do while others do the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway.pipeline.controller import Controller, Interrupted, Step, Stopped
from trademesh_gateway.pipeline.cycle import PHASES
from trademesh_kernel.errors import Draining, StateConflict
from trademesh_runs.journal import Draft
from waiting import until

APPROVAL, EXECUTION, SETTLEMENT = 7, 8, 9


class Phases:
    """Stands for a cycle: counts its phases, and waits in the approval phase as long as nobody answers."""

    def __init__(self, controller: Controller, answered: asyncio.Event) -> None:
        self.run_phases = list[int]()
        self.given_up_in: int | None = None
        self.given_up_because = ""
        self._controller = controller
        self._answered = answered

    async def run(self, phase: int) -> None:
        while phase == APPROVAL and not self._answered.is_set():
            await self._controller.give_way(0.01)
        self.run_phases.append(phase)

    def is_void(self, phase: int) -> bool:
        return self.given_up_in is not None and self.given_up_in <= phase < SETTLEMENT

    def may_be_given_up(self, phase: int) -> bool:
        return phase < EXECUTION

    def give_up(self, phase: int, reason: str) -> None:
        self.given_up_in, self.given_up_because = phase, reason


@asynccontextmanager
async def running(state: int, *, answered: bool = True) -> AsyncIterator[tuple[Controller, Phases, asyncio.Event, list[Draft]]]:
    drafts = list[Draft]()
    controller = Controller("demo", drafts.append, state=state, reason="", pace=0.0)
    event = asyncio.Event()
    if answered:
        event.set()
    phases = Phases(controller, event)

    async def cycles() -> None:
        while True:
            await controller.run_cycle(phases)  # type: ignore[arg-type]  # a stand-in

    task = asyncio.create_task(cycles())
    try:
        yield controller, phases, event, drafts
    finally:
        await controller.stop()
        with pytest.raises(Stopped):
            await asyncio.wait_for(task, 5)


async def within(work: Any) -> None:
    await asyncio.wait_for(work, 5)


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
