"""Predictions meet the closes of their session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from random_journals import write
from trademesh.gateway.v1 import event_pb2 as events
from trademesh_ledger.scores import BrierScore, HitCount, rank_correlation, went_right
from trademesh_runs.compaction import compact
from trademesh_runs.journal import Draft
from trademesh_runs.journal_memory import MemoryStore
from trademesh_runs.scoreboard import RECENT_OUTCOMES, Scoreboard

TICKERS = ("A", "B", "C", "D", "E", "F")
UP, DOWN, NEUTRAL = events.DIRECTION_UP, events.DIRECTION_DOWN, events.DIRECTION_NEUTRAL


def began() -> Draft:
    return Draft("run_started", events.RunStarted(tickers=TICKERS, agent_ids=["quiet", "technical_analyst"], initial_cash_micros=1))


def predicted(session: str, rows: dict[str, int], agent: str = "technical_analyst", confidence: float = 0.75) -> Draft:
    predictions = [
        events.Prediction(
            ticker=ticker, direction=events.Direction.ValueType(direction), confidence=confidence if direction != NEUTRAL else 0
        )
        for ticker, direction in rows.items()
    ]
    return Draft("predictions", events.Predictions(predictions=predictions), session, 4, agent)


def scored(session: str, scores: Sequence[float | None], agent: str = "technical_analyst") -> Draft:
    signals = [
        events.Signal(ticker=ticker, score=score or 0.0, stance=events.STANCE_ABSTAIN if score is None else events.STANCE_BULLISH)
        for ticker, score in zip(TICKERS, scores, strict=True)
    ]
    return Draft("signals", events.Signals(signals=signals), session, 2, agent)


def settled(session: str, closes: Sequence[int], earlier: Sequence[int] = ()) -> Draft:
    account = events.PortfolioState(initial_cash_micros=1, cash_micros=1)
    return Draft("settled", events.Settled(nav_micros=1, portfolio=account, close_micros=closes, earlier_close_micros=earlier), session, 9)


def board_of(drafts: Sequence[Draft]) -> Scoreboard:
    board = Scoreboard()
    for place, draft in enumerate(drafts, 1):
        event = events.Event(sequence=place, session_date=draft.session_date, agent_id=draft.agent_id)
        getattr(event, draft.kind).CopyFrom(draft.payload)
        board.add(event)
    return board


def test_each_prediction_is_right_wrong_or_unknown_and_neutral_ones_are_counted_apart() -> None:
    board = board_of(
        [
            began(),
            predicted("2008-01-02", {"A": UP, "B": UP, "C": UP, "D": DOWN, "E": DOWN, "F": NEUTRAL}),
            settled("2008-01-02", [11, 10, 0, 9, 10, 12], [10, 10, 10, 10, 0, 10]),
        ]
    )
    record = board.agents["technical_analyst"]
    assert (record.bull, record.bear, record.neutral) == (HitCount(3, 1, 1), HitCount(2, 1, 1), 1)
    assert record.brier.predictions == 3
    assert record.brier.mean == pytest.approx((0.25**2 + 0.75**2 + 0.25**2) / 3)
    newest = board.agents["technical_analyst"].newest_outcomes()
    assert [(one.ticker, one.right) for one in newest] == [("F", None), ("E", None), ("D", True), ("C", None), ("B", False), ("A", True)]
    assert newest[-1].real_return == pytest.approx(0.1)
    assert newest[1].real_return is None


def test_later_sessions_are_measured_from_the_close_before_and_the_first_without_one_is_unknown() -> None:
    board = board_of(
        [
            began(),
            predicted("2008-01-02", {"A": UP}),
            settled("2008-01-02", [10] * 6),
            predicted("2008-01-03", {"A": UP, "B": DOWN}),
            settled("2008-01-03", [11, 11, 11, 11, 11, 11]),
        ]
    )
    assert board.agents["technical_analyst"].all == HitCount(3, 1, 1)
    assert board.sessions == 2


def test_a_ticker_that_is_not_the_runs_is_unknown() -> None:
    other = events.Signals(signals=[events.Signal(ticker="ELSE", score=0.5, stance=events.STANCE_BULLISH)])
    said = [predicted("2008-01-02", {"A": UP, "ELSE": UP}), Draft("signals", other, "2008-01-02", 2, "technical_analyst")]
    record = board_of([began(), *said, settled("2008-01-02", [11] * 6, [10] * 6)]).agents["technical_analyst"]
    assert (record.all, record.coefficients) == (HitCount(2, 1, 1), [])


def test_predictions_of_a_session_that_is_not_settled_do_not_count() -> None:
    board = board_of([began(), predicted("2008-01-02", {"A": UP})])
    assert board.agents["technical_analyst"].all == HitCount()


def test_an_agent_that_says_nothing_in_a_session_is_not_judged_by_what_it_said_before() -> None:
    said = [predicted("2008-01-02", {"A": UP}), scored("2008-01-02", [0.1, 0.4, -0.1, 0.2, -0.5, 0.3])]
    board = board_of(
        [began(), *said, settled("2008-01-02", [11, 12, 9, 13, 8, 40], [10] * 6), settled("2008-01-03", [11, 12, 13, 14, 15, 16])]
    )
    record = board.agents["technical_analyst"]
    assert (record.all, record.sessions_predicted, len(record.coefficients)) == (HitCount(1, 1), 1, 1)


def test_a_session_that_was_predicted_twice_counts_once() -> None:
    twice = [predicted("2008-01-02", {"A": UP}), predicted("2008-01-02", {"A": UP})]
    board = board_of([began(), *twice, settled("2008-01-02", [11] * 6, [10] * 6)])
    assert board.agents["technical_analyst"].all == HitCount(1, 1)


def test_scores_and_returns_of_a_session_give_its_coefficient_without_those_who_abstained() -> None:
    closes = [11, 12, 9, 13, 8, 40]
    board = board_of([began(), scored("2008-01-02", [0.1, 0.4, -0.1, 0.2, -0.5, None]), settled("2008-01-02", closes, [10] * 6)])
    assert board.agents["technical_analyst"].coefficients == [rank_correlation([0.1, 0.4, -0.1, 0.2, -0.5], [11, 12, 9, 13, 8])]
    # Of four tickers there is none.
    few = board_of([began(), scored("2008-01-02", [0.1, 0.4, -0.1, 0.2, None, None]), settled("2008-01-02", closes, [10] * 6)])
    assert few.agents["technical_analyst"].coefficients == []


def test_the_ranking_names_everyone_and_those_without_an_outcome_last() -> None:
    drafts = [began(), predicted("2008-01-02", {"A": UP}, "b"), predicted("2008-01-02", {"A": DOWN}, "a")]
    board = board_of([*drafts, settled("2008-01-02", [11] * 6, [10] * 6)])
    assert [(agent_id, rank) for agent_id, rank, _ in board.ranking()] == [("b", 1), ("a", 2), ("quiet", None), ("technical_analyst", None)]


@given(
    st.lists(st.tuples(st.sampled_from([*TICKERS, "ELSE"]), st.sampled_from([0, UP, DOWN, NEUTRAL]), st.floats(0, 1)), max_size=30),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=6, max_size=6),
)
def test_a_session_is_scored_as_the_ledger_scores_each_of_its_rows(
    rows: list[tuple[str, int, float]], closes: list[tuple[int, int]]
) -> None:
    said = events.Predictions()
    bull, bear, brier, neutral = HitCount(), HitCount(), BrierScore(), 0
    by_ticker = dict(zip(TICKERS, closes, strict=True))
    for ticker, direction, confidence in rows:
        said.predictions.add(ticker=ticker, direction=events.Direction.ValueType(direction), confidence=confidence)
        if direction not in (UP, DOWN):
            neutral += 1
            continue
        right = went_right(direction == UP, *by_ticker.get(ticker, (0, 0)))
        count = bull if direction == UP else bear
        count.predictions += 1
        count.unknown += right is None
        count.wins += bool(right)
        if right is not None:
            brier.add(confidence, right)
    drafts = [
        began(),
        settled("2008-01-01", [before for before, _ in closes]),
        Draft("predictions", said, "2008-01-02", 4, "technical_analyst"),
        settled("2008-01-02", [after for _, after in closes], [before for before, _ in closes]),
    ]
    record = board_of(drafts).agents["technical_analyst"]
    assert (record.bull, record.bear, record.neutral, record.brier) == (bull, bear, neutral, brier)


def test_only_so_many_outcomes_are_kept() -> None:
    drafts = [began()]
    for number in range(40):
        session = f"2008-02-{number:02d}"
        drafts += [predicted(session, dict.fromkeys(TICKERS, UP)), settled(session, [number + 1] * 6)]
    newest = board_of(drafts).agents["technical_analyst"].newest_outcomes()
    assert len(newest) == RECENT_OUTCOMES
    assert (newest[0].session_date, newest[0].ticker) == ("2008-02-39", "F")


def test_trades_that_closed_a_position_gained_or_lost_after_their_fee() -> None:
    board = board_of([began()])
    sell, buy = events.Leg(kind=events.LEG_KIND_SELL, quantity=5), events.Leg(kind=events.LEG_KIND_BUY, quantity=5)
    for place, (leg, realised) in enumerate([(sell, 10), (sell, 1), (sell, 3), (buy, 0)], 2):
        fill = events.OrderFilled(quantity=5, fee_micros=3, realised_micros=realised, legs=[leg])
        board.add(events.Event(sequence=place, order_filled=fill))
    assert (board.closing_trades, board.gains, board.losses) == (3, 1, 1)


def days(count: int) -> Iterator[Draft]:
    yield began()
    for number in range(1, count + 1):
        session = f"2008-01-{number:02d}"
        yield scored(session, [0.1, 0.4, -0.1, 0.2, -0.5, 0.3])
        yield predicted(session, dict.fromkeys(TICKERS, UP if number % 3 else DOWN))
        yield settled(session, [10 + (number * place) % 7 for place in range(6)])


async def test_catching_up_step_by_step_is_the_same_as_at_once_and_a_compacted_journal_is_not_counted() -> None:
    store = MemoryStore()
    written = await write(store, list(days(20)))
    reader, steps = store.reader(), Scoreboard()
    for through in (1, 5, 17, len(written)):
        steps.catch_up(reader, through, coefficients=True)
    whole = Scoreboard().catch_up(reader, len(written), coefficients=True)
    assert steps.agents == whole.agents
    assert len(whole.agents["technical_analyst"].coefficients) == 19
    assert Scoreboard().catch_up(reader, len(written)).agents["technical_analyst"].coefficients == []
    compact("demo", store, 20)
    compacted = Scoreboard().catch_up(store.reader(), len(written))
    assert (compacted.whole, compacted.agents) == (False, {})


def at_the_close() -> Draft:
    """A run that decides at the close at which it is filled."""
    draft = began()
    assert isinstance(draft.payload, events.RunStarted)
    draft.payload.decides_at_fill_price = True
    return draft


def test_who_decides_at_a_close_is_judged_by_what_follows_it() -> None:
    said = [predicted("2008-01-02", {"A": UP, "B": UP}), scored("2008-01-02", [0.1, 0.4, -0.1, 0.2, -0.5, 0.3])]
    first = [at_the_close(), *said, settled("2008-01-02", [20] * 6, [10] * 6)]
    waiting = board_of(first).agents["technical_analyst"]
    assert (waiting.all, waiting.coefficients) == (HitCount(), [])
    later = [predicted("2008-01-03", {"A": DOWN}), settled("2008-01-03", [21, 19, 25, 22, 23, 24])]
    record = board_of(first + later).agents["technical_analyst"]
    assert (record.all, record.sessions_predicted) == (HitCount(2, 1), 1)
    newest = record.newest_outcomes()
    assert [(one.session_date, one.ticker, one.earlier_close_micros, one.close_micros) for one in newest] == [
        ("2008-01-02", "B", 20, 19),
        ("2008-01-02", "A", 20, 21),
    ]
    assert record.coefficients == [rank_correlation([0.1, 0.4, -0.1, 0.2, -0.5, 0.3], [21, 19, 25, 22, 23, 24])]


@pytest.mark.parametrize("begins", [began, at_the_close])
def test_a_split_is_neither_a_fall_nor_a_rise(begins: Callable[[], Draft]) -> None:
    """From 20 to 11 over a split of 2 for 1 is up."""
    split = events.CorporateActionApplied(ticker="A", split=events.SplitRatio(new=2, old=1))
    said = predicted("2008-01-02" if begins is at_the_close else "2008-01-03", {"A": UP, "B": UP})
    first = settled("2008-01-02", [20] * 6, [10] * 6)
    acts = Draft("corporate_actions_applied", events.CorporateActionsApplied(actions=[split]), "2008-01-03", 1)
    story = [said, first, acts] if begins is at_the_close else [first, acts, said]
    board = board_of([begins(), *story, settled("2008-01-03", [11, 11, 20, 20, 20, 20])])
    newest = board.agents["technical_analyst"].newest_outcomes()
    assert [(one.ticker, one.earlier_close_micros, one.right) for one in newest] == [("B", 20, False), ("A", 10, True)]
