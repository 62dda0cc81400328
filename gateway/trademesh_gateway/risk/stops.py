"""What the desk's own result says of its orders: the drawdown stop, which holds until a person lifts it, and the loss of the last session.

Fed with the net asset value at every close, oldest first. A pure function of those and of when a person resumed the pipeline, so that a
gateway that begins again finds the same. What a stop does to an order is `gate.py`'s.
"""

from __future__ import annotations

from trademesh_ledger.money import BASIS_POINTS


def has_fallen(from_micros: int, to_micros: int, limit_bp: int) -> bool:
    """True if a net asset value fell by a limit or more, which is 0 if it is off. There is no fall from nothing."""
    return limit_bp > 0 and from_micros > 0 and (from_micros - to_micros) * BASIS_POINTS >= limit_bp * from_micros


class Stops:
    """Where the desk stands against its peak. Amounts are whole micro-dollars."""

    __slots__ = ("_lift", "_limit_bp", "_session", "drawdown_stopped", "nav_micros", "peak_micros", "previous_nav_micros")

    def __init__(self, drawdown_stop_bp: int, initial_cash_micros: int) -> None:
        """`drawdown_stop_bp` 0 is off."""
        self._limit_bp = drawdown_stop_bp
        self._lift = False
        self._session = ""
        self.nav_micros = initial_cash_micros
        self.previous_nav_micros = 0
        """At the close before the last one; 0 if there is none."""
        self.peak_micros = initial_cash_micros
        """The highest since the run began, or since a person lifted a stop."""
        self.drawdown_stopped = False

    def settle(self, nav_micros: int) -> None:
        """A session has closed."""
        self.previous_nav_micros, self.nav_micros = self.nav_micros, nav_micros
        self.peak_micros = max(self.peak_micros, nav_micros)
        if has_fallen(self.peak_micros, nav_micros, self._limit_bp):
            self.drawdown_stopped = True

    def resume(self) -> None:
        """A person resumed the pipeline: a stop is lifted when the next session begins. A session in hand is not changed by it, so that
        it comes out the same when it is done again."""
        self._lift = self.drawdown_stopped

    def begin_session(self, date: str) -> None:
        """A session's cycle begins, or begins again. Falls are measured from here on after a stop was lifted."""
        if self._lift and date != self._session:
            self._lift, self.drawdown_stopped, self.peak_micros = False, False, self.nav_micros
        self._session = date
