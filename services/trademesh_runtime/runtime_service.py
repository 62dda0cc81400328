"""RuntimeService: the life of runs by RPC."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1 import runtime_service_pb2 as messages
from trademesh.runtime.v1 import runtime_service_pb2_grpc
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.context import Context
from trademesh_kernel.errors import FieldViolation, NotFound, RemoteError, RunConfigInvalid
from trademesh_kernel.logs import get_logger
from trademesh_kernel.paging import page_token, read_page_place
from trademesh_runs.run_config import faults_of, faults_of_limits, normalised
from trademesh_runtime import policy
from trademesh_runtime.gateway_link import state_from_gateway
from trademesh_runtime.gateway_logs import follow_lines
from trademesh_runtime.policy import State
from trademesh_runtime.registry import Deletion, Registry
from trademesh_runtime.replay_config import replay_config
from trademesh_runtime.run_changes import Forgotten, Seen, copy_of
from trademesh_runtime.run_data import faults_of_data
from trademesh_runtime.run_folders import read_manifest
from trademesh_runtime.run_snapshots import read_desk, read_run, snapshots_of
from trademesh_runtime.runs import Runs
from trademesh_runtime.workspace import AgentFiles, WorkspaceDamagedError, built_in_desk, desk_of_workspace

Answer = TypeVar("Answer", bound=Message)

DEFAULT_PAGE_SIZE = 50
DEFAULT_LOG_LINES = 100
LIVE = frozenset({State.RUNNING, State.DEGRADED})
"""States in which a gateway can be asked."""


class RuntimeServicer(runtime_service_pb2_grpc.RuntimeServiceServicer):
    """Runs by RPC."""

    def __init__(self, runs: Runs, registry: Registry, trading: ServiceClient, agent: ServiceClient) -> None:
        self._runs = runs
        self._registry = registry
        self._trading = trading
        self._agent = agent
        self._in_hand: dict[str, tuple[asyncio.Lock, int]] = {}

    async def StartRun(self, request: messages.StartRunRequest, context: Context) -> messages.StartRunResponse:
        async with self._one_by_one(request.request_id):
            known = self._registry.recall(request)
            if known is not None and known.answer is not None:
                return messages.StartRunResponse.FromString(known.answer)
            config, faults, desk = await self._examined(request.config)
            if faults:
                raise RunConfigInvalid(faults)
            return await self._runs.start(config, desk, request)

    @asynccontextmanager
    async def _one_by_one(self, request_id: str) -> AsyncIterator[None]:
        """Of calls with one request id the second waits for the first one's answer."""
        if not request_id:
            yield
            return
        lock, waiting = self._in_hand.get(request_id, (asyncio.Lock(), 0))
        self._in_hand[request_id] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._in_hand.pop(request_id)
            if waiting > 1:
                self._in_hand[request_id] = (lock, waiting - 1)

    async def StopRun(self, request: messages.StopRunRequest, context: Context) -> messages.StopRunResponse:
        async def carry_out(again: bool) -> messages.StopRunResponse:
            return messages.StopRunResponse(run=copy_of(await self._runs.stop(request, again=again)))

        # While it is being ended a repeated call waits on, and gets a better answer.
        return await self._once(
            request, messages.StopRunResponse, carry_out, lambda answer: State(int(answer.run.state)) in policy.TERMINAL
        )

    async def RestartRun(self, request: messages.RestartRunRequest, context: Context) -> messages.RestartRunResponse:
        async def carry_out(again: bool) -> messages.RestartRunResponse:
            return messages.RestartRunResponse(run=copy_of(await self._runs.restart(request, again=again)))

        return await self._once(request, messages.RestartRunResponse, carry_out)

    async def DeleteRun(self, request: messages.DeleteRunRequest, context: Context) -> messages.DeleteRunResponse:
        async def carry_out(again: bool) -> messages.DeleteRunResponse:
            await self._runs.delete(request, again=again)
            return messages.DeleteRunResponse()

        return await self._once(request, messages.DeleteRunResponse, carry_out)

    async def _once(
        self,
        request: messages.StopRunRequest | messages.RestartRunRequest | messages.DeleteRunRequest,
        kind: type[Answer],
        carry_out: Callable[[bool], Awaitable[Answer]],
        is_final: Callable[[Answer], bool] = lambda _answer: True,
    ) -> Answer:
        """The answer of a call that is carried out once, however often it is repeated.

        `carry_out` is told whether the call was accepted before; an answer that is not final is not kept.
        """
        async with self._one_by_one(request.request_id):
            known = self._registry.recall(request)
            if known is not None and known.answer is not None:
                return kind.FromString(known.answer)
            answer = await carry_out(known is not None)
            if is_final(answer):
                self._keep(request, answer)
            return answer

    def _keep(self, request: Message, answer: Message) -> None:
        """Keeps the answer of a call that has been carried out; a disk that is full is no reason to say that it was not."""
        try:
            self._registry.answer(request, answer)
        except sqlite3.Error as error:
            get_logger("runs").error("an answer cannot be kept", reason=str(error))

    async def GetRun(self, request: messages.GetRunRequest, context: Context) -> messages.GetRunResponse:
        run = copy_of(self._runs.get(request.run_id).run)
        attempts = self._registry.attempts(request.run_id)
        return messages.GetRunResponse(run=run, summary=await self._runs.summary(request.run_id), attempts=attempts)

    async def ListRuns(self, request: messages.ListRunsRequest, context: Context) -> messages.ListRunsResponse:
        self._runs.check_recovered()
        before = read_page_place(request, request.page_token)
        runs, following = self._runs.page(before, request.page_size or DEFAULT_PAGE_SIZE, frozenset(request.states))
        token = page_token(request, [following]) if following is not None else ""
        return messages.ListRunsResponse(runs=runs, next_page_token=token)

    async def WatchRuns(self, request: messages.WatchRunsRequest, context: Context) -> AsyncIterator[messages.WatchRunsResponse]:
        self._runs.check_recovered()
        after = request.after_revision if request.HasField("after_revision") else None
        self._runs.check_watchable(request.run_id, after)
        revision = after or 0
        async for news in self._runs.watch(request.run_id, after):
            match news:
                case Seen(revision=revision):
                    yield messages.WatchRunsResponse(checkpoint=messages.WatchCheckpoint(revision=revision))
                case Deletion(run_id=run_id, revision=revision):
                    yield messages.WatchRunsResponse(deleted=messages.DeletedRun(run_id=run_id, revision=revision))
                case Forgotten(oldest_revision=oldest):
                    yield messages.WatchRunsResponse(reset=messages.WatchReset(oldest_revision=oldest))
                case _:
                    revision = news.revision
                    yield messages.WatchRunsResponse(run=news)
        yield messages.WatchRunsResponse(end=messages.WatchEnd(revision=revision, retry_after=Duration(seconds=1)))

    async def GetRunSnapshot(self, request: messages.GetRunSnapshotRequest, context: Context) -> messages.GetRunSnapshotResponse:
        supervisor = self._runs.get(request.run_id)
        run, layout = copy_of(supervisor.run), supervisor.layout
        if request.generation not in (0, run.generation):
            kept = await asyncio.to_thread(read_run, layout.state_history(request.generation))
            if kept is None:
                raise NotFound("snapshot", f"{run.run_id}/{request.generation}")
            desk = await asyncio.to_thread(read_desk, layout.state_history(request.generation))
            answer = messages.GetRunSnapshotResponse(run=kept)
        elif run.target and supervisor.state in LIVE and (state := await state_from_gateway(run.run_id, run.target)) is not None:
            now = Timestamp()
            now.GetCurrentTime()
            return messages.GetRunSnapshotResponse(run=run, server_state=state, taken_at=now)
        else:
            desk = await asyncio.to_thread(read_desk, layout.state)
            answer = messages.GetRunSnapshotResponse(run=run, stale=True)
        if desk is not None:
            answer.server_state.CopyFrom(desk.state)
            answer.taken_at.CopyFrom(desk.taken_at)
        return answer

    async def ListRunSnapshots(self, request: messages.ListRunSnapshotsRequest, context: Context) -> messages.ListRunSnapshotsResponse:
        supervisor = self._runs.get(request.run_id)
        before = read_page_place(request, request.page_token)
        found, following = await asyncio.to_thread(
            snapshots_of, supervisor.layout, supervisor.run.generation, before, request.page_size or DEFAULT_PAGE_SIZE
        )
        token = page_token(request, [following]) if following is not None else ""
        return messages.ListRunSnapshotsResponse(snapshots=found, next_page_token=token)

    async def GetRunManifest(self, request: messages.GetRunManifestRequest, context: Context) -> messages.GetRunManifestResponse:
        supervisor = self._runs.get(request.run_id)
        manifest = await asyncio.to_thread(read_manifest, supervisor.layout)
        summary = await self._runs.summary(request.run_id)
        if summary is not None:
            manifest.journal_sha256 = summary.journal_sha256
        return messages.GetRunManifestResponse(manifest=manifest)

    async def ValidateRunConfig(self, request: messages.ValidateRunConfigRequest, context: Context) -> messages.ValidateRunConfigResponse:
        config, faults, _desk = await self._examined(request.config)
        violations = [messages.ConfigViolation(field=fault.field, description=fault.description) for fault in faults]
        return messages.ValidateRunConfigResponse(violations=violations, normalised=config)

    async def TailLogs(self, request: messages.TailLogsRequest, context: Context) -> AsyncIterator[messages.TailLogsResponse]:
        supervisor = self._runs.get(request.run_id)
        generation = request.generation or supervisor.run.generation
        if generation > supervisor.run.generation:
            raise NotFound("generation", f"{request.run_id}/{generation}")
        count = request.lines if request.HasField("lines") else DEFAULT_LOG_LINES

        def lives() -> bool:
            newest = generation == supervisor.run.generation and supervisor.state in policy.WITH_PROCESS
            return newest and not self._runs.draining

        async for lines in follow_lines(supervisor.layout.gateway_log(generation), count, request.follow, lives):
            yield messages.TailLogsResponse(generation=generation, lines=lines)

    async def _examined(self, given: RunConfig) -> tuple[RunConfig, list[FieldViolation], list[AgentFiles]]:
        """The configuration with defaults, all its faults, and the desk that it asks for.

        Raises:
            DependencyUnavailable: trading_service, or for a workspace agent_service, does not answer.
        """
        if given.mode == contract.RUN_MODE_REPLAY:
            config, faults = replay_config(given, self._runs.known(given.replay_of))
            # What its agents did is in the journal: it has none of its own.
            return config, list(dict.fromkeys(faults)), []
        config = normalised(given)
        faults = faults_of(config)
        faults += await faults_of_data(self._trading, config)
        faults += faults_of_limits(config)
        desk = built_in_desk()
        if config.workspace:
            try:
                desk = await desk_of_workspace(self._agent, config)
            except RemoteError as error:
                faults.append(FieldViolation("workspace", error.message))
            except WorkspaceDamagedError as error:
                faults.append(FieldViolation("workspace", str(error)))
            config.workspace, workspace = "", config.workspace
            faults += faults_of(config)
            config.workspace = workspace
        return config, list(dict.fromkeys(faults)), desk
