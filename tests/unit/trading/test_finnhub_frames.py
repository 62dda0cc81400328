"""What Finnhub's messages say, whole and broken."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademesh_trading.finnhub_frames import HIGHEST_PRICE_MICROS, BadFrame, read_frame, subscription
from trademesh_trading.quote_provider import Trade


def trade_frame(price: str, *, symbol: str = '"AAPL"', instant: str = "1575526691134", volume: str = "100") -> bytes:
    return f'{{"type":"trade","data":[{{"s":{symbol},"p":{price},"t":{instant},"v":{volume},"c":null}}]}}'.encode()


def test_a_trade_is_read_to_the_micro_dollar() -> None:
    (trade,) = read_frame(trade_frame("190.1234565")).trades
    assert trade == Trade("AAPL", 190_123_456, 1_575_526_691_134, 100)


@given(st.integers(1, HIGHEST_PRICE_MICROS))
def test_every_price_of_whole_micro_dollars_comes_out_as_it_went_in(price_micros: int) -> None:
    text = f"{price_micros // 1_000_000}.{price_micros % 1_000_000:06d}"
    (trade,) = read_frame(trade_frame(text)).trades
    assert trade.price_micros == price_micros


def test_half_a_micro_dollar_is_rounded_to_even() -> None:
    prices = [read_frame(trade_frame(text)).trades[0].price_micros for text in ("0.3000005", "0.3000015", "0.3000025", "0.30000250001")]
    assert prices == [300_000, 300_002, 300_002, 300_003]


def test_volumes_that_are_fractions_are_rounded_down_and_none_is_nought() -> None:
    assert read_frame(trade_frame("1", volume="0.011467")).trades[0].volume_shares == 0
    assert read_frame(trade_frame("1", volume="12.9")).trades[0].volume_shares == 12
    assert read_frame(b'{"type":"trade","data":[{"s":"AAPL","p":1,"t":1575526691134}]}').trades[0].volume_shares == 0


@pytest.mark.parametrize(
    "frame",
    [
        trade_frame("0"),
        trade_frame("-1.5"),
        trade_frame("0.0000001"),
        trade_frame("10000001"),
        trade_frame("1e300000"),
        trade_frame("1e-300000"),
        trade_frame('"190.25"'),
        trade_frame("true"),
        trade_frame("null"),
        trade_frame("1", symbol="7"),
        trade_frame("1", symbol='""'),
        trade_frame("1", instant="0"),
        trade_frame("1", instant="-5"),
        trade_frame("1", instant="1.5"),
        trade_frame("1", instant="true"),
        trade_frame("1", instant="100000000000000"),
        trade_frame("1", volume="-1"),
        trade_frame("1", volume="1e30"),
        b'{"type":"trade","data":[7]}',
    ],
)
def test_trades_that_make_no_sense_are_counted_and_left_out(frame: bytes) -> None:
    read = read_frame(frame)
    assert (read.trades, read.refused) == ((), 1)


def test_a_senseless_trade_takes_none_of_its_neighbours_with_it() -> None:
    good = {"s": "AAPL", "p": 2, "t": 1, "v": 1}
    read = read_frame(json.dumps({"type": "trade", "data": [good, {**good, "p": -1}, {**good, "s": "MSFT"}]}).encode())
    assert [trade.ticker for trade in read.trades] == ["AAPL", "MSFT"]
    assert read.refused == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe\x00bad",
        b"[1,2]",
        b'"trade"',
        b"{}",
        b'{"type":7}',
        b'{"type":"trade"}',
        b'{"type":"trade","data":{}}',
        trade_frame("NaN"),
        trade_frame("Infinity"),
        trade_frame("1e99999999999999999999"),
        trade_frame("9" * 5000),
        b"[" * 100_000,
    ],
)
def test_what_is_no_message_is_a_bad_frame(data: bytes) -> None:
    with pytest.raises(BadFrame):
        read_frame(data)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        read_frame(data)
    except BadFrame:
        return


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("sptvc"), inner, max_size=5),
    max_leaves=8,
)


@given(st.lists(json_values, max_size=4))
def test_every_trade_that_passes_makes_sense(told: list[object]) -> None:
    read = read_frame(json.dumps({"type": "trade", "data": told}).encode())
    assert len(read.trades) + read.refused == len(told)
    for trade in read.trades:
        assert 0 < trade.price_micros <= HIGHEST_PRICE_MICROS
        assert trade.volume_shares >= 0
        assert trade.traded_unix_ms > 0


def test_pings_and_kinds_that_we_do_not_know_say_nothing() -> None:
    assert not read_frame(b'{"type":"ping"}').trades
    assert not read_frame(b'{"type":"news","data":[]}').trades


def test_an_error_is_told_and_cut_short() -> None:
    assert read_frame(b'{"type":"error","msg":"Subscribing to too many symbols"}').error == "Subscribing to too many symbols"
    assert read_frame(b'{"type":"error"}').error
    assert len(read_frame(json.dumps({"type": "error", "msg": "x" * 9999}).encode()).error) <= 200


def test_a_subscription_is_the_message_that_the_provider_documents() -> None:
    assert json.loads(subscription("AAPL", wanted=True)) == {"type": "subscribe", "symbol": "AAPL"}
    assert json.loads(subscription("AAPL", wanted=False)) == {"type": "unsubscribe", "symbol": "AAPL"}
