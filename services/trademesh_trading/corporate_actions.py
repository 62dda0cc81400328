"""Corporate actions of a set: what they are, and from when on each may be seen. Paying and splitting is the ledger's.

Most sources know an ex-date and nothing more. Companies announce an action days or weeks before, so that a desk that decides on the morning
of the ex-date must see it, and a desk of the day before must not profit from what we only guess that it could have known. Such an action is
known from the close of the session before its ex-date.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import polars as pl

FIRST_SESSION_LEAD_S = 1800
"""An action on a set's first session, which has no session before it, is known so long before that opens: when desks decide."""

KINDS = ("dividend", "split", "delisting")


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """One action: a dividend per share, or a split of old shares into new, or a delisting with the last price."""

    ticker: str
    ex_date: str
    known_unix_s: int
    kind: str
    """One of KINDS."""
    dividend_micros: int = 0
    split_new: int = 0
    split_old: int = 0
    last_price_micros: int = 0


def read_actions(
    table: pl.DataFrame, sessions: Sequence[str], open_unix_s: Sequence[int], close_unix_s: Sequence[int]
) -> list[ActionRecord]:
    """The actions of a set's table, by ex-date, then ticker, then kind.

    Args:
        table: session (the ex-date), ticker, split_new, split_old, dividend_micros; delisting_micros and known_unix_s where the source
            tells them.
        sessions: ISO dates of the set's sessions, oldest first, and their opening and closing instants.
    """
    found = list[ActionRecord]()
    for row in table.iter_rows(named=True):
        ex_date = row["session"].isoformat()
        known = row.get("known_unix_s")
        if known is None:
            known = _known_before(ex_date, sessions, open_unix_s, close_unix_s)
        head = (row["ticker"], ex_date, known)
        if row["dividend_micros"] is not None:
            found.append(ActionRecord(*head, "dividend", dividend_micros=row["dividend_micros"]))
        if row["split_new"] is not None:
            found.append(ActionRecord(*head, "split", split_new=row["split_new"], split_old=row["split_old"]))
        if row.get("delisting_micros") is not None:
            found.append(ActionRecord(*head, "delisting", last_price_micros=row["delisting_micros"]))
    return sorted(found, key=lambda one: (one.ex_date, one.ticker, KINDS.index(one.kind), one.known_unix_s))


def _known_before(ex_date: str, sessions: Sequence[str], open_unix_s: Sequence[int], close_unix_s: Sequence[int]) -> int:
    row = bisect_left(sessions, ex_date)
    return int(close_unix_s[row - 1]) if row else int(open_unix_s[0]) - FIRST_SESSION_LEAD_S


def actions_known(actions: Sequence[ActionRecord], tickers: Collection[str], start: str, end: str, as_of_unix_s: int) -> list[ActionRecord]:
    """Those of some tickers with an ex-date from start to end that were known by then, each in its newest known form.

    An empty date is an open end. An action that is told again, with the same ticker, ex-date and kind, replaces what was told before.
    """
    newest = dict[tuple[str, str, str], ActionRecord]()
    for one in actions:
        if one.known_unix_s <= as_of_unix_s and one.ticker in tickers and one.ex_date >= start and (not end or one.ex_date <= end):
            newest[(one.ex_date, one.ticker, one.kind)] = one
    return list(newest.values())
