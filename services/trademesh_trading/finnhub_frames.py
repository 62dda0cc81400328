"""The messages of Finnhub's WebSocket, https://finnhub.io/docs/api/websocket-trades, read and written. Pure.

    we send      {"type": "subscribe", "symbol": "AAPL"}, {"type": "unsubscribe", "symbol": "AAPL"}
    it sends     {"type": "trade", "data": [{"s": "AAPL", "p": 190.25, "t": 1575526691134, "v": 100, "c": ["1"]}, ...]}
                 {"type": "ping"}, {"type": "error", "msg": "..."}

`p` is a price in dollars, `t` milliseconds since 1970, `v` a volume that may be a fraction, or 0 for a price without a trade. Condition codes
`c` are not looked at: every trade moves the quote. Prices go from their text to integers without passing a float.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal, DecimalException
from typing import Any

from trademesh_trading.quote_provider import Trade

HIGHEST_PRICE_MICROS = 10_000_000 * 1_000_000
"""Ten million dollars: no share was ever dearer, and what is told above it is an error."""

_HIGHEST_VOLUME = 10**12
_LATEST_MS = 10**14
_LONGEST_TEXT = 200


class BadFrame(Exception):
    """Something that is no message of the protocol."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What one message says."""

    trades: tuple[Trade, ...] = ()
    refused: int = 0
    """Trades in it that make no sense."""
    error: str = ""
    """What the provider complains of."""


def subscription(symbol: str, *, wanted: bool) -> str:
    """The message that begins or ends the trades of a symbol."""
    return json.dumps({"type": "subscribe" if wanted else "unsubscribe", "symbol": symbol})


def read_frame(data: bytes) -> Frame:
    """A message of the provider; one of a kind that we do not know says nothing.

    Raises:
        BadFrame: it is not JSON, or not of the protocol's shape.
    """
    try:
        message = json.loads(data, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, DecimalException, RecursionError) as error:
        raise BadFrame(type(error).__name__) from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise BadFrame("not an object with a type")
    if message["type"] == "error":
        return Frame(error=str(message.get("msg", ""))[:_LONGEST_TEXT] or "an error without a text")
    if message["type"] != "trade":
        return Frame()
    told = message.get("data")
    if not isinstance(told, list):
        raise BadFrame("trades that are no list")
    trades = tuple(trade for one in told if (trade := _trade(one)) is not None)
    return Frame(trades, len(told) - len(trades))


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _trade(told: Any) -> Trade | None:
    """A trade, or None if it makes no sense."""
    if not isinstance(told, dict) or not isinstance(told.get("s"), str) or not told["s"]:
        return None
    price, instant_ms, volume = _number(told.get("p")), told.get("t"), _number(told.get("v", 0))
    if price is None or volume is None or type(instant_ms) is not int or not 0 < instant_ms < _LATEST_MS:
        return None
    if not 0 < price <= HIGHEST_PRICE_MICROS // 1_000_000 or not 0 <= volume <= _HIGHEST_VOLUME:
        return None
    price_micros = int((price * 1_000_000).to_integral_value(ROUND_HALF_EVEN))
    if not price_micros:
        return None
    return Trade(told["s"], price_micros, instant_ms, int(volume.to_integral_value(ROUND_FLOOR)))


def _number(told: Any) -> Decimal | None:
    if isinstance(told, Decimal):
        return told
    # True is an int to Python, and no price.
    return Decimal(told) if type(told) is int else None
