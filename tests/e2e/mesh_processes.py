"""A whole mesh of real processes on free ports, in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

SERVICES = ("agent", "trading", "news", "runtime")
PROCESSES = (*SERVICES, "edge")
STOP_WITHIN_S = 60.0
"""runtime_service gives its gateways 27 s."""


def free_ports(count: int) -> list[int]:
    """Ports that were free just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def wait_until(condition: Callable[[], Any], within_s: float, what: str) -> Any:
    """The first true value of a condition."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {within_s:g} s")


def mesh_processes(folder: Path) -> list[psutil.Process]:
    """Processes of ours whose working folder is this one."""
    found = list[psutil.Process]()
    for process in psutil.process_iter(["cmdline"]):
        try:
            command = " ".join(process.info["cmdline"] or [])
            if "trademesh" in command and Path(process.cwd()) == folder and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            continue
    return found


class Mesh:
    """Services as processes, and the command line against them."""

    def __init__(self, folder: Path, **environment: str) -> None:
        """`environment` are variables beside those of ports."""
        self.folder = folder
        self.ports = dict(zip(PROCESSES, free_ports(len(PROCESSES)), strict=True))
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("TRADEMESH_")}
        for name, port in self.ports.items():
            self.environment[f"TRADEMESH_{name.upper()}_LISTEN"] = f"127.0.0.1:{port}"
            self.environment[f"TRADEMESH_{name.upper()}_TARGET"] = f"127.0.0.1:{port}"
        self.environment |= environment
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def runs(self) -> Path:
        """Where runs are."""
        return self.folder / "runs"

    def start(self, *names: str) -> None:
        """Starts services, in this order, and does not wait."""
        for name in names:
            with (self.folder / f"{name}.log").open("ab") as log:
                command = [sys.executable, "-m", f"trademesh_{name}"]
                self.processes[name] = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)

    def wait_ready(self, *names: str) -> None:
        """Waits until services are SERVING."""
        for name in names:
            if name == "edge":
                wait_until(self.edge_answers, 30, "the edge")
                continue
            wait_until(lambda name=name: self.cli("probe", f"127.0.0.1:{self.ports[name]}").returncode == 0, 30, f"{name} serving")

    def edge_answers(self) -> bool:
        """True if the edge serves HTTP."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['edge']}/healthz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def cli(self, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs `trademesh` with arguments."""
        command = [sys.executable, "-m", "trademesh_cli.main", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def json(self, *arguments: str) -> Any:
        """The JSON that a command prints."""
        outcome = self.cli(*arguments, "--json")
        assert outcome.returncode == 0, outcome.stderr
        return json.loads(outcome.stdout)

    def summary(self, run_id: str, within_s: float = 90) -> dict[str, Any]:
        """Waits for a run's end and returns its summary."""
        found: dict[str, Any] = wait_until(lambda: self.json("run", "show", run_id).get("summary"), within_s, f"{run_id} at its end")
        return found

    def grpcurl(self, name: str, method: str, request: dict[str, Any]) -> Any:
        """Calls a method by reflection."""
        outcome = self._grpcurl(name, method, request)
        assert outcome.returncode == 0, outcome.stderr
        return json.loads(outcome.stdout)

    def refused(self, name: str, method: str, request: dict[str, Any]) -> str:
        """What is said to a call that must fail."""
        outcome = self._grpcurl(name, method, request)
        assert outcome.returncode != 0, outcome.stdout
        return outcome.stderr

    def _grpcurl(self, name: str, method: str, request: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        target = name if ":" in name else f"127.0.0.1:{self.ports[name]}"
        command = ["grpcurl", "-plaintext", "-max-time", "30", "-d", json.dumps(request), target.removeprefix("dns:///"), method]
        return subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)

    def stop(self) -> None:
        """Ends everything that runs in the folder.

        Raises:
            AssertionError: a service did not end by itself; it was killed, and the message has its last words.
        """
        for name in ("edge", "runtime", "news", "trading", "agent"):
            process = self.processes.get(name)
            if process is not None and process.poll() is None:
                process.terminate()
        deadline, late = time.monotonic() + STOP_WITHIN_S, list[str]()
        for name, process in self.processes.items():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                late.append(f"{name} ({psutil.Process(process.pid).status()})")
                # It writes its stacks.
                process.send_signal(signal.SIGABRT)
                process.send_signal(signal.SIGCONT)
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(2)
            process.kill()
            process.wait(10)
        for left in mesh_processes(self.folder):
            left.kill()
        words = [(self.folder / f"{one.partition(' ')[0]}.log").read_text(errors="replace")[-4000:] for one in late]
        assert not late, f"{', '.join(late)} had not ended after {STOP_WITHIN_S:g} s:\n" + "\n".join(words)


@contextmanager
def running_mesh(folder: Path, *names: str, **environment: str) -> Iterator[Mesh]:
    """These services, ready, for a while; nothing is left of them."""
    found = Mesh(folder, **environment)
    found.start(*names)
    try:
        found.wait_ready(*names)
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """One mesh for the tests that do not break it."""
    with running_mesh(tmp_path_factory.mktemp("mesh"), *PROCESSES) as found:
        yield found


TWO_YEARS = """---
sessions: {start: 2007-06-01, end: 2009-06-01}
---
"""


@pytest.fixture(scope="session")
def two_years(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of two years."""
    path = tmp_path_factory.mktemp("configuration") / "BOOTSTRAP.md"
    path.write_text(TWO_YEARS)
    return path


@pytest.fixture(scope="session")
def undisturbed(mesh: Mesh, two_years: Path) -> dict[str, Any]:
    """The summary of a run that nobody disturbed."""
    assert mesh.cli("run", "start", str(two_years), "--run-id", "undisturbed").returncode == 0
    return mesh.summary("undisturbed")
