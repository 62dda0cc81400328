"""ApprovalService: the approval book by RPC, and its watchers.

A watcher keeps a set of approvals that have changed, not a queue of changes: one that is slow gets the newest state of each, and its
memory is bounded by the number of approvals.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration

from trademesh.agent.v1 import approval_service_pb2 as approvals
from trademesh.agent.v1 import approval_service_pb2_grpc
from trademesh_agent import wire
from trademesh_agent.approvals import ApprovalBook
from trademesh_agent.model import Approval, ApprovalState
from trademesh_kernel.context import Context
from trademesh_kernel.paging import page_token, read_page_place

DEFAULT_PAGE_SIZE = 50
CHECKPOINT_S = 5.0


class ApprovalHub:
    """Tells watchers which approvals have changed. Called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watchers: set[Watcher] = set()
        self.draining = False

    def drain(self) -> None:
        """Ends every watch."""
        self.draining = True
        for watcher in self._watchers:
            watcher.wake()

    def publish(self, approval: Approval) -> None:
        """Takes in one change."""
        self._loop.call_soon_threadsafe(self._deliver, approval)

    def _deliver(self, approval: Approval) -> None:
        for watcher in self._watchers:
            watcher.deliver(approval)

    def join(self, watcher: Watcher) -> None:
        """From now on the watcher is told."""
        self._watchers.add(watcher)

    def leave(self, watcher: Watcher) -> None:
        """From now on it is not."""
        self._watchers.discard(watcher)


class Watcher:
    """Approvals of one run, or of all, that have changed since they were last taken."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._changed: dict[str, Approval] = {}
        self._wake = asyncio.Event()

    def deliver(self, approval: Approval) -> None:
        """Keeps the newest state of an approval."""
        if not self._run_id or approval.run_id == self._run_id:
            self._changed[approval.approval_id] = approval
            self._wake.set()

    def wake(self) -> None:
        """Ends the wait of `take`."""
        self._wake.set()

    async def take(self, within_s: float) -> list[Approval]:
        """What has changed; empty if nothing did in time."""
        try:
            async with asyncio.timeout(within_s):
                await self._wake.wait()
        except TimeoutError:
            return []
        self._wake.clear()
        changed, self._changed = list(self._changed.values()), {}
        return changed


class ApprovalServicer(approval_service_pb2_grpc.ApprovalServiceServicer):
    """Approvals by RPC."""

    def __init__(self, book: ApprovalBook, hub: ApprovalHub) -> None:
        self._book = book
        self._hub = hub

    async def RequestApproval(self, request: approvals.RequestApprovalRequest, context: Context) -> approvals.RequestApprovalResponse:
        ttl = timedelta(seconds=request.ttl.seconds, microseconds=request.ttl.nanos // 1000)
        value = await asyncio.to_thread(self._book.request, request.approval_id, request.run_id, request.title, request.subject_json, ttl)
        return approvals.RequestApprovalResponse(approval=wire.approval_message(value))

    async def GetApproval(self, request: approvals.GetApprovalRequest, context: Context) -> approvals.GetApprovalResponse:
        value = await asyncio.to_thread(self._book.get, request.approval_id)
        return approvals.GetApprovalResponse(approval=wire.approval_message(value))

    async def ListApprovals(self, request: approvals.ListApprovalsRequest, context: Context) -> approvals.ListApprovalsResponse:
        before = read_page_place(request, request.page_token)
        size = request.page_size or DEFAULT_PAGE_SIZE
        values, following = await asyncio.to_thread(self._book.page, request.run_id, wire.approval_state(request.state), before, size)
        token = page_token(request, [following]) if following is not None else ""
        return approvals.ListApprovalsResponse(approvals=[wire.approval_message(value) for value in values], next_page_token=token)

    async def WatchApprovals(
        self, request: approvals.WatchApprovalsRequest, context: Context
    ) -> AsyncIterator[approvals.WatchApprovalsResponse]:
        watcher = Watcher(request.run_id)
        # Joins first and lists second: what changes in between is sent twice rather than never.
        self._hub.join(watcher)
        try:
            before: int | None = None
            while True:
                pending, before = await asyncio.to_thread(self._book.page, request.run_id, ApprovalState.PENDING, before, 500)
                for value in pending:
                    yield approvals.WatchApprovalsResponse(approval=wire.approval_message(value))
                if before is None:
                    break
            while not self._hub.draining:
                changed = await watcher.take(await self._patience_s())
                await asyncio.to_thread(self._book.expire_overdue)
                for value in changed:
                    yield approvals.WatchApprovalsResponse(approval=wire.approval_message(value))
                if not changed and not self._hub.draining:
                    checkpoint = approvals.ApprovalCheckpoint(at=wire.timestamp(datetime.now(UTC)))
                    yield approvals.WatchApprovalsResponse(checkpoint=checkpoint)
            yield approvals.WatchApprovalsResponse(end=approvals.ApprovalWatchEnd(retry_after=Duration(seconds=1)))
        finally:
            self._hub.leave(watcher)

    async def DecideApproval(self, request: approvals.DecideApprovalRequest, context: Context) -> approvals.DecideApprovalResponse:
        value = await asyncio.to_thread(
            self._book.decide, request.approval_id, request.approve, request.decided_by, request.reason, request.subject_sha256
        )
        return approvals.DecideApprovalResponse(approval=wire.approval_message(value))

    async def _patience_s(self) -> float:
        """Until the next checkpoint or the next expiry, whichever is first."""
        expiry = await asyncio.to_thread(self._book.next_expiry)
        if expiry is None:
            return CHECKPOINT_S
        return min(CHECKPOINT_S, max(0.01, (expiry - datetime.now(UTC)).total_seconds()))
