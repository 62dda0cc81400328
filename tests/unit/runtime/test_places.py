"""Who may have a gateway, and who waits."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from hypothesis import given
from hypothesis import strategies as st

from trademesh_runtime.places import LAUNCHES_AT_ONCE, Places
from waiting import until


async def test_a_run_that_waits_starts_when_another_ends_in_the_order_of_asking() -> None:
    places = Places(limit=1, most_waiting=2)
    began = list[str]()

    async def launch(run_id: str) -> None:
        async with places.start_of(run_id):
            began.append(run_id)

    for run_id in ("a", "b", "c"):
        places.ask(run_id)
    assert not places.room_for(1)
    async with asyncio.TaskGroup() as group:
        for run_id in ("c", "b", "a"):
            group.create_task(launch(run_id))
        for number, run_id in enumerate(("a", "b", "c"), 1):
            await until(lambda number=number: len(began) == number)
            assert began[-1] == run_id
            places.leave(run_id)
    assert (places.held, places.waiting) == (0, 0)


async def test_a_run_that_is_stopped_while_it_waits_leaves_the_queue_and_comes_back_at_its_end() -> None:
    places = Places(limit=1, most_waiting=5)
    for run_id in ("a", "b", "c"):
        places.ask(run_id)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(places.begin("b"))
        await asyncio.sleep(0)
        places.leave("b")
        places.ask("b")
        places.leave("a")
        assert places.is_waiting("b")
        places.leave("c")
        assert await waiting


async def test_a_run_that_left_while_it_waited_for_a_launch_has_none() -> None:
    places = Places(limit=8, most_waiting=0)
    async with AsyncExitStack() as launches:
        for number in range(LAUNCHES_AT_ONCE):
            places.ask(f"first-{number}")
            await launches.enter_async_context(places.start_of(f"first-{number}"))
        places.ask("late")
        waiting = asyncio.create_task(places.begin("late"))
        await asyncio.sleep(0)
        places.leave("late")
        await launches.aclose()
        assert not await waiting
        # The launches that were over are to be had again.
        async with asyncio.timeout(5), places.start_of("first-0"), places.start_of("first-1"):
            pass


@given(st.lists(st.tuples(st.sampled_from(["ask", "leave"]), st.integers(0, 9)), max_size=60))
def test_never_more_have_a_place_than_may_and_none_waits_while_one_is_free(steps: list[tuple[str, int]]) -> None:
    places = Places(limit=3, most_waiting=100)
    there = dict[str, None]()
    for what, number in steps:
        run_id = f"r{number}"
        if what == "ask":
            places.ask(run_id)
            there[run_id] = None
        else:
            places.leave(run_id)
            there.pop(run_id, None)
        assert places.held == min(3, len(there))
        assert places.held + places.waiting == len(there)
        waiting = [one for one in there if places.is_waiting(one)]
        assert waiting == list(there)[len(there) - len(waiting) :]
