"""Frames in both forms, tickers of events, quotes, and the time of a replay."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademesh.edge.v1 import frame_pb2
from trademesh.gateway.v1 import event_pb2, feed_service_pb2
from trademesh_edge.formats import BINARY, JSON, BadFrameError
from trademesh_edge.methods import SUBSCRIBE
from trademesh_edge.pace import BadPaceError, Pace, ReplayClock
from trademesh_edge.wire import FeedBatch, RingQuote, read_feed
from trademesh_runs.conflation import Conflated

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
NAMES = st.sampled_from(["hello", "call", "id", "method", "request", "pace", "ping", "nonce", "token", "runId", "filter", "cancel", "x"])
JUNK = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12)


@given(JUNK | st.fixed_dictionaries({"call": st.fixed_dictionaries({"id": st.just(1), "method": st.just(SUBSCRIBE), "request": JUNK})}))
def test_whatever_json_comes_is_a_frame_or_is_refused(found: object) -> None:
    try:
        received = JSON.read(json.dumps(found))
    except BadFrameError:
        return
    assert received.frame.WhichOneof("kind")


@given(st.text() | st.binary())
def test_whatever_bytes_come_are_a_frame_or_are_refused(data: str | bytes) -> None:
    for form in (JSON, BINARY):
        try:
            assert form.read(data).frame.WhichOneof("kind")
        except BadFrameError:
            continue


def test_a_request_in_json_is_the_methods_own_message() -> None:
    received = JSON.read(json.dumps({"call": {"id": 3, "method": SUBSCRIBE, "request": {"runId": "demo", "afterSequence": "7"}}}))
    same = frame_pb2.EdgeFrame()
    same.call.id, same.call.method, same.call.request = 3, SUBSCRIBE, b"\n\x04demo\x18\x07"
    assert received.frame == same
    assert BINARY.read(same.SerializeToString()).frame == same


def tickers_in_a_batch(event: event_pb2.Event) -> frozenset[str]:
    """What the edge finds in an event as it comes from upstream."""
    part = feed_service_pb2.EventBatch(epoch=1, first_sequence=1, last_sequence=1, events=[event])
    found = read_feed(feed_service_pb2.SubscribeResponse(events=part).SerializeToString())
    assert isinstance(found, FeedBatch)
    return found.events[0].tickers


def test_tickers_are_found_wherever_an_event_names_them() -> None:
    event = event_pb2.Event()
    event.orders_gated.results.add().order.ticker = "AAPL"
    event.orders_gated.results.add().order.ticker = "MSFT"
    assert tickers_in_a_batch(event) == {"AAPL", "MSFT"}
    event.settled.portfolio.positions.add(ticker="NVDA")
    assert tickers_in_a_batch(event) == {"NVDA"}
    event.run_started.tickers.extend(["A", "B"])
    assert tickers_in_a_batch(event) == {"A", "B"}
    event.session_opened.session_number = 1
    assert tickers_in_a_batch(event) == frozenset()
    assert tickers_in_a_batch(event_pb2.Event()) == frozenset()


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.booleans())), st.sampled_from([frozenset(), frozenset("A"), frozenset("BC")]))
def test_a_reader_of_quotes_ends_with_the_newest_of_each_ticker(steps: list[tuple[str, bool]], tickers: frozenset[str]) -> None:
    board = Conflated[RingQuote]()
    newest, seen, version = dict[str, bytes](), dict[str, bytes](), 0
    for number, (ticker, reads) in enumerate(steps):
        newest[ticker] = str(number).encode()
        board.put(ticker, RingQuote(ticker, newest[ticker]))
        if reads:
            part = [quote for _, quote in board.since(version, tickers)]
            assert len({quote.ticker for quote in part}) == len(part)
            seen |= {quote.ticker: quote.encoded for quote in part}
            version = board.version
    seen |= {quote.ticker: quote.encoded for _, quote in board.since(version, tickers)}
    assert seen == {ticker: value for ticker, value in newest.items() if not tickers or ticker in tickers}


def test_a_replay_keeps_its_speed_and_makes_up_for_little() -> None:
    pace, clock = Pace(), ReplayClock(0.0)
    pace.set(frame_pb2.Pace(sessions_per_s=4.0))
    assert clock.due_in_s(pace, 0.0) == pytest.approx(0.25)
    clock.session_told(pace, 0.26)
    assert clock.due_in_s(pace, 0.26) == pytest.approx(0.24)
    clock.session_told(pace, 60.0)
    assert clock.due_in_s(pace, 60.0) == pytest.approx(0.15)


def test_a_pace_that_says_nothing_is_refused() -> None:
    with pytest.raises(BadPaceError):
        Pace().set(frame_pb2.Pace(id=1))
