"""Words of texts: what a search compares, and which of them are good or bad for who holds a share.

The lists are trademesh's own and short. Words mean what they mean alone: neither negation nor irony is seen.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

_WORD = re.compile(r"[^\W_]+")

_POSITIVE = (
    "accelerate accelerated accelerates accelerating beat beats boost boosted boosts breakthrough buyback climb climbed climbs expand expanded "
    "expands expansion gain gained gains growth grew grow grows higher improve improved improvement improves jump jumped jumps outperform "
    "outperformed outperforms profitable profitability raise raised raises rallied rallies rally rebound rebounded rebounds record recovered "
    "recovery rise rises rising rose soar soared soars strength strengthen strengthened strong stronger surge surged surges surpass surpassed "
    "tops upbeat upgrade upgraded upgrades win wins won"
)
_NEGATIVE = (
    "abandon abandoned bankrupt bankruptcy breach breached cut cuts decline declined declines default defaulted deficit delay delayed delays "
    "disappoint disappointed disappointing disappoints downgrade downgraded downgrades downturn drop dropped drops fail failed fails failure fall "
    "fallen falls fell fine fined fraud halt halted investigation lawsuit layoff layoffs litigation lose loses losing loss losses lost lower miss "
    "missed misses plummet plummeted plunge plunged plunges probe recall recalled recalls resign resigned shortage shortfall shrink shrinks slash "
    "slashed slowdown slump slumped slumps sue sued sues tumble tumbled tumbles warn warned warning warns weak weaken weakened weaker weakness "
    "worse worsen worsened writedown writeoff"
)
POSITIVE = frozenset(_POSITIVE.split())
NEGATIVE = frozenset(_NEGATIVE.split())


class Tally(NamedTuple):
    """How many words of a text are in the lists."""

    positive: int
    negative: int

    @property
    def direction(self) -> int:
        """1 if more are positive, -1 if more are negative, else 0."""
        return (self.positive > self.negative) - (self.positive < self.negative)


def words_of(text: str) -> list[str]:
    """The words of a text in their order, without case and accents; a word is letters and digits."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return _WORD.findall(plain.casefold())


def tally(text: str) -> Tally:
    """Good and bad words of a text, each as often as it is there."""
    words = words_of(text)
    return Tally(sum(word in POSITIVE for word in words), sum(word in NEGATIVE for word in words))
