"""`scripts/bench feed`: the figures of supervision, journal, feed and edge, on real processes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mesh_processes import PROCESSES, running_mesh

from bench.encoding import encoding_figures
from bench.figures import Figure
from bench.journal_rates import journal_figures
from bench.mesh_runs import replay_rate
from bench.socket_load import memory_figures, socket_figures


def feed_figures() -> list[Figure]:
    """Journal, replay, browsers and memory."""
    with tempfile.TemporaryDirectory(prefix="trademesh-bench-") as name, running_mesh(Path(name), *PROCESSES) as mesh:
        assert mesh.cli("run", "start", "--run-id", "decades").returncode == 0, "the demo starts"
        mesh.summary("decades")
        figures = [replay_rate(mesh, "decades")]
        mesh.json("run", "stop", "decades")
        journal = mesh.runs / "decades" / "journal.db"
        figures += [*journal_figures(journal), *encoding_figures(journal)]
        figures += socket_figures(mesh)
    with tempfile.TemporaryDirectory(prefix="trademesh-bench-") as name, running_mesh(Path(name), *PROCESSES) as mesh:
        return figures + memory_figures(mesh)
