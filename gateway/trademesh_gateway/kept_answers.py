"""Answers to calls that change something, kept for a call that is repeated. What an answer is, and where earlier ones are read from, is the
caller's."""

from __future__ import annotations

from typing import TypeVar

KEPT_ANSWERS = 1_000
"""So many of the newest are known of each kind of call."""
UNNAMED_PERSON = "person"
"""Who called, where nobody is named."""

Answer = TypeVar("Answer")


class KeptAnswers(dict[str, Answer]):
    """The newest answers by request or order id, oldest first. An id is kept once."""

    def keep(self, key: str, answer: Answer) -> None:
        """Keeps an answer, in the place of the oldest if there are too many."""
        self[key] = answer
        if len(self) > KEPT_ANSWERS:
            del self[next(iter(self))]
