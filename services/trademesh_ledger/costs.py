"""What trading costs: the price an order really gets, and its fee."""

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
    """Fees and slippage of a run."""

    fee_bp: int = 0
    min_fee_micros: int = 0
    slippage_bp: int = 0
    tick: Tick = Tick.NONE

    def fill_price(self, price_micros: int, delta: int) -> int:
        """The price per share that an order of `delta` signed shares gets: moved against it, then onto the grid."""
        sign = 1 if delta > 0 else -1
        price = divide_half_even(price_micros * (BASIS_POINTS + sign * self.slippage_bp), BASIS_POINTS)
        if self.tick is Tick.NONE:
            return price
        grid = _CENT_MICROS if price >= _DOLLAR_MICROS else _CENT_MICROS // 100
        return -(-price // grid) * grid if delta > 0 else price // grid * grid

    def fee(self, delta: int, price_micros: int) -> int:
        """The fee of an order, in micro-dollars."""
        return max(self.min_fee_micros, divide_half_even(abs(delta) * price_micros * self.fee_bp, BASIS_POINTS))
