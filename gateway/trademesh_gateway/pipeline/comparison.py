"""What the same money would be worth elsewhere, session by session: the baselines of a run, on its own first session, fill prices and costs.

A pure function of the bars and corporate actions: a gateway that begins again takes the settled sessions in once more. The rules are the
ledger's (`baselines.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from trademesh_gateway.market.point_in_time import PointInTimeView
from trademesh_ledger.baselines import MOMENTUM_CLOSES, Baseline, Holding, Momentum, equal_weight, market_cap_weighted
from trademesh_ledger.corporate_actions import CorporateAction, restate_marks
from trademesh_ledger.costs import CostModel
from trademesh_ledger.money import check_amount, divide_half_even


class Comparison:
    """Baselines between two sessions."""

    def __init__(
        self, initial_cash_micros: int, tickers: Sequence[str], costs: CostModel, index_name: str, shares_outstanding: Sequence[int] = ()
    ) -> None:
        """`index_name` may be empty: a set without an index. `shares_outstanding` are those that were filed by the first decision, by column, 0
        where none were; empty if none are known of any ticker."""
        self._costs = costs
        self._shares_outstanding = shares_outstanding
        self._market_cap: Holding | None = None
        self.market_cap_note = ""
        """What the baseline by market value lacks."""
        self._initial_cash_micros = initial_cash_micros
        self._tickers = tuple(tickers)
        self._equal_weight = equal_weight(initial_cash_micros, self._tickers, costs)
        self._momentum = Momentum(initial_cash_micros, self._tickers, costs)
        self._index_name = f"index:{index_name}"
        self._first_index = self._index = 0
        self._marks = [0] * len(self._tickers)

    def open_session(self, actions: Sequence[CorporateAction]) -> None:
        """What companies do on the morning of a session, to the baselines' shares."""
        if not actions:
            return
        baselines: list[Baseline | None] = [self._equal_weight, self._momentum, self._market_cap]
        for baseline in baselines:
            if baseline is not None:
                baseline.take_actions(actions, self._marks)
        marks = dict(zip(self._tickers, self._marks, strict=True))
        restate_marks(actions, marks)
        self._marks = list(marks.values())

    def settle(
        self, session: str, before: PointInTimeView, prices: Sequence[int], closes: Sequence[int], index_close: int
    ) -> list[tuple[str, int]]:
        """Values at a close, by name.

        Args:
            session: ISO date.
            before: what was known when the desk decided, with splits counted in.
            prices: what fills begin with, by column, 0 where there is none.
            closes: of the session, likewise.

        Raises:
            AmountTooLarge: a value cannot be told.
        """
        # What was bought at an open is worth that open until there is a close.
        marks = list(closes)
        if not all(marks):
            marks = [close or price or mark for close, price, mark in zip(closes, prices, self._marks, strict=True)]
        self._marks = marks
        known = before.last_closes(MOMENTUM_CLOSES).tolist() if self._momentum.is_due(session) else []
        self._weigh(before)
        found = [
            ("equal_weight", self._equal_weight.settle(prices, marks)),
            ("momentum", self._momentum.settle(session, prices, known, marks)),
        ]
        if self._market_cap is not None:
            found.append(("market_cap_weighted", self._market_cap.settle(prices, marks)))
        self._index = index_close or self._index
        self._first_index = self._first_index or self._index
        if self._first_index:
            found.append((self._index_name, divide_half_even(self._initial_cash_micros * self._index, self._first_index)))
        for name, value in found:
            check_amount(f"the baseline {name}", value)
        return found

    def _weigh(self, before: PointInTimeView) -> None:
        """At the first settlement: parts of the cash by what companies were worth when the desk first decided."""
        if not self._shares_outstanding:
            return
        known = before.last_closes(1)
        if any(self._shares_outstanding) and len(known):
            self._market_cap, self.market_cap_note = market_cap_weighted(
                self._initial_cash_micros, self._tickers, self._costs, self._shares_outstanding, known[0].tolist()
            )
        self._shares_outstanding = ()
