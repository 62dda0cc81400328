"""Sessions of exchanges by the names of their calendars, from exchange-calendars. What days a set covers is the set's own affair."""

from __future__ import annotations

from datetime import date
from functools import lru_cache

import polars as pl

from trademesh_kernel.errors import DataAbsent

MOST_YEARS = 60
"""A longer span is refused: its calendar takes seconds to lay out."""


def calendar_names() -> list[str]:
    """All calendars, by ISO 10383 market identifiers where an exchange has one."""
    import exchange_calendars  # Costs a second and 100 MB: only who needs a calendar pays it.

    return list(exchange_calendars.get_calendar_names(include_aliases=False))


@lru_cache(maxsize=32)
def sessions_of_calendar(calendar: str, first: date, last: date) -> pl.DataFrame:
    """Sessions of an exchange with their opening and closing instants, in Unix seconds; half days close early. Spans last asked for are kept.

    Returns:
        session, open_unix_s, close_unix_s, oldest first.

    Raises:
        ValueError: the calendar does not reach as far as the dates do.
    """
    import exchange_calendars

    try:
        # Calendars are bounded by default; the margin lets a span without a session be empty and no error.
        exchange = exchange_calendars.get_calendar(calendar, start=date(first.year - 1, 1, 1), end=date(last.year + 1, 12, 31))
    except ValueError:
        # The record of some ends within the margin.
        exchange = exchange_calendars.get_calendar(calendar, start=first, end=last)
    schedule = exchange.schedule.loc[str(first) : str(last)]
    return pl.DataFrame(
        {
            "session": [stamp.date() for stamp in schedule.index],
            "open_unix_s": [int(stamp.timestamp()) for stamp in schedule["open"]],
            "close_unix_s": [int(stamp.timestamp()) for stamp in schedule["close"]],
        },
        schema={"session": pl.Date, "open_unix_s": pl.Int64, "close_unix_s": pl.Int64},
    )


def recorded_sessions(calendar: str, first: date, last: date) -> pl.DataFrame:
    """As `sessions_of_calendar`, for who asks by RPC; raises DataAbsent where there is no such calendar, or it does not reach so far."""
    if calendar not in calendar_names():
        text = f"there is no calendar {calendar}: XNYS is that of New York, see exchange-calendars for others"
        raise DataAbsent(text, calendar=calendar, what="sessions")
    try:
        return sessions_of_calendar(calendar, first, last)
    except ValueError as error:
        text = f"calendar {calendar} does not reach from {first} to {last}: {error}"
        raise DataAbsent(text, calendar=calendar, what="sessions") from error
