"""Reading logs of gateways: whole lines, each once, whatever the writer is in the middle of."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from trademesh_runtime import gateway_logs
from trademesh_runtime.gateway_logs import cut_log, earlier, follow_lines, last_lines


async def read(path: Path, count: int, *, follow: bool = False, writes: tuple[str, ...] = ()) -> list[str]:
    """Lines of a log; between two polls the writer adds one of `writes`, and then ends."""
    left = list(writes)

    def lives() -> bool:
        if not left:
            return False
        with path.open("a") as stream:
            stream.write(left.pop(0))
        return True

    async with asyncio.timeout(10):
        return [line async for part in follow_lines(path, count, follow, lives) for line in part]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_logs, "POLL_S", 0.001)


async def test_a_line_that_is_being_written_is_told_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\ntwo, first half")
    assert await read(path, 10, follow=True, writes=(", second half\nthr", "ee\nthe last")) == [
        "one",
        "two, first half, second half",
        "three",
        "the last",
    ]


async def test_the_last_lines_are_the_last(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"{number}\n" for number in range(20_000)))
    assert await read(path, 3) == ["19997", "19998", "19999"]
    assert last_lines(path, 2) == ["19998", "19999"]
    assert last_lines(path, 0) == await read(path, 0) == []
    assert len(await read(path, 5_000)) == 5_000


async def test_a_line_without_an_end_is_told_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("")
    lines = await read(path, 1, follow=True, writes=("x" * 60_000,) * 3)
    assert all(len(line) <= 16 * 1024 for line in lines)


async def test_a_log_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert await read(tmp_path / "log", 5) == last_lines(tmp_path / "log", 5) == []


def test_a_log_that_is_too_large_keeps_its_end_beside_it_and_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"".join(b"line %d\n" % number for number in range(10_000)))
        assert cut_log(path, 1_000_000, 1_000) == 0
        size = path.stat().st_size
        left_out = cut_log(path, 50_000, 1_000)
        kept = earlier(path).read_bytes()
        said = path.read_bytes()
        assert json.loads(said) == {"event": "log_truncated", "left_out_bytes": left_out}
        assert left_out + len(kept) == size
        assert kept.startswith(b"line ")
        assert kept.endswith(b"line 9999\n")
        # The writer goes on where the file now ends: there is no hole.
        writer.write(b"and on\n")
    assert path.read_bytes() == said + b"and on\n"
    assert last_lines(path, 4) == ["line 9998", "line 9999", said.decode().strip(), "and on"]
    assert cut_log(tmp_path / "absent", 1, 1) == 0


async def test_a_reader_that_follows_gets_what_comes_after_the_cut_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"{number}\n" for number in range(5_000)))
    left = ["cut", "on\n", "and on\n"]

    def lives() -> bool:
        if not left:
            return False
        word = left.pop(0)
        if word == "cut":
            cut_log(path, 1_000, 100)
        else:
            with path.open("a") as stream:
                stream.write(word)
        return True

    async with asyncio.timeout(10):
        lines = [line async for part in follow_lines(path, 2, True, lives) for line in part]
    assert [line for line in lines if "log_truncated" not in line] == ["4998", "4999", "on", "and on"]
    assert len(lines) == 5
