"""Rows that the table has not, or that need a whole mesh: the registry that is damaged or gone, two kills in a row, a person's question that
outlives agent_service, an edge that is there first, and what readers of a finished run are told when its history changes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from edge_client import edge_client
from fault_timers import SCALED_TIMERS, TIMER_SCALE
from google.rpc import error_details_pb2, status_pb2
from mesh_processes import SERVICES, running_mesh, wait_until
from runtime_under_faults import RuntimeUnderFaults, is_gone

from trademesh.edge.v1 import frame_pb2
from trademesh.gateway.v1 import event_pb2, feed_service_pb2_grpc
from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh.runtime.v1 import runtime_pb2, runtime_service_pb2
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_runs.journal_sqlite import SqliteReader
from trademesh_runs.layout import RunLayout

pytestmark = pytest.mark.timeout(180)

LIST_APPROVALS = "trademesh.agent.v1.ApprovalService/ListApprovals"
QUIET_CHANNEL = [("grpc.http2.bdp_probe", 0)]
"""A reader that does not read is sent little ahead."""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeUnderFaults]:
    """One mesh for these tests; each leaves one that serves."""
    with running_mesh(tmp_path_factory.mktemp("mesh-faults"), *SERVICES, **SCALED_TIMERS) as mesh:
        yield RuntimeUnderFaults(mesh)


def registry_files(runtime: RuntimeUnderFaults) -> list[Path]:
    """The registry and its log."""
    return [path for end in ("", "-wal", "-shm") if (path := runtime.mesh.runs / f"registry.db{end}").exists()]


def registry_in_one_file(runtime: RuntimeUnderFaults) -> Path:
    """The registry of a runtime_service that was killed, its log taken into it."""
    path = runtime.mesh.runs / "registry.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.mark.parametrize("place", ["its first bytes", "a page"])
def test_r17_a_registry_that_is_damaged_is_named_and_gateways_go_on_until_it_is_put_back(
    runtime: RuntimeUnderFaults, tmp_path: Path, place: str
) -> None:
    run_id = f"r17-{place.split()[-1]}"
    runtime.start_run(run_id)
    before = runtime.until_running(run_id)
    runtime.kill()
    path = registry_in_one_file(runtime)
    shutil.copy(path, tmp_path / "kept.db")
    with path.open("r+b") as file:
        file.seek(0 if place == "its first bytes" else 4096)
        file.write(b"\xff" * 4000)
    began = time.monotonic()
    runtime.mesh.start("runtime")
    code = runtime.mesh.processes["runtime"].wait(20)
    took_s = time.monotonic() - began
    assert code == 74
    assert f"registry.db: {'file is not a database' if place == 'its first bytes' else ''}" in runtime_log(runtime)[-400:]
    assert not is_gone(before.pid), f"what a registry does not say is not ours to end; looked after {took_s:.2f} s"
    for left in registry_files(runtime):
        left.unlink()
    shutil.copy(tmp_path / "kept.db", path)
    runtime.start()
    after = runtime.until_running(run_id)
    assert (after.pid, after.generation, after.restart_count) == (before.pid, 1, 0)
    runtime.stop(run_id)


def runtime_log(runtime: RuntimeUnderFaults) -> str:
    return (runtime.mesh.folder / "runtime.log").read_text(errors="replace")


def test_r18_without_its_registry_a_run_is_not_begun_again_and_its_gateway_ceases_to_trade(
    runtime: RuntimeUnderFaults, tmp_path: Path
) -> None:
    runtime.start_run("r18")
    before = runtime.until_running("r18", head=20)
    runtime.kill()
    path = registry_in_one_file(runtime)
    shutil.move(path, tmp_path / "kept.db")
    runtime.start()
    with pytest.raises(grpc.RpcError) as caught:
        runtime.run("r18")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]  # a call too
    with pytest.raises(grpc.RpcError) as caught:
        runtime.start_run("r18")
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS  # type: ignore[attr-defined]  # a call too
    assert not is_gone(before.pid)

    def pipeline() -> Any:
        answer = runtime.mesh.grpcurl(before.target, "trademesh.gateway.v1.PipelineService/GetPipeline", {"run_id": "r18"})
        return answer["pipeline"]

    wait_until(lambda: "no runtime_service renews the lease" in pipeline()["reason"], 60 * TIMER_SCALE + 10, "the lost lease")
    settled = int(pipeline()["sessionsSettled"])
    # Put back, it is as if it had been there all the time.
    runtime.kill()
    for left in registry_files(runtime):
        left.unlink()
    shutil.move(tmp_path / "kept.db", path)
    runtime.start()
    after = runtime.until_running("r18")
    assert (after.pid, after.generation) == (before.pid, 1)
    wait_until(lambda: int(pipeline()["sessionsSettled"]) > settled, 10, "cycles again")
    runtime.stop("r18")


@pytest.mark.parametrize("when", ["as soon as it was accepted", "once there is a process"])
def test_r19_two_kills_of_runtime_service_while_a_gateway_starts_leave_one_gateway(runtime: RuntimeUnderFaults, when: str) -> None:
    run_id = f"r19-{len(when)}"
    runtime.start_run(run_id)
    if when == "once there is a process":
        wait_until(lambda: runtime.run(run_id).pid, 10, "a process")
    runtime.kill()
    runtime.start()
    runtime.kill()
    up_at = runtime.start()
    run = runtime.until_running(run_id)
    took_s = time.monotonic() - up_at
    assert [process.pid for process in runtime.gateways(run_id)] == [run.pid]
    attempts = runtime.answer(run_id).attempts
    assert [one.generation for one in attempts if not one.HasField("ended_at")] == [run.generation]
    runtime.until_running(run_id, head=run.progress.head_sequence + 10)
    assert runtime.stop(run_id).state == runtime_pb2.RUN_STATE_STOPPED
    # A start that was cut off is a gateway that ended: its next one begins after the first delay.
    assert took_s < 3 + 5 * TIMER_SCALE, f"running {took_s:.2f} s after the third runtime_service took calls"


def test_d5_a_question_to_a_person_outlives_a_killed_agent_service_and_is_put_once(runtime: RuntimeUnderFaults) -> None:
    config = RunConfig(run_id="d5", sessions={"start": "2008-01-02", "end": "2008-01-31"}, approvals={"orders_over_nav": 0.0})
    runtime.call("StartRun", runtime_service_pb2.StartRunRequest(config=config))
    before = runtime.until_running("d5")

    def asked() -> list[Any]:
        return list(runtime.mesh.grpcurl("agent", LIST_APPROVALS, {"run_id": "d5"}).get("approvals", []))

    (question,) = wait_until(asked, 30, "a question")
    runtime.mesh.processes["agent"].kill()
    runtime.mesh.processes["agent"].wait(10)
    log = RunLayout(runtime.mesh.runs, "d5").gateway_log(1)
    wait_until(lambda: "nobody can be asked" in log.read_text(errors="replace"), 10, "the missing service told")
    assert not filled(runtime, "d5")
    runtime.mesh.start("agent")
    runtime.mesh.wait_ready("agent")
    assert asked() == [question]
    decision = {
        "approval_id": question["approvalId"],
        "approve": True,
        "decided_by": "ann",
        "reason": "fine",
        "subject_sha256": question["subjectSha256"],
    }
    runtime.mesh.grpcurl("agent", "trademesh.agent.v1.ApprovalService/DecideApproval", decision)
    (_, following) = wait_until(lambda: len(found := asked()) > 1 and found, 30, "the next question")
    assert following["approvalId"] != question["approvalId"] or asked()[0] != question
    after = runtime.until_running("d5")
    assert (after.pid, after.generation) == (before.pid, 1), "a service that is away restarts nobody"
    runtime.stop("d5")
    assert runtime.mesh.json("run", "verify", "d5")["verified"] is True


def filled(runtime: RuntimeUnderFaults, run_id: str) -> list[event_pb2.Event]:
    """Orders that were filled, as the journal has them."""
    reader = SqliteReader(RunLayout(runtime.mesh.runs, run_id).journal)
    try:
        return [event for stored in reader.read(0, 100_000) if (event := stored.parse()).WhichOneof("payload") == "order_filled"]
    finally:
        reader.close()


def test_j7_compaction_of_a_run_under_its_reader_is_told_and_what_follows_is_gapless(runtime: RuntimeUnderFaults) -> None:
    runtime.start_run("j7", pace=0)
    wait_until(lambda: runtime.answer("j7").HasField("summary"), 60, "its end")
    runtime.stop("j7")
    head = int(runtime.mesh.json("run", "verify", "j7")["events"])
    with grpc.insecure_channel(f"127.0.0.1:{runtime.mesh.ports['trading']}", QUIET_CHANNEL) as channel:
        stub: Any = feed_service_pb2_grpc.FeedServiceStub(channel)
        request = feed.SubscribeRequest(run_id="j7", after_sequence=0, snapshot=True)
        stream = iter(stub.Subscribe(request, timeout=60, wait_for_ready=True))
        cursor = next(stream).events.last_sequence
        compacted = runtime.mesh.json("run", "compact", "j7", "--keep-days", "0")
        began, took_s, gaps = time.monotonic(), 0.0, list[feed.Gap]()
        for message in stream:
            match message.WhichOneof("kind"):
                case "events":
                    assert message.events.first_sequence == cursor + 1
                    cursor = message.events.last_sequence
                case "gap":
                    gaps.append(message.gap)
                    took_s = time.monotonic() - began
                case "snapshot":
                    assert gaps
                    assert message.snapshot.as_of_sequence >= gaps[0].compacted_through
                    cursor = message.snapshot.as_of_sequence
                case "end":
                    break
    assert [gap.reason for gap in gaps] == [feed.GAP_REASON_COMPACTED], "everything was sent before it was compacted"
    assert gaps[0].compacted_through == int(compacted["compacted_through"])
    assert cursor == head
    assert took_s <= 1, f"the gap was told {took_s:.2f} s after the compaction"


def refusal(target: str, **fields: Any) -> tuple[grpc.StatusCode, str, float]:
    """How a subscription is refused: status, reason, and the seconds that the quickest of three took on one connection."""
    quickest_s = 1e9
    with grpc.insecure_channel(target) as channel:
        grpc.channel_ready_future(channel).result(10)
        stub: Any = feed_service_pb2_grpc.FeedServiceStub(channel)
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(grpc.RpcError) as caught:
                next(iter(stub.Subscribe(feed.SubscribeRequest(**fields), timeout=10)))
            quickest_s = min(quickest_s, time.monotonic() - began)
    error: Any = caught.value
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert any(one.Unpack(info) for one in status.details)
    return error.code(), info.reason, quickest_s


def test_f1_to_f4_a_mesh_refuses_what_its_feeds_cannot_tell_live_and_after_the_end(runtime: RuntimeUnderFaults) -> None:
    runtime.start_run("f", pace=100)
    before = runtime.until_running("f", head=400)

    def kept() -> bool:
        with closing(sqlite3.connect(runtime.mesh.runs / "registry.db")) as rows:
            row = rows.execute("SELECT progress FROM progress WHERE run_id = 'f'").fetchone()
        return row is not None and runtime_pb2.RunProgress.FromString(row[0]).head_sequence > 300

    # Once a second the newest head is kept.
    wait_until(kept, 10, "the head in the registry")
    # A journal whose end was lost: what is kept of it is another story from there on.
    runtime.kill()
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: is_gone(before.pid), 10, "the end of the gateway")
    with closing(sqlite3.connect(runtime.mesh.runs / "f" / "journal.db")) as journal:
        (last,) = journal.execute("SELECT max(sequence) FROM events WHERE hash IS NOT NULL AND sequence <= 200").fetchone()
        journal.execute("DELETE FROM events WHERE sequence > ?", (last,))
        journal.commit()
    runtime.start()
    live = runtime.until_running("f", generation=2)
    assert wait_until(lambda: runtime.run("f").progress.epoch == 2, 10, "another epoch")
    trading = f"127.0.0.1:{runtime.mesh.ports['trading']}"
    for place in ("live", "finished"):
        if place == "finished":
            runtime.stop("f")
            runtime.mesh.json("run", "compact", "f", "--keep-days", "0")
        target = live.target.removeprefix("dns:///") if place == "live" else trading
        rows: list[tuple[str, dict[str, Any], grpc.StatusCode, str]] = [
            ("F1", {"run_id": "f", "after_sequence": 10**9}, grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_AHEAD"),
            ("F3", {"run_id": "f", "after_sequence": last + 50, "epoch": 1}, grpc.StatusCode.ABORTED, "EPOCH_CHANGED"),
            ("F4", {"run_id": "nobody"}, grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND"),
        ]
        if place == "finished":
            rows.append(("F2", {"run_id": "f", "after_sequence": 1, "epoch": 2}, grpc.StatusCode.OUT_OF_RANGE, "HISTORY_COMPACTED"))
        for row, fields, code, reason in rows:
            got_code, got_reason, took_s = refusal(target, **fields)
            assert (got_code, got_reason) == (code, reason), f"{row} {place}"
            assert took_s <= 0.1, f"{row} {place}: refused after {took_s * 1000:.0f} ms"


async def test_w11_an_edge_that_is_there_before_runtime_service_says_so_and_serves_once_it_comes(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        mesh = await asyncio.to_thread(stack.enter_context, running_mesh(tmp_path, "edge", **SCALED_TIMERS))
        client = await stack.enter_async_context(edge_client(mesh.ports["edge"]))
        *_, refused = [item async for item in client.subscribe(feed.SubscribeRequest(run_id="early", after_sequence=0))]
        assert isinstance(refused, frame_pb2.Status)
        assert refused.code == grpc.StatusCode.UNAVAILABLE.value[0], refused
        mesh.start(*SERVICES)
        await asyncio.to_thread(mesh.wait_ready, *SERVICES)
        path = mesh.folder / "early.md"
        path.write_text("---\nsessions: {start: 2007-06-01, end: 2007-06-29}\n---\n")
        began = await asyncio.to_thread(mesh.cli, "run", "start", str(path), "--run-id", "early", "--wait")
        assert began.returncode == 0, began.stderr
        # The same socket, and nobody has told it anything.
        came = time.monotonic()
        seen = list[int]()
        async for item in client.subscribe(feed.SubscribeRequest(run_id="early", after_sequence=0)):
            assert not isinstance(item, frame_pb2.Status), item
            seen += [event.sequence for event in item.events.events]
            if len(seen) >= 10:
                break
        took_s = time.monotonic() - came
        assert seen == list(range(1, len(seen) + 1))
        assert took_s <= 5, f"events {took_s:.2f} s after they were asked for"
