"""The gateway of a run, for commands that speak to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from trademesh.gateway.v1 import pipeline_service_pb2_grpc
from trademesh.runtime.v1 import runtime_service_pb2, runtime_service_pb2_grpc
from trademesh_cli.rpc import EXIT_FAILED, fail, runtime_client
from trademesh_kernel.client import ServiceClient


@asynccontextmanager
async def gateway_of(run_id: str, needed_for: str) -> AsyncIterator[tuple[ServiceClient, Any]]:
    """A client of a live run's gateway, and its PipelineService. Without one the command ends, and says what it is needed for."""
    async with runtime_client() as runtime:
        stub = runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
        run = (await runtime.call(stub.GetRun, runtime_service_pb2.GetRunRequest(run_id=run_id))).run
    if not run.target:
        fail(f"run {run_id} has no gateway: {needed_for} while it is live", None, EXIT_FAILED)
    async with ServiceClient(run.target, f"gateway of {run_id}") as gateway:
        yield gateway, gateway.stub(pipeline_service_pb2_grpc.PipelineServiceStub)
