"""Tables on a terminal. What they are drawn with, 60 modules, is loaded when there is one to draw: most commands of programs ask for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints rows below the names of their columns."""
    _print(heads, rows)


def print_facts(rows: Iterable[tuple[str, Any]]) -> None:
    """Prints names with what is known by them."""
    _print((), ((name, str(value)) for name, value in rows))


def _print(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads, show_header=bool(heads))
    for row in rows:
        # Text, since a reason in brackets would be taken for markup.
        table.add_row(*map(Text, row))
    Console().print(table)
