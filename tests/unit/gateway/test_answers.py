"""What rule agents say: every figure is of their work, and what they do not know they say."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademesh_gateway.agents.answers import MOST_TOLD, analyst_answer, manager_answer, not_traded, risk_answer
from trademesh_gateway.agents.question import Question
from trademesh_gateway.agents.records import Stance
from trademesh_gateway.agents.work import AnalystWork, Choice, Fate, Headroom, ManagerWork, Passage, RiskWork, View

DAY = "2008-09-15"
ANYTHING = Question()
VIEWS = {
    "AAPL": View(Stance.BULLISH, 0.5, 0.25, 21, figures=(("return_231_skip_21", 0.12345), ("z_score_20", -1.0))),
    "GE": View(Stance.BEARISH, -0.8, 0.5, 21),
    "KO": View(Stance.ABSTAIN, 0.0, 0.0, 21, "not enough history"),
    "XOM": View(Stance.NEUTRAL, 0.0, 0.4, 1),
}


def test_an_analyst_tells_of_a_ticker_that_is_named_with_the_figures_behind_it() -> None:
    answer = analyst_answer(AnalystWork(DAY, VIEWS), Question(("AAPL", "KO", "XOM")))
    assert answer.text == (
        "2008-09-15: AAPL bullish, score +0.50, confidence 0.25, over 21 sessions (return 231 skip 21 0.123, z score 20 -1). "
        "KO abstained from: not enough history. XOM neutral, score +0.00, confidence 0.40, over 1 session."
    )
    assert answer.tickers == ("AAPL", "KO", "XOM")


def test_an_analyst_that_is_asked_of_nothing_in_particular_tells_its_strongest_views() -> None:
    answer = analyst_answer(AnalystWork(DAY, VIEWS), ANYTHING)
    assert answer.text == (
        "2008-09-15: Of 4 tickers: 1 bullish, 1 bearish, 1 neutral, 1 abstained from. Strongest: GE bearish, score -0.80, confidence 0.50, "
        "over 21 sessions; AAPL bullish, score +0.50, confidence 0.25, over 21 sessions (return 231 skip 21 0.123, z score 20 -1)."
    )
    assert answer.tickers == ("GE", "AAPL")


@pytest.mark.parametrize("question", [ANYTHING, Question(("GE",))])
def test_an_analyst_that_abstained_says_why(question: Question) -> None:
    answer = analyst_answer(AnalystWork(DAY, {}, "no statements in the data"), question)
    assert (answer.text, answer.tickers) == ("2008-09-15: I abstained from every ticker: no statements in the data.", ())


ROOM = {
    "AAPL": Headroom(1_200, 3_400, volatility=0.384),
    "GE": Headroom(0, 50, warned=True),
    "KO": Headroom(10, 0),
    "XOM": Headroom(0, 5, volatility=0.2, bound_by="drawdown stop", warned=True),
}
BOOK = "2008-09-15: Net asset value $1,012,345.68, gross 85.0 %, net -12.5 %, drawdown 0.0 %."


def risk(room: dict[str, Headroom]) -> RiskWork:
    return RiskWork(DAY, 1_012_345_678_901, 0.85, -0.125, -0.0004, room)


def test_the_risk_manager_tells_the_book_and_what_binds() -> None:
    answer = risk_answer(risk(ROOM), ANYTHING)
    assert answer.text == (
        f"{BOOK} Bound by the drawdown stop: XOM. Over a limit or close to it: GE. No room to add: GE, XOM. No room to take away: KO."
    )
    assert answer.tickers == ("GE", "KO", "XOM")
    free = risk_answer(risk({"AAPL": ROOM["AAPL"]}), ANYTHING)
    assert (free.text, free.tickers) == (f"{BOOK} Nothing binds: there is room both ways in the one ticker.", ())


def test_the_risk_manager_tells_the_headroom_of_a_ticker_that_is_named() -> None:
    answer = risk_answer(risk(ROOM), Question(("AAPL", "GE", "XOM")))
    assert answer.text == (
        f"{BOOK} AAPL room to add 1,200 shares and to take away 3,400, volatility 38.4 % a year. "
        "GE room to add 0 shares and to take away 50, volatility unknown; over a limit or close to it. "
        "XOM room to add 0 shares and to take away 5, volatility 20.0 % a year; bound by the drawdown stop."
    )


CUT = Passage(120, 80, "position limit", "20.0 %", "23.4 %", "of net asset value")


def choices(**fates: Fate) -> dict[str, Choice]:
    def fate(ticker: str) -> Fate:
        return fates.get(ticker, Fate())

    return {
        "AAPL": Choice(120, 0.214, 0.6, 0.052, CUT, fate("AAPL")),
        "GE": Choice(-7_000, -0.9, 0.5, -0.1, Passage(7_000, 0, "drawdown stop", "50.0 %"), fate("GE")),
        "KO": Choice(0, 0.05, 0.4, 0.02),
        "XOM": Choice(0, 0.0, 0.0, 0.0),
        "JNJ": Choice(10, 0.3, 0.9, 0.2, Passage(10, 10), fate("JNJ")),
    }


def told(work: ManagerWork, ticker: str) -> str:
    answer = manager_answer(work, Question((ticker,)))
    assert answer.tickers == (ticker,)
    assert answer.text.startswith(f"{DAY}: {ticker}: ")
    return answer.text.removeprefix(f"{DAY}: {ticker}: ")


AAPL = (
    "I wanted to buy 120 shares, mean score +0.21, confidence 0.60, target weight 5.2 %; "
    "position limit let 80 of them pass (23.4 % against a limit of 20.0 % of net asset value)"
)


def test_the_portfolio_manager_tells_why_and_what_the_limits_and_the_market_made_of_it() -> None:
    fates = {"AAPL": Fate(["approved by ann (fine)", "10 were not filled: insufficient cash"], 70, 135_205_000, 480), "JNJ": Fate()}
    work = ManagerWork(DAY, choices(**fates), settled=True)
    assert told(work, "AAPL") == (
        f"{AAPL}; approved by ann (fine); 10 were not filled: insufficient cash; 70 were filled, the last at $135.20; the position became 480."
    )
    assert told(work, "GE") == (
        "I wanted to sell 7,000 shares, mean score -0.90, confidence 0.50, target weight -10.0 %; drawdown stop refused it (limit 50.0 %)."
    )
    assert told(work, "KO") == "I held, mean score +0.05, confidence 0.40, target weight 2.0 %."
    assert "something" not in told(work, "XOM")
    assert told(work, "XOM").endswith("what I weigh or size by was missing: views, a price or a volatility.")
    assert told(work, "JNJ").endswith("the limits let it pass whole; it was not executed.")


def test_the_portfolio_manager_says_that_an_order_still_waits_or_is_void() -> None:
    assert told(ManagerWork(DAY, choices(), settled=False), "AAPL") == f"{AAPL}; it has not been executed yet."
    void = ManagerWork(DAY, choices(), settled=True, given_up_because="the cycle took longer than 1 s")
    assert told(void, "AAPL") == f"{AAPL}; the cycle was given up, and its orders are void: the cycle took longer than 1 s."


def test_the_portfolio_manager_that_is_asked_of_nothing_in_particular_tells_its_orders() -> None:
    work = ManagerWork(DAY, choices(AAPL=Fate([], 80, 135_000_000, 80)), settled=False)
    answer = manager_answer(work, ANYTHING)
    assert answer.text == (
        "2008-09-15: I wanted to trade 3 of 5 tickers: sell 7,000 GE (mean score -0.90, confidence 0.50, target weight -10.0 %); "
        "buy 10 JNJ (mean score +0.30, confidence 0.90, target weight 20.0 %); "
        "buy 120 AAPL (mean score +0.21, confidence 0.60, target weight 5.2 %). "
        "Cut or refused by limits: GE (drawdown stop), AAPL (position limit). 1 order filled so far."
    )
    assert answer.tickers == ("GE", "JNJ", "AAPL")
    void = manager_answer(ManagerWork(DAY, choices(), settled=True, given_up_because="x"), ANYTHING)
    assert void.text.endswith(" The cycle was given up, and its orders are void: x.")
    held = manager_answer(ManagerWork(DAY, {"KO": choices()["KO"]}, settled=True), ANYTHING)
    assert held.text == ("2008-09-15: I held the one ticker. Strongest scores: KO mean score +0.05, confidence 0.40, target weight 2.0 %.")


def test_what_a_run_does_not_trade_is_said() -> None:
    assert not_traded(ANYTHING, ["GE"]) == ""
    assert not_traded(Question((), ("TSLA", "GM")), ["GE", "KO"]) == "This run does not trade TSLA, GM. It trades GE, KO."
    assert not_traded(Question(("GE",), ("TSLA",)), ["GE"]) == "This run does not trade TSLA."
    assert not_traded(Question((), ("TSLA",)), [f"T{number}" for number in range(2_000)]).endswith("T29 and 1970 more.")


SCORES = st.floats(-1, 1)


@given(st.lists(st.tuples(st.sampled_from(Stance), SCORES, st.floats(0, 1), SCORES), max_size=60), st.integers(0, 60))
def test_an_answer_is_short_however_much_is_named_and_tells_of_the_runs_tickers_alone(
    rows: list[tuple[Stance, float, float, float]], named: int
) -> None:
    views = {f"T{place}": View(stance, score, sure, 5, figures=(("z", z),)) for place, (stance, score, sure, z) in enumerate(rows)}
    orders = {ticker: Choice(place - 9, view.score, view.confidence, view.score) for place, (ticker, view) in enumerate(views.items())}
    room = {ticker: Headroom(place % 3, place % 5) for place, ticker in enumerate(views)}
    question = Question(tuple(views)[:named])
    for answer in (
        analyst_answer(AnalystWork(DAY, views), question),
        risk_answer(risk(room), question),
        manager_answer(ManagerWork(DAY, orders, settled=True), question),
    ):
        assert answer.text.startswith(f"{DAY}: ")
        assert answer.text.endswith(".")
        assert not re.search(r"-0\.0+ %|-0\.00\b", answer.text)
        assert len(answer.text) < 2_500
        assert set(answer.tickers) <= set(views)
        if question.named:
            assert answer.tickers == question.named[:MOST_TOLD]
            assert ("Ask again for the other" in answer.text) == (len(question.named) > MOST_TOLD)
