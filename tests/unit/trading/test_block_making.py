"""Messages that are made ahead of their sending: in order, only so many, and none after the stream's end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing

import pytest

from trademesh_trading.block_making import MADE_AHEAD, made_ahead


def numbered(count: int) -> Iterator[Callable[[], bytes]]:
    return (lambda number=number: bytes([number]) for number in range(count))


async def test_messages_come_in_their_order_and_none_is_lost() -> None:
    assert [message async for message in made_ahead(numbered(20))] == [bytes([number]) for number in range(20)]


async def test_nothing_comes_of_nothing() -> None:
    assert [message async for message in made_ahead([])] == []


async def test_no_more_are_made_than_so_many_ahead_of_the_reader() -> None:
    asked = list[int]()

    def makers() -> Iterator[Callable[[], bytes]]:
        for number, make in enumerate(numbered(20)):
            asked.append(number)
            yield make

    async with aclosing(made_ahead(makers())) as messages:
        for taken in range(1, 10):
            await anext(messages)
            assert len(asked) == taken + MADE_AHEAD


async def test_some_are_made_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=30)

    def make() -> bytes:
        together.wait()
        return b"met"

    assert [message async for message in made_ahead([make, make])] == [b"met", b"met"]


async def test_what_making_one_raises_ends_the_stream_after_those_before_it() -> None:
    def broken() -> bytes:
        raise OSError("no such year")

    messages = made_ahead([lambda: b"first", broken, broken, lambda: b"never"])
    assert await anext(messages) == b"first"
    with pytest.raises(OSError, match="no such year"):
        await anext(messages)
    with pytest.raises(StopAsyncIteration):
        await anext(messages)


async def test_who_leaves_early_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()
    async with aclosing(made_ahead(numbered(20))) as messages:
        await anext(messages)
    assert asyncio.all_tasks() == before
