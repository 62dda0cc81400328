"""The check of the contracts checks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def check_breaking(folder: Path) -> subprocess.CompletedProcess[str]:
    """Compares the contracts in a folder with the released ones."""
    command = [str(ROOT / "scripts" / "check-breaking"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The contracts, to be changed."""
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    shutil.copytree(ROOT / ".deps", tmp_path / ".deps")
    shutil.copy(ROOT / "buf.yaml", tmp_path / "buf.yaml")
    return tmp_path


def test_the_contracts_do_not_break_the_released_ones(copy: Path) -> None:
    outcome = check_breaking(copy)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_a_renamed_field_is_found(copy: Path) -> None:
    file = copy / "proto" / "trademesh" / "gateway" / "v1" / "event.proto"
    text = file.read_text()
    assert "int64 fee_micros = 6;" in text
    file.write_text(text.replace("int64 fee_micros = 6;", "int64 charge_micros = 6;"))
    outcome = check_breaking(copy)
    assert outcome.returncode != 0
    assert "charge_micros" in outcome.stdout + outcome.stderr
