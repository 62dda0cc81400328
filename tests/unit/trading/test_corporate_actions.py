"""Corporate actions: from when on each may be seen, and in which form."""

from __future__ import annotations

from datetime import date

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from trademesh_trading import wire
from trademesh_trading.corporate_actions import FIRST_SESSION_LEAD_S, ActionRecord, actions_known, read_actions
from trademesh_trading.set_files import load_set
from trademesh_trading.store import EMBEDDED_SETS

SESSIONS = ("2024-01-02", "2024-01-03", "2024-01-05")
OPENS = (1_000_000, 1_100_000, 1_300_000)
CLOSES = (1_020_000, 1_120_000, 1_320_000)
DECISION_LEAD_S = 1800
SCHEMA = {"session": pl.Date, "ticker": pl.String, "split_new": pl.Int64, "split_old": pl.Int64, "dividend_micros": pl.Int64}


def table(*rows: tuple[str, str, int | None, int | None, int | None]) -> pl.DataFrame:
    return pl.DataFrame([(date.fromisoformat(row[0]), *row[1:]) for row in rows], schema=SCHEMA, orient="row")


def test_an_action_is_known_from_the_close_before_its_ex_date() -> None:
    found = read_actions(table(("2024-01-03", "A", None, None, 5), ("2024-01-05", "A", 2, 1, None)), SESSIONS, OPENS, CLOSES)
    assert [(one.kind, one.known_unix_s) for one in found] == [("dividend", CLOSES[0]), ("split", CLOSES[1])]


def test_an_action_on_the_first_session_is_known_when_desks_decide() -> None:
    (found,) = read_actions(table(("2024-01-02", "A", None, None, 5)), SESSIONS, OPENS, CLOSES)
    assert found.known_unix_s == OPENS[0] - FIRST_SESSION_LEAD_S


def test_a_split_and_a_dividend_of_one_row_are_two_actions() -> None:
    found = read_actions(table(("2024-01-03", "A", 3, 2, 7)), SESSIONS, OPENS, CLOSES)
    assert [(one.kind, one.dividend_micros, one.split_new, one.split_old) for one in found] == [("dividend", 7, 0, 0), ("split", 0, 3, 2)]


def test_a_source_that_tells_when_it_was_known_is_believed() -> None:
    told = table(("2024-01-05", "A", None, None, 5)).with_columns(pl.lit(42, pl.Int64).alias("known_unix_s"))
    assert read_actions(told, SESSIONS, OPENS, CLOSES)[0].known_unix_s == 42


def test_desks_of_an_ex_date_see_every_action_of_wiki5_and_no_desk_does_before() -> None:
    data = load_set(EMBEDDED_SETS / "wiki5")
    assert len(data.actions) == 95
    for one in data.actions:
        row = data.sessions.index(one.ex_date)
        assert int(data.open_unix_s[row - 1]) - DECISION_LEAD_S < one.known_unix_s <= int(data.open_unix_s[row]) - DECISION_LEAD_S


def test_a_delisting_at_nothing_is_still_a_delisting() -> None:
    told = table(("2024-01-05", "A", None, None, None)).with_columns(pl.lit(0, pl.Int64).alias("delisting_micros"))
    message = wire.action_message(read_actions(told, SESSIONS, OPENS, CLOSES)[0])
    assert (message.WhichOneof("action"), message.delisting.last_price_micros) == ("delisting", 0)


def dividend(ticker: str, ex_date: str, known: int, micros: int) -> ActionRecord:
    return ActionRecord(ticker, ex_date, known, "dividend", dividend_micros=micros)


def test_an_action_told_again_replaces_what_was_told_before_from_then_on() -> None:
    told = [dividend("A", "2024-01-05", 10, 100), dividend("A", "2024-01-05", 20, 150)]
    assert [[one.dividend_micros for one in actions_known(told, {"A"}, "", "", as_of)] for as_of in (9, 10, 19, 20)] == [
        [],
        [100],
        [100],
        [150],
    ]


def test_dates_bound_ex_dates_on_both_sides() -> None:
    told = [dividend("A", day, 1, 1) for day in SESSIONS]
    assert [one.ex_date for one in actions_known(told, {"A"}, "2024-01-03", "2024-01-04", 5)] == ["2024-01-03"]


@given(
    st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from(SESSIONS), st.integers(0, 9), st.integers(1, 99)), max_size=20),
    st.integers(0, 10),
)
def test_what_was_known_later_changes_no_answer(drawn: list[tuple[str, str, int, int]], as_of: int) -> None:
    told = sorted((dividend(*one) for one in drawn), key=lambda one: (one.ex_date, one.ticker, one.known_unix_s))
    by_then = [one for one in told if one.known_unix_s <= as_of]
    assert actions_known(told, {"A", "B"}, "", "", as_of) == actions_known(by_then, {"A", "B"}, "", "", 2**62)
