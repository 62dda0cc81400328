"""Commands are loaded when they are asked for, and nobody notices."""

from __future__ import annotations

import subprocess
import sys

from typer.testing import CliRunner

from trademesh_cli.main import app

LOADED_BY = """
import sys
from typer.testing import CliRunner
from trademesh_cli.main import app
print(CliRunner().invoke(app, sys.argv[1:]).exit_code, *sys.modules)
"""


def loaded_by(*arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", LOADED_BY, *arguments], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.split()


def test_a_command_loads_neither_other_groups_nor_what_draws_tables() -> None:
    status, *modules = loaded_by("run", "verify", "no-such-run")
    assert status == "4"
    assert "trademesh_runs.verification" in modules
    needless = ("rich.table", "yaml", "trademesh_cli.up", "trademesh_cli.journal_commands", "trademesh_cli.data_commands")
    assert not [name for name in needless if name in modules]


def test_a_group_finds_a_command_of_its_last_module() -> None:
    outcome = CliRunner().invoke(app, ["run", "report", "no-such-run", "-o", "report.html"])
    assert outcome.exit_code == 4


def test_a_misspelt_command_is_corrected_from_all_modules_of_its_group() -> None:
    outcome = CliRunner().invoke(app, ["run", "salvge", "demo"])
    assert outcome.exit_code == 2
    assert "Did you mean 'salvage'?" in outcome.stderr


def test_help_lists_the_commands_of_all_modules_in_order() -> None:
    text = CliRunner().invoke(app, ["run", "--help"]).stdout
    places = [text.index(f" {name} ") for name in ("start", "verify", "rebuild", "report")]
    assert places == sorted(places)
