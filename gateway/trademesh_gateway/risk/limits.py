"""The limits of a run, as whole numbers: what may be limited, in which unit, and how tightly. How they bind an order is `gate.py`'s."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

_UNBOUND_BP = 10**12


class Limit(enum.IntEnum):
    """Limits that the gate knows; values are those of gateway.v1.LimitCode."""

    NONE = 0
    NO_PRICE = 3
    DRAWDOWN_STOP = 4
    SHORT_DISABLED = 5
    POSITION_LIMIT = 6
    GROSS_LIMIT = 7
    NET_LIMIT = 8
    RUN_HALTED = 13
    TICKER_HALTED = 14
    DAILY_LOSS = 15
    NO_BORROW = 16
    VOL_LIMIT = 17
    SECTOR_LIMIT = 18
    CONCENTRATION = 19
    ORDER_SIZE = 20
    TURNOVER_LIMIT = 21
    ORDER_LIMIT = 22
    LIQUIDITY = 23
    MARGIN_CALL = 24


class Unit(enum.IntEnum):
    """What a bound and a figure are counted in; values are those of gateway.v1.LimitUnit. All but ORDERS are in basis points here."""

    NONE = 0
    FRACTION_OF_NAV = 1
    FRACTION_OF_PEAK = 2
    FRACTION_OF_PREVIOUS_NAV = 3
    SUM_OF_SQUARED_WEIGHTS = 4
    FRACTION_OF_VOLUME = 5
    ORDERS = 6
    ANNUAL_VOLATILITY = 7


UNITS: dict[Limit, Unit] = {
    Limit.NONE: Unit.NONE,
    Limit.NO_PRICE: Unit.NONE,
    Limit.DRAWDOWN_STOP: Unit.FRACTION_OF_PEAK,
    Limit.SHORT_DISABLED: Unit.NONE,
    Limit.POSITION_LIMIT: Unit.FRACTION_OF_NAV,
    Limit.GROSS_LIMIT: Unit.FRACTION_OF_NAV,
    Limit.NET_LIMIT: Unit.FRACTION_OF_NAV,
    Limit.RUN_HALTED: Unit.NONE,
    Limit.TICKER_HALTED: Unit.NONE,
    Limit.DAILY_LOSS: Unit.FRACTION_OF_PREVIOUS_NAV,
    Limit.NO_BORROW: Unit.NONE,
    Limit.VOL_LIMIT: Unit.FRACTION_OF_NAV,
    Limit.SECTOR_LIMIT: Unit.FRACTION_OF_NAV,
    Limit.CONCENTRATION: Unit.SUM_OF_SQUARED_WEIGHTS,
    Limit.ORDER_SIZE: Unit.FRACTION_OF_NAV,
    Limit.TURNOVER_LIMIT: Unit.FRACTION_OF_NAV,
    Limit.ORDER_LIMIT: Unit.ORDERS,
    Limit.LIQUIDITY: Unit.FRACTION_OF_VOLUME,
    Limit.MARGIN_CALL: Unit.NONE,
}


@dataclass(frozen=True, slots=True)
class GroupLimit:
    """Tickers, by column, whose absolute positions together may not be more than so many basis points of net asset value."""

    name: str
    columns: frozenset[int]
    limit_bp: int


@dataclass(frozen=True)
class Limits:
    """Limits of a run as whole basis points of net asset value, unless said otherwise. From `drawdown_stop_bp` on, 0 is off."""

    position_bp: int
    gross_bp: int
    net_bp: int
    drawdown_stop_bp: int
    """Fall from the peak."""
    shorts_allowed: bool
    halted: bool = False
    halted_columns: frozenset[int] = frozenset()
    not_borrowable: frozenset[int] = frozenset()
    """Columns of tickers that may not be held short."""
    daily_loss_bp: int = 0
    """Fall in the session before."""
    volatility_target_bp: int = 0
    """Annualised volatility of the whole book that positions are scaled to."""
    volatility_positions: int = 10
    """Over how many like positions the target is spread."""
    groups: tuple[GroupLimit, ...] = ()
    concentration_bp: int = 0
    """Sum of squared weights (Herfindahl 1950), times 10,000."""
    order_size_bp: int = 0
    turnover_bp: int = 0
    """Traded value of a session, purchases and sales together."""
    orders_per_session: int = 0
    volume_bp: int = 0
    """Shares of an order over the mean volume of 20 sessions."""
    pro_rata: bool = False
    """Gross, net and turnover scale all openings alike, instead of cutting those that come last."""

    @cached_property
    def of_each_order(self) -> Limits:
        """The same without those three."""
        return replace(self, gross_bp=_UNBOUND_BP, net_bp=_UNBOUND_BP, turnover_bp=0)


@dataclass(frozen=True, slots=True)
class LimitThatIsOn:
    """A limit of a run, for showing it. No columns: it binds every ticker."""

    limit: Limit
    unit: Unit
    bound: int | None = None
    group: str = ""
    columns: frozenset[int] = frozenset()


def limits_that_are_on(limits: Limits) -> list[LimitThatIsOn]:
    """The limits of a run that are on, in the order in which an order meets them."""
    shown = list[LimitThatIsOn]()

    def show(limit: Limit, bound: int | None, *, group: str = "", columns: frozenset[int] = frozenset()) -> None:
        unit = Unit.ANNUAL_VOLATILITY if limit is Limit.VOL_LIMIT else UNITS[limit]
        shown.append(LimitThatIsOn(limit, unit, bound, group, columns))

    def show_if_on(limit: Limit, bound: int) -> None:
        if bound:
            show(limit, bound)

    if limits.halted:
        show(Limit.RUN_HALTED, None)
    if limits.halted_columns:
        show(Limit.TICKER_HALTED, None, columns=limits.halted_columns)
    show_if_on(Limit.DRAWDOWN_STOP, limits.drawdown_stop_bp)
    show_if_on(Limit.DAILY_LOSS, limits.daily_loss_bp)
    if not limits.shorts_allowed:
        show(Limit.SHORT_DISABLED, None)
    if limits.not_borrowable:
        show(Limit.NO_BORROW, None, columns=limits.not_borrowable)
    show(Limit.POSITION_LIMIT, limits.position_bp)
    show_if_on(Limit.VOL_LIMIT, limits.volatility_target_bp)
    for group in limits.groups:
        show(Limit.SECTOR_LIMIT, group.limit_bp, group=group.name, columns=group.columns)
    show_if_on(Limit.CONCENTRATION, limits.concentration_bp)
    show(Limit.GROSS_LIMIT, limits.gross_bp)
    show(Limit.NET_LIMIT, limits.net_bp)
    show_if_on(Limit.ORDER_SIZE, limits.order_size_bp)
    show_if_on(Limit.TURNOVER_LIMIT, limits.turnover_bp)
    show_if_on(Limit.ORDER_LIMIT, limits.orders_per_session)
    show_if_on(Limit.LIQUIDITY, limits.volume_bp)
    return shown


@dataclass(frozen=True, slots=True)
class Market:
    """What is known of the tickers beside their prices, an entry per column. Empty: nothing is known of any."""

    volatility_bp: Sequence[int] = ()
    """Annualised volatility over 20 sessions; 0 where it is unknown."""
    volume_shares: Sequence[int] = ()
    """Mean volume of 20 sessions; below 0 where it is unknown."""


UNKNOWN_MARKET = Market()
