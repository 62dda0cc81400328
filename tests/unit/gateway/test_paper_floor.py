"""The floor of mode PAPER: how long people are asked."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_gateway.paper_floor import PaperFloor, PaperParts
from trademesh_gateway.pipeline.broker import SessionTimes
from trademesh_gateway.pipeline.controller import Controller
from trademesh_gateway.pipeline.cycle import ApprovalAnswer, ApprovalQuestion, Emit
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.health import Readiness
from trademesh_runs.journal import Draft

OPEN, CLOSE = 1_795_789_800, 1_795_802_400
DAY = SessionTimes("2026-11-27", OPEN, CLOSE)


@dataclass
class Clock:
    """A clock that stands."""

    unix_s: float

    def now_unix_s(self) -> float:
        return self.unix_s


class NoWriter:
    """Nothing is journaled here."""

    def append(self, draft: Draft) -> bool:
        return True

    async def flush(self) -> None:
        return


@pytest.mark.parametrize(
    ("fill", "now", "policy_s", "asked_s"),
    [
        (contract.FILL_POLICY_NEXT_OPEN, OPEN - 1800, 900, 900),
        (contract.FILL_POLICY_NEXT_OPEN, OPEN - 1800, 7200, 1800),
        (contract.FILL_POLICY_NEXT_OPEN, OPEN - 60, 900, 60),
        (contract.FILL_POLICY_NEXT_OPEN, OPEN + 60, 900, 1),
        (contract.FILL_POLICY_NEXT_CLOSE, OPEN + 60, 900, 900),
        (contract.FILL_POLICY_NEXT_CLOSE, CLOSE - 60, 900, 60),
    ],
)
async def test_people_are_asked_no_longer_than_their_answer_can_be_acted_on(
    fill: contract.FillPolicy.ValueType, now: int, policy_s: int, asked_s: int
) -> None:
    config = RunConfig(mode=contract.RUN_MODE_PAPER, tickers=["AAPL"])
    config.execution.fill = fill
    asked = list[ApprovalQuestion]()

    async def ask(question: ApprovalQuestion, _emit: Emit) -> ApprovalAnswer:
        asked.append(question)
        return ApprovalAnswer("", True, "ann", "", False)

    controller = Controller("paper", lambda _draft: None, state=2, reason="", pace=0.0)
    async with ServiceClient("127.0.0.1:1", "trading_service") as nobody:
        floor = PaperFloor(config, nobody, nobody, NoWriter(), controller, Readiness(), {}, lambda *_: None, PaperParts(Clock(now)))
        await floor.until_decision(DAY)
        answer = await floor.asking(ask)(ApprovalQuestion(DAY.date, "o-1", "AAPL", 1, 5, 1_000_000, policy_s), lambda _draft: None)
    assert answer.approved
    assert [question.ttl_s for question in asked] == [asked_s]
