"""PipelineService and SupervisionService: the gateway's control calls by RPC."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable

from trademesh.gateway.v1 import pipeline_service_pb2 as pipeline
from trademesh.gateway.v1 import pipeline_service_pb2_grpc, supervision_service_pb2_grpc
from trademesh.gateway.v1 import supervision_service_pb2 as supervision
from trademesh.gateway.v1.state_pb2 import Pipeline
from trademesh_gateway.pipeline.controller import Controller, Step
from trademesh_kernel.context import Context
from trademesh_kernel.errors import DependencyUnavailable, NotAllowed, NotFound
from trademesh_runs.fold import Fold


class Control:
    """What the servicers need of a gateway: its controller once there is one, and where the fold stands."""

    def __init__(self, run_id: str, fold: Fold, flush: Callable[[], Awaitable[None]]) -> None:
        self.run_id = run_id
        self.fold = fold
        self._flush = flush
        self.controller: Controller | None = None

    async def pipeline(self) -> Pipeline:
        """Where the pipeline stands, everything up to now journaled."""
        await self._flush()
        return self.fold.pipeline()

    def checked(self, run_id: str) -> Controller:
        """The controller, if the call is for this run; raises NotFound, DependencyUnavailable while there is none yet."""
        if run_id != self.run_id:
            raise NotFound("run", run_id)
        if self.controller is None:
            text = f"the gateway of {run_id} is starting: its pipeline can be steered in a moment"
            raise DependencyUnavailable(f"gateway of {run_id}", text, retry_after_s=0.5, moved=True)
        return self.controller


class PipelineServicer(pipeline_service_pb2_grpc.PipelineServiceServicer):
    """The pipeline by RPC."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def StartPipeline(self, request: pipeline.StartPipelineRequest, context: Context) -> pipeline.StartPipelineResponse:
        await self._control.checked(request.run_id).start("StartPipeline")
        return pipeline.StartPipelineResponse(pipeline=await self._control.pipeline())

    async def PausePipeline(self, request: pipeline.PausePipelineRequest, context: Context) -> pipeline.PausePipelineResponse:
        await self._control.checked(request.run_id).pause(request.reason or "PausePipeline")
        return pipeline.PausePipelineResponse(pipeline=await self._control.pipeline())

    async def ResumePipeline(self, request: pipeline.ResumePipelineRequest, context: Context) -> pipeline.ResumePipelineResponse:
        await self._control.checked(request.run_id).resume("ResumePipeline")
        return pipeline.ResumePipelineResponse(pipeline=await self._control.pipeline())

    async def StepPipeline(self, request: pipeline.StepPipelineRequest, context: Context) -> pipeline.StepPipelineResponse:
        size = Step.PHASE if request.size == pipeline.STEP_SIZE_PHASE else Step.CYCLE
        await self._control.checked(request.run_id).step(size)
        return pipeline.StepPipelineResponse(pipeline=await self._control.pipeline())

    async def GetPipeline(self, request: pipeline.GetPipelineRequest, context: Context) -> pipeline.GetPipelineResponse:
        if request.run_id != self._control.run_id:
            raise NotFound("run", request.run_id)
        return pipeline.GetPipelineResponse(pipeline=self._control.fold.pipeline())

    async def SetPace(self, request: pipeline.SetPaceRequest, context: Context) -> pipeline.SetPaceResponse:
        await self._control.checked(request.run_id).set_pace(request.sessions_per_s)
        return pipeline.SetPaceResponse(pipeline=await self._control.pipeline())


class SupervisionServicer(supervision_service_pb2_grpc.SupervisionServiceServicer):
    """The supervisor's calls."""

    def __init__(self, control: Control, generation: int, nonce: str, drain: Callable[[float], Awaitable[int]]) -> None:
        """`drain` finishes the phase in hand, if that can be in so many seconds, commits, ends streams, and returns the journal's head."""
        self._control = control
        self._generation = generation
        self._nonce = nonce
        self._drain = drain
        self.last_heartbeat = time.monotonic()

    async def Heartbeat(self, request: supervision.HeartbeatRequest, context: Context) -> supervision.HeartbeatResponse:
        self._check(request.generation, request.nonce, "Heartbeat")
        self.last_heartbeat = time.monotonic()
        return supervision.HeartbeatResponse(
            run_id=self._control.run_id,
            generation=self._generation,
            pid=os.getpid(),
            pipeline=self._control.fold.pipeline(),
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
