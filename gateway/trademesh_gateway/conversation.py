"""People speak to agents: each message and its answers become events, and a call that is repeated gets the answers that it got.

What agents say is `agents/answers.py`'s, what they know `recollection.py`'s. Nothing here reaches a decision: cycles do not know of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway.agents.answers import Answer, analyst_answer, manager_answer, not_traded, risk_answer
from trademesh_gateway.agents.question import Question, question_of
from trademesh_gateway.kept_answers import KEPT_ANSWERS, UNNAMED_PERSON, KeptAnswers
from trademesh_gateway.recollection import Known, recall
from trademesh_kernel.errors import Draining, FieldViolation, InvalidRequest, LimitReached, RequestIdReused
from trademesh_runs.journal import Draft, JournalReader, JournalWriter
from trademesh_runs.run_config import ANALYSTS, ROLE_SKILLS

MESSAGES_PER_MINUTE = 60
MINUTE_S = 60.0

Found = TypeVar("Found")


@dataclass(frozen=True)
class Said:
    """What one agent answered, and the sequence of its event."""

    agent_id: str
    text: str
    sequence: int


@dataclass(frozen=True)
class Exchange:
    """A message and its answers."""

    message_id: str
    sequence: int
    answers: list[Said]


@dataclass
class _Kept:
    """What is kept of a message for a call that is repeated: where its events are."""

    message_id: str
    sequence: int
    digest: bytes
    answered: dict[str, int] = field(default_factory=dict)
    """Sequences of the answers, by agent."""


class Conversation:
    """What people and agents of one run say to each other."""

    def __init__(
        self,
        writer: JournalWriter,
        reader: JournalReader,
        agents: Mapping[str, object],
        tickers: Sequence[str],
        *,
        may_speak: Callable[[], bool] = lambda: True,
        has_begun: Callable[[], bool] = lambda: True,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            reader: for this alone; it is closed here.
            agents: those at work, by id.
            may_speak: False once the gateway takes no new work.
            has_begun: False before the pipeline was started.
        """
        self._writer = writer
        self._reader = reader
        self._agents = [agent_id for agent_id in ROLE_SKILLS if agent_id in agents]
        self._tickers = tuple(tickers)
        self._may_speak = may_speak
        self._has_begun = has_begun
        self._clock_s = clock_s
        self._sent_at_s = deque[float](maxlen=MESSAGES_PER_MINUTE)
        self._kept: KeptAnswers[_Kept] | None = None
        """By request id, oldest first; None before the journal was asked."""
        self._one_by_one = asyncio.Lock()
        # A disk that is slow holds up who asks, and nobody else.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="conversation")

    async def send(self, text: str, agent_ids: Sequence[str] = (), sender: str = "", request_id: str = "") -> Exchange:
        """Says something to agents, or to all at work; returns when it and the answers are durable.

        Raises:
            InvalidRequest: an agent is not at work.
            RequestIdReused: the id is of another message.
            LimitReached: there were too many messages.
            Draining: the gateway takes no new work.
        """
        asked = self._checked(agent_ids)
        sender = sender or UNNAMED_PERSON
        digest = _digest(sender, asked, text)
        async with self._one_by_one:
            kept = (await self._known_messages()).get(request_id) if request_id else None
            if kept is not None and kept.digest != digest:
                raise RequestIdReused(request_id)
            self._check_speaking()
            # What agents know is what is in the journal: all of it up to now.
            await self._writer.flush()
            # A crash may have cut off answers of a message that is in the journal: those are given now.
            answers = await self._answers_of([agent_id for agent_id in asked if kept is None or agent_id not in kept.answered], text)
            self._check_speaking()
            if kept is None:
                kept = self._take_in(sender, asked, text, request_id, digest)
            for agent_id, answer in answers.items():
                self._take_in_answer(kept, agent_id, answer)
            await self._writer.flush()
            said = [
                Said(agent_id, answers[agent_id].text if agent_id in answers else await self._in_thread(self._text_at, sequence), sequence)
                for agent_id, sequence in ((agent_id, kept.answered[agent_id]) for agent_id in asked)
            ]
        return Exchange(kept.message_id, kept.sequence, said)

    def close(self) -> None:
        """Lets go of the journal. No call may be in hand."""
        self._thread.shutdown()
        self._reader.close()

    def _checked(self, agent_ids: Sequence[str]) -> list[str]:
        there = ", ".join(self._agents)
        faults = [
            FieldViolation(f"agent_ids[{place}]", f"{agent_id} is not at work in this run; these are: {there}")
            for place, agent_id in enumerate(agent_ids)
            if agent_id not in self._agents
        ]
        if faults:
            raise InvalidRequest(faults)
        return list(agent_ids) or self._agents

    def _check_speaking(self) -> None:
        if not self._may_speak():
            raise Draining("trademesh.gateway.v1.PipelineService")

    def _take_in(self, sender: str, asked: Sequence[str], text: str, request_id: str, digest: bytes) -> _Kept:
        """Journals a message that is new."""
        self._admit()
        message_id = str(uuid.uuid4())
        sent = events.MessageSent(message_id=message_id, request_id=request_id, sender=sender, agent_ids=asked, text=text)
        sent.tickers.extend(question_of(text, self._tickers).named)
        self._writer.append(Draft("message_sent", sent, item=message_id))
        kept = _Kept(message_id, self._writer.assigned, digest)
        if request_id and self._kept is not None:
            self._kept.keep(request_id, kept)
        return kept

    def _take_in_answer(self, kept: _Kept, agent_id: str, answer: Answer) -> None:
        payload = events.MessageAnswered(message_id=kept.message_id, text=answer.text, tickers=answer.tickers)
        self._writer.append(Draft("message_answered", payload, agent_id=agent_id, item=kept.message_id))
        kept.answered[agent_id] = self._writer.assigned

    def _admit(self) -> None:
        now_s, sent_at_s = self._clock_s(), self._sent_at_s
        if len(sent_at_s) == MESSAGES_PER_MINUTE and now_s - sent_at_s[0] < MINUTE_S:
            text = f"{MESSAGES_PER_MINUTE} messages were sent to this run within a minute: wait, and say it again"
            retry_after_s = sent_at_s[0] + MINUTE_S - now_s
            raise LimitReached(text, limit="messages_per_minute", value=MESSAGES_PER_MINUTE, retry_after_s=retry_after_s)
        sent_at_s.append(now_s)

    async def _answers_of(self, agent_ids: Sequence[str], text: str) -> dict[str, Answer]:
        if not agent_ids:
            return {}
        known = await self._in_thread(recall, self._reader, [agent_id for agent_id in self._agents if agent_id in ANALYSTS])
        question = question_of(text, self._tickers)
        return {agent_id: self._words_of(agent_id, question, known) for agent_id in agent_ids}

    def _words_of(self, agent_id: str, question: Question, known: Known) -> Answer:
        others = not_traded(question, self._tickers)
        if others and not question.named:
            return Answer(others)
        answer = self._work_of(agent_id, question, known)
        return Answer(f"{answer.text} {others}", answer.tickers) if others else answer

    def _work_of(self, agent_id: str, question: Question, known: Known) -> Answer:
        if agent_id in known.analysts:
            return analyst_answer(known.analysts[agent_id], question)
        if agent_id == "risk_manager" and known.risk is not None:
            return risk_answer(known.risk, question)
        if agent_id == "portfolio_manager" and known.manager is not None:
            return manager_answer(known.manager, question)
        if known.compacted_through:
            return Answer(f"My work is not in the journal any more: events up to {known.compacted_through:,} were compacted.")
        if not self._has_begun():
            return Answer("The pipeline has not begun: I know nothing yet.")
        return Answer("No session has come to my part yet: I know nothing.")

    async def _known_messages(self) -> KeptAnswers[_Kept]:
        if self._kept is None:
            self._kept = await self._in_thread(self._read_messages)
        return self._kept

    def _read_messages(self) -> KeptAnswers[_Kept]:
        """The newest messages of the journal whose calls can be repeated."""
        found, by_message = KeptAnswers[_Kept](), dict[str, _Kept]()
        for stored in self._reader.read_kind("message_sent", newest=KEPT_ANSWERS):
            sent = stored.parse().message_sent
            if sent.request_id:
                kept = _Kept(sent.message_id, stored.sequence, _digest(sent.sender, sent.agent_ids, sent.text))
                by_message[sent.message_id] = kept
                found.keep(sent.request_id, kept)
        for stored in self._reader.read_kind("message_answered", newest=KEPT_ANSWERS * len(self._agents)):
            of = by_message.get(stored.parse().message_answered.message_id)
            if of is not None:
                of.answered[stored.agent_id] = stored.sequence
        return found

    def _text_at(self, sequence: int) -> str:
        (stored,) = self._reader.read(sequence - 1, 1)
        return stored.parse().message_answered.text

    async def _in_thread(self, work: Callable[..., Found], *arguments: Any) -> Found:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def _digest(sender: str, agent_ids: Sequence[str], text: str) -> bytes:
    return hashlib.sha256(json.dumps([sender, list(agent_ids), text]).encode()).digest()
