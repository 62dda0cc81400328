"""`python -m trademesh_runtime`: runs runtime_service until SIGTERM."""

from __future__ import annotations

import fcntl
import os
import sys

from trademesh.runtime.v1 import runtime_service_pb2, runtime_service_pb2_grpc
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.health import Readiness
from trademesh_kernel.server import Assembly, MeshServer, registration, run_service
from trademesh_kernel.settings import EXIT_CONFIG, is_loopback, load_settings
from trademesh_runtime.registry import Registry
from trademesh_runtime.runs import Runs
from trademesh_runtime.runtime_service import RuntimeServicer
from trademesh_runtime.settings import RuntimeSettings

EXIT_TEMPORARY = 75


def take_lock(settings: RuntimeSettings) -> None:
    """One runtime_service for a folder of runs; a second one names the first and ends with 75."""
    settings.runs_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(settings.runs_dir / ".runtime.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode(errors="replace").strip()
        print(f"runtime_service: process {owner or 'unknown'} looks after {settings.runs_dir} already", file=sys.stderr)
        raise SystemExit(EXIT_TEMPORARY) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())


async def assemble(settings: RuntimeSettings) -> Assembly:
    """The service's parts, inside the running loop."""
    registry = Registry(settings.runs_dir / "registry.db")
    trading = ServiceClient(settings.trading_target, "trading_service")
    agent = ServiceClient(settings.agent_target, "agent_service")
    runs = Runs(settings, registry, settings.timers())

    readiness = Readiness("runs")

    async def started(_server: MeshServer) -> None:
        # Only once the address is ours: gateways are not to be taken over by a service that cannot serve.
        runs.recover()
        await readiness.hold("runs")

    async def close_registry() -> None:
        registry.close()

    return Assembly(
        [
            registration(
                runtime_service_pb2_grpc.add_RuntimeServiceServicer_to_server,
                RuntimeServicer(runs, registry, trading, agent),
                runtime_service_pb2.DESCRIPTOR,
                "RuntimeService",
            )
        ],
        readiness=readiness,
        started=started,
        drain_hooks=[runs.drain],
        closers=[runs.close, trading.close, agent.close, close_registry],
    )


def main() -> None:
    """Entry point."""
    settings = load_settings(RuntimeSettings)
    if not is_loopback(settings.gateway_bind) and not settings.allow_insecure:
        print(
            f"TRADEMESH_GATEWAY_BIND: gateways at {settings.gateway_bind} could be reached from other machines and have no credentials: "
            "bind 127.0.0.1, or set TRADEMESH_ALLOW_INSECURE=true if the network is trusted",
            file=sys.stderr,
        )
        raise SystemExit(EXIT_CONFIG)
    take_lock(settings)
    run_service("runtime_service", settings, lambda: assemble(settings))


if __name__ == "__main__":
    main()
