"""Figures of the last n sessions: mean, deviation, and whether anything moved."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Series = npt.NDArray[np.float64]
"""Sessions by tickers."""
Mask = npt.NDArray[np.bool_]


def nothing_like(values: Series) -> Series:
    """As many rows and columns, and no value in them."""
    return np.full(values.shape, np.nan)


def sma(values: Series, sessions: int) -> Series:
    """Simple moving average, in the unit of the values (Murphy 1999). Needs `sessions` values in a row."""
    return _window_sum(values, sessions) / sessions


def deviation(values: Series, sessions: int, *, ddof: int) -> Series:
    """Standard deviation of the last values: of a population with `ddof` 0, of a sample with 1. Exactly 0 where they are all the same."""
    mean = sma(values, sessions)
    squares = nothing_like(values)
    if len(values) >= sessions:
        tail = mean[sessions - 1 :]
        squares[sessions - 1 :] = sum((part - tail) ** 2 for part in _shifted(values, sessions))
    result: Series = np.where(is_flat(values, sessions), 0.0, np.sqrt(squares / (sessions - ddof)))
    return result


def is_flat(values: Series, sessions: int) -> Mask:
    """True where the last values are there and all the same, which a deviation in floating point does not always tell."""
    flat = np.zeros(values.shape, bool)
    if len(values) >= sessions:
        newest = values[sessions - 1 :]
        flat[sessions - 1 :] = np.logical_and.reduce([part == newest for part in _shifted(values, sessions)])
    return flat


def _window_sum(values: Series, sessions: int) -> Series:
    """Added up term by term, oldest first: a running total would carry its rounding, and a missing value, on for ever."""
    total = nothing_like(values)
    if len(values) >= sessions:
        total[sessions - 1 :] = sum(_shifted(values, sessions))
    return total


def _shifted(values: Series, sessions: int) -> list[Series]:
    """The first, second … value of every whole window."""
    windows = len(values) - sessions + 1
    return [values[first : first + windows] for first in range(sessions)]
