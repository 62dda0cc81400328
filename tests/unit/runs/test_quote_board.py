"""The newest price of every ticker: nothing is queued, and nobody who looks misses the last move."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh_runs import quote_board
from trademesh_runs.quote_board import QuoteBoard

TICKERS = ("A", "B", "C", "D")


def quotes_of(message: bytes) -> list[tuple[str, int]]:
    return [(quote.ticker, quote.price_micros) for quote in feed.SubscribeResponse.FromString(message).quotes.quotes]


@given(
    st.lists(st.dictionaries(st.sampled_from(TICKERS), st.integers(1, 9), min_size=1), min_size=1),
    st.sets(st.sampled_from(TICKERS)),
    st.randoms(use_true_random=False),
)
def test_whoever_looks_now_and_then_ends_with_the_newest_price_of_each_ticker(
    updates: list[dict[str, int]], wanted: set[str], chance: object
) -> None:
    board, seen, known, newest = QuoteBoard(), 0, dict[str, int](), dict[str, int]()
    for number, prices in enumerate([*updates, None]):
        if prices is not None:
            board.update("2008-01-02", number, prices)
            newest |= prices
        if prices is None or chance.random() < 0.4:  # type: ignore[attr-defined]  # a Random of Hypothesis
            seen, message = board.message(seen, wanted)
            told = quotes_of(message) if message else []
            assert len({ticker for ticker, _ in told}) == len(told)
            known |= dict(told)
    assert known == {ticker: price for ticker, price in newest.items() if not wanted or ticker in wanted}
    assert not board.has_moved(seen)


def test_more_than_a_message_holds_follows_in_the_next() -> None:
    board, seen, known = QuoteBoard(), 0, dict[str, int]()
    prices = {f"T{number:04}": number for number in range(5000)}
    board.update("2008-01-02", 1, prices)
    while board.has_moved(seen):
        seen, message = board.message(seen, frozenset())
        assert len(message) <= quote_board.MOST_BYTES + 16
        known |= dict(quotes_of(message))
    assert known == prices


def test_an_update_that_nobody_looks_at_is_kept_and_not_worked_on() -> None:
    board = QuoteBoard()
    prices = [{f"T{number:02}": price for number in range(20)} for price in range(10)]
    for number in range(10_000):
        board.update("2008-01-02", number, prices[number % 10])
    assert not board._quotes, "a backtest settles a thousand sessions a second"
    assert quotes_of(board.message(0, frozenset())[1])[0] == ("T00", 9)
