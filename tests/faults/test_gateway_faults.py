"""G: what a gateway can suffer, and what its supervisor then does. One mesh, whose runs are broken one by one; timers are a tenth.

Times are measured from the fault to what a watcher of the run is told, and are limits of the table, not of the scaled timers: a machine that
is busy with other tests is slower than ten times as fast.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import groupby, pairwise
from pathlib import Path
from threading import Condition, Thread
from typing import Any

import faulty_gateway
import grpc
import psutil
import pytest
from fault_timers import SCALED_TIMERS, TIMER_SCALE
from mesh_processes import SERVICES, Mesh, running_mesh, wait_until

from trademesh.runtime.v1 import runtime_pb2 as wire
from trademesh.runtime.v1 import runtime_service_pb2 as messages
from trademesh.runtime.v1 import runtime_service_pb2_grpc
from trademesh.runtime.v1.run_config_pb2 import RESTART_POLICY_NEVER, RunConfig

LOG_LIMIT_BYTES = 4 * 1024 * 1024
NO_REST = {wire.RUN_STATE_RUNNING, wire.RUN_STATE_DEGRADED}
ENDED = {wire.RUN_STATE_STOPPED, wire.RUN_STATE_SUCCEEDED, wire.RUN_STATE_FAILED}


class Watched:
    """A run and everything that a watcher is told of it, each with the time when it was."""

    def __init__(self, stub: runtime_service_pb2_grpc.RuntimeServiceStub, run_id: str, folder: Path) -> None:
        self.run_id = run_id
        self.folder = folder
        self.told = list[tuple[float, wire.Run]]()
        self._stub: Any = stub
        self._news = Condition()
        self._call = self._stub.WatchRuns(messages.WatchRunsRequest(run_id=run_id))
        Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(grpc.RpcError):
            for news in self._call:
                if news.HasField("run"):
                    with self._news:
                        self.told.append((time.monotonic(), news.run))
                        self._news.notify_all()

    def until(self, condition: Callable[[wire.Run], object], within_s: float, what: str) -> tuple[float, wire.Run]:
        """When a watcher was told first of a run that is so, and the run; looks at what was told already, too."""
        deadline, seen = time.monotonic() + within_s, 0
        with self._news:
            while True:
                for at, run in self.told[seen:]:
                    if condition(run):
                        return at, run
                seen = len(self.told)
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"{self.run_id}: {what}: not within {within_s:g} s; told so far:\n{self.history()}"
                self._news.wait(left_s)

    def running(self, generation: int = 1, within_s: float = 30.0) -> tuple[float, wire.Run]:
        """Waits for a gateway that serves."""
        return self.until(
            lambda run: run.generation == generation and run.state == wire.RUN_STATE_RUNNING, within_s, f"gateway {generation} serving"
        )

    def history(self) -> str:
        """What was told, for people."""
        return "\n".join(f"{at:.3f} {run.generation} {wire.RunState.Name(run.state)} {run.reason}" for at, run in self.told)

    def states(self) -> list[int]:
        """The states that were told, one after the other."""
        return [state for state, _same in groupby(int(run.state) for _at, run in self.told)]

    def stop(self) -> wire.Run:
        """Ends the run, and the watch."""
        run: wire.Run = self._stub.StopRun(messages.StopRunRequest(run_id=self.run_id, reason="the test is over"), timeout=60).run
        self._call.cancel()
        return run


class Runs:
    """Starts runs with a fault."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.channel = grpc.insecure_channel(f"127.0.0.1:{mesh.ports['runtime']}", [("grpc.max_reconnect_backoff_ms", 200)])
        self.stub: Any = runtime_service_pb2_grpc.RuntimeServiceStub(self.channel)
        self.watched = list[Watched]()

    def start(self, run_id: str, fault: str = "", *, pace: float = 5, sessions: tuple[str, str] = ("2008-01-02", "2009-12-31")) -> Watched:
        """A run that lasts longer than its test; `fault` as `faulty_gateway.py` has it."""
        config = RunConfig(run_id=run_id, prompt=f"fault: {fault}" if fault else "", tickers=["AAPL", "MSFT"])
        config.sessions.start, config.sessions.end = sessions
        config.pipeline.pace_sessions_per_s = pace
        return self.begin(config)

    def begin(self, config: RunConfig) -> Watched:
        """A run of a configuration."""
        self.stub.StartRun(messages.StartRunRequest(config=config), timeout=30)
        self.watched.append(Watched(self.stub, config.run_id, self.mesh.runs / config.run_id))
        return self.watched[-1]

    def summary(self, run_id: str) -> wire.RunSummary:
        """The summary of a run, once it has ended."""

        def found() -> messages.GetRunResponse | None:
            answer: messages.GetRunResponse = self.stub.GetRun(messages.GetRunRequest(run_id=run_id), timeout=30)
            return answer if answer.HasField("summary") else None

        answer: messages.GetRunResponse = wait_until(found, 60, f"{run_id} at its end")
        return answer.summary


@pytest.fixture(scope="module")
def gateway_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A mesh whose gateways have the faults that their runs ask for."""
    # The last word is for those who look for processes of ours.
    command = shlex.join([sys.executable, faulty_gateway.__file__, "trademesh_gateway"])
    settings = {
        **SCALED_TIMERS,
        "TRADEMESH_GATEWAY_COMMAND": command,
        "TRADEMESH_RUNTIME_MOST_LOG_BYTES": str(LOG_LIMIT_BYTES),
        "TRADEMESH_RUNTIME_KEEP_GATEWAYS": "true",
    }
    with running_mesh(tmp_path_factory.mktemp("gateways"), *SERVICES, **settings) as mesh:
        yield mesh


@pytest.fixture
def runs(gateway_mesh: Mesh) -> Iterator[Runs]:
    """Starts runs, and ends them after the test."""
    found = Runs(gateway_mesh)
    yield found
    for watched in found.watched:
        watched.stop()
    found.channel.close()


def in_backoff(run: wire.Run) -> bool:
    """True once a gateway has ended and will be started again."""
    return run.state == wire.RUN_STATE_BACKOFF


def test_g1_a_gateway_that_is_killed_is_missed_at_once_started_again_and_the_ledger_is_as_if_it_had_not_been(runs: Runs) -> None:
    sessions = ("2008-01-02", "2008-04-30")
    run = runs.start("g1", pace=20, sessions=sessions)
    noted_s, up_s = [], []
    for generation in (1, 2, 3):
        _at, serving = run.running(generation)
        settled = serving.progress.sessions_settled
        run.until(lambda run, settled=settled: run.progress.sessions_settled > settled, 30, "a session more")
        killed_at = time.monotonic()
        os.kill(serving.pid, signal.SIGKILL)
        noted_at, ended = run.until(lambda run, number=generation: run.last_exit.generation == number and in_backoff(run), 5, "the death")
        assert (ended.last_exit.signal, ended.last_exit.HasField("code")) == (signal.SIGKILL, False)
        assert "signal 9" in ended.reason
        up_at, _ = run.running(generation + 1)
        noted_s.append(noted_at - killed_at)
        up_s.append(up_at - killed_at)
    runs.start("g1-undisturbed", pace=0, sessions=sessions)
    undisturbed, disturbed = runs.summary("g1-undisturbed"), runs.summary("g1")
    assert disturbed.journal_sha256 == undisturbed.journal_sha256
    assert disturbed.sessions == undisturbed.sessions == 83
    verified = runs.mesh.cli("run", "verify", "g1")
    assert verified.returncode == 0, verified.stderr
    # Of the notes the least of three: the others tell how busy the machine is.
    assert min(noted_s) <= 0.05, f"noted after {noted_s} s"
    assert max(up_s) <= 5, f"up again after {up_s} s"


def test_g2_a_gateway_that_is_stopped_is_told_as_hung_and_ended_and_started_again(runs: Runs) -> None:
    run = runs.start("g2")
    _at, serving = run.running()
    stopped_at = time.monotonic()
    os.kill(serving.pid, signal.SIGSTOP)
    hung_at, hung = run.until(lambda run: run.state == wire.RUN_STATE_HUNG, 5, "HUNG")
    assert "stopped (T)" in hung.reason
    _at, ended = run.until(in_backoff, 5, "BACKOFF")
    # It was woken and had time to say where it was: a process that stays stopped could only be killed.
    assert ended.last_exit.signal in {signal.SIGABRT, signal.SIGKILL}
    assert not psutil.pid_exists(serving.pid) or psutil.Process(serving.pid).status() == psutil.STATUS_ZOMBIE
    run.running(2)
    assert hung_at - stopped_at <= 5, f"noticed after {hung_at - stopped_at:.2f} s"


def test_g3_a_loop_that_stands_still_is_ended_and_its_stack_kept(runs: Runs) -> None:
    run = runs.start("g3", "blocked-loop")
    serving_at, _serving = run.running()
    hung_at, hung = run.until(lambda run: run.state == wire.RUN_STATE_HUNG, 6, "HUNG")
    assert "DEADLINE_EXCEEDED" in hung.reason
    _at, ended = run.until(in_backoff, 5, "BACKOFF")
    assert ended.last_exit.signal == signal.SIGABRT
    assert any("stand_still" in line for line in ended.last_exit.log_lines), list(ended.last_exit.log_lines)
    run.running(2)
    took_s = hung_at - serving_at - faulty_gateway.AFTER_BOUND_S
    assert took_s <= 5, f"noticed about {took_s:.2f} s after it stood"


def test_g4_a_pipeline_that_is_stuck_in_a_loop_that_is_not_is_noticed_after_its_deadline(runs: Runs) -> None:
    config = RunConfig(run_id="g4", prompt="fault: stuck-pipeline", tickers=["AAPL", "MSFT"])
    config.sessions.start, config.sessions.end = "2008-01-02", "2009-12-31"
    config.pipeline.pace_sessions_per_s, config.pipeline.cycle_deadline_s = 5, 1
    run = runs.begin(config)
    serving_at, _serving = run.running()
    hung_at, hung = run.until(lambda run: run.state == wire.RUN_STATE_HUNG, 10, "HUNG")
    assert "trademesh.liveness: NOT_SERVING" in hung.reason
    run.running(2)
    took_s = hung_at - serving_at - config.pipeline.cycle_deadline_s
    assert took_s <= 5, f"noticed {took_s:.2f} s after the deadline"


def test_g5_a_gateway_that_ends_again_and_again_is_given_up_after_six_starts(runs: Runs) -> None:
    began_at = time.monotonic()
    run = runs.start("g5", "exit-1 always")
    given_up_at, failed = run.until(lambda run: run.state in ENDED, 25, "FAILED")
    assert failed.state == wire.RUN_STATE_FAILED
    assert failed.generation == 6
    assert failed.reason.startswith("crash_loop: 6 starts")
    assert "the fault of this gateway is to end with 1" in failed.reason
    assert (failed.last_exit.code, list(failed.last_exit.log_lines)) == (1, ["the fault of this gateway is to end with 1"])
    assert given_up_at - began_at <= 25, f"given up after {given_up_at - began_at:.2f} s"


@pytest.mark.parametrize("code", [65, 78])
def test_g6_what_a_restart_cannot_mend_is_tried_once(runs: Runs, code: int) -> None:
    run = runs.start(f"g6-{code}", f"exit-{code} always")
    told_at, failed = run.until(lambda run: run.state in ENDED, 20, "FAILED")
    # Its only line is its last word: a process needs longer to begin than the table gives to the news of its end.
    last_word_at = (run.folder / "logs" / "gateway.1.log").stat().st_mtime - time.time() + time.monotonic()
    assert told_at - last_word_at <= 1, f"told {told_at - last_word_at:.2f} s after its last word"
    assert (failed.state, failed.generation, failed.last_exit.code) == (wire.RUN_STATE_FAILED, 1, code)
    assert f"exit {code}" in failed.reason


def test_g7_a_start_that_comes_to_nothing_is_ended_at_its_deadline(runs: Runs) -> None:
    began_at = time.monotonic()
    unbound, unready = runs.start("g7-unbound", "never-bound"), runs.start("g7-unready", "never-serving")
    for run in (unbound, unready):
        hung_at, hung = run.until(lambda run: run.state == wire.RUN_STATE_HUNG, 31, "the deadline")
        assert hung.reason.startswith("start_deadline: not serving after")
        assert hung_at - began_at <= 31, f"ended after {hung_at - began_at:.2f} s"
    for run in (unbound, unready):
        run.running(2)


def test_g8_a_gateway_that_hears_neither_drain_nor_sigterm_is_killed_and_the_run_says_so(runs: Runs) -> None:
    run = runs.start("g8", "deaf")
    _at, serving = run.running()
    run.until(lambda run: run.progress.sessions_settled > 5, 30, "deaf")
    asked_at = time.monotonic()
    stopped = run.stop()
    took_s = time.monotonic() - asked_at
    assert stopped.state == wire.RUN_STATE_STOPPED
    assert "killed: it had not ended" in stopped.reason
    assert stopped.last_exit.signal == signal.SIGKILL
    assert not psutil.pid_exists(serving.pid)
    assert took_s <= 28, f"ended after {took_s:.2f} s"


def child_of(run: Watched) -> int:
    """The process that a gateway has left behind."""
    return int(wait_until(lambda: (run.folder / "child.pid").exists() and (run.folder / "child.pid").read_text(), 10, "the child"))


def is_alive(pid: int) -> bool:
    """True if a process lives, and is not only waited for."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_g9_a_child_that_has_the_lock_of_a_dead_gateway_is_ended_with_its_group(runs: Runs) -> None:
    run = runs.start("g9", "leaves-a-child")
    _at, serving = run.running()
    child = child_of(run)
    assert is_alive(child)
    killed_at = time.monotonic()
    os.kill(serving.pid, signal.SIGKILL)
    launched_at, _ = run.until(lambda run: run.generation == 2 and run.state == wire.RUN_STATE_STARTING, 3, "the next launch")
    assert not is_alive(child)
    run.running(2)
    assert launched_at - killed_at <= 3, f"launched after {launched_at - killed_at:.2f} s"


def test_g10_a_child_that_has_escaped_with_the_lock_is_named_and_no_second_gateway_is_started(runs: Runs) -> None:
    run = runs.start("g10", "child-escapes")
    _at, serving = run.running()
    child = child_of(run)
    killed_at = time.monotonic()
    os.kill(serving.pid, signal.SIGKILL)
    named = f"process {child} "
    named_at, waiting = run.until(lambda run: named in run.reason, 5, "the holder named")
    assert (waiting.state, waiting.generation, waiting.pid) == (wire.RUN_STATE_BACKOFF, 1, 0)
    before = len(run.told)
    run.until(lambda _run: len(run.told) > before + 2 and named in run.told[-1][1].reason, 15, "tried again")
    assert is_alive(child), "it is not ours to end"
    assert max(told.generation for _at, told in run.told) == 1
    os.kill(child, signal.SIGKILL)
    run.running(2)
    assert named_at - killed_at <= 5, f"named after {named_at - killed_at:.2f} s"


def test_g11_readiness_that_flaps_restarts_nothing_and_is_told_at_most_once_in_a_while(runs: Runs) -> None:
    run = runs.start("g11", "flaps")
    run.running()
    run.until(lambda run: run.health == wire.GATEWAY_HEALTH_NOT_SERVING, 10, "not ready")
    first = len(run.told)
    began_at = time.monotonic()
    run.until(lambda _run: time.monotonic() - began_at > 3, 10, "some flapping")
    told = [one for one in run.told[first:] if one[0] - began_at <= 3]
    changes = sum((before.health, before.state) != (after.health, after.state) for (_, before), (_, after) in pairwise(told))
    # At most once in a second, which is a tenth here.
    assert 1 <= changes <= 3 / TIMER_SCALE + 1, run.history()
    assert max(told.generation for _at, told in run.told) == 1
    assert set(run.states()) <= {wire.RUN_STATE_PENDING, wire.RUN_STATE_STARTING, *NO_REST}


def test_g12_a_log_that_is_flooded_stays_within_its_bound_and_says_that_it_was_cut(runs: Runs) -> None:
    run = runs.start("g12", "floods")
    run.running()
    log = run.folder / "logs" / "gateway.1.log"
    sizes = list[int]()

    def is_flooded() -> bool:
        sizes.append(log.stat().st_size)
        return "log_truncated" in log.read_text(errors="replace")[:1000] and sizes[-1] < LOG_LIMIT_BYTES

    wait_until(is_flooded, 20, "the log cut")
    # What comes between two looks, and until a busy machine has had the second, is on top of the bound.
    most = LOG_LIMIT_BYTES + faulty_gateway.FLOOD_BYTES_PER_S * (TIMER_SCALE + 0.5)
    assert max(sizes) <= most, f"grew to {max(sizes)} bytes"
    first = json.loads(log.read_text(errors="replace").partition("\n")[0])
    assert first["left_out_bytes"] > 0
    assert run.told[-1][1].state == wire.RUN_STATE_RUNNING, run.history()
    assert run.told[-1][1].generation == 1


def test_g13_a_gateway_without_memory_tells_the_cause_and_is_started_again(runs: Runs) -> None:
    run = runs.start("g13", "out-of-memory", pace=0)
    serving_at, _serving = run.running()
    ended_at, ended = run.until(lambda run: run.last_exit.generation == 1 and in_backoff(run), 30, "the end")
    words = "\n".join([ended.reason, *ended.last_exit.log_lines]).lower()
    assert re.search("memory|bad_alloc", words), words
    assert ended_at - serving_at <= 5, f"ended {ended_at - serving_at:.2f} s after it began to take memory"
    up_at, _ = run.until(lambda run: run.generation == 2 and run.state in {*NO_REST, *ENDED}, 10, "the second gateway")
    assert up_at - ended_at <= 5, f"up after {up_at - ended_at:.2f} s"


def test_g14_a_stranger_with_the_number_of_a_dead_gateway_is_left_alone(runs: Runs) -> None:
    run = runs.start("g14")
    _at, serving = run.running()
    runtime = runs.mesh.processes["runtime"]
    runtime.kill()
    runtime.wait(10)
    os.kill(serving.pid, signal.SIGKILL)
    identity = run.folder / "state" / "gateway.json"
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        record = json.loads(identity.read_text())
        identity.write_text(json.dumps({**record, "pid": stranger.pid}))
        runs.mesh.start("runtime")
        with grpc.insecure_channel(f"127.0.0.1:{runs.mesh.ports['runtime']}") as channel:
            grpc.channel_ready_future(channel).result(30)
        up_at = time.monotonic()
        again = Watched(runs.stub, run.run_id, run.folder)
        runs.watched[:] = [again]
        found_at, _ = again.until(lambda run: run.last_exit.generation == 1, 10, "the dead gateway found")
        assert found_at - up_at <= 1, f"found dead {found_at - up_at:.2f} s after calls were taken"
        _at, second = again.running(2)
        assert stranger.poll() is None
        assert second.pid != stranger.pid
        again.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.fixture
def freezer() -> Iterator[Path]:
    """A group of processes that can be frozen so that not even SIGKILL reaches them, as those that wait for a disk that does not answer."""
    group = Path("/sys/fs/cgroup/freezer") / f"trademesh-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"this kernel has no freezer of cgroup v1, which alone makes a process that SIGKILL does not end: {error}")
    yield group
    (group / "freezer.state").write_text("THAWED")
    wait_until(lambda: not (group / "cgroup.procs").read_text(), 10, "the frozen to end")
    group.rmdir()


def test_g15_a_gateway_that_not_even_a_kill_ends_is_told_and_nothing_is_started_beside_it(runs: Runs, freezer: Path) -> None:
    run = runs.start("g15")
    _at, serving = run.running()
    (freezer / "cgroup.procs").write_text(str(serving.pid))
    (freezer / "freezer.state").write_text("FROZEN")
    frozen_at = time.monotonic()
    told_at, unkillable = run.until(lambda run: run.state == wire.RUN_STATE_UNKILLABLE, 8, "UNKILLABLE")
    assert "waits for a disk (D)" in unkillable.reason
    assert "not even SIGKILL ended it" in unkillable.reason
    assert psutil.pid_exists(serving.pid)
    # Nor does a person start another one beside it.
    with pytest.raises(grpc.RpcError) as refused:
        runs.stub.RestartRun(messages.RestartRunRequest(run_id="g15"), timeout=1)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION  # type: ignore[attr-defined]  # a call too
    assert max(seen.generation for _at, seen in run.told) == 1
    (freezer / "freezer.state").write_text("THAWED")
    _at, ended = run.until(in_backoff, 5, "BACKOFF")
    assert ended.last_exit.signal == signal.SIGKILL
    run.running(2)
    assert told_at - frozen_at <= 8, f"told after {told_at - frozen_at:.2f} s"


def test_g16_a_gateway_that_is_killed_while_it_drains_is_stopped_and_goes_on_later_where_it_was(runs: Runs) -> None:
    run = runs.start("g16", "deaf")
    _at, serving = run.running()
    run.until(lambda run: run.progress.sessions_settled > 5, 30, "deaf")
    request = messages.StopRunRequest(run_id="g16", reason="the test stops it")
    answer = runs.stub.StopRun.future(request, timeout=60)
    run.until(lambda run: run.state == wire.RUN_STATE_DRAINING, 10, "draining")
    killed_at = time.monotonic()
    os.kill(serving.pid, signal.SIGKILL)
    stopped_at, _ = run.until(lambda run: run.state == wire.RUN_STATE_STOPPED, 5, "STOPPED")
    assert stopped_at - killed_at <= 1, f"told after {stopped_at - killed_at:.2f} s"
    stopped = answer.result(30).run
    assert (stopped.state, stopped.generation, stopped.restart_count) == (wire.RUN_STATE_STOPPED, 1, 0)
    assert stopped.last_exit.signal == signal.SIGKILL
    assert wire.RUN_STATE_BACKOFF not in run.states()
    runs.stub.RestartRun(messages.RestartRunRequest(run_id="g16"), timeout=30)
    _at, again = run.running(2)
    assert again.progress.head_sequence >= stopped.progress.head_sequence
    run.until(lambda run: run.progress.sessions_settled > stopped.progress.sessions_settled, 30, "more sessions")


def test_g17_a_clock_that_jumps_in_a_gateway_moves_none_of_its_timers(runs: Runs) -> None:
    run = runs.start("g17", "clock-jumps", pace=20)
    _at, serving = run.running()
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
        settled = run.told[-1][1].progress.sessions_settled
        os.kill(serving.pid, number)
        _at, after = run.until(lambda run, settled=settled: run.progress.sessions_settled > settled + 40, 20, "more sessions")
        assert (after.pid, after.generation, after.state) == (serving.pid, 1, wire.RUN_STATE_RUNNING)
    assert run.states()[-1] == wire.RUN_STATE_RUNNING
    stopped = run.stop()
    assert (stopped.state, stopped.last_exit.code, stopped.restart_count) == (wire.RUN_STATE_STOPPED, 0, 0)


def test_a_run_that_asks_for_no_restart_is_not_started_again(runs: Runs) -> None:
    config = RunConfig(run_id="g-never", tickers=["AAPL", "MSFT"])
    config.pipeline.pace_sessions_per_s = 5
    config.supervision.restart = RESTART_POLICY_NEVER
    run = runs.begin(config)
    _at, serving = run.running()
    os.kill(serving.pid, signal.SIGKILL)
    _at, failed = run.until(lambda run: run.state in ENDED, 10, "FAILED")
    assert (failed.state, failed.generation, failed.reason) == (wire.RUN_STATE_FAILED, 1, "signal 9")
