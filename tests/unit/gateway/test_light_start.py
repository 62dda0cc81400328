"""A gateway is started for each run, and there are many at once: it loads what it needs."""

from __future__ import annotations

import subprocess
import sys

LOADS = "import trademesh_gateway.__main__, sys; print(*sys.modules)"
MAIN = "import gc, trademesh_gateway.__main__ as gateway; before = gc.isenabled(); gateway.main(); print(before, gc.isenabled())"


def said_by(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.split()


def test_a_gateway_loads_neither_what_draws_tables_nor_what_counts_calls() -> None:
    loaded = said_by(LOADS)
    assert "trademesh_gateway.gateway" in loaded
    assert not {"rich", "pygments", "prometheus_client", "pandas", "polars"} & set(loaded)


def test_garbage_is_collected_again_once_a_gateway_has_loaded() -> None:
    assert said_by(MAIN) == ["False", "True"]
