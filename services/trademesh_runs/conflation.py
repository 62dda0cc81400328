"""The newest value of every key, for readers of any pace: a reader keeps one number, the version that it has, and what it misses is what changed
since, each key once. Pure: nothing is queued, and nothing is held for a reader.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Conflated(Generic[Value]):
    """Values by key, those that changed last come last."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[int, Value]] = {}
        self.version = 0
        """Counts the changes."""

    def __len__(self) -> int:
        """How many keys have a value."""
        return len(self._values)

    def put(self, key: str, value: Value) -> None:
        """Takes in a value."""
        self.version += 1
        self._values.pop(key, None)
        self._values[key] = (self.version, value)

    def since(self, version: int, keys: Set[str]) -> list[tuple[int, Value]]:
        """What changed after a version, and in which; what changed last comes last. No keys: all."""
        found = list[tuple[int, Value]]()
        for key, changed in reversed(self._values.items()):
            if changed[0] <= version:
                break
            if not keys or key in keys:
                found.append(changed)
        found.reverse()
        return found
