"""The risk manager's notes as their message: exposure of the book, and in each ticker the headroom that its limits leave.

They are told, and hold nothing back: orders are held against limits by `risk/gate.py`, from whose bounds these are made. Other messages are
`wire.py`'s.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from itertools import compress

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway.agents.records import Book
from trademesh_gateway.risk.gate import most_in_ticker, restraint_of
from trademesh_gateway.risk.limits import Limit, Limits, Market
from trademesh_gateway.row_templates import RowTemplate, template_of
from trademesh_gateway.signal_rows import DIGITS, rounded
from trademesh_runs.journal import EncodedPayload

_BLOCK, _WARN, _INFO = events.SEVERITY_BLOCK, events.SEVERITY_WARN, events.SEVERITY_INFO
_TICKER_HALTED, _POSITION_LIMIT = Limit.TICKER_HALTED.value, Limit.POSITION_LIMIT


def risk_notes(tickers: tuple[str, ...], book: Book, limits: Limits, volatilities: Sequence[float], market: Market) -> EncodedPayload:
    """Exposure of the book and headroom in each ticker. A volatility that is not known is not a number."""
    nav, peak = book.nav_micros, book.peak_nav_micros
    values = list(map(operator.mul, book.quantity, book.price_micros))
    restraint = restraint_of(book, limits)
    template: RowTemplate[events.RiskNotes] = template_of(events.RiskNotes, "notes", tickers)
    whole = template.message
    whole.nav_micros = nav
    whole.gross = round(sum(map(abs, values)) / nav, DIGITS) if nav > 0 else 0.0
    whole.net = round(sum(values) / nav, DIGITS) if nav > 0 else 0.0
    whole.drawdown = round(nav / peak - 1, DIGITS) if peak > 0 else 0.0
    most, limited_by = _most_in_tickers(book, limits, market)
    severities = [_INFO if -bound <= value <= bound else _WARN for value, bound in zip(values, most, strict=True)]
    # The position limit is on for every run: only another one is worth naming.
    bindings = [0 if limit is _POSITION_LIMIT else limit.value for limit in limited_by]
    for column in range(len(tickers)) if restraint else limits.halted_columns:
        severities[column], bindings[column] = _BLOCK, restraint.limit.value if restraint else _TICKER_HALTED
    template.fill("severity", severities)
    template.fill("limit", bindings)
    least = most if limits.shorts_allowed else [0] * len(values)
    if limits.not_borrowable:
        least = [0 if column in limits.not_borrowable else bound for column, bound in enumerate(least)]
    template.put("max_buy_shares", _shares(map(operator.sub, most, values), book.price_micros))
    template.put("max_sell_shares", _shares(map(operator.add, least, values), book.price_micros))
    _put_volatilities(template, volatilities)
    return template.encoded()


def _shares(amounts_micros: Iterable[int], prices_micros: Sequence[int]) -> list[int]:
    """Whole shares that amounts buy; none where there is no price, or nothing to spend."""
    pairs = zip(amounts_micros, prices_micros, strict=True)
    return [amount // price if price and amount > 0 else 0 for amount, price in pairs]


def _most_in_tickers(book: Book, limits: Limits, market: Market) -> tuple[Sequence[int], Sequence[Limit]]:
    """The bound of each ticker, and which limit it is; asked for once where all have the same."""
    count = len(book.quantity)
    if not limits.volatility_target_bp:
        most, limit = most_in_ticker(book, limits, market, 0)
        return [most] * count, [limit] * count
    found = [most_in_ticker(book, limits, market, column) for column in range(count)]
    return [most for most, _ in found], [limit for _, limit in found]


def _put_volatilities(template: RowTemplate[events.RiskNotes], volatilities: Sequence[float]) -> None:
    unknown = list(map(math.isnan, volatilities))
    if any(unknown):
        volatilities = [0.0 if missing else level for level, missing in zip(volatilities, unknown, strict=True)]
    template.put("volatility", rounded(volatilities))
    for row in compress(template.rows, unknown):
        row.ClearField("volatility")
