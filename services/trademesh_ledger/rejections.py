"""Why an order is not filled, in the ledger's words. What people and limits refuse before it comes to a fill is not here."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Refusal(enum.Enum):
    """Why an order may not be filled; values are those of gateway.v1.LimitCode."""

    UNKNOWN_TICKER = 1
    BAD_QUANTITY = 2
    NO_PRICE = 3
    SHORT_DISABLED = 5
    INSUFFICIENT_CASH = 9
    INSUFFICIENT_MARGIN = 10


@dataclass(frozen=True, slots=True)
class Rejection:
    """A refused order: nothing of it was filled and nothing has changed.

    `required_micros` and `available_micros` are what the failed check compared: equity for INSUFFICIENT_MARGIN, cash for
    INSUFFICIENT_CASH; 0 for the other reasons, which compare no amounts.
    """

    ticker: str
    delta: int
    refusal: Refusal
    required_micros: int = 0
    available_micros: int = 0
