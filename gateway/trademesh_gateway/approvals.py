"""Asks people about orders, through agent_service. Asking again after a restart finds the same approval and the same answer.

A person may take as long as the policy says; the cycle's clock stands meanwhile. An agent_service that does not answer is no person: that
time counts, and the cycle is given up when it is over.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from google.protobuf.duration_pb2 import Duration

from trademesh.agent.v1 import approval_service_pb2 as approvals
from trademesh.agent.v1 import approval_service_pb2_grpc
from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway.pipeline.cycle import ApprovalAnswer, ApprovalQuestion, Emit
from trademesh_gateway.pipeline.cycle_clock import CycleClock
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import TrademeshError
from trademesh_kernel.logs import get_logger
from trademesh_runs.journal import Draft

POLL_S = 0.5
RETRY_S = 2.0
ANSWER_TIMEOUT_S = 5.0
"""An agent_service that has not answered for so long counts as one that does not."""


class ApprovalDesk:
    """Puts questions of one run before people."""

    def __init__(
        self,
        run_id: str,
        run_nonce: str,
        agent: ServiceClient,
        flush: Callable[[], Awaitable[None]],
        give_way: Callable[[float], Awaitable[None]],
        clock: CycleClock,
    ) -> None:
        """
        Args:
            run_nonce: tells this run from an earlier one of the same name, whose answers are not for it.
            give_way: waits so many seconds, and raises when the pipeline is to stand.
            clock: stands while a person thinks, or the disk is waited for.
        """
        self._run_id = run_id
        self._run_nonce = run_nonce
        self._give_way = give_way
        self._journaled = ""
        """The order whose question is in the journal; one is asked at a time, and after an interruption the same one again."""
        self._log = get_logger("approvals")
        self._agent = agent
        self._stub = agent.stub(approval_service_pb2_grpc.ApprovalServiceStub)
        self._flush = flush
        self._clock = clock

    async def ask(self, question: ApprovalQuestion, emit: Emit) -> ApprovalAnswer:
        """Asks, and waits until somebody decides or the time is over. agent_service may come and go meanwhile.

        Raises:
            Interrupted: the pipeline is to stand; asking again goes on with the same question.
        """
        order = question.order_id
        approval_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"trademesh:{self._run_id}:{self._run_nonce}:approval:{order}"))
        side = words.Side.Name(words.Side.ValueType(question.side)).removeprefix("SIDE_")
        subject = {"order_id": order, "ticker": question.ticker, "side": side, "quantity": question.quantity}
        request = approvals.RequestApprovalRequest(
            approval_id=approval_id,
            run_id=self._run_id,
            title=f"{side} {question.quantity:,} {question.ticker} at about {question.price_micros / 1e6:,.2f} dollars, {question.session}",
            subject_json=json.dumps(subject, sort_keys=True),
            ttl=Duration(seconds=question.ttl_s),
        )
        message = events.Order(order_id=order, ticker=question.ticker, side=words.Side.ValueType(question.side), quantity=question.quantity)
        # No expiry in the event: it is wall time, and two runs of one configuration are to agree.
        payload = events.ApprovalRequested(approval_id="", order=message)
        if order != self._journaled:
            self._journaled = order
            emit(Draft("approval_requested", payload, question.session, events.PHASE_APPROVAL, item=order))
        with self._clock.standing():
            await self._flush()
        with ExitStack() as person:
            while True:
                try:
                    found = (await self._agent.call(self._stub.RequestApproval, request, timeout_s=ANSWER_TIMEOUT_S)).approval
                except TrademeshError as error:
                    # Whatever is wrong there: an order that nobody could look at is not filled. From now on the time counts.
                    person.close()
                    self._log.warning("nobody can be asked", order=order, reason=error.message)
                    await self._give_way(RETRY_S)
                    continue
                if found.state != approvals.APPROVAL_STATE_PENDING:
                    return ApprovalAnswer(
                        "",
                        found.state == approvals.APPROVAL_STATE_APPROVED,
                        found.decided_by,
                        found.reason,
                        found.state == approvals.APPROVAL_STATE_EXPIRED,
                    )
                # The question is before people.
                person.close()
                person.enter_context(self._clock.standing())
                await self._give_way(POLL_S)
