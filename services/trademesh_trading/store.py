"""Finds sets by their names: those that come with the program, those that users imported, and seeded universes, which are made up.

Sets are loaded when they are first asked for, and the few that were used last are kept. Writes nothing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from trademesh_kernel.errors import DataAbsent
from trademesh_trading.market_set import MarketSet
from trademesh_trading.mock_universe import MOCK_NAME, mock_set
from trademesh_trading.set_files import check_files, load_set
from trademesh_trading.set_source import SetDamaged
from trademesh_trading.year_pages import PageCache

EMBEDDED_SETS = Path(__file__).parent / "data"
KEPT_SETS = 4
CALENDAR_OF_MOCK = "us20"
"""The sessions of seeded universes are those of this set."""


class MarketStore:
    """All sets that can be read."""

    def __init__(self, imported_sets: Path | None = None) -> None:
        """`imported_sets` is the folder that the importer writes to; it may be absent, and may fill while we run."""
        self._imported = imported_sets
        self._sound = set[Path]()
        self._loaded: OrderedDict[str, MarketSet] = OrderedDict()
        self._pages = PageCache()
        self._loading = threading.Lock()
        self._folders = self._scan()

    def names(self) -> list[str]:
        """Names of all sets whose files are whole, those that come with the program first."""
        self._folders = self._scan()
        return [name for name, folder in self._folders.items() if self._is_sound(folder)]

    def get(self, name: str) -> MarketSet:
        """A set by its name; the part before the `@` is enough where only one set has it. Raises DataAbsent."""
        if MOCK_NAME.fullmatch(name):
            calendar_of = self.get(CALENDAR_OF_MOCK)
            return self._kept(name, lambda: mock_set(name, calendar_of, self._pages))
        folder = self._folders.get(name) or self._find(name)
        try:
            return self._kept(str(folder), lambda: load_set(folder, self._pages))
        except (OSError, SetDamaged) as error:
            raise DataAbsent(f"set {name} cannot be read: {error}; import it again", set=name, what="set") from error

    def _kept(self, key: str, load: Callable[[], MarketSet]) -> MarketSet:
        with self._loading:
            found = self._loaded.pop(key, None) or load()
            self._loaded[key] = found
            while len(self._loaded) > KEPT_SETS:
                self._loaded.popitem(last=False)
            return found

    def _find(self, name: str) -> Path:
        """A set that was not known when we last looked, or one by the first part of its name."""
        self._folders = self._scan()
        fitting = {full: folder for full, folder in self._folders.items() if name in (full, full.partition("@")[0])}
        if len(fitting) == 1:
            return next(iter(fitting.values()))
        text = f"several sets are called {name}: say which of {', '.join(fitting)}"
        if not fitting:
            text = f"there is no set {name}: there are {', '.join(self.names())}"
        raise DataAbsent(text, set=name, what="set")

    def _scan(self) -> dict[str, Path]:
        """Folders of sets by their names. What the importer has not finished begins with a dot."""
        folders = {folder.name: folder for folder in sorted(EMBEDDED_SETS.iterdir()) if (folder / "SOURCE.json").is_file()}
        if self._imported is not None and self._imported.is_dir():
            found = (folder for folder in sorted(self._imported.iterdir()) if not folder.name.startswith("."))
            folders |= {name_of_imported(folder): folder for folder in found if (folder / "SOURCE.json").is_file()}
        return folders

    def _is_sound(self, folder: Path) -> bool:
        """Looked at until it is: sets are not changed after they were made, but a damaged one may be made again."""
        if folder not in self._sound:
            try:
                check_files(folder)
            except (OSError, SetDamaged):
                return False
            self._sound.add(folder)
        return True


def name_of_imported(folder: Path) -> str:
    """Name of an imported set, `name@digits`; its folder is `name-digits`."""
    name, _, digits = folder.name.rpartition("-")
    return f"{name}@{digits}"
