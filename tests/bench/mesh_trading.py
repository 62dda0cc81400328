"""What trading costs through the whole mesh: the shipped strategies on the peers' works, the demo desk, the proof of its journal, and how cost
and memory grow with tickers. CPU seconds are those of all processes of the mesh, from StartRun to the last event; the command that asks for the
run, and we who listen, are not in them.
"""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import psutil
from mesh_processes import PROCESSES, Mesh, running_mesh

from bench.figures import Figure, at_least, at_most, told
from bench.mesh_runs import until_finished
from trademesh_runs.layout import RunLayout
from trademesh_runs.verification import verify_run

MIB = 1 << 20
ROUNDS = 5
WORKS = {"A": "monthly-equal-weight", "B": "sma-crossover"}
DEMO_TICKER_DAYS = 166_260
WANTED_OF_WORKS, WANTED_OF_DEMO, WANTED_OF_PROOF = 30_000, 20_000, 100_000
DEMO_WITHIN_S, MOST_JOURNAL_MIB, MOST_MEMORY_MIB = 10.0, 60, 150
FEW, MANY = 20, 2_000
FEW_FROM, MANY_FROM = "2014-12-31", "2022-12-07"
"""With these first sessions both made-up universes have about 40,000 and 32,000 ticker-days until 2022-12-30, long enough to tell."""


@dataclass(frozen=True)
class Cost:
    """Of one run."""

    cpu_s: float
    seconds: float
    sessions: int
    peak_memory_mib: float


def trading_figures() -> list[Figure]:
    """All of them, on one mesh."""
    with tempfile.TemporaryDirectory(prefix="trademesh-bench-") as name, running_mesh(Path(name), *PROCESSES) as mesh:
        return _works(mesh) + _demo(mesh) + _growth(mesh)


def _works(mesh: Mesh) -> list[Figure]:
    figures = list[Figure]()
    for work, strategy in WORKS.items():
        text = resources.files("trademesh_cli").joinpath("demo", f"{strategy}.md").read_text(encoding="utf-8")
        costs = [cost_of(mesh, f"work-{work.lower()}-{number}", text) for number in range(ROUNDS)]
        rates = [DEMO_TICKER_DAYS / cost.cpu_s for cost in costs]
        figures.append(at_least(f"work {work} ({strategy}) through the whole mesh", "ticker-days/CPU s", rates, WANTED_OF_WORKS))
    return figures


def _demo(mesh: Mesh) -> list[Figure]:
    text = resources.files("trademesh_cli").joinpath("demo", "BOOTSTRAP.md").read_text(encoding="utf-8")
    costs = [cost_of(mesh, f"demo-{number}", text) for number in range(ROUNDS)]
    newest = f"demo-{ROUNDS - 1}"
    mesh.json("run", "stop", newest)
    layout = RunLayout(mesh.runs, newest)
    hashes = {mesh.json("run", "show", newest)["summary"]["journal_sha256"]}
    proofs = list[float]()
    for _ in range(ROUNDS):
        before = time.process_time()
        hashes.add(verify_run(layout).summary.journal_sha256)
        proofs.append(DEMO_TICKER_DAYS / (time.process_time() - before))
    assert len(hashes) == 1, hashes
    before_command = _cpu_of_children()
    assert mesh.json("run", "verify", newest)["verified"] is True
    by_command = DEMO_TICKER_DAYS / (_cpu_of_children() - before_command)
    journal = layout.journal.stat().st_size / MIB
    name = "the demo desk of six agents through the whole mesh"
    return [
        at_least(name, "ticker-days/CPU s", [DEMO_TICKER_DAYS / cost.cpu_s for cost in costs], WANTED_OF_DEMO),
        at_most(f"{name}, StartRun to the last event, quickest of {ROUNDS}", "s", min(cost.seconds for cost in costs), DEMO_WITHIN_S),
        at_most("peak memory of its gateway", "MiB", max(cost.peak_memory_mib for cost in costs), MOST_MEMORY_MIB),
        at_most("its journal", "MiB", journal, MOST_JOURNAL_MIB),
        at_least("replay and proof of its journal, hash equal", "ticker-days/CPU s", proofs, WANTED_OF_PROOF),
        told("the same as a command (trademesh run verify), start of the program included", "ticker-days/CPU s", by_command),
    ]


def _growth(mesh: Mesh) -> list[Figure]:
    """The demo desk on made-up universes."""
    each, memory = list[float](), list[float]()
    for tickers, first in ((FEW, FEW_FROM), (MANY, MANY_FROM)):
        text = f"---\nmode: mock\ndata: {{set: mock-{tickers}@7}}\nsessions: {{start: {first}}}\n---\n"
        costs = [cost_of(mesh, f"growth-{tickers}-{number}", text) for number in range(ROUNDS)]
        # What a gateway costs before its first session is the same for both.
        each.append(min(cost.cpu_s for cost in costs) / (costs[0].sessions * tickers))
        memory.append(max(cost.peak_memory_mib for cost in costs))
    return [
        at_most(f"CPU time per ticker-day, {MANY:,} made-up tickers against {FEW}", "times", each[1] / each[0], 1.25),
        at_most(f"peak memory of a gateway with {MANY:,} tickers, of which a window is held", "MiB", memory[1], 512),
    ]


def cost_of(mesh: Mesh, run_id: str, bootstrap: str) -> Cost:
    """Runs a configuration to its end, and stops it."""
    path = mesh.folder / f"{run_id}.md"
    path.write_text(bootstrap)
    before, began = _cpu_of_mesh(), time.perf_counter()
    outcome = mesh.cli("run", "start", str(path), "--run-id", run_id, "--wait")
    assert outcome.returncode == 0, outcome.stderr
    sessions = asyncio.run(until_finished(mesh, run_id))
    seconds, cpu_s = time.perf_counter() - began, _cpu_of_mesh() - before
    peak = _peak_memory_mib(run_id, mesh)
    mesh.json("run", "stop", run_id)
    return Cost(cpu_s, seconds, sessions, peak)


def _processes_of_mesh() -> Iterator[psutil.Process]:
    for process in psutil.Process().children(recursive=True):
        try:
            command = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        if any(part.startswith("trademesh_") and part != "trademesh_cli.main" for part in command):
            yield process


def _cpu_of_mesh() -> float:
    """CPU seconds of all services and gateways that live; a gateway lingers after its run, so that none is missed."""
    total = 0.0
    for process in _processes_of_mesh():
        times = process.cpu_times()
        total += times.user + times.system
    return total


def _peak_memory_mib(run_id: str, mesh: Mesh) -> float:
    pid = int(mesh.json("run", "show", run_id)["run"]["pid"])
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("this kernel tells no peak")


def _cpu_of_children() -> float:
    """CPU seconds of children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
