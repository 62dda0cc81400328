"""Which tickers a person's text names. By the form of words alone: nothing here understands a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_WORD = re.compile(r"(\$?)([A-Za-z0-9]+(?:[.\-][A-Za-z0-9]+)*)")
_TICKER_FORM = re.compile(r"[A-Z]{2,5}(?:[.\-][A-Z])?")
_LEAST_LETTERS = 3
"""Shorter words in small letters are taken for English."""
_CAPITALS = frozenset(
    [
        "AI",
        "AND",
        "CEO",
        "CFO",
        "DCF",
        "EPS",
        "ETF",
        "GDP",
        "IPO",
        "NAV",
        "NO",
        "NOT",
        "NYSE",
        "OK",
        "OR",
        "PE",
        "PM",
        "PNL",
        "ROE",
        "RSI",
        "SEC",
        "SMA",
        "US",
        "USA",
        "USD",
        "VIX",
        "VOL",
        "WHY",
        "YES",
    ]
)
"""Words that people write in capitals and do not mean as tickers."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a text asks about."""

    named: tuple[str, ...] = ()
    """Tickers of the run, in the run's order."""
    not_traded: tuple[str, ...] = ()
    """What looks like a ticker and is none of the run's, in the text's order."""


def question_of(text: str, tickers: Sequence[str]) -> Question:
    """The tickers that a text names: words in capitals or after a dollar sign, and if there is none, words of three letters or more in any
    case. A text without small letters says nothing by its capitals: there only a dollar sign makes a ticker of what the run does not trade.
    """
    known = set(tickers)
    words = list(_words(text, known))
    named = {word.upper() if marked else word for marked, word in words} & known
    if not named:
        named = {word.upper() for _, word in words if len(word) >= _LEAST_LETTERS} & known
    shouted = not any(letter.islower() for letter in text)
    others = dict[str, None]()
    for marked, word in words:
        by_form = not shouted and word not in _CAPITALS and _TICKER_FORM.fullmatch(word) is not None
        if word.upper() not in known and not word.isdigit() and (marked or by_form):
            others[word.upper()] = None
    return Question(tuple(ticker for ticker in tickers if ticker in named), tuple(others))


def _words(text: str, known: set[str]) -> Iterator[tuple[bool, str]]:
    """Words, and whether each is behind a dollar sign. What is joined by a dot or a hyphen is one word, unless its parts are tickers."""
    for dollar, word in _WORD.findall(text):
        parts = re.split(r"[.\-]", word)
        whole = word.upper() in known or not known.intersection(parts)
        for part in (word,) if whole else parts:
            yield bool(dollar), part
