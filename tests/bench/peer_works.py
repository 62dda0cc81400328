"""Programs that others wrote on the same two works, each in a process of its own as the folder's `run` starts it: what users would take instead.

What is not set up there (`setup PEER`) is left out. The figures of one run stand beside ours of the same run: the machine is the same, and as busy.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from bench.figures import Figure, told

PEERS = ("nautilus", "backtrader", "zipline", "bt", "vectorbt")
TICKER_DAYS = 166_260
LONGEST_S = 600


def peer_figures(folder: Path) -> list[Figure]:
    """Ticker-days per CPU second of each peer and work."""
    return [figure for peer in PEERS for work in ("A", "B") if (figure := _figure(folder, peer, work)) is not None]


def _figure(folder: Path, peer: str, work: str) -> Figure | None:
    try:
        outcome = subprocess.run([folder / "run", peer, work], capture_output=True, text=True, timeout=LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        return None
    lines = outcome.stdout.strip().splitlines()
    if outcome.returncode or not lines:
        return None
    return told(f"{peer} on work {work}", "ticker-days/CPU s", TICKER_DAYS / json.loads(lines[-1])["run_cpu"])
