"""The benchmark's own arithmetic, and that its servers serve."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.figures import ROUNDS, Figure, against, as_json, at_least, at_most, interleaved, percentile, table


def test_a_ratio_is_taken_round_by_round() -> None:
    # The machine became twice as slow after the first round: the ratio did not.
    figure = against("x", "calls/s", [90, 45, 45], [100, 50, 50], 0.85)
    assert (figure.value, figure.limit, figure.ratio, figure.holds) == (45, 50, 0.9, True)
    assert against("x", "calls/s", [80], [100], 0.85).holds is False
    assert against("x", "ms", [80], [100]).holds is None
    with pytest.raises(ValueError, match="zip"):
        against("x", "calls/s", [1, 2], [1])


def test_a_number_that_is_asked_for_is_a_goal() -> None:
    figure = at_least("x", "sessions/s", [100, 300, 200], 50)
    assert (figure.value, figure.limit, figure.ratio, figure.goal, figure.holds) == (200, 50, 4, 1, True)


def test_a_number_that_is_not_to_be_passed_is_a_bound() -> None:
    assert (at_most("x", "ms", 25, 50).ratio, at_most("x", "ms", 25, 50).holds) == (2, True)
    assert at_most("x", "ms", 51, 50).holds is False
    assert (at_most("x", "gaps", 0, 0).holds, at_most("x", "gaps", 1, 0).holds) == (True, False)


def test_a_high_percentile_of_few_values_is_near_the_largest() -> None:
    assert percentile([1.0], 99) == 1
    assert percentile([float(value) for value in range(101)], 99) == 99
    assert 8.9 < percentile([float(value) for value in range(10)], 99) <= 9


def test_rounds_alternate_and_the_first_is_not_counted() -> None:
    calls = list[str]()

    def take(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    ones, others = interleaved(lambda: take("one"), lambda: take("other"))
    assert len(ones) == len(others) == ROUNDS >= 5
    assert calls[:6] == ["one", "other", "other", "one", "one", "other"]
    assert not {1.0, 2.0} & {*ones, *others}


def test_figures_are_shown_and_written_with_all_their_fields() -> None:
    figures = [
        Figure("quick", 12345.6, "calls/s", 10000, 1.23, 0.9, True),
        Figure("slow", 0.5, "ms", 1, 0.5, 0.9, False),
        Figure("told", 1, "s"),
    ]
    shown = table(figures).splitlines()
    assert shown[1].endswith("holds")
    assert shown[2].endswith("MISSED")
    assert "12,346" in shown[1]
    written = json.loads(as_json(figures))
    assert [set(one) for one in written] == [{"name", "value", "unit", "limit", "ratio", "goal", "holds"}] * 3


MEASURE = """
from bench.throughput import echo_servers, stream, unary
with echo_servers(500) as servers:
    for server in servers:
        for work in (unary(128), stream):
            rates = server.measure(work)
            assert rates.per_s > 0 and rates.per_server_cpu_s > 0
"""


def test_both_servers_answer_every_call() -> None:
    # In a process of its own: grpc.aio wants one loop for the life of a process, and a measurement makes its own.
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    outcome = subprocess.run([sys.executable, "-c", MEASURE], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 0, outcome.stderr
