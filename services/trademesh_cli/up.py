"""`trademesh up`: starts the whole mesh on this machine and the demo run on it, and stops everything at the end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import urllib.request
from contextlib import suppress
from typing import Any

from trademesh.runtime.v1 import runtime_pb2, runtime_service_pb2, runtime_service_pb2_grpc
from trademesh_cli.demo_run import demo_config
from trademesh_cli.processes import KEEP_GATEWAYS_VARIABLE, ServiceProgram, Stack, StackError
from trademesh_cli.reload import Reloader, sources_to_watch
from trademesh_cli.rpc import print_json, print_json_line
from trademesh_cli.run_summary import TERMINAL, summary_record
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import TrademeshError
from trademesh_kernel.probe import ProbeExit, probe
from trademesh_kernel.settings import DEFAULT_PORTS, checked_listen

READY_WITHIN_S = 60.0
WATCHED_PACE_SESSIONS_PER_S = 20.0
SERVICES = ("agent", "trading", "news", "runtime")
EDGE = "edge"


def programs() -> list[ServiceProgram]:
    """The processes of the mesh, where the environment says that they listen; raises StackError."""
    found = list[ServiceProgram]()
    for name in (*SERVICES, EDGE):
        variable = f"TRADEMESH_{name.upper()}_LISTEN"
        listen = os.environ.get(variable) or f"127.0.0.1:{DEFAULT_PORTS[name]}"
        try:
            checked_listen(listen)
        except ValueError as error:
            raise StackError(f"{variable}: {listen} {error}") from None
        found.append(ServiceProgram(_process_name(name), f"trademesh_{name}", listen, variable))
    return found


def _process_name(name: str) -> str:
    return name if name == EDGE else f"{name}_service"


def environment(found: list[ServiceProgram]) -> dict[str, str]:
    """The environment of the processes: each finds the others where they listen, unless it is told otherwise."""
    content = dict(os.environ)
    for program in found:
        content.setdefault(program.listen_variable.replace("_LISTEN", "_TARGET"), f"dns:///{program.listen}")
    return content


async def _ready(program: ServiceProgram) -> bool:
    if program.name == EDGE:
        return await asyncio.to_thread(_answers_http, f"http://{program.listen}/healthz")
    result = await probe(program.listen, connect_timeout_s=0.5, rpc_timeout_s=1.0)
    return result.exit_code is ProbeExit.HEALTHY


def _answers_http(url: str) -> bool:
    try:
        # Not through a proxy that http_proxy may name: it is this machine.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=1.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


async def run_mesh(*, run_to_end: bool, reload: bool, as_json: bool = False) -> int:
    """Starts everything, and returns the exit status once it has stopped."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        found = programs()
        sources = sources_to_watch() if reload else None
    except StackError as error:
        return _failed(str(error))
    # While services are restarted for their new source, runs go on.
    content = environment(found) | ({KEEP_GATEWAYS_VARIABLE: "true"} if reload else {})
    stack = Stack(found, content, _ready)
    runtime_target = content["TRADEMESH_RUNTIME_TARGET"]
    try:
        if not await _unless(stopped, stack.start(READY_WITHIN_S)):
            return 130
        async with ServiceClient(runtime_target, "runtime_service") as runtime:
            run_id = await _start_demo(runtime, 0.0 if run_to_end else WATCHED_PACE_SESSIONS_PER_S)
            _say_where(found, run_id, as_json=as_json)
            if run_to_end:
                return await _wait_for_summary(runtime, run_id, stack, stopped)
            try:
                return await _serve(stack, stopped, Reloader(stack, runtime, sources) if sources is not None else None)
            finally:
                if reload:
                    await _stop_runs(runtime)
    except (StackError, TrademeshError) as error:
        return _failed(str(error))
    finally:
        await stack.stop(revive="runtime_service")


def _failed(error: str) -> int:
    print(f"trademesh up: {error}", file=sys.stderr)
    return 1


async def _unless(stopped: asyncio.Event, work: Any) -> bool:
    """Does the work unless we are told to stop first; False then."""
    task, stop = asyncio.ensure_future(work), asyncio.ensure_future(stopped.wait())
    await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if task.done():
        task.result()
        return True
    task.cancel()
    return False


async def _start_demo(runtime: ServiceClient, pace: float) -> str:
    stub = runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
    request = runtime_service_pb2.StartRunRequest(config=demo_config(pace_sessions_per_s=pace))
    response = await runtime.call(stub.StartRun, request, timeout_s=30)
    return str(response.run.run_id)


async def _stop_runs(runtime: ServiceClient) -> None:
    """Ends every run, which runtime_service would leave to be adopted."""
    stub = runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)

    async def stop(run_id: str) -> None:
        # One that cannot be stopped must not keep the others alive.
        with suppress(TrademeshError):
            await runtime.call(stub.StopRun, runtime_service_pb2.StopRunRequest(run_id=run_id), timeout_s=30)

    with suppress(TrademeshError):
        listing = await runtime.call(stub.ListRuns, runtime_service_pb2.ListRunsRequest(page_size=500))
        await asyncio.gather(*(stop(run.run_id) for run in listing.runs if run.state not in TERMINAL))


def _say_where(found: list[ServiceProgram], run_id: str, *, as_json: bool) -> None:
    if as_json:
        print_json_line({"run_id": run_id, "listen": {program.name: program.listen for program in found}})
        return
    listens = {program.name: program.listen for program in found}
    lines = ["", "trademesh is up:"]
    lines += [f"  {program.name:<16} {program.listen}" for program in found]
    lines += [
        f"  run              {run_id}",
        "",
        f"  in a browser     http://{listens[EDGE]}/#/runs/{run_id}",
        f"  in a terminal    .venv/bin/trademesh run watch {run_id}",
        f"  by reflection    grpcurl -plaintext {listens['runtime_service']} list",
        "",
        "Ctrl-C stops everything.",
        "",
    ]
    print("\n".join(lines), file=sys.stderr)


async def _wait_for_summary(runtime: ServiceClient, run_id: str, stack: Stack, stopped: asyncio.Event) -> int:
    """Follows the run to its end and prints what it amounts to."""
    stub = runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
    lost = asyncio.create_task(stack.wait_for_loss())
    request = runtime_service_pb2.GetRunRequest(run_id=run_id)
    try:
        while not stopped.is_set():
            if lost.done():
                raise StackError(lost.result())
            try:
                answer = await runtime.call(stub.GetRun, request, timeout_s=30)
            except TrademeshError:
                # The better word on it is which process was lost.
                await asyncio.wait({lost}, timeout=1.0)
                if lost.done():
                    continue
                raise
            if answer.HasField("summary"):
                print_json(summary_record(answer.summary))
                return 0
            if answer.run.state in TERMINAL:
                raise StackError(f"run {run_id} ended as {runtime_pb2.RunState.Name(answer.run.state)}: {answer.run.reason}")
            await asyncio.sleep(0.1)
    finally:
        lost.cancel()
    return 130


async def _serve(stack: Stack, stopped: asyncio.Event, reloader: Reloader | None) -> int:
    """Until Ctrl-C, or until a process is lost."""
    lost = asyncio.create_task(stack.wait_for_loss())
    stop = asyncio.create_task(stopped.wait())
    reloading = asyncio.create_task(reloader.run()) if reloader is not None else None
    tasks = {lost, stop} | ({reloading} if reloading is not None else set())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            return 0
        if lost.done():
            raise StackError(lost.result())
        if reloading is not None:
            reloading.result()
        return 0
    finally:
        for task in tasks:
            task.cancel()
