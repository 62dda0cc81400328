"""The bootstrap of every gRPC server: bind, stages, health, reflection, and an end in order.

    class Settings(ServerSettings): ...
    run_service("news_service", settings, [Registration(add_NewsServiceServicer_to_server, servicer, DESCRIPTOR)])

Draining: NOT_SERVING, streams end themselves with a cursor (`drain_hooks` tell them), wait, `stop(grace)`, then the closers.
"""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc

from trademesh_kernel.health import Health, Readiness
from trademesh_kernel.logs import configure_logs, get_logger
from trademesh_kernel.reflection import enable_reflection
from trademesh_kernel.settings import EXIT_CONFIG, EXIT_IO, ServerSettings, is_loopback
from trademesh_kernel.stages import Load, StagedServer, StageOptions

if TYPE_CHECKING:
    from trademesh_kernel.telemetry import CallMetrics

UNBOUNDED_HEADROOM = 1_000
"""Calls beyond the bound that still get an answer: health checks, reflection, the supervisor's, and refusals."""


class BindError(Exception):
    """The address cannot be bound; the message is one line that names it."""


class StartError(Exception):
    """Files that a service needs cannot be read or written; the message is one line."""


@dataclass(frozen=True)
class Registration:
    """A servicer, the generated function that adds it, and the full name of its service."""

    add: Callable[[Any, Any], None]
    servicer: Any
    service_name: str
    bounded: bool = True
    """False: its calls do not count for the bound on concurrent calls, and are answered when that is reached."""


def registration(
    add: Callable[[Any, Any], None], servicer: Any, file: FileDescriptor, service: str, *, bounded: bool = True
) -> Registration:
    """A registration whose name is looked up in the generated file, so that a misspelt one fails at start."""
    return Registration(add, servicer, file.services_by_name[service].full_name, bounded)


class MeshServer:
    """One gRPC server with everything around it."""

    def __init__(
        self,
        settings: ServerSettings,
        registrations: Sequence[Registration],
        *,
        listen: str | None = None,
        readiness: Readiness | None = None,
    ) -> None:
        """`listen` overrides the settings' address; port 0 is any free one."""
        self._settings = settings
        self._registrations = list(registrations)
        self._listen = listen if listen is not None else settings.listen_address()
        self.readiness = readiness or Readiness()
        self.health = Health([registration.service_name for registration in registrations])
        self.drain_hooks: list[Callable[[], None]] = []
        """Called when the server begins to drain: streams then end themselves, with a cursor."""
        self._load = Load(settings.max_concurrent_rpcs)
        self.port = 0
        self._server: grpc.aio.Server | None = None

    @property
    def target(self) -> str:
        """gRPC target of this server, from this machine."""
        return f"{self._listen.rpartition(':')[0]}:{self.port}"

    async def start(self) -> None:
        """Binds and serves; SERVING as soon as readiness holds.

        Raises:
            BindError: the address is taken, not ours, or open to others without credentials.
        """
        if not is_loopback(self._listen) and not self._settings.allow_insecure:
            raise BindError(
                f"{self._listen} can be reached from other machines and there are no credentials: "
                "bind 127.0.0.1, or set TRADEMESH_ALLOW_INSECURE=true if the network is trusted"
            )
        metrics = self._metrics()
        options = StageOptions(self._settings.default_deadline_s, self._settings.slow_call_s, metrics, self._load)
        unbounded = StageOptions(self._settings.default_deadline_s, self._settings.slow_call_s, metrics)
        server = grpc.aio.server(
            options=[
                # The bound on calls is a stage. grpc.aio's own counts health checks too, refuses without details, and costs 4 % of unary
                # throughput; this one is HTTP/2's, for each connection.
                ("grpc.max_concurrent_streams", self._settings.max_concurrent_rpcs + UNBOUNDED_HEADROOM),
                # Without this a second process binds the same port silently and takes half of the calls.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", self._settings.max_message_bytes),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        for registered in self._registrations:
            registered.add(registered.servicer, StagedServer(server, options if registered.bounded else unbounded))
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, server)
        names = [registered.service_name for registered in self._registrations]
        enable_reflection(server, [*names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name])
        try:
            self.port = server.add_insecure_port(self._listen)
        except RuntimeError:
            raise BindError(f"cannot bind {self._listen}: the port is taken, or the address is not this machine's") from None
        await self.health.start()
        self.readiness.attach(self.health)
        await server.start()
        self._server = server
        await self.health.set_ready(self.readiness.ready, self.readiness.reason)

    def _metrics(self) -> CallMetrics | None:
        port = self._settings.metrics_port()
        if not port:
            return None
        # Here, since few servers are told to count: the library costs each process 20 ms and 2 MB.
        from trademesh_kernel.telemetry import CallMetrics

        metrics = CallMetrics()
        try:
            metrics.serve(port)
        except OSError as error:
            raise BindError(f"cannot bind 127.0.0.1:{port} for metrics: {error.strerror}") from None
        return metrics

    async def calls_done(self, within_s: float) -> bool:
        """Waits until no bounded call is in hand, while health is still told: who watches it would keep `stop` waiting and learn nothing."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while self._load.calls and loop.time() < deadline:  # noqa: ASYNC110  # counting is all that a call pays for it
            await asyncio.sleep(0.01)
        return not self._load.calls

    async def stop(self, *, drain_delay_s: float | None = None, grace_s: float | None = None) -> None:
        """Drains and stops; a second call waits for the first."""
        if self._server is None:
            return
        await self.health.drain()
        for end_streams in self.drain_hooks:
            end_streams()
        await asyncio.sleep(self._settings.drain_delay_s if drain_delay_s is None else drain_delay_s)
        await self._server.stop(self._settings.drain_grace_s if grace_s is None else grace_s)


Start = Callable[[MeshServer], Awaitable[None]]
"""Work to begin once a server is up, for example connecting to what its readiness waits for."""

Close = Callable[[], Awaitable[None]]
"""Something to close after the server has stopped."""


@dataclass(frozen=True)
class Assembly:
    """What a service is made of, built inside the running loop."""

    registrations: Sequence[Registration]
    readiness: Readiness | None = None
    started: Start | None = None
    drain_hooks: Sequence[Callable[[], None]] = ()
    closers: Sequence[Close] = ()


def run_service(name: str, settings: ServerSettings, assemble: Callable[[], Awaitable[Assembly]]) -> None:
    """Runs a service until SIGTERM or SIGINT, and ends the process with its status."""
    faulthandler.enable()
    configure_logs(name, log_format=settings.log_format, level=settings.log_level)
    try:
        asyncio.run(_serve(settings, assemble))
    except BindError as error:
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(EXIT_CONFIG) from None
    except StartError as error:
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(EXIT_IO) from None


async def _serve(settings: ServerSettings, assemble: Callable[[], Awaitable[Assembly]]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        assembly = await assemble()
    except (OSError, sqlite3.Error) as error:
        raise StartError(f"cannot start: {error}") from error
    server = MeshServer(settings, assembly.registrations, readiness=assembly.readiness)
    server.drain_hooks += assembly.drain_hooks
    try:
        await server.start()
        get_logger("server").info("listening", target=server.target)
        if assembly.started is not None:
            await assembly.started(server)
        await stopped.wait()
    finally:
        await server.stop()
        for close in assembly.closers:
            await close()
