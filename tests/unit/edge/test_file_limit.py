"""The limit on open files, raised in a process of its own: it cannot be lowered again."""

from __future__ import annotations

import subprocess
import sys

LOWERED = """
import resource
from trademesh_edge.file_limit import raise_file_limit
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print("raised to", raise_file_limit({needed}), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def raised(soft: int, hard: int, needed: int) -> str:
    program = LOWERED.format(soft=soft, hard=hard, needed=needed)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30).stdout


def test_open_files_are_allowed_up_to_the_hard_limit_without_a_word() -> None:
    assert raised(64, 512, 500).strip() == "raised to 512 512 512"


def test_too_few_open_files_for_the_sockets_are_said() -> None:
    output = raised(64, 512, 2_384)
    assert "raised to 512 512 512" in output
    assert "ulimit -n" in output
    assert "needed=2384" in output
