"""The command line of `scripts/bench`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.bar_streams import bar_figures
from bench.false_alarms import alarm_figures
from bench.feed_suite import feed_figures
from bench.figures import Figure, as_json, table
from bench.mesh_runs import run_figures
from bench.mesh_trading import trading_figures
from bench.peer_works import peer_figures
from bench.pure_core import core_figures
from bench.soak import soak_figures
from bench.supervision_times import supervision_figures
from bench.throughput import kernel_figures

SUITES: dict[str, Sequence[Callable[[], list[Figure]]]] = {
    "mesh": (kernel_figures, run_figures),
    "feed": (supervision_figures, feed_figures),
    "alarms": (alarm_figures,),
    "soak": (soak_figures,),
    "trading": (core_figures, trading_figures),
    "bars": (bar_figures,),
}


def main() -> int:
    """Runs a suite; 0 if every goal holds, else 1."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures the mesh, as ratios within one run.")
    parser.add_argument("suite", choices=sorted(SUITES), metavar="SUITE", help="one of: " + ", ".join(sorted(SUITES)))
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument(
        "--peers", type=Path, metavar="DIR", help="with trading: a folder of programs that do the same works (`DIR/run PEER A|B`)"
    )
    chosen = parser.parse_args()
    figures = list[Figure]()
    for measure in SUITES[chosen.suite]:
        figures += measure()
    if chosen.suite == "trading" and chosen.peers is not None:
        figures += peer_figures(chosen.peers)
    print(table(figures))
    if chosen.json is not None:
        chosen.json.write_text(as_json(figures))
    return 1 if any(figure.holds is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
