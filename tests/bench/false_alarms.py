"""`scripts/bench alarms`: ten minutes at a load of eight in which nothing is wrong, and nothing may be said to be."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.figures import Figure, at_most, told
from bench.supervision_times import watched_mesh
from trademesh.runtime.v1 import runtime_pb2 as runtime

LASTS_S = 600.0
LOAD = 8
RUNS = 4


def alarm_figures() -> list[Figure]:
    """Hangs and restarts of gateways that are well."""
    with watched_mesh() as (mesh, watch):
        for number in range(RUNS):
            outcome = mesh.cli("run", "start", "--run-id", f"well-{number}", "--pace", "5", "--wait")
            assert outcome.returncode == 0, f"the run starts: {outcome.stderr}"
        began, loads = time.perf_counter(), list[float]()
        with _burners():
            while time.perf_counter() - began < LASTS_S:
                time.sleep(5)
                loads.append(os.getloadavg()[0])
        alarms = sum(watch.heard(f"well-{number}", runtime.RUN_STATE_HUNG, began) for number in range(RUNS))
        restarts = sum(watch.run(f"well-{number}").generation - 1 for number in range(RUNS))
    return [
        told("load average while nothing was wrong, at its highest", "", max(loads)),
        at_most(f"false alarms of a hang in {LASTS_S / 60:g} minutes at load {LOAD}, {RUNS} runs", "alarms", alarms, 0),
        at_most("restarts meanwhile", "restarts", restarts, 0),
    ]


@contextmanager
def _burners() -> Iterator[None]:
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(LOAD)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
