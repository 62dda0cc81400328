"""PipelineService and SupervisionService: the gateway's control calls by RPC."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1 import pipeline_service_pb2 as pipeline
from trademesh.gateway.v1 import pipeline_service_pb2_grpc, supervision_service_pb2_grpc
from trademesh.gateway.v1 import supervision_service_pb2 as supervision
from trademesh.gateway.v1.state_pb2 import LimitsInForce, Pipeline
from trademesh_gateway.conversation import Conversation
from trademesh_gateway.disk_watch import DiskWatch
from trademesh_gateway.lease import LOST
from trademesh_gateway.order_desk import OrderDesk
from trademesh_gateway.pipeline.controller import Controller, Step
from trademesh_gateway.pipeline_watch import PipelineWatch
from trademesh_gateway.stop_history import BY_A_PERSON
from trademesh_kernel.context import Context
from trademesh_kernel.errors import NotAllowed, NotFound, StateConflict
from trademesh_runs.fold import Fold


class Control:
    """What the servicers need of a gateway: its controller, where the fold stands, and what is told to watchers."""

    def __init__(
        self,
        run_id: str,
        fold: Fold,
        flush: Callable[[], Awaitable[None]],
        controller: Controller,
        disk: DiskWatch | None = None,
        limits: Callable[[], LimitsInForce] = LimitsInForce,
    ) -> None:
        self.run_id = run_id
        self.limits = limits
        self.fold = fold
        self._flush = flush
        self._controller = controller
        self._disk = disk
        self.watch = PipelineWatch(self.now)

    def now(self) -> Pipeline:
        """Where the pipeline stands, and what of it is not in the journal: when the cycle in hand began, that no new one may begin, and a
        pause that waits for the disk to be journaled."""
        pipeline, controller = self.fold.pipeline(), self._controller
        if controller.clock.began_unix_ns is not None:
            pipeline.cycle_started_at.FromNanoseconds(controller.clock.began_unix_ns)
        if self._disk is not None and self._disk.stalled_because:
            pipeline.state, pipeline.reason = events.PipelineState.ValueType(controller.state), controller.reason
        if not controller.lease_held() and pipeline.state == events.PIPELINE_STATE_RUNNING:
            pipeline.reason = LOST
        return pipeline

    async def pipeline(self) -> Pipeline:
        """Where the pipeline stands, everything up to now journaled."""
        await self._flush()
        return self.now()

    def check(self, run_id: str) -> None:
        """Raises NotFound if a call is for another run."""
        if run_id != self.run_id:
            raise NotFound("run", run_id)

    def checked(self, run_id: str) -> Controller:
        """The controller, if the call is for this run; raises NotFound."""
        self.check(run_id)
        return self._controller


class PipelineServicer(pipeline_service_pb2_grpc.PipelineServiceServicer):
    """The pipeline by RPC."""

    def __init__(self, control: Control, orders: OrderDesk, conversation: Conversation, *, replay_of: str = "") -> None:
        """`replay_of` is the run that this one shows again, if it does: nothing can be asked of its desk then, which is not there."""
        self._control = control
        self._replay_of = replay_of
        self._orders = orders
        self._conversation = conversation

    async def StartPipeline(self, request: pipeline.StartPipelineRequest, context: Context) -> pipeline.StartPipelineResponse:
        await self._control.checked(request.run_id).start("StartPipeline")
        return pipeline.StartPipelineResponse(pipeline=await self._control.pipeline())

    async def PausePipeline(self, request: pipeline.PausePipelineRequest, context: Context) -> pipeline.PausePipelineResponse:
        await self._control.checked(request.run_id).pause(request.reason or "PausePipeline")
        return pipeline.PausePipelineResponse(pipeline=await self._control.pipeline())

    async def ResumePipeline(self, request: pipeline.ResumePipelineRequest, context: Context) -> pipeline.ResumePipelineResponse:
        await self._control.checked(request.run_id).resume(BY_A_PERSON)
        return pipeline.ResumePipelineResponse(pipeline=await self._control.pipeline())

    async def StepPipeline(self, request: pipeline.StepPipelineRequest, context: Context) -> pipeline.StepPipelineResponse:
        size = Step.PHASE if request.size == pipeline.STEP_SIZE_PHASE else Step.CYCLE
        await self._control.checked(request.run_id).step(size)
        return pipeline.StepPipelineResponse(pipeline=await self._control.pipeline())

    async def GetPipeline(self, request: pipeline.GetPipelineRequest, context: Context) -> pipeline.GetPipelineResponse:
        self._control.check(request.run_id)
        found = self._control.now()
        if not self._replay_of:
            found.limits.CopyFrom(self._control.limits())
        return pipeline.GetPipelineResponse(pipeline=found)

    async def StopPipeline(self, request: pipeline.StopPipelineRequest, context: Context) -> pipeline.StopPipelineResponse:
        await self._control.checked(request.run_id).end(request.reason or "StopPipeline")
        return pipeline.StopPipelineResponse(pipeline=await self._control.pipeline())

    async def WatchPipeline(
        self, request: pipeline.WatchPipelineRequest, context: Context
    ) -> AsyncIterator[pipeline.WatchPipelineResponse]:
        self._control.check(request.run_id)
        async for response in self._control.watch.watch():
            yield response

    async def SetPace(self, request: pipeline.SetPaceRequest, context: Context) -> pipeline.SetPaceResponse:
        await self._control.checked(request.run_id).set_pace(request.sessions_per_s)
        return pipeline.SetPaceResponse(pipeline=await self._control.pipeline())

    async def SubmitOrder(self, request: pipeline.SubmitOrderRequest, context: Context) -> pipeline.SubmitOrderResponse:
        self._check_desk(request.run_id)
        return await self._orders.submit(request)

    async def CancelOrder(self, request: pipeline.CancelOrderRequest, context: Context) -> pipeline.CancelOrderResponse:
        self._check_desk(request.run_id)
        return await self._orders.cancel(request)

    async def SendMessage(self, request: pipeline.SendMessageRequest, context: Context) -> pipeline.SendMessageResponse:
        self._check_desk(request.run_id)
        exchange = await self._conversation.send(request.text, request.agent_ids, request.sender, request.request_id)
        answers = [pipeline.MessageAnswer(agent_id=one.agent_id, text=one.text, sequence=one.sequence) for one in exchange.answers]
        return pipeline.SendMessageResponse(message_id=exchange.message_id, sequence=exchange.sequence, answers=answers)

    def _check_desk(self, run_id: str) -> None:
        """Raises StateConflict for a run that shows another one again."""
        self._control.check(run_id)
        if self._replay_of:
            what = f"run {run_id} shows run {self._replay_of} again: its desk takes no orders and answers nothing"
            raise StateConflict(what, resource_type="run", name=run_id, state="REPLAY")


class SupervisionServicer(supervision_service_pb2_grpc.SupervisionServiceServicer):
    """The supervisor's calls."""

    def __init__(
        self, control: Control, generation: int, nonce: str, drain: Callable[[float], Awaitable[int]], renew: Callable[[], None]
    ) -> None:
        """
        Args:
            drain: finishes the phase in hand, if that can be in so many seconds, commits, ends streams, and returns the journal's head.
            renew: renews the lease.
        """
        self._control = control
        self._generation = generation
        self._nonce = nonce
        self._drain = drain
        self._renew = renew

    async def Heartbeat(self, request: supervision.HeartbeatRequest, context: Context) -> supervision.HeartbeatResponse:
        self._check(request.generation, request.nonce, "Heartbeat")
        self._renew()
        return supervision.HeartbeatResponse(
            run_id=self._control.run_id,
            generation=self._generation,
            pid=os.getpid(),
            pipeline=self._control.now(),
            nav_micros=self._control.fold.nav_micros,
            epoch=self._control.fold.epoch,
        )

    async def Drain(self, request: supervision.DrainRequest, context: Context) -> supervision.DrainResponse:
        self._check(request.generation, request.nonce, "Drain")
        return supervision.DrainResponse(head_sequence=await self._drain(request.within.ToMilliseconds() / 1000))

    def _check(self, generation: int, nonce: str, name: str) -> None:
        if (generation, nonce) != (self._generation, self._nonce):
            method = f"/trademesh.gateway.v1.SupervisionService/{name}"
            raise NotAllowed("this gateway is of another generation, or the nonce is not its own", method)
