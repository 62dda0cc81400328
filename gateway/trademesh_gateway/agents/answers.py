"""What agents with rule brains say to a person: short English from the newest of their work, its figures rounded, and nothing else. The same
work and the same question give the same words.

What they know is read from the journal in `recollection.py`; messages, their bounds and their events are `conversation.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trademesh_gateway.agents.question import Question
from trademesh_gateway.agents.records import Stance
from trademesh_gateway.agents.work import AnalystWork, Choice, Headroom, ManagerWork, Passage, RiskWork, View
from trademesh_ledger.money import divide_half_even

MOST_TOLD = 10
"""So many tickers are told of in one answer, if they are named."""
STRONGEST = 3
"""So many, if none is."""
MOST_LISTED = 30
"""So many are listed by name alone."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an agent says, and the tickers that it tells of."""

    text: str
    tickers: tuple[str, ...] = ()


def analyst_answer(work: AnalystWork, question: Question) -> Answer:
    """From its newest signals: the tickers that are named, or the strongest."""
    if work.abstained_because:
        return Answer(f"{work.session}: I abstained from every ticker: {work.abstained_because}.")
    if question.named:
        told = [f"{ticker} {_view(work.views[ticker])}" for ticker in question.named[:MOST_TOLD] if ticker in work.views]
        return _told(work.session, told, question)
    counts = {stance: sum(view.stance is stance for view in work.views.values()) for stance in Stance}
    parts = ", ".join(f"{count} {_STANCES[stance]}" for stance, count in counts.items() if count)
    strongest = sorted((one for one in work.views.items() if one[1].conviction > 0), key=lambda one: -one[1].conviction)[:STRONGEST]
    lines = [f"Of {_counted(len(work.views), 'ticker')}: {parts}"]
    if strongest:
        lines.append("Strongest: " + "; ".join(f"{ticker} {_view(view)}" for ticker, view in strongest))
    return Answer(f"{work.session}: {_sentences(lines)}", tuple(ticker for ticker, _ in strongest))


_STANCES = {Stance.BULLISH: "bullish", Stance.BEARISH: "bearish", Stance.NEUTRAL: "neutral", Stance.ABSTAIN: "abstained from"}


def _view(view: View) -> str:
    if view.stance is Stance.ABSTAIN:
        return f"abstained from: {view.note}" if view.note else "abstained from"
    figures = [f"{name.replace('_', ' ')} {value:.3g}" for name, value in view.figures]
    return (
        f"{_STANCES[view.stance]}, score {_score(view.score)}, confidence {view.confidence:.2f}, over {_counted(view.horizon_sessions, 'session')}"
        + (f" ({', '.join([*figures, *filter(None, [view.note])])})" if figures or view.note else "")
    )


def risk_answer(work: RiskWork, question: Question) -> Answer:
    """From its newest notes: the book, and headroom in the tickers that are named, or what binds in any."""
    book = (
        f"Net asset value {_dollars(work.nav_micros)}, gross {percent(work.gross)}, net {percent(work.net)}, "
        f"drawdown {percent(work.drawdown)}"
    )
    if question.named:
        told = [f"{ticker} {_headroom(work.headroom[ticker])}" for ticker in question.named[:MOST_TOLD] if ticker in work.headroom]
        return _told(work.session, [book, *told], question)
    notes = work.headroom
    groups = dict[str, list[str]]()
    for ticker, note in notes.items():
        if note.bound_by:
            groups.setdefault(f"Bound by the {note.bound_by}", []).append(ticker)
    groups["Over a limit or close to it"] = [ticker for ticker, note in notes.items() if note.warned and not note.bound_by]
    groups["No room to add"] = [ticker for ticker, note in notes.items() if not note.most_to_add]
    groups["No room to take away"] = [ticker for ticker, note in notes.items() if not note.most_to_take_away]
    told = [f"{what}: {_listed(tickers)}" for what, tickers in groups.items() if tickers]
    if not told:
        told = [f"Nothing binds: there is room both ways in {_every(len(notes))}"]
    named = {ticker for tickers in groups.values() for ticker in tickers[:MOST_LISTED]}
    return Answer(f"{work.session}: {_sentences([book, *told])}", tuple(ticker for ticker in notes if ticker in named))


def _headroom(note: Headroom) -> str:
    text = f"room to add {note.most_to_add:,} shares and to take away {note.most_to_take_away:,}"
    text += ", volatility unknown" if note.volatility is None else f", volatility {percent(note.volatility)} a year"
    if note.bound_by:
        return f"{text}; bound by the {note.bound_by}"
    return f"{text}; over a limit or close to it" if note.warned else text


def manager_answer(work: ManagerWork, question: Question) -> Answer:
    """From its newest decisions and what became of them: the tickers that are named, or those that it wants to trade."""
    if question.named:
        told = [f"{ticker}: {_choice(work.choices[ticker], work)}" for ticker in question.named[:MOST_TOLD] if ticker in work.choices]
        return _told(work.session, told, question)
    by_score = sorted(work.choices.items(), key=lambda one: -abs(one[1].score))
    orders = [(ticker, choice) for ticker, choice in by_score if choice.delta]
    if not orders:
        strongest = by_score[:STRONGEST]
        scores = "; ".join(f"{ticker} {_aim(choice)}" for ticker, choice in strongest)
        lines = [f"I held {_every(len(work.choices))}", *([f"Strongest scores: {scores}"] if strongest else [])]
        return Answer(f"{work.session}: {_sentences(lines)}", tuple(ticker for ticker, _ in strongest))
    wanted = "; ".join(f"{_verb(choice)} {abs(choice.delta):,} {ticker} ({_aim(choice)})" for ticker, choice in orders[:MOST_TOLD])
    more = f"; and {len(orders) - MOST_TOLD} more" if len(orders) > MOST_TOLD else ""
    lines = [f"I wanted to trade {len(orders)} of {_counted(len(work.choices), 'ticker')}: {wanted}{more}"]
    cut = [f"{ticker} ({one.passage.limit})" for ticker, one in orders if one.passage is not None and one.passage.limit]
    if cut:
        lines.append(f"Cut or refused by limits: {_listed(cut)}")
    filled = sum(choice.fate.filled > 0 for _, choice in orders)
    void = _void(work)
    lines.append(void[0].upper() + void[1:] if void else f"{_counted(filled, 'order')} filled" + ("" if work.settled else " so far"))
    return Answer(f"{work.session}: {_sentences(lines)}", tuple(ticker for ticker, _ in orders[:MOST_TOLD]))


def _choice(choice: Choice, work: ManagerWork) -> str:
    if not choice.delta:
        missing = "" if choice.confidence else "; what I weigh or size by was missing: views, a price or a volatility"
        return f"I held, {_aim(choice)}{missing}"
    lines = [f"I wanted to {_verb(choice)} {abs(choice.delta):,} shares, {_aim(choice)}"]
    passage, fate = choice.passage, choice.fate
    if passage is not None:
        lines.append(_passage(passage))
    lines += fate.sayings
    if fate.filled:
        lines.append(f"{fate.filled:,} were filled, the last at {_dollars(fate.price_micros)}; the position became {fate.position:,}")
    elif void := _void(work):
        lines.append(void)
    elif not fate.sayings and (passage is None or passage.allowed):
        lines.append("it was not executed" if work.settled else "it has not been executed yet")
    return "; ".join(lines)


def _passage(passage: Passage) -> str:
    if not passage.limit:
        return "the limits let it pass whole"
    let = f"let {passage.allowed:,} of them pass" if passage.allowed else "refused it"
    told = f"{passage.figure} against a limit of {passage.bound}" if passage.figure else f"limit {passage.bound}"
    return f"{passage.limit} {let}" + (f" ({told} {passage.unit}".rstrip() + ")" if passage.bound else "")


def _void(work: ManagerWork) -> str:
    return f"the cycle was given up, and its orders are void: {work.given_up_because}" if work.given_up_because else ""


def _aim(choice: Choice) -> str:
    return f"mean score {_score(choice.score)}, confidence {choice.confidence:.2f}, target weight {percent(choice.target_weight)}"


def _verb(choice: Choice) -> str:
    return "buy" if choice.delta > 0 else "sell"


def not_traded(question: Question, tickers: Sequence[str]) -> str:
    """A sentence on what the text names and the run does not trade; empty if there is nothing of the kind."""
    if not question.not_traded:
        return ""
    trades = "" if question.named else f" It trades {_listed(tickers)}."
    return f"This run does not trade {_listed(question.not_traded)}.{trades}"


def _told(session: str, lines: Iterable[str], question: Question) -> Answer:
    told = question.named[:MOST_TOLD]
    more = len(question.named) - len(told)
    rest = [f"Ask again for the other {more} that you name"] if more else []
    return Answer(f"{session}: {_sentences([*lines, *rest])}", told)


def _sentences(lines: Iterable[str]) -> str:
    return ". ".join(lines) + "."


def _listed(words: Sequence[str]) -> str:
    more = len(words) - MOST_LISTED
    return ", ".join(words[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _every(count: int) -> str:
    return f"all {count:,} tickers" if count != 1 else "the one ticker"


def percent(fraction: float) -> str:
    """A fraction as people read it."""
    # Plus zero: what rounds to nothing has no sign.
    return f"{round(100 * fraction, 1) + 0.0:.1f} %"


def _score(score: float) -> str:
    return f"{round(score, 2) + 0.0:+.2f}"


def _dollars(micros: int) -> str:
    """Dollars to the cent, rounded half to even; for reading, no account is kept of it."""
    cents = divide_half_even(micros, 10_000)
    return f"{'-' if cents < 0 else ''}${abs(cents) // 100:,}.{abs(cents) % 100:02d}"
