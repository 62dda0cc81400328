"""Groups of commands that are loaded when one of their commands is asked for: a command pays for what it needs, and not for all that the others
import. A help page, and a command that does not exist, load all of their group.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group


def add_group(app: typer.Typer, name: str, help: str, places: Sequence[str]) -> None:
    """Adds a group. `places` are where its commands are, `module.app` of this package: they are loaded in this order until one has the command."""

    class Group(TyperGroup):
        """This group."""

        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self._not_loaded = list(places)

        def _load_next(self) -> None:
            module, _, found = self._not_loaded.pop(0).partition(".")
            self.commands.update(get_group(getattr(import_module(f"trademesh_cli.{module}"), found)).commands)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            while cmd_name not in self.commands and self._not_loaded:
                self._load_next()
            return super().get_command(ctx, cmd_name)

        def list_commands(self, ctx: Any) -> list[str]:
            while self._not_loaded:
                self._load_next()
            return super().list_commands(ctx)

    app.add_typer(typer.Typer(cls=Group, no_args_is_help=True, help=help), name=name)
