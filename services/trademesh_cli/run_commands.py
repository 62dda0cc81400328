"""`trademesh run …`: start, stop, restart, delete, list, show, history, snapshot, manifest, watch, logs, verify."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import uuid
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.runtime.v1 import runtime_pb2, runtime_service_pb2, runtime_service_pb2_grpc
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_cli.rpc import EXIT_FAILED, EXIT_USAGE, as_record, call, fail, print_json, print_json_line, runtime_client
from trademesh_cli.run_arguments import AsJson, RunId, layout_of
from trademesh_cli.run_summary import TERMINAL, summary_record
from trademesh_cli.run_watch import changes_of
from trademesh_cli.terminal_tables import print_facts, print_table

run_app = typer.Typer()

MOST_GENERATION = 2**32 - 1


@run_app.command("start")
def start(
    config: Annotated[Path | None, typer.Argument(metavar="[BOOTSTRAP.md]", help="configuration; the demo's if left out")] = None,
    run_id: Annotated[str, typer.Option("--run-id", help="name of the run; the server makes one if left out")] = "",
    pace: Annotated[float | None, typer.Option(min=0, help="sessions per second; 0 = as fast as it can")] = None,
    wait: Annotated[bool, typer.Option(help="wait until the gateway serves")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a run."""
    wanted = _read_config(config)
    wanted.run_id = run_id or wanted.run_id
    if pace is not None:
        wanted.pipeline.pace_sessions_per_s = pace
    run = call(lambda: _start(wanted, wait))
    print_json(as_record(run)) if as_json else print(run.run_id)
    if wait and run.state in (runtime_pb2.RUN_STATE_FAILED, runtime_pb2.RUN_STATE_STOPPED):
        fail(f"run {run.run_id} is {_state(run)}: {run.reason}", None, EXIT_FAILED)


def _read_config(path: Path | None) -> RunConfig:
    # Here, since no other command reads YAML.
    from trademesh_cli.demo_run import demo_config
    from trademesh_runs.bootstrap import BootstrapError, read_bootstrap_file

    if path is None:
        return demo_config(pace_sessions_per_s=0.0)
    try:
        return read_bootstrap_file(path)
    except OSError as error:
        fail(f"{path}: {error.strerror}", None, EXIT_USAGE)
    except BootstrapError as error:
        for violation in error.violations:
            print(f"error: {path}: {violation.field}: {violation.description}", file=sys.stderr)
        raise typer.Exit(EXIT_USAGE) from None


async def _start(config: RunConfig, wait: bool) -> runtime_pb2.Run:
    async with runtime_client() as runtime:
        stub = runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
        request = runtime_service_pb2.StartRunRequest(config=config, request_id=str(uuid.uuid4()))
        run: runtime_pb2.Run = (await runtime.call(stub.StartRun, request, timeout_s=30)).run
        while wait and run.state in (runtime_pb2.RUN_STATE_PENDING, runtime_pb2.RUN_STATE_STARTING, runtime_pb2.RUN_STATE_BACKOFF):
            await asyncio.sleep(0.05)
            run = (await runtime.call(stub.GetRun, runtime_service_pb2.GetRunRequest(run_id=run.run_id))).run
        return run


@run_app.command("stop")
def stop(run_id: RunId, reason: Annotated[str, typer.Option(help="why")] = "", as_json: AsJson = False) -> None:
    """Stop a run; one that has ended is left as it is."""

    async def work() -> runtime_pb2.Run:
        async with runtime_client() as runtime:
            stub = runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
            request = runtime_service_pb2.StopRunRequest(run_id=run_id, reason=reason, request_id=str(uuid.uuid4()))
            answer: runtime_service_pb2.StopRunResponse = await runtime.call(stub.StopRun, request, timeout_s=60)
            return answer.run

    run = call(work)
    print_json(as_record(run)) if as_json else print(f"{run.run_id} {_state(run)}")


@run_app.command("restart")
def restart(run_id: RunId, reason: Annotated[str, typer.Option(help="why")] = "", as_json: AsJson = False) -> None:
    """Start the next gateway of a run, which goes on from the journal; one that lives is ended first."""

    async def work() -> runtime_pb2.Run:
        async with runtime_client() as runtime:
            stub = runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
            request = runtime_service_pb2.RestartRunRequest(run_id=run_id, reason=reason, request_id=str(uuid.uuid4()))
            answer: runtime_service_pb2.RestartRunResponse = await runtime.call(stub.RestartRun, request, timeout_s=60)
            return answer.run

    run = call(work)
    print_json(as_record(run)) if as_json else print(f"{run.run_id} {_state(run)}")


@run_app.command("delete")
def delete(run_id: RunId, as_json: AsJson = False) -> None:
    """Delete a run that has ended, with its journal and everything else in its folder."""

    async def work() -> None:
        async with runtime_client() as runtime:
            stub = runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
            request = runtime_service_pb2.DeleteRunRequest(run_id=run_id, request_id=str(uuid.uuid4()))
            await runtime.call(stub.DeleteRun, request, timeout_s=60)

    call(work)
    print_json({"run_id": run_id, "deleted": True}) if as_json else print(f"{run_id} deleted")


@run_app.command("list")
def list_runs(as_json: AsJson = False) -> None:
    """List runs, newest first."""

    async def work() -> list[runtime_pb2.Run]:
        async with runtime_client() as runtime:
            stub = runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
            request, found = runtime_service_pb2.ListRunsRequest(page_size=500), list[runtime_pb2.Run]()
            while True:
                page: runtime_service_pb2.ListRunsResponse = await runtime.call(stub.ListRuns, request)
                found += page.runs
                if not page.next_page_token:
                    return found
                request.page_token = page.next_page_token

    runs = call(work)
    if as_json:
        print_json([as_record(run) for run in runs])
        return
    rows = list[tuple[str, ...]]()
    for run in runs:
        progress = run.progress
        done = f"{progress.sessions_settled}/{progress.sessions_total}"
        rows.append((run.run_id, _state(run), done, progress.session_date, _dollars(progress.nav_micros), run.reason))
    print_table(("run", "state", "sessions", "last session", "net asset value", "reason"), rows)


async def _get(run_id: str) -> runtime_service_pb2.GetRunResponse:
    async with runtime_client() as runtime:
        stub = runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
        answer: runtime_service_pb2.GetRunResponse = await runtime.call(stub.GetRun, runtime_service_pb2.GetRunRequest(run_id=run_id))
        return answer


@run_app.command("show")
def show(run_id: RunId, as_json: AsJson = False) -> None:
    """Show one run and, once it is done, what it amounts to."""
    answer = call(lambda: _get(run_id))
    if as_json:
        print_json(as_record(answer))
        return
    run = answer.run
    rows: list[tuple[str, Any]] = [
        ("run", run.run_id),
        ("state", _state(run)),
        ("reason", run.reason),
        ("generation", f"{run.generation} ({run.restart_count} restarts)"),
        ("gateway", f"{run.target} process {run.pid}" if run.pid else "none"),
        ("sessions", f"{run.progress.sessions_settled} of {run.progress.sessions_total}, {run.progress.session_date}"),
        ("net asset value", _dollars(run.progress.nav_micros)),
    ]
    if answer.HasField("summary"):
        rows += list(summary_record(answer.summary).items())[3:]
    print_facts(rows)


@run_app.command("history")
def history(run_id: RunId, as_json: AsJson = False) -> None:
    """Show the gateways of a run, newest first: when each was started, and how it ended."""
    attempts = call(lambda: _get(run_id)).attempts
    if as_json:
        print_json([as_record(attempt) for attempt in attempts])
        return
    rows = list[tuple[str, ...]]()
    for attempt in attempts:
        ended = _instant(attempt.ended_at) if attempt.HasField("ended_at") else ""
        rows.append((str(attempt.generation), _instant(attempt.started_at), ended, _how(attempt), attempt.cause))
    print_table(("generation", "started", "ended", "how", "why"), rows)


def _how(attempt: runtime_pb2.GatewayAttempt) -> str:
    if attempt.HasField("signal"):
        return f"signal {attempt.signal}"
    if attempt.HasField("code"):
        return f"exit {attempt.code}"
    return "unknown" if attempt.HasField("ended_at") else "lives"


@run_app.command("snapshot")
def snapshot(
    run_id: RunId,
    generation: Annotated[int, typer.Option(min=0, max=MOST_GENERATION, help="when this gateway of it had ended; 0 = now")] = 0,
    as_json: AsJson = False,
) -> None:
    """Show what a run and its desk look like now, or looked like when an earlier gateway had ended."""

    async def work() -> runtime_service_pb2.GetRunSnapshotResponse:
        async with runtime_client() as runtime:
            stub = runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
            request = runtime_service_pb2.GetRunSnapshotRequest(run_id=run_id, generation=generation)
            answer: runtime_service_pb2.GetRunSnapshotResponse = await runtime.call(stub.GetRunSnapshot, request)
            return answer

    answer = call(work)
    if as_json:
        print_json(as_record(answer))
        return
    run, desk = answer.run, answer.server_state
    rows: list[tuple[str, Any]] = [("run", run.run_id), ("state", _state(run)), ("reason", run.reason), ("generation", run.generation)]
    if answer.HasField("server_state"):
        rows += [
            ("taken", _instant(answer.taken_at) + (", from the disk" if answer.stale else "")),
            ("event", desk.as_of_sequence),
            ("sessions", f"{desk.pipeline.sessions_settled} of {desk.pipeline.sessions_total}, {desk.pipeline.session_date}"),
            ("net asset value", _dollars(desk.nav_micros)),
            ("cash", _dollars(desk.portfolio.cash_micros)),
            *((position.ticker, f"{position.quantity} at {_dollars(position.mark_micros)}") for position in desk.portfolio.positions),
        ]
    else:
        rows.append(("desk", "no gateway has written one yet"))
    print_facts(rows)


@run_app.command("manifest")
def manifest(run_id: RunId, as_json: AsJson = False) -> None:
    """Show the hashes of everything that goes into a run."""

    async def work() -> runtime_pb2.RunManifest:
        async with runtime_client() as runtime:
            stub = runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
            request = runtime_service_pb2.GetRunManifestRequest(run_id=run_id)
            answer: runtime_service_pb2.GetRunManifestResponse = await runtime.call(stub.GetRunManifest, request, timeout_s=60)
            return answer.manifest

    found = call(work)
    if as_json:
        print_json(as_record(found))
        return
    rows = [
        ("run", found.run_id),
        ("code_version", found.code_version),
        ("config_sha256", found.config_sha256),
        ("bootstrap_sha256", found.bootstrap_sha256),
        (f"data {found.data.set}", found.data.snapshot),
        *((f"agent {agent_id}", found.agents[agent_id]) for agent_id in sorted(found.agents)),
        ("journal_sha256", found.journal_sha256 or "not before every session is settled"),
    ]
    print_facts(rows)


@run_app.command("watch")
def watch(run_id: RunId, as_json: AsJson = False) -> None:
    """Follow a run to its end: a bar, the session and the net asset value.

    A runtime_service that restarts is waited for, for a minute; the watch goes on where it was.
    """
    run = call(lambda: _watch(run_id, as_json))
    if run.state == runtime_pb2.RUN_STATE_FAILED:
        fail(f"run {run_id} failed: {run.reason}", None, EXIT_FAILED)


async def _watch(run_id: str, as_json: bool) -> runtime_pb2.Run:
    # Here, since no other command has a bar.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=Console(stderr=True), disable=as_json) as bar:
        task = bar.add_task(run_id, total=None, detail="")

        def away() -> None:
            bar.update(task, detail="runtime_service is away: waits for it")

        async with aclosing(changes_of(run_id, away)) as changes:
            async for run in changes:
                progress = run.progress
                detail = f"{_state(run)} {progress.session_date} {_dollars(progress.nav_micros)}"
                bar.update(task, completed=progress.sessions_settled, total=progress.sessions_total or None, detail=detail)
                if as_json:
                    print_json_line(as_record(run))
                done = progress.sessions_total and progress.sessions_settled == progress.sessions_total
                if run.state in TERMINAL or done:
                    return run
    raise AssertionError("changes have no end")


@run_app.command("logs")
def logs(
    run_id: RunId,
    lines: Annotated[int, typer.Option(min=0, max=10000, help="how many of the last lines")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on with new lines")] = False,
    generation: Annotated[int, typer.Option(min=0, max=MOST_GENERATION, help="which gateway; 0 = the newest")] = 0,
    as_json: AsJson = False,
) -> None:
    """Print the log of a run's gateway."""

    async def work() -> None:
        async with runtime_client() as runtime:
            stub = runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
            request = runtime_service_pb2.TailLogsRequest(run_id=run_id, lines=lines, follow=follow, generation=generation)
            async for part in runtime.stream(stub.TailLogs, request):
                print_json_line(as_record(part)) if as_json else print("\n".join(part.lines), flush=True)

    call(work)


@run_app.command("verify")
def verify(run_id: RunId, as_json: AsJson = False) -> None:
    """Replay a run's journal, and prove ledger, snapshot and exports equal to it. Works without any service."""
    # Here, since no other command folds a journal.
    from trademesh_runs.verification import VerificationError, verify_run

    layout = layout_of(run_id)
    try:
        verified = verify_run(layout)
    except (VerificationError, sqlite3.DatabaseError) as error:
        if as_json:
            print_json({"run_id": run_id, "verified": False, "fault": str(error)})
        fail(f"{run_id} is not what was written: {error}", None, EXIT_FAILED)
    record = {"verified": True, "files": verified.files, "behind": verified.behind, **summary_record(verified.summary)}
    if as_json:
        print_json(record)
        return
    behind = f", {len(verified.behind)} of an earlier moment not judged" if verified.behind else ""
    print(f"{run_id}: {verified.summary.events} events, chain whole, ledger exact, {len(verified.files)} files equal{behind}")
    print(f"journal_sha256 {verified.summary.journal_sha256}")


def _state(run: runtime_pb2.Run) -> str:
    return runtime_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_")


def _instant(at: Timestamp) -> str:
    return at.ToDatetime().isoformat(" ", "seconds")


def _dollars(micros: int) -> str:
    return f"{micros / 1e6:,.2f} $"
