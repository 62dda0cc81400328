"""Arithmetic of whole micro-dollars. Rounding is half to even, and only here."""

from __future__ import annotations

MICROS_PER_DOLLAR = 1_000_000
BASIS_POINTS = 10_000
MOST_MICROS = 2**63 - 1
"""Contracts tell amounts in 64 bits: nine trillion dollars, and a little more."""


class AmountTooLarge(ArithmeticError):
    """An amount that no contract can tell, and that nothing is rounded or cut down to."""

    def __init__(self, what: str, amount: int) -> None:
        super().__init__(
            f"{what} would be {amount:,}, which 64 bits do not hold: prices or splits of the data cannot be right, or money is too much"
        )


def check_amount(what: str, amount: int) -> None:
    """Raises AmountTooLarge for more micro-dollars than can be told."""
    if not -MOST_MICROS <= amount <= MOST_MICROS:
        raise AmountTooLarge(f"{what} in micro-dollars", amount)


def divide_half_even(numerator: int, denominator: int) -> int:
    """The quotient rounded to the nearest integer, ties to the even one. The denominator is above zero."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient
