"""grpc.health.v1 for a server: per service name and "", starting NOT_SERVING and following named conditions of readiness."""

from __future__ import annotations

from collections.abc import Iterable

from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

from trademesh_kernel.logs import get_logger

LIVENESS = "trademesh.liveness"
"""Health name that tells progress, and stays SERVING while a server is not ready or drains."""


class Readiness:
    """Conditions that must all hold before the server is SERVING, each with a reason while it does not."""

    def __init__(self, *conditions: str) -> None:
        self._waiting: dict[str, str] = dict.fromkeys(conditions, "not yet")
        self._health: Health | None = None

    def attach(self, health: Health) -> None:
        """Makes the health of a server follow these conditions."""
        self._health = health

    @property
    def ready(self) -> bool:
        """True if every condition holds."""
        return not self._waiting

    @property
    def reason(self) -> str:
        """What is waited for; empty if nothing is."""
        return "; ".join(f"{condition}: {why}" for condition, why in sorted(self._waiting.items()))

    async def hold(self, condition: str) -> None:
        """Says that a condition holds."""
        if self._waiting.pop(condition, None) is not None:
            await self._publish()

    async def fail(self, condition: str, why: str) -> None:
        """Says that a condition does not hold, and why."""
        if self._waiting.get(condition) != why:
            self._waiting[condition] = why
            await self._publish()

    async def _publish(self) -> None:
        if self._health is not None:
            await self._health.set_ready(self.ready, self.reason)


class Health:
    """The health service of one server."""

    def __init__(self, service_names: Iterable[str]) -> None:
        self.servicer = HealthServicer()
        self._names = ["", *service_names]
        self._ready: bool | None = None
        self._draining = False

    async def start(self) -> None:
        """Everything NOT_SERVING, liveness SERVING."""
        for name in self._names:
            await self.servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        await self.servicer.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)

    async def set_ready(self, ready: bool, reason: str = "") -> None:
        """Turns all service names together; each change is logged with its reason."""
        if self._draining or ready == self._ready:
            return
        self._ready = ready
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self.servicer.set(name, status)
        get_logger("health").info("serving" if ready else "not serving", reason=reason)

    async def set_liveness(self, alive: bool) -> None:
        """Turns the name that tells progress."""
        status = health_pb2.HealthCheckResponse.SERVING if alive else health_pb2.HealthCheckResponse.NOT_SERVING
        await self.servicer.set(LIVENESS, status)

    async def drain(self) -> None:
        """NOT_SERVING for good; liveness stays."""
        await self.set_ready(False, "draining")
        self._draining = True
