"""Faults of runtime_service, rows R and J5, J6 of the table: it is killed, stopped, doubled, has its clock moved and its disk taken away.

R3 and R9 are the gateway's, `test_pipeline_faults.py`. R10 to R17 are ours beyond the table.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from fault_timers import SCALED_TIMERS, TIMER_SCALE
from google.rpc import error_details_pb2, status_pb2
from mesh_processes import running_mesh, wait_until
from runtime_under_faults import RuntimeUnderFaults, Watching, freeze, is_gone, thaw

from trademesh.gateway.v1.event_pb2 import Event
from trademesh.runtime.v1 import runtime_pb2, runtime_service_pb2
from trademesh.runtime.v1.run_config_pb2 import RunConfig

pytestmark = pytest.mark.timeout(180)

RUNNING, STOPPED, FAILED, HUNG, PENDING = (
    getattr(runtime_pb2, f"RUN_STATE_{name}") for name in ("RUNNING", "STOPPED", "FAILED", "HUNG", "PENDING")
)
ENDING = tuple(getattr(runtime_pb2, f"RUN_STATE_{name}") for name in ("HUNG", "DRAINING", "TERMINATING", "KILLING"))
SHORT = RunConfig(sessions={"start": "2008-01-02", "end": "2008-01-31"})


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeUnderFaults]:
    """One mesh for the tests that break only their runs and runtime_service, and leave one that serves."""
    folder = tmp_path_factory.mktemp("runtime-faults")
    with running_mesh(folder, "trading", "news", "runtime", **SCALED_TIMERS) as mesh:
        yield RuntimeUnderFaults(mesh)


def details_of(error: grpc.RpcError, *kinds: Any) -> list[Any]:
    """The details of a failed call, in the order of `kinds`; fails if one is not there."""
    call: Any = error
    status = status_pb2.Status.FromString(dict(call.trailing_metadata())["grpc-status-details-bin"])
    found = list[Any]()
    for kind in kinds:
        detail = kind()
        assert any(one.Unpack(detail) for one in status.details), (kind, call.details())
        found.append(detail)
    return found


def reason_of(error: grpc.RpcError) -> str:
    (info,) = details_of(error, error_details_pb2.ErrorInfo)
    return str(info.reason)


def test_r1_a_runtime_service_that_was_killed_takes_its_gateways_up_again(runtime: RuntimeUnderFaults) -> None:
    runtime.start_run("r1", pace=20)
    before = runtime.until_running("r1", head=50)
    runtime.kill()
    up_at = runtime.start()
    after = runtime.until_running("r1")
    assert (before.progress.epoch, after.progress.epoch) == (1, 1)
    took_s = time.monotonic() - up_at
    assert (after.pid, after.generation, after.target) == (before.pid, before.generation, before.target)
    assert after.restart_count == 0
    # What was known of the journal's head is not forgotten, and the desk went on meanwhile.
    assert after.progress.head_sequence >= before.progress.head_sequence
    runtime.until_running("r1", head=before.progress.head_sequence + 50)
    assert took_s < 3, f"adopted {took_s:.2f} s after it was started"
    assert runtime.stop("r1").state == STOPPED


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, None), (signal.SIGTERM, 0)], ids=["unseen", "with-last-words"])
def test_r2_a_gateway_that_ended_while_nobody_looked_is_found_ended(
    runtime: RuntimeUnderFaults, number: signal.Signals, code: int | None
) -> None:
    run_id = f"r2-{number.name.lower()}"
    runtime.start_run(run_id)
    before = runtime.until_running(run_id)
    runtime.kill()
    os.kill(before.pid, number)
    wait_until(lambda: is_gone(before.pid), 10, "the end of the gateway")
    up_at = runtime.start()

    def found_ended() -> Any:
        first = runtime.answer(run_id).attempts[-1]
        return first if first.HasField("ended_at") else None

    attempt = wait_until(found_ended, 10, "the end")
    took_s = time.monotonic() - up_at
    assert attempt.generation == 1
    assert not attempt.HasField("signal")
    assert (attempt.code if attempt.HasField("code") else None) == code, attempt
    if number is signal.SIGKILL:
        assert runtime.until_running(run_id, generation=2).generation == 2
    assert took_s < 3, f"{took_s:.2f} s"
    runtime.stop(run_id)


def test_r4_a_second_runtime_service_for_the_same_folder_names_the_first_and_ends(runtime: RuntimeUnderFaults) -> None:
    def seconds_of(*arguments: str) -> tuple[float, subprocess.CompletedProcess[str]]:
        began = time.monotonic()
        environment = runtime.mesh.environment | {"TRADEMESH_RUNTIME_LISTEN": "127.0.0.1:0"}
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=runtime.mesh.folder, env=environment, capture_output=True, text=True, timeout=30, check=False)
        return time.monotonic() - began, done

    imports_s, _ = seconds_of("-c", "import trademesh_runtime.__main__")
    took_s, outcome = seconds_of("-m", "trademesh_runtime")
    assert outcome.returncode == 75
    assert f"process {runtime.mesh.processes['runtime'].pid} looks after" in outcome.stderr
    assert took_s - imports_s < 1, f"{took_s:.2f} s, of which imports {imports_s:.2f} s"


DIES_BEFORE_THE_GATEWAY = """
import os, signal
from trademesh_runtime.run_record import RunRecord
begin = RunRecord.begin_attempt
def die(*arguments):
    begin(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
RunRecord.begin_attempt = die
from trademesh_runtime.__main__ import main
main()
"""


def test_r5_killed_between_the_row_and_the_process_there_is_one_gateway_in_the_end(runtime: RuntimeUnderFaults) -> None:
    # The crash point is set in the process: nothing from outside hits it.
    runtime.kill()
    runtime.start(code=DIES_BEFORE_THE_GATEWAY)
    config = RunConfig(run_id="r5", sessions=SHORT.sessions, pipeline={"pace_sessions_per_s": 1})
    request = runtime_service_pb2.StartRunRequest(config=config, request_id=str(uuid.uuid4()))
    # It may die before its answer is on the wire: the run is accepted all the same.
    with suppress(grpc.RpcError):
        runtime.call("StartRun", request)
    assert runtime.mesh.processes["runtime"].wait(10) == -signal.SIGKILL
    with closing(sqlite3.connect(runtime.mesh.runs / "registry.db")) as rows:
        assert rows.execute("SELECT generation, ended_at FROM attempts WHERE run_id = 'r5'").fetchall() == [(1, None)]
    up_at = runtime.start()
    run = runtime.until_running("r5", generation=2)
    took_s = time.monotonic() - up_at
    assert runtime.call("StartRun", request).run.run_id == "r5"
    assert (run.generation, [process.pid for process in runtime.gateways("r5")]) == (2, [run.pid])
    assert took_s < 3, f"{took_s:.2f} s"
    assert runtime.stop("r5").state == STOPPED


def test_r6_fifty_starts_with_one_request_id_are_one_run_also_after_a_kill(runtime: RuntimeUnderFaults) -> None:
    request = runtime_service_pb2.StartRunRequest(config=SHORT, request_id=str(uuid.uuid4()))
    began = time.monotonic()
    with runtime.stub() as stub:
        answers = [call.result() for call in [stub.StartRun.future(request, timeout=30) for _ in range(50)]]
    took_s = time.monotonic() - began
    assert len({answer.SerializeToString(deterministic=True) for answer in answers}) == 1
    assert took_s < 5, f"{took_s:.2f} s"
    runtime.kill()
    runtime.start()
    assert runtime.call("StartRun", request) == answers[0]
    other = runtime_service_pb2.StartRunRequest(config=SHORT, request_id=request.request_id)
    other.config.run_id = "another"
    with pytest.raises(grpc.RpcError) as caught:
        runtime.call("StartRun", other)
    assert reason_of(caught.value) == "REQUEST_ID_REUSED"
    # The id of one method is not to be used for another one either.
    with pytest.raises(grpc.RpcError) as caught:
        runtime.call("StopRun", runtime_service_pb2.StopRunRequest(run_id=answers[0].run.run_id, request_id=request.request_id))
    assert reason_of(caught.value) == "REQUEST_ID_REUSED"
    runtime.stop(answers[0].run.run_id)


def test_r7_a_runtime_service_that_stood_still_takes_no_gateway_for_hung(runtime: RuntimeUnderFaults) -> None:
    runtime.start_run("r7")
    before = runtime.until_running("r7")
    with Watching(runtime) as watching:
        wait_until(lambda: "r7" in watching.known, 10, "the watch")
        process = runtime.mesh.processes["runtime"]
        freeze(process)
        try:
            # Thirty times the interval of probes; nothing can be waited for in a process that stands still.
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(30 * TIMER_SCALE)
        finally:
            thaw(process)
        after = runtime.until_running("r7", head=before.progress.head_sequence + 20)
        assert HUNG not in watching.states["r7"]
    assert (after.pid, after.generation, after.restart_count) == (before.pid, 1, 0)
    runtime.stop("r7")


CLOCK_THAT_JUMPS = """
import signal, sys, time, types
from trademesh_runtime.__main__ import main
jump = [0.0]
def forward(*_): jump[0] += 3600
def back(*_): jump[0] -= 7200
signal.signal(signal.SIGUSR1, forward)
signal.signal(signal.SIGUSR2, back)
ours = types.SimpleNamespace(**vars(time))
ours.time = lambda: time.time() + jump[0]
for name, module in list(sys.modules.items()):
    if name.startswith("trademesh") and getattr(module, "time", None) is time:
        module.time = ours
main()
"""


def test_r8_a_clock_that_jumps_moves_no_timer(runtime: RuntimeUnderFaults) -> None:
    # The clock is what our own modules in that process read: that of the machine is not ours to move, and gRPC computes deadlines from it
    # in Python and reads them in C.
    runtime.kill()
    runtime.start(code=CLOCK_THAT_JUMPS)
    runtime.start_run("r8")
    before = runtime.until_running("r8")
    process = runtime.mesh.processes["runtime"]
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        process.send_signal(number)
        now = runtime.run("r8").progress.head_sequence
        after = runtime.until_running("r8", head=now + 20)
        assert (after.pid, after.generation) == (before.pid, 1)
    os.kill(before.pid, signal.SIGKILL)
    began = time.monotonic()
    process.send_signal(signal.SIGUSR1)
    runtime.until_running("r8", generation=2, within_s=15)
    took_s = time.monotonic() - began
    assert took_s < 10, f"started again after {took_s:.2f} s"
    runtime.stop("r8")
    runtime.kill()
    runtime.start()


def test_r10_a_stop_that_was_accepted_is_carried_out_by_the_next_runtime_service(runtime: RuntimeUnderFaults) -> None:
    runtime.start_run("r10")
    pid = runtime.until_running("r10").pid
    stop = runtime_service_pb2.StopRunRequest(run_id="r10", reason="enough", request_id=str(uuid.uuid4()))
    # A gateway that stands still cannot be drained: the stop is accepted, and not done at the caller's deadline.
    os.kill(pid, signal.SIGSTOP)
    assert runtime.call("StopRun", stop, 0.8).run.state in ENDING
    runtime.kill()
    runtime.start()
    # Found alive or not, it is not started again, and the repeated call gets the end.
    answer = runtime.call("StopRun", stop)
    assert (answer.run.state, answer.run.generation) == (STOPPED, 1)
    assert is_gone(pid)
    assert runtime.call("StopRun", stop) == answer
    with pytest.raises(grpc.RpcError) as caught:
        runtime.call("StopRun", runtime_service_pb2.StopRunRequest(run_id="r10", reason="other", request_id=stop.request_id))
    assert reason_of(caught.value) == "REQUEST_ID_REUSED"


def test_r11_a_restart_that_was_accepted_is_carried_out_once(runtime: RuntimeUnderFaults) -> None:
    runtime.start_run("r11")
    pid = runtime.until_running("r11").pid
    restart = runtime_service_pb2.RestartRunRequest(run_id="r11", reason="again", request_id=str(uuid.uuid4()))
    os.kill(pid, signal.SIGSTOP)
    answer = runtime.call("RestartRun", restart)
    runtime.kill()
    os.kill(pid, signal.SIGCONT)
    runtime.start()
    assert runtime.call("RestartRun", restart) == answer
    assert runtime.until_running("r11", generation=2).generation == 2
    assert runtime.call("RestartRun", restart) == answer
    assert runtime.run("r11").generation == 2
    assert len(runtime.gateways("r11")) == 1
    runtime.stop("r11")


DIES_IN_A_DELETION = """
import os, signal
from trademesh_runtime import registry
def die(*_a, **_k): os.kill(os.getpid(), signal.SIGKILL)
registry.Registry.delete = die
from trademesh_runtime.__main__ import main
main()
"""


def test_r12_a_deletion_that_was_cut_off_is_finished_by_the_next_runtime_service(runtime: RuntimeUnderFaults) -> None:
    runtime.start_run("r12")
    runtime.until_running("r12")
    delete = runtime_service_pb2.DeleteRunRequest(run_id="r12", request_id=str(uuid.uuid4()))
    with pytest.raises(grpc.RpcError) as caught:
        runtime.call("DeleteRun", delete)
    assert reason_of(caught.value) == "STATE_CONFLICT"
    runtime.stop("r12")
    # The crash point is set in the process: nothing from outside hits it.
    runtime.kill()
    runtime.start(code=DIES_IN_A_DELETION)
    with Watching(runtime) as watching:
        wait_until(lambda: "r12" in watching.known, 10, "the watch")
        with pytest.raises(grpc.RpcError):
            runtime.call("DeleteRun", delete)
        assert runtime.mesh.processes["runtime"].wait(10) == -signal.SIGKILL
        assert not (runtime.mesh.runs / "r12").exists()
        runtime.start()
        runtime.call("DeleteRun", delete)
        wait_until(lambda: watching.deleted == ["r12"], 10, "the deletion to be told")
        assert watching.resets == 0
    with pytest.raises(grpc.RpcError) as caught:
        runtime.run("r12")
    assert reason_of(caught.value) == "RESOURCE_NOT_FOUND"
    wait_until(lambda: not list(runtime.mesh.runs.glob(".trash-*")), 10, "the trash to be gone")
    # Nothing of it is in the way of another run of that name.
    runtime.start_run("r12", end="2007-06-29", pace=0)
    runtime.call("DeleteRun", delete)
    assert runtime.run("r12").run_id == "r12"
    runtime.stop("r12")


def test_r13_runs_above_the_limit_wait_in_order_and_those_above_the_queue_are_refused(runtime: RuntimeUnderFaults) -> None:
    runtime.kill()
    live = [run for run in runtime.mesh.runs.glob("*/gateway.lock") if runtime.gateways(run.parent.name)]
    assert not live, live
    limits = {"TRADEMESH_RUNTIME_MAX_GATEWAYS": "1", "TRADEMESH_RUNTIME_MAX_QUEUED": "2"}
    runtime.start(**limits)
    for number in (1, 2, 3):
        runtime.start_run(f"r13-{number}")
    with pytest.raises(grpc.RpcError) as caught:
        runtime.start_run("r13-4")
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]  # a call too
    quota, retry = details_of(caught.value, error_details_pb2.QuotaFailure, error_details_pb2.RetryInfo)
    assert [violation.subject for violation in quota.violations] == ["live_gateways"]
    assert retry.retry_delay.ToMilliseconds() > 0
    runtime.until_running("r13-1")
    second, third = runtime.run("r13-2"), runtime.run("r13-3")
    assert (second.state, third.state, second.generation) == (PENDING, PENDING, 0)
    assert "waits for a place" in second.reason
    # The queue outlives a runtime_service, in its order.
    runtime.kill()
    runtime.start(**limits)
    runtime.until_running("r13-1")
    assert runtime.stop("r13-2").state == STOPPED
    runtime.start_run("r13-4")
    assert runtime.run("r13-3").state == PENDING
    runtime.stop("r13-1")
    assert runtime.until_running("r13-3").generation == 1
    assert runtime.run("r13-4").state == PENDING
    with ThreadPoolExecutor(2) as pool:
        assert [run.state for run in pool.map(runtime.stop, ("r13-4", "r13-3"))] == [STOPPED, STOPPED]
    assert runtime.run("r13-4").generation == 0
    runtime.kill()
    runtime.start()


def test_r14_with_too_little_room_on_the_disk_no_run_is_begun(runtime: RuntimeUnderFaults) -> None:
    runtime.kill()
    runtime.start(TRADEMESH_RUNTIME_LEAST_FREE_BYTES=str(2**60))
    with pytest.raises(grpc.RpcError) as caught:
        runtime.start_run("r14")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION  # type: ignore[attr-defined]  # a call too
    (info,) = details_of(caught.value, error_details_pb2.ErrorInfo)
    assert (info.reason, info.metadata["needed_bytes"]) == ("DISK_LOW", str(2**60))
    assert not (runtime.mesh.runs / "r14").exists()
    runtime.kill()
    runtime.start()


def test_r15_a_watch_that_goes_on_where_it_was_misses_nothing_over_a_kill(runtime: RuntimeUnderFaults) -> None:
    runtime.start_run("r15-lives")
    runtime.start_run("r15-ends", end="2007-06-29")
    runtime.until_running("r15-lives")
    with Watching(runtime) as watching:
        wait_until(lambda: "r15-ends" in watching.known, 10, "the watch")
        runtime.kill()
        runtime.start()
        runtime.stop("r15-ends")
        runtime.call("DeleteRun", runtime_service_pb2.DeleteRunRequest(run_id="r15-ends"))
        runtime.stop("r15-lives")
        last = runtime.run("r15-lives")
        wait_until(lambda: watching.known.get("r15-lives") == last and "r15-ends" not in watching.known, 10, "the watcher to know")
        assert watching.deleted == ["r15-ends"]
        assert watching.resets == 0


def test_r16_a_journal_that_lost_its_end_while_nobody_looked_is_found_out(runtime: RuntimeUnderFaults) -> None:
    runtime.start_run("r16", pace=50)
    before = runtime.until_running("r16", head=100)
    os.kill(before.pid, signal.SIGSTOP)
    head = runtime.run("r16").progress.head_sequence

    def kept() -> bool:
        with closing(sqlite3.connect(runtime.mesh.runs / "registry.db")) as rows:
            row = rows.execute("SELECT progress FROM progress WHERE run_id = 'r16'").fetchone()
        return row is not None and runtime_pb2.RunProgress.FromString(row[0]).head_sequence >= head

    # Once a second the newest head is kept.
    wait_until(kept, 5, "the head in the registry")
    runtime.kill()
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: is_gone(before.pid), 10, "the end of the gateway")
    # What a write-ahead log leaves that was damaged: all groups up to one, and no word of what is missing.
    with closing(sqlite3.connect(runtime.mesh.runs / "r16" / "journal.db")) as journal:
        query = "SELECT max(sequence) FROM events WHERE hash IS NOT NULL AND sequence <= ?"
        (last,) = journal.execute(query, (head // 2,)).fetchone()
        journal.execute("DELETE FROM events WHERE sequence > ?", (last,))
        journal.commit()
    runtime.start()
    run = runtime.until_running("r16", generation=2)
    wait_until(lambda: runtime.run("r16").progress.epoch == 2, 10, f"another epoch after {run.progress}")
    runtime.stop("r16")
    with closing(sqlite3.connect(runtime.mesh.runs / "r16" / "journal.db")) as journal:
        kinds = journal.execute("SELECT kind FROM events WHERE sequence = ?", (last + 1,)).fetchall()
    assert kinds == [(Event.DESCRIPTOR.fields_by_name["journal_truncated"].number,)]


def test_r17_who_follows_a_run_in_a_terminal_sees_its_end_over_a_kill(runtime: RuntimeUnderFaults) -> None:
    runtime.start_run("r17")
    runtime.until_running("r17")
    command = [sys.executable, "-m", "trademesh_cli.main", "run", "watch", "r17", "--json"]
    with subprocess.Popen(command, cwd=runtime.mesh.folder, env=runtime.mesh.environment, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        try:
            seen = [json.loads(watching.stdout.readline())]
            runtime.kill()
            runtime.start()
            runtime.stop("r17")
            seen += [json.loads(line) for line in watching.stdout]
            assert watching.wait(10) == 0
        finally:
            watching.kill()
    revisions = [int(run["revision"]) for run in seen]
    assert revisions == sorted(set(revisions))
    assert [run["state"] for run in seen][-1] == "RUN_STATE_STOPPED"


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nsenter") is None, reason="a mount namespace needs root and util-linux")
def test_j5_a_run_whose_folder_cannot_be_written_fails_and_is_not_tried_again_and_again(runtime: RuntimeUnderFaults) -> None:
    runtime.kill()
    runtime.start("unshare", "-m")
    runtime.start_run("j5")
    before = runtime.until_running("j5")
    folder = runtime.mesh.runs / "j5"
    # Made read-only elsewhere first: in its place somebody always has a file open.
    aside = runtime.mesh.folder / "aside"
    aside.mkdir()
    read_only = f"mount --bind {folder} {aside} && mount -o remount,ro,bind {aside} && mount --move {aside} {folder}"
    own = runtime.mesh.processes["runtime"].pid
    subprocess.run(["nsenter", "-t", str(own), "-m", "sh", "-c", read_only], check=True, timeout=10)
    os.kill(before.pid, signal.SIGKILL)
    began = time.monotonic()
    run = runtime.until_ended("j5")
    took_s = time.monotonic() - began
    assert run.state == FAILED
    assert "Read-only file system" in run.reason
    assert took_s < 2 + 1, f"FAILED after {took_s:.2f} s, of which the first delay is at most 0.05 s"
    assert len(runtime.answer("j5").attempts) == 2
    runtime.kill()
    runtime.start()
    assert runtime.run("j5").state == FAILED


def test_j6_a_broken_bootstrap_fails_at_once_and_says_where(runtime: RuntimeUnderFaults) -> None:
    runtime.start_run("j6", end="2007-06-29")
    runtime.until_running("j6")
    runtime.stop("j6")
    path = runtime.mesh.runs / "j6" / "BOOTSTRAP.md"
    intact = path.read_text()
    for broken, place in (
        (intact.replace("\n---\n", "\nrisk: {gross: [1, \n---\n", 1), "line "),
        ("---\nmode: \xff\n---\n", "line 2, column 7"),
    ):
        path.write_bytes(broken.encode("latin-1"))
        before = runtime.run("j6").generation
        runtime.call("RestartRun", runtime_service_pb2.RestartRunRequest(run_id="j6"))
        began = time.monotonic()

        def failed(before: int = before) -> Any:
            run = runtime.run("j6")
            return run if run.state == FAILED and run.generation > before else None

        run = wait_until(failed, 15, "FAILED")
        took_s = time.monotonic() - began
        assert (run.generation, run.last_exit.code) == (before + 1, 65)
        assert place in run.reason
        assert "column" in run.reason
        assert took_s < 5, f"{took_s:.2f} s, of which a process needs most to begin"
    path.write_text(intact)
    runtime.call("RestartRun", runtime_service_pb2.RestartRunRequest(run_id="j6"))
    runtime.until_running("j6", generation=run.generation + 1)
    runtime.stop("j6")


def test_a_restart_that_is_asked_for_during_a_stop_comes_after_it(runtime: RuntimeUnderFaults) -> None:
    runtime.start_run("both")
    pid = runtime.until_running("both").pid
    # So that the stop takes a while.
    os.kill(pid, signal.SIGSTOP)
    with runtime.stub() as stub:
        stopping = stub.StopRun.future(runtime_service_pb2.StopRunRequest(run_id="both"), timeout=30)
        wait_until(lambda: runtime.run("both").state in ENDING, 10, "the stop")
        restarted = runtime.call("RestartRun", runtime_service_pb2.RestartRunRequest(run_id="both")).run
        assert is_gone(pid)
        assert stopping.result().run.generation == 1
    assert restarted.state == PENDING
    assert runtime.until_running("both", generation=2).generation == 2
    # A restart that is under way is joined.
    for _ in range(3):
        runtime.call("RestartRun", runtime_service_pb2.RestartRunRequest(run_id="both"))
    assert runtime.until_running("both", generation=3).generation == 3
    runtime.stop("both")


def test_snapshots_of_earlier_gateways_are_kept_and_the_present_one_is_asked(runtime: RuntimeUnderFaults, tmp_path: Path) -> None:
    runtime.start_run("seen", pace=50)
    runtime.until_running("seen", head=40)
    runtime.call("RestartRun", runtime_service_pb2.RestartRunRequest(run_id="seen"))
    runtime.until_running("seen", generation=2, head=60)

    def snapshot(generation: int = 0) -> Any:
        return runtime.call("GetRunSnapshot", runtime_service_pb2.GetRunSnapshotRequest(run_id="seen", generation=generation))

    now = snapshot()
    assert (now.stale, now.run.generation) == (False, 2)
    assert now.server_state.as_of_sequence >= 60
    first = snapshot(1)
    assert (first.run.generation, first.run.last_exit.generation) == (1, 1)
    assert 0 < first.server_state.as_of_sequence < now.server_state.as_of_sequence
    with pytest.raises(grpc.RpcError) as caught:
        snapshot(7)
    assert reason_of(caught.value) == "RESOURCE_NOT_FOUND"
    # A gateway that does not answer within a second is not waited for.
    os.kill(now.run.pid, signal.SIGSTOP)
    stale = snapshot()
    assert stale.stale
    stopped = runtime.stop("seen")
    listed = runtime.call("ListRunSnapshots", runtime_service_pb2.ListRunSnapshotsRequest(run_id="seen", page_size=1))
    assert [one.generation for one in listed.snapshots] == [stopped.generation]
    assert (listed.snapshots[0].state, listed.snapshots[0].as_of_sequence > 60) == (stopped.state, True)
    rest = runtime_service_pb2.ListRunSnapshotsRequest(run_id="seen", page_token=listed.next_page_token)
    assert [one.generation for one in runtime.call("ListRunSnapshots", rest).snapshots] == list(range(stopped.generation - 1, 0, -1))
    manifest = runtime.mesh.json("run", "manifest", "seen")
    assert len(manifest["config_sha256"]) == 64
    assert "journal_sha256" not in manifest
    history = runtime.mesh.json("run", "history", "seen")
    assert [one["generation"] for one in history] == list(range(stopped.generation, 0, -1))
    shown = runtime.mesh.cli("run", "snapshot", "seen", "--generation", "1")
    assert (shown.returncode, "net asset value" in shown.stdout) == (0, True), shown.stderr
    assert runtime.mesh.cli("run", "delete", "seen").stdout == "seen deleted\n"
    assert runtime.mesh.cli("run", "show", "seen").returncode == 4
