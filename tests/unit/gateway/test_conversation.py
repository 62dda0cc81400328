"""Messages of people: what becomes of them in the journal, and how often they are taken."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1.feed_service_pb2 import EventFilter
from trademesh_gateway import conversation, kept_answers
from trademesh_gateway.conversation import MESSAGES_PER_MINUTE, Conversation
from trademesh_kernel.errors import Draining, InvalidRequest, LimitReached, RequestIdReused
from trademesh_runs.chain import check_chain
from trademesh_runs.compaction import compact
from trademesh_runs.feed_filter import FeedFilter
from trademesh_runs.fold import fold_journal, replay_journal
from trademesh_runs.journal import Draft, StoredEvent
from trademesh_runs.journal_memory import MemoryStore
from trademesh_runs.journal_writer import GroupWriter
from trademesh_runs.run_config import ROLE_SKILLS
from waiting import until

DAY = "2008-09-15"
TICKERS = ("AAPL", "GE", "KO")
NOTHING = "No session has come to my part yet: I know nothing."
ID = str(uuid.UUID(int=1, version=4))


def signals(day: str, **scores: float) -> Draft:
    """The technical analyst's view of a session."""
    rows = [
        events.Signal(ticker=ticker, stance=events.STANCE_BULLISH, score=score, confidence=0.5, horizon_sessions=5)
        for ticker, score in scores.items()
    ]
    return Draft("signals", events.Signals(signals=rows), day, events.PHASE_ANALYSIS, "technical_analyst")


SETTLED = Draft("settled", events.Settled(session_number=1, portfolio=events.PortfolioState()), DAY, events.PHASE_SETTLEMENT)


class Desk:
    """A journal, its writer, and people who speak."""

    def __init__(self, store: MemoryStore, writer: GroupWriter, talk: Conversation) -> None:
        self.store = store
        self.writer = writer
        self.talk = talk

    def stored(self, *kinds: str) -> list[StoredEvent]:
        """What is in the journal, of these kinds."""
        found = [event for kind in kinds for event in self.store.reader().read_kind(kind)]
        return sorted(found, key=lambda event: event.sequence)

    def sent(self) -> list[events.MessageSent]:
        """Messages in the journal."""
        return [event.parse().message_sent for event in self.stored("message_sent")]


@asynccontextmanager
async def desk(*drafts: Draft, store: MemoryStore | None = None, generation: int = 1, **options: Any) -> AsyncIterator[Desk]:
    """A gateway's part of it, for a while; with a store of before it is a later generation."""
    kept = store or MemoryStore()
    writer = kept.writer("demo", generation, lambda _group: None)
    talk = Conversation(writer, kept.reader(), options.pop("agents", ROLE_SKILLS), TICKERS, **options)
    try:
        for draft in drafts:
            writer.append(draft)
        yield Desk(kept, writer, talk)
    finally:
        talk.close()
        await writer.close()


async def test_a_message_and_its_answers_are_events_and_durable_before_they_are_told() -> None:
    async with desk(signals(DAY, AAPL=0.5, GE=0.1)) as one:
        told = await one.talk.send("why GE?", ["technical_analyst", "risk_manager"], "ann", ID)
        sent, first, second = (event.parse() for event in one.stored("message_sent", "message_answered"))
    assert sent.message_sent == events.MessageSent(
        message_id=told.message_id,
        request_id=ID,
        sender="ann",
        agent_ids=["technical_analyst", "risk_manager"],
        text="why GE?",
        tickers=["GE"],
    )
    assert (sent.agent_id, sent.session_date, sent.phase, sent.sequence) == ("", "", 0, told.sequence)
    assert [(one.agent_id, one.text, one.sequence) for one in told.answers] == [
        ("technical_analyst", first.message_answered.text, first.sequence),
        ("risk_manager", second.message_answered.text, second.sequence),
    ]
    assert (first.agent_id, list(first.message_answered.tickers)) == ("technical_analyst", ["GE"])
    assert first.message_answered.text == "2008-09-15: GE bullish, score +0.10, confidence 0.50, over 5 sessions."
    assert (second.agent_id, second.message_answered.text, list(second.message_answered.tickers)) == ("risk_manager", NOTHING, [])
    assert {first.message_answered.message_id, second.message_answered.message_id} == {told.message_id}


async def test_without_a_name_all_agents_at_work_are_spoken_to_and_the_sender_is_a_person() -> None:
    async with desk(agents={"portfolio_manager", "technical_analyst", "sentiment_analyst"}) as one:
        told = await one.talk.send("well?")
        (sent,) = one.sent()
    assert [answer.agent_id for answer in told.answers] == ["technical_analyst", "sentiment_analyst", "portfolio_manager"]
    assert (list(sent.agent_ids), sent.sender, sent.request_id) == ([answer.agent_id for answer in told.answers], "person", "")


async def test_before_the_start_that_is_said_and_what_was_compacted_too() -> None:
    async with desk(has_begun=lambda: False) as one:
        (answer,) = (await one.talk.send("well?", ["risk_manager"])).answers
        assert answer.text == "The pipeline has not begun: I know nothing yet."
    async with desk(signals(DAY, GE=0.1), SETTLED) as one:
        await one.writer.flush()
    compact("demo", one.store, one.store.head().sequence)
    async with desk(store=one.store, generation=2) as later:
        (answer,) = (await later.talk.send("well?", ["technical_analyst"])).answers
        assert answer.text == "My work is not in the journal any more: events up to 2 were compacted."


async def test_what_is_pending_when_a_person_speaks_is_known() -> None:
    async with desk(signals(DAY, AAPL=0.5)) as one:
        await one.talk.send("AAPL", ["technical_analyst"])
        one.writer.append(signals("2008-09-16", AAPL=0.6))
        (answer,) = (await one.talk.send("AAPL", ["technical_analyst"])).answers
    assert answer.text.startswith("2008-09-16: AAPL bullish, score +0.60")


async def test_an_agent_that_is_not_at_work_is_named_with_those_who_are() -> None:
    async with desk(agents={"portfolio_manager", "technical_analyst"}) as one:
        with pytest.raises(InvalidRequest) as caught:
            await one.talk.send("well?", ["technical_analyst", "risk_manager", "nobody"])
        assert [violation.field for violation in caught.value.violations] == ["agent_ids[1]", "agent_ids[2]"]
        expected = "nobody is not at work in this run; these are: technical_analyst, portfolio_manager"
        assert caught.value.violations[1].description == expected
        assert not one.sent()


async def test_a_call_that_is_repeated_gets_the_answers_that_it_got_from_a_later_gateway_too() -> None:
    async with desk(signals(DAY, AAPL=0.5)) as one:
        told = await one.talk.send("AAPL?", request_id=ID)
        one.writer.append(signals("2008-09-16", AAPL=-0.5))
        assert await one.talk.send("AAPL?", request_id=ID) == told
    async with desk(store=one.store, generation=2) as later:
        assert await later.talk.send("AAPL?", request_id=ID) == told
        assert len(later.sent()) == 1
        assert (await later.talk.send("AAPL?")).message_id != told.message_id
        assert len(later.sent()) == 2


async def test_calls_with_one_id_at_the_same_time_are_one_message() -> None:
    async with desk(signals(DAY, AAPL=0.5)) as one:
        first, *others = await asyncio.gather(*(one.talk.send("AAPL?", request_id=ID) for _ in range(5)))
        assert others == [first] * 4
        assert len(one.sent()) == 1


@pytest.mark.parametrize(
    "other", [("KO?", ["risk_manager"], "ann"), ("AAPL?", ["technical_analyst"], "ann"), ("AAPL?", ["risk_manager"], "bob")]
)
async def test_an_id_that_was_used_for_another_message_is_refused(other: tuple[str, list[str], str]) -> None:
    async with desk() as one:
        await one.talk.send("AAPL?", ["risk_manager"], "ann", ID)
        with pytest.raises(RequestIdReused):
            await one.talk.send(*other, ID)
    async with desk(store=one.store, generation=2) as later:
        with pytest.raises(RequestIdReused):
            await later.talk.send(*other, ID)
        assert len(later.sent()) == 1


async def test_answers_that_a_crash_has_cut_off_are_given_when_the_call_is_repeated_and_none_twice() -> None:
    agents = ["fundamentals_analyst", "technical_analyst", "risk_manager"]
    async with desk(signals(DAY, AAPL=0.5)) as one:
        told = await one.talk.send("AAPL?", agents, request_id=ID)
    del one.store.events[3:], one.store.links[:]
    assert [event.kind for event in one.stored("message_sent", "message_answered")] == [57, 58]
    for generation in (2, 3):
        async with desk(store=one.store, generation=generation) as later:
            again = await later.talk.send("AAPL?", agents, request_id=ID)
            assert [(answer.agent_id, answer.text) for answer in again.answers] == [
                (answer.agent_id, answer.text) for answer in told.answers
            ]
            assert [event.agent_id for event in later.stored("message_answered")] == agents


async def test_only_the_newest_messages_are_known_when_a_call_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (kept_answers, conversation):
        monkeypatch.setattr(module, "KEPT_ANSWERS", 3)
    ids = [str(uuid.UUID(int=number, version=4)) for number in range(4)]
    async with desk(agents={"portfolio_manager"}) as one:
        first, *others = [await one.talk.send("well?", request_id=request_id) for request_id in ids]
        assert [await one.talk.send("well?", request_id=request_id) for request_id in ids[1:]] == others
        assert len(one.sent()) == 4
    async with desk(agents={"portfolio_manager"}) as another:
        first_of_another, *_ = [await another.talk.send("well?", request_id=request_id) for request_id in ids]
        assert (await another.talk.send("well?", request_id=ids[0])).message_id != first_of_another.message_id
    async with desk(store=one.store, generation=2, agents={"portfolio_manager"}) as later:
        assert [await later.talk.send("well?", request_id=request_id) for request_id in ids[1:]] == others
        assert (await later.talk.send("well?", request_id=ids[0])).message_id != first.message_id
        ids_of_events = [event.parse().event_id for event in later.stored("message_sent", "message_answered")]
        assert len(set(ids_of_events)) == len(ids_of_events) == 10


async def test_more_than_sixty_messages_a_minute_are_refused_with_the_time_to_wait_and_repeats_are_not_counted() -> None:
    now_s = 1_000.0
    async with desk(agents={"portfolio_manager"}, clock_s=lambda: now_s) as one:
        await one.talk.send("well?", request_id=ID)
        now_s += 10
        for _ in range(MESSAGES_PER_MINUTE - 1):
            await one.talk.send("well?")
        await one.talk.send("well?", request_id=ID)
        now_s += 20
        with pytest.raises(LimitReached) as caught:
            await one.talk.send("well?")
        assert caught.value.retry_after_s == pytest.approx(30)
        assert caught.value.metadata == {"limit": "messages_per_minute", "value": "60"}
        now_s += 30
        await one.talk.send("well?")
        with pytest.raises(LimitReached):
            await one.talk.send("well?")
        assert len(one.sent()) == MESSAGES_PER_MINUTE + 1


async def test_a_gateway_that_drains_takes_no_message() -> None:
    async with desk(may_speak=lambda: False) as one:
        with pytest.raises(Draining):
            await one.talk.send("well?")
    async with desk() as two:
        # It begins to drain while the journal is waited for.
        sending = asyncio.create_task(two.talk.send("well?"))
        await asyncio.sleep(0)
        two.talk._may_speak = lambda: False
        with pytest.raises(Draining):
            await sending
        assert not two.sent()


async def test_while_the_disk_is_full_people_wait_and_nothing_gathers() -> None:
    async with desk() as one:
        one.store.full = True
        one.writer.append(signals(DAY, AAPL=0.5))
        waiting = [asyncio.create_task(one.talk.send("AAPL?", ["technical_analyst"])) for _ in range(20)]
        await until(lambda: bool(one.writer.stalled))
        assert one.writer.assigned == 1
        assert not any(task.done() for task in waiting)
        for task in waiting[1:]:
            task.cancel()
        one.store.full = False
        (answer,) = (await waiting[0]).answers
        assert answer.text.startswith("2008-09-15: AAPL bullish")
        assert len(one.sent()) == 1


async def test_a_session_that_is_done_again_neither_swallows_nor_doubles_a_message() -> None:
    opened = Draft("session_opened", events.SessionOpened(session_number=1), DAY, events.PHASE_PREPARE)
    async with desk(opened) as one:
        told = await one.talk.send("well?", ["technical_analyst"], request_id=ID)
        one.writer.append(signals(DAY, AAPL=0.5))
    async with desk(opened, store=one.store, generation=2) as later:
        assert await later.talk.send("well?", ["technical_analyst"], request_id=ID) == told
        for draft in (signals(DAY, AAPL=0.5), SETTLED):
            later.writer.append(draft)
        await later.writer.flush()
        kinds = [event.kind for event in later.store.events]
        assert kinds == [41, 57, 58, 42, 51]
        check_chain(later.store.reader())


async def test_a_fold_takes_no_notice_of_messages() -> None:
    started = Draft("run_started", events.RunStarted(initial_cash_micros=0, sessions=2))
    async with desk(started, SETTLED) as quiet:
        await quiet.writer.flush()
    async with desk(started) as one:
        await one.talk.send("AAPL?")
        one.writer.append(SETTLED)
        await one.talk.send("and GE?")
        reader = one.store.reader()
        states = [fold("demo", reader).state() for fold in (replay_journal, fold_journal)]
        before = replay_journal("demo", quiet.store.reader()).state()
    assert states[0] == states[1]
    for state in (*states, before):
        state.as_of_sequence = state.pipeline.head_sequence = 0
        for point in state.equity:
            point.sequence = 0
    assert states[0] == before


async def test_a_reader_finds_messages_by_kind_agent_and_ticker() -> None:
    async with desk(signals(DAY, AAPL=0.5, GE=0.1, KO=0.2)) as one:
        await one.talk.send("GE?")
        found = one.stored("message_sent", "message_answered")

    def passing(**conditions: Any) -> list[tuple[int, str]]:
        wanted = FeedFilter(EventFilter(**conditions))
        return [(event.kind, event.agent_id) for event in found if wanted.passes(event)]

    assert passing(tickers=["GE"]) == [(57, ""), (58, "technical_analyst")]
    assert passing(tickers=["AAPL"]) == []
    assert passing(agent_ids=["risk_manager"]) == [(58, "risk_manager")]
    assert len(passing(kinds=["message_answered"])) == 6
