"""What trading costs: the price an order really gets, its fee, and the rate at which shares are borrowed. What borrowing comes to is in
`borrow.py`."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from trademesh_ledger.money import BASIS_POINTS, divide_half_even

_CENT_MICROS = 10_000
_DOLLAR_MICROS = 1_000_000


class Tick(enum.Enum):
    """The grid on which fill prices lie."""

    NONE = "none"
    US_EQUITY = "us_equity"


@dataclass(frozen=True)
class CostModel:
    """Fees, slippage and borrow rate of a run; basis points, the borrow rate per year of 360 days."""

    fee_bp: int = 0
    min_fee_micros: int = 0
    slippage_bp: int = 0
    tick: Tick = Tick.NONE
    borrow_bp: int = 0

    def fill_price(self, price_micros: int, delta: int) -> int:
        """The price per share that an order of `delta` signed shares gets: moved against it, rounded half to even, then onto the grid.

        Grid of US shares: $0.01, and $0.0001 under $1 (SEC rule 612); up for purchases, down for sales.
        """
        sign = 1 if delta > 0 else -1
        price = divide_half_even(price_micros * (BASIS_POINTS + sign * self.slippage_bp), BASIS_POINTS)
        if self.tick is Tick.NONE:
            return price
        grid = _CENT_MICROS if price >= _DOLLAR_MICROS else _CENT_MICROS // 100
        return -(-price // grid) * grid if delta > 0 else price // grid * grid

    def fee(self, delta: int, price_micros: int) -> int:
        """The fee of a whole order, in micro-dollars, rounded half to even: a flip pays it once, not per leg."""
        return max(self.min_fee_micros, divide_half_even(abs(delta) * price_micros * self.fee_bp, BASIS_POINTS))
