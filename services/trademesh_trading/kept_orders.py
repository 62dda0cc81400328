"""Orders of runs that were read a moment ago, for who turns the page."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from trademesh_trading.order_history import OrderHistory

KEPT_HISTORIES = 2
KEPT_S = 60.0


class KeptOrders:
    """Histories whose later pages somebody may ask for: the newest two, for a minute. A long run has tens of thousands of orders, and the next
    page is of the same moment."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._kept: OrderedDict[tuple[str, int], tuple[float, OrderHistory]] = OrderedDict()

    def get(self, run_id: str, through: int) -> OrderHistory | None:
        """The history of a run up to a sequence, if it is still kept."""
        self._forget()
        found = self._kept.get((run_id, through))
        return None if found is None else found[1]

    def keep(self, run_id: str, history: OrderHistory) -> None:
        """Keeps a history, which is not changed any more."""
        self._forget()
        self._kept[run_id, history.through] = (self._clock_s() + KEPT_S, history)
        self._kept.move_to_end((run_id, history.through))
        while len(self._kept) > KEPT_HISTORIES:
            self._kept.popitem(last=False)

    def _forget(self) -> None:
        now_s = self._clock_s()
        for key in [key for key, (until_s, _) in self._kept.items() if until_s <= now_s]:
            del self._kept[key]
