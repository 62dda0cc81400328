"""Lease, disk, liveness and watches of the pipeline, each by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh.gateway.v1.pipeline_service_pb2 import WatchPipelineResponse
from trademesh.gateway.v1.state_pb2 import Pipeline
from trademesh_gateway import pipeline_watch
from trademesh_gateway.disk_watch import DiskWatch
from trademesh_gateway.lease import Lease
from trademesh_gateway.liveness import watch_progress
from trademesh_gateway.pipeline.controller import Controller
from trademesh_gateway.pipeline.cycle_clock import CycleClock
from trademesh_gateway.pipeline_watch import PipelineWatch
from trademesh_kernel.health import LIVENESS, Health
from waiting import until


@asynccontextmanager
async def running(work: object) -> AsyncIterator[asyncio.Task[None]]:
    """A watch, for a while."""
    task: asyncio.Task[None] = asyncio.create_task(work)  # type: ignore[arg-type]  # a coroutine
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_lease_is_lost_and_comes_back_and_an_orphan_is_told_once_nobody_came() -> None:
    lease, told = Lease(0.1, 0.5), list[bool]()

    async def changed() -> None:
        told.append(lease.held())

    async with running(lease.watch(changed)) as task:
        await until(lambda: told == [False])
        lease.renew()
        assert lease.held()
        await until(lambda: told[:2] == [False, True])
        assert not task.done()
        await until(task.done)


async def test_the_disk_is_told_each_way_and_a_journal_that_waits_counts_as_full(tmp_path: Path) -> None:
    told = list[str]()

    async def hold(why: str) -> None:
        if not told or told[-1] != why:
            told.append(why)

    disk = DiskWatch(tmp_path, 0)
    async with running(disk.watch(hold)):
        await until(lambda: told == [""])
        disk.stalled("database or disk is full")
        await until(lambda: told == ["", "database or disk is full"])
        disk.stalled(None)
        await until(lambda: told[2:] == [""])


async def test_less_room_than_the_least_is_told_without_a_figure_that_moves(tmp_path: Path) -> None:
    told = list[str]()

    async def hold(why: str) -> None:
        told.append(why)

    async with running(DiskWatch(tmp_path, 2**60).watch(hold)):
        await until(lambda: told)
    assert told[0] == f"less than {2**40} MiB free"


async def test_a_cycle_that_is_stuck_turns_liveness_and_one_that_stands_does_not() -> None:
    health = Health([])
    await health.start()
    clock = CycleClock(-0.8)
    controller = Controller("demo", lambda _draft: None, state=events.PIPELINE_STATE_RUNNING, reason="", pace=0.0, clock=clock)

    async def status() -> int:
        answer = await health.servicer.Check(health_pb2.HealthCheckRequest(service=LIVENESS), None)
        return int(answer.status)

    async def until_status(wanted: int) -> None:
        async with asyncio.timeout(5):
            while await status() != wanted:  # noqa: ASYNC110  # a health servicer sets no event that is ours
                await asyncio.sleep(0.01)

    clock.begin()
    async with running(watch_progress(controller, health)):
        async with clock.working(2, limited=False):
            await until_status(health_pb2.HealthCheckResponse.NOT_SERVING)
        clock.end()
        await until_status(health_pb2.HealthCheckResponse.SERVING)
        clock.begin()
        async with clock.working(2, limited=False):
            await until_status(health_pb2.HealthCheckResponse.NOT_SERVING)
            await controller.stop()
            await until_status(health_pb2.HealthCheckResponse.SERVING)


class Watched:
    """A pipeline of which only the head moves."""

    def __init__(self) -> None:
        self.head = 1
        self.made = 0
        self.watch = PipelineWatch(self.now)

    def now(self) -> Pipeline:
        self.made += 1
        return Pipeline(run_id="demo", head_sequence=self.head)

    def move(self) -> None:
        self.head += 1
        self.watch.touch()


async def take(stream: AsyncIterator[WatchPipelineResponse], found: list[WatchPipelineResponse]) -> None:
    async for response in stream:
        found.append(response)


async def test_a_watcher_gets_what_is_then_the_newest_of_many_changes_and_the_end_after_it() -> None:
    watched, found = Watched(), list[WatchPipelineResponse]()
    async with running(take(watched.watch.watch(), found)) as task:
        await until(lambda: found)
        for _ in range(1000):
            watched.move()
        await until(lambda: len(found) == 2)
        assert [one.pipeline.head_sequence for one in found] == [1, 1001]
        watched.move()
        watched.watch.end(feed.STREAM_END_REASON_RUN_ENDED)
        watched.watch.end(feed.STREAM_END_REASON_DRAINING)
        await until(task.done)
    assert found[2].pipeline.head_sequence == 1002
    assert (found[3].end.reason, found[3].end.resume_after_sequence) == (feed.STREAM_END_REASON_RUN_ENDED, 1002)
    assert len(found) == 4


async def test_a_change_that_changes_nothing_is_not_told_and_an_idle_watch_gets_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_watch, "CHECKPOINT_S", 0.3)
    watched, found = Watched(), list[WatchPipelineResponse]()
    async with running(take(watched.watch.watch(), found)):
        await until(lambda: found)
        watched.watch.touch()
        await until(lambda: len(found) == 3)
    assert [one.WhichOneof("kind") for one in found] == ["pipeline", "checkpoint", "checkpoint"]


async def test_many_watchers_share_each_message_and_get_fewer_a_second() -> None:
    watched, found = Watched(), [list[WatchPipelineResponse]() for _ in range(500)]
    tasks = [asyncio.create_task(take(watched.watch.watch(), one)) for one in found]
    try:
        await until(lambda: all(found))
        loop = asyncio.get_running_loop()
        began, watched.made = loop.time(), 0
        moves = 0
        while loop.time() - began < 1.0:
            watched.move()
            moves += 1
            await asyncio.sleep(0.005)
        took_s = loop.time() - began
        assert watched.made <= moves + 1
        # A thousand a second to all of them; twice that and a message each leave room for a loaded machine.
        assert sum(len(one) - 1 for one in found) <= 500 + 2 * 1000 * took_s
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
