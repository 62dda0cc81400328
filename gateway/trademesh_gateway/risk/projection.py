"""The book as it would be after the orders that were let pass so far. Its sums are kept, not made again, so that an order costs the same
whether the desk has 20 tickers or 2,000.
"""

from __future__ import annotations

from trademesh_gateway.agents.records import Book
from trademesh_gateway.risk.limits import GroupLimit


class Projection:
    """A book that takes in orders, valued at the book's own prices. Amounts are whole micro-dollars."""

    __slots__ = (
        "_groups_of",
        "_price_micros",
        "gross_micros",
        "group_gross_micros",
        "net_micros",
        "orders",
        "quantity",
        "squares",
        "traded_micros",
    )

    def __init__(self, book: Book, groups: tuple[GroupLimit, ...]) -> None:
        self._price_micros = book.price_micros
        self.quantity = list(book.quantity)
        values = [shares * price for shares, price in zip(self.quantity, book.price_micros, strict=True)]
        self.gross_micros = sum(map(abs, values))
        self.net_micros = sum(values)
        self.squares = sum(value * value for value in values)
        """Sum of squared position values, in squared micro-dollars."""
        self.group_gross_micros = [sum(abs(values[column]) for column in group.columns) for group in groups]
        self._groups_of: dict[int, list[int]] = {}
        for number, group in enumerate(groups):
            for column in group.columns:
                self._groups_of.setdefault(column, []).append(number)
        self.traded_micros = 0
        """Value of the orders taken in."""
        self.orders = 0
        """How many orders were taken in."""

    def copy(self) -> Projection:
        """One of its own with the same content."""
        same = object.__new__(Projection)
        for name in self.__slots__:
            kept = getattr(self, name)
            setattr(same, name, list(kept) if isinstance(kept, list) else kept)
        return same

    def value(self, column: int) -> int:
        """Signed value of a position."""
        return self.quantity[column] * self._price_micros[column]

    def groups_of(self, column: int) -> list[int]:
        """Numbers of the groups that a ticker is in."""
        return self._groups_of.get(column, [])

    def take(self, column: int, delta: int) -> None:
        """Takes in an order of so many signed shares; 0 is none."""
        if not delta:
            return
        before = self.value(column)
        self.quantity[column] += delta
        after = self.value(column)
        grown = abs(after) - abs(before)
        self.gross_micros += grown
        self.net_micros += after - before
        self.squares += after * after - before * before
        for group in self.groups_of(column):
            self.group_gross_micros[group] += grown
        self.traded_micros += abs(delta) * self._price_micros[column]
        self.orders += 1
