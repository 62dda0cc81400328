"""Arithmetic of whole micro-dollars. Rounding is half to even, and only here."""

from __future__ import annotations

MICROS_PER_DOLLAR = 1_000_000
BASIS_POINTS = 10_000


def divide_half_even(numerator: int, denominator: int) -> int:
    """The quotient rounded to the nearest integer, ties to the even one. The denominator is above zero."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient
