"""Splits a move into the market's part and the ticker's own, by a regression on the sessions before it. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


class TooFewObservationsError(Exception):
    """Not enough sessions with both prices before the move."""

    def __init__(self, found: int, needed: int) -> None:
        super().__init__(f"the regression needs {needed} sessions before the move in which both have prices; there are {found}")
        self.found = found


@dataclass(frozen=True)
class MoveParts:
    """A logarithmic return and its parts; log_return = market_part + own_part. Rows are places in the arrays that were given."""

    log_return: float
    market_part: float
    own_part: float
    beta: float
    alpha: float
    r_squared: float
    residual_deviation: float
    window_start_row: int
    window_end_row: int


def split_move(ticker_close: npt.NDArray[np.int64], market_close: npt.NDArray[np.int64], first: int, last: int, window: int) -> MoveParts:
    """Ordinary least squares of daily logarithmic returns (the market model of Sharpe 1963).

    Args:
        ticker_close, market_close: closes in micro-dollars by session, all above 0.
        first, last: rows of the move's first and last session; the return is counted from the close before `first`.
        window: how many returns before the move the regression runs over.

    Raises:
        TooFewObservationsError: there are fewer returns before the move.
    """
    if first - 1 < window:
        raise TooFewObservationsError(max(0, first - 1), window)
    own, market = np.log(ticker_close / 1e6), np.log(market_close / 1e6)
    y, x = np.diff(own[first - 1 - window : first]), np.diff(market[first - 1 - window : first])
    spread = float(np.sum((x - x.mean()) ** 2))
    beta = float(np.sum((x - x.mean()) * (y - y.mean()))) / spread if spread > 0 else 0.0
    alpha = float(y.mean()) - beta * float(x.mean())
    residual = y - alpha - beta * x
    total = float(np.sum((y - y.mean()) ** 2))
    log_return = float(own[last] - own[first - 1])
    market_part = beta * float(market[last] - market[first - 1])
    return MoveParts(
        log_return,
        market_part,
        log_return - market_part,
        beta,
        alpha,
        1.0 - float(np.sum(residual**2)) / total if total > 0 else 0.0,
        float(np.sqrt(np.sum(residual**2) / (window - 2))),
        first - window,
        first - 1,
    )
