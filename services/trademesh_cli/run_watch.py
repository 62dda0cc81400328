"""A run as it changes, for commands that follow it: over a restart of runtime_service too. What is shown of it is `run_commands.py`'s."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

import grpc

from trademesh.runtime.v1 import runtime_service_pb2, runtime_service_pb2_grpc
from trademesh.runtime.v1.runtime_pb2 import Run
from trademesh_cli.rpc import runtime_client
from trademesh_kernel.errors import DeadlinePassed, DependencyUnavailable, NotFound, RemoteError

RETRY_S = 0.5
AWAY_S = 60.0
"""A runtime_service that is away for longer is not waited for any more."""
IDLE_TIMEOUT_S = 30.0
"""A watch says every five seconds that it lives."""


async def changes_of(run_id: str, away: Callable[[], None]) -> AsyncGenerator[Run, None]:
    """A run as it is now, then each change, without end; `away` is called whenever runtime_service has gone and is waited for.

    Raises:
        RemoteError, NotFound: there is no such run, or no longer.
        DependencyUnavailable: runtime_service does not answer, when it is first asked or for a minute.
    """
    request, heard_at, begins_anew = runtime_service_pb2.WatchRunsRequest(run_id=run_id), 0.0, False
    while True:
        try:
            async with runtime_client() as runtime:
                stub = runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
                async for news in runtime.stream(stub.WatchRuns, request, idle_timeout_s=IDLE_TIMEOUT_S):
                    heard_at = time.monotonic()
                    match news.WhichOneof("kind"):
                        case "run":
                            request.after_revision, begins_anew = news.run.revision, False
                            yield news.run
                        case "checkpoint" if not begins_anew:
                            request.after_revision = news.checkpoint.revision
                        case "reset":
                            # Every run follows; one that does not, up to the next checkpoint, is known no longer.
                            begins_anew = True
                        case "deleted" | "checkpoint":
                            raise NotFound("run", run_id)
        except (DependencyUnavailable, DeadlinePassed):
            if not heard_at or time.monotonic() - heard_at > AWAY_S:
                raise
        except RemoteError as error:
            if error.remote_code is not grpc.StatusCode.UNAVAILABLE or not heard_at or time.monotonic() - heard_at > AWAY_S:
                raise
        away()
        await asyncio.sleep(RETRY_S)
