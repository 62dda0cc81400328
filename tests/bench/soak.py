"""`scripts/bench soak`: ten minutes in which everything that can break does, again and again, under 200 browsers.

A paced run of the demo; 180 browsers that follow it, 20 of which come and go; 20 that read slowly; its gateway is killed once it has served for
a minute, runtime_service is killed twice. In the end: no browser had a gap or a duplicate, no process has grown, and the ledger is that of a run
that nobody disturbed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from mesh_processes import PROCESSES, Mesh, running_mesh

from bench.figures import Figure, at_most, told
from bench.supervision_times import Watch
from trademesh.runtime.v1 import runtime_pb2 as runtime

PACE = 13.5
"""Sessions per second: the demo's 8313 take ten minutes and a quarter."""
SERVES_FOR_S = 61.0
RUNTIME_KILLS_AT_S = (200.0, 400.0)
LONGEST_S = 900.0
SAMPLE_S = 5.0
SETTLED_IN_S = 120.0
"""By then every cache is as full as it gets."""
MOST_GROWTH = 1.2
RUN = "soak"


@dataclass
class Memory:
    """Resident memory of the processes that live throughout, in MiB, by name: (seconds since the beginning, MiB)."""

    samples: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def sample(self, at_s: float, mesh: Mesh, gateway_pid: int) -> None:
        """Looks at every process."""
        pids = {name: process.pid for name, process in mesh.processes.items()} | {"gateway": gateway_pid}
        for name, pid in pids.items():
            try:
                mib = psutil.Process(pid).memory_info().rss / 2**20
            except psutil.NoSuchProcess:
                continue
            self.samples.setdefault(name, []).append((at_s, mib))

    def figures(self) -> list[Figure]:
        """How much each has grown from when it had settled in to the end. A gateway's curve of the net asset value grows with the run."""
        found = list[Figure]()
        for name, samples in self.samples.items():
            early = [mib for at, mib in samples if SETTLED_IN_S <= at < SETTLED_IN_S + 60]
            late = [mib for _, mib in samples[-12:]]
            if early and late:
                growth = (sum(late) / len(late)) / (sum(early) / len(early))
                label = f"memory of {name}, last minute against the third ({late[-1]:.0f} MiB at the end)"
                found.append(at_most(label, "times", growth, MOST_GROWTH))
        return found


def soak_figures() -> list[Figure]:
    """The soak, and what came of it."""
    with tempfile.TemporaryDirectory(prefix="trademesh-soak-") as name, running_mesh(Path(name), *PROCESSES) as mesh:
        assert mesh.cli("run", "start", "--run-id", "undisturbed").returncode == 0, "the undisturbed run starts"
        undisturbed = mesh.summary("undisturbed")
        mesh.json("run", "stop", "undisturbed")
        assert mesh.cli("run", "start", "--run-id", RUN, "--pace", str(PACE), "--wait").returncode == 0, "the run starts"
        command = [sys.executable, "-m", "bench.soak_browsers", str(mesh.ports["edge"]), RUN]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as browsers:
            figures, memory = _disturb(mesh)
            summary = mesh.summary(RUN)
            # A finished gateway goes on serving until it is stopped: only then the feed ends.
            mesh.json("run", "stop", RUN)
            said, _ = browsers.communicate("", timeout=120)
        found = json.loads(said.splitlines()[-1])
        return [*figures, *_judged(found, summary, undisturbed), *memory.figures()]


def _disturb(mesh: Mesh) -> tuple[list[Figure], Memory]:
    """Kills what there is to kill until the run has ended."""
    watch = Watch(f"127.0.0.1:{mesh.ports['runtime']}")
    memory, kills, runtime_kills = Memory(), 0, 0
    began = serves_since = time.monotonic()
    generation, sampled_at = 0, 0.0
    try:
        while time.monotonic() - began < LONGEST_S:
            now = time.monotonic()
            run = watch.run(RUN) if watch.knows(RUN) else None
            if run is not None and run.progress.sessions_total and run.progress.sessions_settled == run.progress.sessions_total:
                break
            if now - sampled_at >= SAMPLE_S and run is not None:
                memory.sample(now - began, mesh, run.pid)
                sampled_at = now
            if runtime_kills < len(RUNTIME_KILLS_AT_S) and now - began > RUNTIME_KILLS_AT_S[runtime_kills]:
                mesh.processes["runtime"].kill()
                mesh.processes["runtime"].wait()
                mesh.start("runtime")
                runtime_kills += 1
            if run is not None and run.state == runtime.RUN_STATE_RUNNING:
                if run.generation != generation:
                    generation, serves_since = run.generation, now
                elif now - serves_since > SERVES_FOR_S and _kill(run.pid):
                    kills += 1
                    serves_since = now
            time.sleep(0.2)
    finally:
        watch.close()
    lasted_s = time.monotonic() - began
    return [
        told("soak: seconds", "s", lasted_s),
        told("soak: gateways killed", "kills", kills),
        told("soak: runtime_service killed", "kills", runtime_kills),
    ], memory


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _judged(found: dict[str, Any], summary: dict[str, Any], undisturbed: dict[str, Any]) -> list[Figure]:
    same = [summary[name] == undisturbed[name] for name in ("journal_sha256", "final_nav_micros", "trades", "sessions")]
    return [
        told("soak: events that browsers were sent", "events", found["events"]),
        told("soak: times that a browser came back with its cursor", "times", found["resumed"]),
        told("soak: browsers cut off for being slow", "times", found["cut_off"]),
        at_most("soak: gaps", "gaps", found["gaps"], 0),
        at_most("soak: duplicates", "duplicates", found["duplicates"], 0),
        at_most("soak: browsers that did not get to the end", "browsers", found["unfinished"], 0),
        at_most("soak: figures of the ledger that differ from the undisturbed run's", "figures", same.count(False), 0),
    ]
