"""All news sets that can be read: those that come with the program and those that users imported. Writes nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from trademesh_kernel.errors import DataAbsent
from trademesh_news.derived_sets import load_news
from trademesh_news.imported_sets import ImportDamaged, import_files, read_imports
from trademesh_news.news_items import NewsSet

EMBEDDED_SETS = Path(__file__).parent / "data"
KEPT_SETS = 8


class NewsStore:
    """News sets by their names. The sets that were used last are kept in memory, each as long as nothing is added to it."""

    def __init__(self, imported_sets: Path | None = None, root: Path = EMBEDDED_SETS) -> None:
        """`imported_sets` is the folder that the importer writes to; it may be absent, and may fill while we run."""
        self._root = root
        self._imported = imported_sets
        self._loaded: OrderedDict[str, tuple[tuple[Path, ...], NewsSet]] = OrderedDict()
        self._loading = threading.Lock()

    def names(self) -> list[str]:
        """Names of all sets, those that come with the program first."""
        own = sorted(folder.name for folder in self._root.iterdir() if (folder / "news.parquet").is_file())
        imported = self._imported
        return own + (sorted(path.name for path in imported.iterdir() if import_files(path)) if imported and imported.is_dir() else [])

    def get(self, name: str) -> NewsSet:
        """A set by its name as it is now: the same object as long as nothing was added. One of market data such as `mine@0f3a…` finds also
        the news that were imported for `mine`. Raises DataAbsent."""
        found = self._find(name)
        if found is None:
            raise DataAbsent(f"there is no news for set {name}: there is for {', '.join(self.names())}", set=name, what="news")
        full, files = found
        with self._loading:
            before = self._loaded.pop(full, None)
            try:
                news = before[1] if before is not None and before[0] == files else _read(files)
            except (OSError, ValueError, KeyError, ImportDamaged) as error:
                raise DataAbsent(f"the news of set {name} cannot be read: {error}", set=name, what="news") from error
            self._loaded[full] = (files, news)
            while len(self._loaded) > KEPT_SETS:
                self._loaded.popitem(last=False)
            return news

    def _find(self, name: str) -> tuple[str, tuple[Path, ...]] | None:
        """Full name and files of a set."""
        for one in dict.fromkeys((name, name.partition("@")[0])):
            if not is_set_name(one):
                continue
            if (self._root / one / "news.parquet").is_file():
                return one, (self._root / one / "news.parquet",)
            files = import_files(self._imported / one) if self._imported is not None else []
            if files:
                return one, tuple(files)
        return None


def is_set_name(name: str) -> bool:
    """True for what can be the name of a set, and so of its folder."""
    return name not in ("", ".", "..") and all(letter.isascii() and (letter.isalnum() or letter in "._-@") for letter in name)


def _read(files: tuple[Path, ...]) -> NewsSet:
    return load_news(files[0].parent) if files[0].suffix == ".parquet" else read_imports(files)
