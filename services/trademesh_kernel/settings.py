"""Settings from the environment, checked at start with every fault named at once.

Each service has a class of its own; `TRADEMESH_<SERVICE>_LISTEN` says where it binds, `TRADEMESH_<SERVICE>_TARGET` where others find
it (any gRPC target). A variable of ours that nobody knows is not an error: other processes of the mesh may know it.
"""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

EXIT_CONFIG = 78
"""Exit status for a bad setting (EX_CONFIG of sysexits.h)."""

EXIT_IO = 74
"""Exit status for files that cannot be read or written (EX_IOERR)."""

DEFAULT_PORTS = {"agent": 8000, "trading": 8001, "news": 8002, "runtime": 8003, "edge": 8765}
"""Ports of the services."""


class MeshSettings(BaseSettings):
    """What every process of the mesh knows."""

    model_config = SettingsConfigDict(env_prefix="TRADEMESH_", extra="ignore", env_ignore_empty=True)

    agent_target: str = "dns:///127.0.0.1:8000"
    trading_target: str = "dns:///127.0.0.1:8001"
    news_target: str = "dns:///127.0.0.1:8002"
    runtime_target: str = "dns:///127.0.0.1:8003"
    runs_dir: Path = Path("runs")
    workspaces_dir: Path = Path("workspaces")
    log_format: str = Field(default="auto", pattern="^(auto|json|console)$")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")


class ServerSettings(MeshSettings):
    """What every gRPC server knows besides. A service's own class adds `<service>_listen` and `<service>_metrics_port`."""

    service: ClassVar[str] = ""
    """First part of the names of the settings that a service has alone, for example `news`."""

    allow_insecure: bool = False
    """Lets the server bind an address that others can reach, without credentials."""
    default_deadline_s: float = Field(default=30.0, gt=0, le=86_400)
    """Deadline of unary calls whose client sets none."""
    slow_call_s: float = Field(default=1.0, gt=0, le=86_400)
    """Unary calls that take longer are logged."""
    drain_delay_s: float = Field(default=0.2, ge=0, le=3_600)
    """How long the server says NOT_SERVING before it refuses calls, so that balancers see it."""
    drain_grace_s: float = Field(default=5.0, ge=0, le=3_600)
    """How long calls in flight may take after that."""
    max_message_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, le=2**31 - 1)
    max_concurrent_rpcs: int = Field(default=2000, ge=1, le=1_000_000)
    """Above this, calls are refused with RESOURCE_EXHAUSTED. Streams count; health checks and the supervisor's calls do not."""

    def listen_address(self) -> str:
        """Where this server binds, `host:port`."""
        return str(getattr(self, f"{self.service}_listen"))

    def metrics_port(self) -> int:
        """Port of this server's Prometheus counters on 127.0.0.1; 0 = off."""
        return int(getattr(self, f"{self.service}_metrics_port", 0))


def checked_listen(value: str) -> str:
    """A `host:port` to bind.

    Raises:
        ValueError: it is not one.
    """
    host, separator, port = value.rpartition(":")
    bare_ipv6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not separator or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535 or bare_ipv6:
        raise ValueError("is not host:port, for example 127.0.0.1:8000 or [::1]:8000")
    return value


def is_loopback(listen: str) -> bool:
    """True if only this machine can reach the address."""
    host = listen.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


AnySettings = TypeVar("AnySettings", bound=BaseSettings)


def load_settings(settings_class: type[AnySettings]) -> AnySettings:
    """Reads the environment; on a fault names every variable at fault on stderr and ends the process with status 78."""
    try:
        return settings_class()
    except ValidationError as error:
        prefix = str(settings_class.model_config.get("env_prefix", ""))
        for fault in error.errors():
            name = prefix + "_".join(str(part) for part in fault["loc"]).upper()
            print(f"{name}: {fault['msg']} (is {fault['input']!r})", file=sys.stderr)
        raise SystemExit(EXIT_CONFIG) from None


class ListenValidator:
    """Mixed into settings that have a field ending in `_listen` or `_bind`: checks its form."""

    @field_validator("*", mode="after", check_fields=False)
    @classmethod
    def _listen_is_an_address(cls, value: object, info: object) -> object:
        name = getattr(info, "field_name", "")
        return checked_listen(value) if isinstance(value, str) and name.endswith(("_listen", "_bind")) else value
