"""What breaks around a gateway's pipeline: services that are away, slow or cut off, a supervisor that is gone, a disk that fills, another
gateway. Each test has a gateway of its own, and is its supervisor."""

from __future__ import annotations

import asyncio
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from fault_timers import FULL
from lone_gateway import LoneGateway, configuration, lone_gateway, wait_state
from mesh_processes import Mesh, running_mesh, wait_until

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh.gateway.v1 import feed_service_pb2_grpc
from trademesh_runs.chain import chain
from trademesh_runs.journal_sqlite import SqliteReader, SqliteWriter
from trademesh_runs.verification import verify_run

pytestmark = pytest.mark.timeout(120)

LIVENESS = "trademesh.liveness"
EVERY_STOCK = [
    "AAPL",
    "AMD",
    "BAC",
    "BBY",
    "CVX",
    "GE",
    "HD",
    "JNJ",
    "JPM",
    "KO",
    "LLY",
    "MRK",
    "MSFT",
    "PEP",
    "PFE",
    "PG",
    "RRC",
    "UNH",
    "WMT",
    "XOM",
]
LOST = "no runtime_service renews the lease: no new cycle begins"
LEASE_S, ORPHAN_S = (60.0, 900.0) if FULL else (1.0, 4.0)
PATIENT: dict[str, Any] = {"lease_s": 600.0, "orphan_s": 1200.0}
"""For tests that send no heartbeats and are not about them."""


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """The services that gateways need; nobody breaks them for good."""
    with running_mesh(tmp_path_factory.mktemp("services"), "agent", "trading", "news") as mesh:
        yield mesh


@contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """SIGSTOP for a while."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def gapless(gateway: LoneGateway) -> list[events.Event]:
    """The journal of a gateway that has ended, proved whole."""
    found = gateway.events()
    assert [event.sequence for event in found] == list(range(1, len(found) + 1))
    verify_run(gateway.layout)
    return found


def test_d1_a_gateway_whose_trading_service_is_down_waits_for_it_and_then_runs(tmp_path: Path) -> None:
    with running_mesh(tmp_path, "agent", "news") as mesh, lone_gateway(mesh, "waits", configuration(), **PATIENT) as gateway:
        wait_until(lambda: "trading_service does not answer" in gateway.log(), 10, "the dependency in the log")
        assert not gateway.serving()
        assert gateway.serving(LIVENESS)
        mesh.start("trading")
        mesh.wait_ready("trading")
        began = time.monotonic()
        wait_until(gateway.serving, 10, "serving again")
        took_s = time.monotonic() - began
        assert took_s <= 2, f"serving {took_s:.2f} s after trading_service"
        wait_state(gateway, events.PIPELINE_STATE_FINISHED)


def asking(deadline_s: int, pace: float = 0.0) -> Any:
    """A run of a few sessions each of whose orders is put before a person."""
    config = configuration()
    config.sessions.end = "2008-01-15"
    config.pipeline.cycle_deadline_s = deadline_s
    config.pipeline.pace_sessions_per_s = pace
    config.approvals.orders_over_nav = 0.0
    return config


def test_d2_a_cycle_that_nobody_can_be_asked_about_is_given_up_and_the_next_one_runs(services: Mesh) -> None:
    with stopped(services.processes["agent"]), lone_gateway(services, "overdue", asking(1), **PATIENT) as gateway:
        began = time.monotonic()
        wait_until(lambda: gateway.events("cycle_failed"), 20, "a cycle given up")
        took_s = time.monotonic() - began
        assert took_s <= 6, f"given up after {took_s:.2f} s at a deadline of 1 s, with the gateway's first session"
        wait_until(lambda: len(gateway.events("cycle_failed")) >= 2, 20, "the next cycle, given up too")
        assert gateway.serving(LIVENESS)
        gateway.drain(0.1)
        gateway.terminate()
    found = gapless(gateway)
    failed = [event for event in found if event.WhichOneof("payload") == "cycle_failed"]
    settled = {event.session_date for event in found if event.WhichOneof("payload") == "settled"}
    gated = {event.session_date: event for event in found if event.WhichOneof("payload") == "orders_gated"}
    assert failed[0].phase == failed[0].cycle_failed.phase == events.PHASE_APPROVAL
    assert failed[0].cycle_failed.reason == "the cycle took longer than 1 s"
    orders = [result.order for result in gated[failed[0].session_date].orders_gated.results]
    assert list(failed[0].cycle_failed.void_order_ids) == [order.order_id for order in orders if order.quantity]
    assert failed[0].session_date in settled
    assert not [event for event in found if event.WhichOneof("payload") == "order_filled"]


def test_d2_the_time_in_which_a_person_thinks_is_not_counted(services: Mesh) -> None:
    with lone_gateway(services, "thinks", asking(1), **PATIENT) as gateway:
        (asked,) = wait_until(lambda: gateway.events("approval_requested"), 20, "a question")
        began = gateway.now().cycle_started_at.ToMicroseconds()
        wait_until(lambda: time.time() - began / 1e6 > 3, 10, "three times the deadline")
        now = gateway.now()
        assert (now.session_date, now.cycle_started_at.ToMicroseconds()) == (asked.session_date, began)
        assert not gateway.events("cycle_failed")
        gateway.terminate()


def test_d2_a_cycle_that_was_given_up_stays_so_in_the_next_generation(services: Mesh) -> None:
    with stopped(services.processes["agent"]), lone_gateway(services, "again", asking(1, pace=0.2), **PATIENT) as gateway:
        (failed,) = wait_until(lambda: gateway.events("cycle_failed"), 20, "a cycle given up")
        wait_until(lambda: gateway.now().sessions_settled, 10, "its settlement")
        gateway.process.kill()
        gateway.process.wait(10)
    # As if the gateway had died between the two: the settlement is taken out of the journal.
    cut_after(gateway, failed.sequence)
    with lone_gateway(services, "again", None, generation=2, **PATIENT) as later:
        wait_until(lambda: later.events("settled"), 20, "the settlement")
        later.terminate()
    found = gapless(later)
    of_session = [event for event in found if event.session_date == failed.session_date]
    kinds = [event.WhichOneof("payload") for event in of_session]
    assert kinds.count("cycle_failed") == kinds.count("settled") == 1
    assert "order_filled" not in kinds


def cut_after(gateway: LoneGateway, sequence: int) -> None:
    """Takes events out of a journal, and the end of its chain with them: what a death between two commits leaves."""
    connection = sqlite3.connect(gateway.layout.journal, isolation_level=None)
    connection.execute("DELETE FROM events WHERE sequence > ?", (sequence,))
    query = "SELECT sequence, hash FROM events WHERE hash IS NOT NULL ORDER BY sequence DESC LIMIT 1"
    through, previous = connection.execute(query).fetchone() or (0, b"")
    connection.close()
    reader = SqliteReader(gateway.layout.journal)
    rest = reader.read(through, 10_000)
    reader.close()
    if rest:
        connection = sqlite3.connect(gateway.layout.journal, isolation_level=None)
        connection.execute("UPDATE events SET hash = ? WHERE sequence = ?", (chain(previous, rest), sequence))
        connection.close()


class CutProxy:
    """Passes TCP on, and can reset every connection, as a network does that loses its state."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open = list[socket.socket]()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                return
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            return

    def cut(self) -> int:
        """Resets what is open; returns how many sockets."""
        cut, self._open = self._open, []
        for one in cut:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            # A close while another thread reads sends nothing yet: the shutdown wakes that one.
            with suppress(OSError):
                one.shutdown(socket.SHUT_RD)
            one.close()
        return len(cut)

    def close(self) -> None:
        """Ends it."""
        self._listener.close()
        self.cut()


@pytest.fixture
def cut_proxy() -> Iterator[Callable[[int], CutProxy]]:
    """Makes proxies in front of ports."""
    made = list[CutProxy]()

    def make(port: int) -> CutProxy:
        made.append(CutProxy(port))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_d3_connections_to_the_services_that_are_reset_leave_no_gap_and_no_pause(
    services: Mesh, cut_proxy: Callable[[int], CutProxy]
) -> None:
    proxies = {f"{name}_target": cut_proxy(services.ports[name]) for name in ("trading", "news", "agent")}
    # More data than lies between two processes at a time, so that the stream of bars is open while it is cut.
    config = configuration(tickers=EVERY_STOCK, sessions={"start": "1995-01-03", "end": "2012-12-31"})
    config.pipeline.pace_sessions_per_s = 600
    targets = {name: proxy.target for name, proxy in proxies.items()}
    with lone_gateway(services, "cut", config, **PATIENT, **targets) as gateway:
        stream = gateway.subscribe()
        cursor, longest_s, cuts, last = 0, 0.0, 0, time.monotonic()
        for response in stream:
            if response.HasField("events"):
                for event in response.events.events:
                    assert event.sequence == cursor + 1
                    cursor = event.sequence
                    if event.WhichOneof("payload") == "settled" and event.settled.session_number in (200, 1000, 2000):
                        cuts += proxies["trading_target"].cut()
                longest_s, last = max(longest_s, time.monotonic() - last), time.monotonic()
                if any(event.settled.session_number == 2800 for event in response.events.events):
                    break
        stream.cancel()
        assert cuts
        assert "a service is missing" in gateway.log(), "the cuts hit nothing"
        assert longest_s <= 1 + 1.0, f"the longest silence was {longest_s:.2f} s"
        assert gateway.serving()
        gateway.terminate()
    gapless(gateway)


def test_d3_a_reader_whose_connection_is_reset_comes_back_without_a_gap(services: Mesh, cut_proxy: Callable[[int], CutProxy]) -> None:
    config = configuration(**{"pipeline": {"pace_sessions_per_s": 30}})
    with lone_gateway(services, "reader", config, **PATIENT) as gateway:
        proxy = cut_proxy(int(gateway.target.rpartition(":")[2]))
        cursor, reset_at, back_after_s = 0, 0.0, 0.0
        with grpc.insecure_channel(proxy.target, [("grpc.initial_reconnect_backoff_ms", 100)]) as channel:
            stub: Any = feed_service_pb2_grpc.FeedServiceStub(channel)
            while not back_after_s:
                request = feed.SubscribeRequest(run_id="reader", after_sequence=cursor)
                with suppress(grpc.RpcError):
                    for response in stub.Subscribe(request, timeout=30, wait_for_ready=True):
                        if not response.HasField("events"):
                            continue
                        assert response.events.first_sequence == cursor + 1
                        cursor = response.events.last_sequence
                        if reset_at:
                            back_after_s = time.monotonic() - reset_at
                            break
                        if cursor > 100:
                            reset_at = time.monotonic()
                            proxy.cut()
        assert back_after_s <= 1, f"back after {back_after_s:.2f} s"


def test_d4_a_fixed_port_that_is_taken_ends_the_gateway_with_78(services: Mesh) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        gateway = LoneGateway(services, "taken", configuration(), bind=bind)
        try:
            gateway.start()
            code, reason = gateway.wait_end()
        finally:
            gateway.close()
    assert (code, reason) == (78, f"cannot bind {bind}: the port is taken, or the address is not this machine's")


def test_r3_without_a_runtime_no_new_cycle_begins_the_feed_goes_on_and_then_the_gateway_ends(services: Mesh) -> None:
    # Sessions for longer than the lease, also at its real length.
    config = configuration(**{"pipeline": {"pace_sessions_per_s": 5}, "sessions": {"start": "2008-01-02", "end": "2009-12-31"}})
    with lone_gateway(services, "orphan", config, lease_s=LEASE_S, orphan_s=ORPHAN_S) as gateway:
        # While heartbeats come, cycles begin.
        for _ in range(4):
            before = gateway.beat().pipeline.sessions_settled
            wait_until(lambda before=before: gateway.now().sessions_settled > before, 0.9, "a cycle under the lease")
        last_beat = time.monotonic()
        gateway.beat()
        held = wait_until(lambda: gateway.now() if gateway.now().reason == LOST else None, LEASE_S + 5, "the lost lease")
        lost_after_s = time.monotonic() - last_beat
        assert held.state == events.PIPELINE_STATE_RUNNING
        assert 0.9 * LEASE_S <= lost_after_s <= LEASE_S + 0.5, f"lost after {lost_after_s:.2f} s, the lease is {LEASE_S:g} s"
        settled = gateway.now().sessions_settled
        stream = gateway.subscribe()
        assert next(iter(stream)).events.first_sequence == 1
        *_, last = stream
        assert last.end.reason == feed.STREAM_END_REASON_DRAINING
        code, reason = gateway.wait_end(ORPHAN_S + 30)
        ended_after_s = time.monotonic() - last_beat
    assert (code, reason) == (75, "no runtime_service renewed the lease")
    # It is looked for ten times in a lease.
    assert ORPHAN_S <= ended_after_s <= ORPHAN_S + LEASE_S / 5 + 3, f"ended after {ended_after_s:.2f} s"
    found = gapless(gateway)
    assert len([event for event in found if event.WhichOneof("payload") == "settled"]) == settled
    assert not [event for event in found if event.pipeline_state_changed.state == events.PIPELINE_STATE_PAUSED]


def test_r3_a_lease_that_comes_back_lets_cycles_begin_again(services: Mesh) -> None:
    config = configuration(**{"pipeline": {"pace_sessions_per_s": 10}})
    with lone_gateway(services, "renewed", config, lease_s=0.5, orphan_s=60.0) as gateway:
        wait_until(lambda: gateway.now().reason == LOST, 5, "the lost lease")
        settled = gateway.now().sessions_settled

        def goes_on() -> bool:
            gateway.beat()
            return gateway.now().sessions_settled > settled

        wait_until(goes_on, 5, "cycles again")
        wait_until(lambda: gateway.now().reason == "autostart", 2, "its own reason")


async def take_over(gateway: LoneGateway, generation: int) -> None:
    """What a later gateway does first with a journal."""
    writer = SqliteWriter(gateway.layout.journal, gateway.run_id, generation, lambda _group: None)
    await writer.close()


def test_r9_an_old_gateway_that_wakes_up_writes_no_row_and_ends_with_80(services: Mesh) -> None:
    config = configuration(**{"pipeline": {"pace_sessions_per_s": 20}})
    with lone_gateway(services, "fenced", config, **PATIENT) as gateway:
        wait_until(lambda: gateway.now().sessions_settled > 2, 20, "some sessions")
        feed_stream, watch = gateway.subscribe(), gateway.watch()
        assert next(iter(feed_stream)).events.first_sequence == 1
        assert next(iter(watch)).pipeline.run_id == "fenced"
        with stopped(gateway.process):
            asyncio.run(take_over(gateway, 2))
            before = [event.SerializeToString() for event in gateway.events()]
            exported = gateway.layout.server_state.read_bytes()
        woken = time.monotonic()
        code, reason = gateway.wait_end(10)
        took_s = time.monotonic() - woken
        assert (code, reason) == (80, "generation 1 has been replaced")
        assert took_s <= 5, f"ended {took_s:.2f} s after it woke up"
        *_, last_event = feed_stream
        *_, last_word = watch
        assert last_event.end.reason == last_word.end.reason == feed.STREAM_END_REASON_FENCED
        after = [event.SerializeToString() for event in gateway.events()]
        assert after == before
        assert gateway.layout.server_state.read_bytes() == exported
        assert max(event.generation for event in gateway.events()) == 1


def test_r9_the_last_words_of_a_later_generation_are_left_as_they_are(services: Mesh) -> None:
    config = configuration(**{"pipeline": {"pace_sessions_per_s": 20}})
    with lone_gateway(services, "words", config, **PATIENT) as gateway:
        wait_until(lambda: gateway.now().sessions_settled > 2, 20, "some sessions")
        with stopped(gateway.process):
            asyncio.run(take_over(gateway, 2))
            gateway.layout.gateway_exit.write_text('{"generation": 2, "code": 0, "reason": "RUN_ENDED"}')
        assert gateway.wait_end(10) == (80, "")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB in memory."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"needs to mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_j4_a_disk_with_little_room_pauses_the_pipeline_and_room_lets_it_go_on(services: Mesh, small_disk: Path) -> None:
    config = configuration(**{"pipeline": {"pace_sessions_per_s": 5}})
    least = {"TRADEMESH_GATEWAY_LEAST_FREE_BYTES": 16 * 2**20}
    ballast = small_disk / "ballast"
    with lone_gateway(services, "filled", config, runs=small_disk, **PATIENT, **least) as gateway:
        wait_until(lambda: gateway.now().sessions_settled, 20, "a session")
        ballast.write_bytes(bytes(52 * 2**20))
        began = time.monotonic()
        paused = wait_state(gateway, events.PIPELINE_STATE_PAUSED, 10)
        took_s = time.monotonic() - began
        assert took_s <= 2, f"paused after {took_s:.2f} s"
        assert (paused.reason, paused.phase) == ("disk: less than 16 MiB free", events.PHASE_SETTLEMENT)
        (change,) = [one for one in gateway.events("pipeline_state_changed") if one.pipeline_state_changed.state == paused.state]
        assert change.pipeline_state_changed.reason == paused.reason
        assert next(iter(gateway.subscribe())).events.first_sequence == 1
        assert gateway.serving(LIVENESS)
        ballast.unlink()
        began = time.monotonic()
        wait_state(gateway, events.PIPELINE_STATE_RUNNING, 10)
        took_s = time.monotonic() - began
        assert took_s <= 2, f"went on after {took_s:.2f} s"
        gateway.terminate()
    gapless(gateway)


def fill(folder: Path) -> Path:
    """Writes until there is no room at all; returns what to remove."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(65536))
    with filler.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x")
    return filler


def test_j4_on_a_disk_that_is_full_the_pipeline_pauses_the_feed_works_and_no_event_is_lost(services: Mesh, small_disk: Path) -> None:
    config = configuration(**{"pipeline": {"pace_sessions_per_s": 20}})
    no_least = {"TRADEMESH_GATEWAY_LEAST_FREE_BYTES": 0}
    with lone_gateway(services, "full", config, runs=small_disk, **PATIENT, **no_least) as gateway:
        wait_until(lambda: gateway.now().sessions_settled, 20, "a session")
        filler = fill(small_disk)
        began = time.monotonic()
        paused = wait_state(gateway, events.PIPELINE_STATE_PAUSED, 20)
        took_s = time.monotonic() - began
        assert paused.reason.startswith("disk: ")
        assert took_s <= 2, f"paused after {took_s:.2f} s"
        assert next(iter(gateway.subscribe())).events.first_sequence == 1
        assert gateway.serving(LIVENESS)
        filler.unlink()
        began = time.monotonic()
        wait_until(lambda: gateway.now().state != events.PIPELINE_STATE_PAUSED, 10, "no pause any more")
        took_s = time.monotonic() - began
        assert took_s <= 2, f"went on after {took_s:.2f} s"
        wait_state(gateway, events.PIPELINE_STATE_FINISHED)
        assert gateway.terminate() == (0, "RUN_ENDED")
    found = gapless(gateway)
    assert [one.pipeline_state_changed.state for one in found if one.WhichOneof("payload") == "pipeline_state_changed"][:3] == [
        events.PIPELINE_STATE_RUNNING,
        events.PIPELINE_STATE_PAUSED,
        events.PIPELINE_STATE_RUNNING,
    ]


def test_j4_a_gateway_that_is_told_to_end_on_a_full_disk_ends(services: Mesh, small_disk: Path) -> None:
    config = configuration(**{"pipeline": {"pace_sessions_per_s": 20}})
    with lone_gateway(services, "end-full", config, runs=small_disk, **PATIENT, TRADEMESH_GATEWAY_LEAST_FREE_BYTES=0) as gateway:
        wait_until(lambda: gateway.now().sessions_settled, 20, "a session")
        filler = fill(small_disk)
        wait_state(gateway, events.PIPELINE_STATE_PAUSED, 20)
        gateway.process.terminate()
        began = time.monotonic()
        gateway.process.wait(20)
        took_s = time.monotonic() - began
        assert took_s <= 10, f"ended after {took_s:.2f} s"
        filler.unlink()
    gapless(gateway)


def test_j4_a_pause_by_a_person_outlasts_that_of_the_disk(services: Mesh, small_disk: Path) -> None:
    config = configuration(**{"pipeline": {"pace_sessions_per_s": 5}})
    least = {"TRADEMESH_GATEWAY_LEAST_FREE_BYTES": 16 * 2**20}
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(52 * 2**20))
    with lone_gateway(services, "person", config, runs=small_disk, **PATIENT, **least) as gateway:
        wait_state(gateway, events.PIPELINE_STATE_PAUSED)
        assert gateway.call("PausePipeline", reason="disk: mine").reason == "PausePipeline: disk: mine"
        ballast.unlink()
        wait_until(lambda: '"there is room"' in gateway.log(), 5, "room again")
        assert gateway.now().state == events.PIPELINE_STATE_PAUSED
        assert gateway.call("ResumePipeline").state == events.PIPELINE_STATE_RUNNING


STUCK = """
import asyncio
from trademesh_gateway.pipeline import cycle

async def stuck(self):
    # Stands for code of an agent that neither ends nor lets itself be ended.
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

cycle.PHASES[2] = stuck
"""


def test_g4_a_pipeline_that_cannot_even_be_given_up_is_not_alive_while_its_feed_is(services: Mesh, tmp_path: Path) -> None:
    """No code of ours gets stuck so: the fault is put in when the process starts."""
    (tmp_path / "sitecustomize.py").write_text(STUCK)
    config = configuration()
    config.pipeline.cycle_deadline_s = 1
    with lone_gateway(services, "stuck", config, **PATIENT, PYTHONPATH=tmp_path) as gateway:
        wait_until(lambda: gateway.now().HasField("cycle_started_at"), 20, "a cycle")
        began = time.monotonic()
        wait_until(lambda: not gateway.serving(LIVENESS), 10, "liveness lost")
        took_s = time.monotonic() - began
        assert took_s <= 1 + 1 + 1, f"seen {took_s:.2f} s after the cycle began, its deadline is 1 s"
        assert '"phase": "ANALYSIS"' in gateway.log()
        assert next(iter(gateway.subscribe())).events.first_sequence == 1


def test_the_exit_status_of_each_fault_says_whether_another_try_can_help(services: Mesh) -> None:
    def end_of(run_id: str, prepare: Callable[[LoneGateway], object], **ticket: Any) -> tuple[int, str]:
        gateway = LoneGateway(services, run_id, configuration(), **ticket)
        try:
            prepare(gateway)
            gateway.start()
            return gateway.wait_end()
        finally:
            gateway.close()

    assert end_of("no-config", lambda gateway: gateway.layout.bootstrap.unlink()) == (65, "BOOTSTRAP.md: is not there")
    code, reason = end_of("bad-config", lambda gateway: gateway.layout.bootstrap.write_text("---\nsessions: {\n---\n"))
    assert (code, reason[:21]) == (65, "BOOTSTRAP.md: line 3,")
    assert end_of("not-text", lambda gateway: gateway.layout.bootstrap.write_bytes(b"\xff\xfe"))[0] == 65
    code, reason = end_of("no-journal", lambda gateway: gateway.layout.journal.write_bytes(b"no database" * 1000))
    assert (code, reason) == (65, "journal: file is not a database")

    def other_set(gateway: LoneGateway) -> None:
        text = gateway.layout.bootstrap.read_text()
        gateway.layout.bootstrap.write_text(text.replace("us20", "moon"))

    code, reason = end_of("no-data", other_set)
    assert (code, "moon" in reason) == (69, True)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        alone = subprocess.run([sys.executable, "-m", "trademesh_gateway"], capture_output=True, check=False)
    assert (alone.returncode, b"only runtime_service" in alone.stderr) == (64, True)


def test_two_gateways_of_one_run_end_the_second_with_75(services: Mesh) -> None:
    with lone_gateway(services, "twice", configuration(), **PATIENT) as first:
        wait_until(first.serving, 20, "serving")
        second = LoneGateway(services, "twice", None, generation=2)
        try:
            second.start()
            assert second.wait_end() == (75, "another gateway holds the run's lock")
        finally:
            second.close()
        assert first.serving()


def test_a_folder_that_may_not_be_written_ends_the_gateway_with_77(services: Mesh, small_disk: Path) -> None:
    gateway = LoneGateway(services, "locked", configuration(), runs=small_disk)
    # The log must be written all the same.
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(gateway.layout.root / "logs")], check=True)
    try:
        gateway.start()
        assert gateway.process.wait(30) == 77, gateway.log()
    finally:
        gateway.close()
        subprocess.run(["umount", str(gateway.layout.root / "logs")], check=True)


def test_a_stopped_pipeline_is_served_to_the_end_and_stays_stopped(services: Mesh) -> None:
    config = configuration(**{"pipeline": {"pace_sessions_per_s": 10}, "supervision": {"linger_s": 1}})
    with lone_gateway(services, "ended", config, **PATIENT) as gateway:
        wait_until(lambda: gateway.now().sessions_settled > 2, 20, "some sessions")
        watch = gateway.watch()
        answer = gateway.call("StopPipeline", reason="enough")
        assert (answer.state, answer.reason, answer.phase) == (events.PIPELINE_STATE_STOPPED, "enough", events.PHASE_SETTLEMENT)
        assert not answer.HasField("cycle_started_at")
        assert gateway.call("StopPipeline", reason="again") == answer
        for method in ("StartPipeline", "ResumePipeline", "StepPipeline", "PausePipeline"):
            with pytest.raises(grpc.RpcError) as refused:
                gateway.call(method)
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION, method
        *_, newest, end = watch
        assert (newest.pipeline.state, end.end.reason) == (events.PIPELINE_STATE_STOPPED, feed.STREAM_END_REASON_RUN_ENDED)
        assert gateway.wait_end() == (0, "PIPELINE_STOPPED: enough")
    settled = answer.sessions_settled
    # A later gateway needs no service to know that there is nothing to do.
    targets = {f"{name}_target": "127.0.0.1:1" for name in ("trading", "news", "agent")}
    with lone_gateway(services, "ended", None, generation=2, **PATIENT, **targets) as later:
        wait_until(later.serving, 10, "serving")
        assert (later.now().state, later.now().sessions_settled) == (events.PIPELINE_STATE_STOPPED, settled)
        *_, last = later.subscribe()
        assert last.end.reason == feed.STREAM_END_REASON_RUN_ENDED
        assert later.wait_end() == (0, "PIPELINE_STOPPED: enough")
    gapless(later)


def test_a_watch_tells_what_is_then_changes_and_no_more_than_ten_a_second(services: Mesh) -> None:
    config = configuration()
    config.sessions.start, config.sessions.end = "2000-01-03", "2007-12-31"
    with lone_gateway(services, "watched", config, **PATIENT) as gateway:
        began, found = time.monotonic(), list[Any]()
        for response in gateway.watch():
            found.append(response.pipeline)
            if found[-1].state == events.PIPELINE_STATE_FINISHED:
                break
        took_s = time.monotonic() - began
        assert len(found) <= 2 + 10 * took_s, f"{len(found)} messages in {took_s:.2f} s"
        heads = [one.head_sequence for one in found]
        assert heads == sorted(heads)
        assert found[-1].sessions_settled == found[-1].sessions_total
        # Idle now: what is, and then a checkpoint.
        watch = iter(gateway.watch())
        assert next(watch).pipeline == found[-1]
        assert next(watch).checkpoint.head_sequence == heads[-1]


def test_d1_a_pipeline_that_waits_for_a_frozen_service_can_be_paused_stopped_and_drained(services: Mesh) -> None:
    with stopped(services.processes["trading"]), lone_gateway(services, "frozen", configuration(), **PATIENT) as gateway:
        wait_until(lambda: not gateway.serving(), 5, "not serving")
        began = time.monotonic()
        assert gateway.call("PausePipeline", reason="lunch").state == events.PIPELINE_STATE_PAUSED
        assert gateway.call("StopPipeline", reason="enough").state == events.PIPELINE_STATE_STOPPED
        gateway.drain(5)
        assert gateway.terminate() == (0, "PIPELINE_STOPPED: enough")
        took_s = time.monotonic() - began
        assert took_s <= 5, f"ended after {took_s:.2f} s"
