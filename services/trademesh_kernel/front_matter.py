"""Text files that begin with YAML between two lines of `---`: where the YAML ends and the text begins. What is in either is the caller's."""

from __future__ import annotations

FENCE = "---\n"


class NoFrontMatterError(ValueError):
    """The text does not begin with a line of `---`, or no second one follows."""


def join_front_matter(front: str, body: str) -> str:
    """The text of a file. `front` is YAML, ending with a line end."""
    return f"{FENCE}{front}{FENCE}{body}"


def split_front_matter(text: str) -> tuple[str, str]:
    """YAML and body, both to the letter; a line is a fence only if nothing else is in it.

    Raises:
        NoFrontMatterError: there are no two fences.
    """
    start = place = _line_end(text, 0)
    if _is_fence(text[:start]):
        while place < len(text):
            end = _line_end(text, place)
            if _is_fence(text[place:end]):
                return text[start:place], text[end:]
            place = end
    raise NoFrontMatterError("front matter between two lines of --- is expected")


def _line_end(text: str, place: int) -> int:
    """Behind the next line feed. Not str.splitlines' idea of a line: a text may hold other characters that it takes for line ends."""
    found = text.find("\n", place)
    return len(text) if found < 0 else found + 1


def _is_fence(line: str) -> bool:
    return line.rstrip("\r\n") == "---"
