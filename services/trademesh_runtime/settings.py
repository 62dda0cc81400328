"""Settings of runtime_service."""

from __future__ import annotations

import os
from typing import ClassVar

from pydantic import Field

from trademesh_kernel.settings import ListenValidator, ServerSettings
from trademesh_runtime.policy import Timers


class RuntimeSettings(ListenValidator, ServerSettings):
    """Settings of runtime_service."""

    service: ClassVar[str] = "runtime"

    runtime_listen: str = "127.0.0.1:8003"
    runtime_metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port of the Prometheus counters on 127.0.0.1; 0 = off."""
    runtime_keep_gateways: bool = False
    """True: SIGTERM leaves gateways alive, to be adopted by the next runtime_service."""
    runtime_max_gateways: int = Field(default=0, ge=0)
    """Most live gateways; 0: 32, or four for each core if that is more."""
    runtime_max_queued: int = Field(default=64, ge=0)
    """Most runs that wait until another ends; one more is refused."""
    runtime_least_free_bytes: int = Field(default=512 * 1024 * 1024, ge=0)
    """With less room than this on the disk no run is begun."""
    runtime_most_log_bytes: int = Field(default=64 * 1024 * 1024, ge=64 * 1024)
    """A gateway's log that is larger is cut: the last quarter of so much is kept beside it."""
    runtime_timer_scale: float = Field(default=1.0, gt=0, le=1)
    """Scales every time-out of supervision down, for tests."""
    gateway_bind: str = "127.0.0.1:0"
    """Where gateways bind."""
    gateway_advertise: str = ""
    """Host by which others reach gateways; empty: the one that they bind."""

    def live_gateway_limit(self) -> int:
        """Most live gateways."""
        return self.runtime_max_gateways or max(32, 4 * (os.cpu_count() or 1))

    def timers(self) -> Timers:
        """Time-outs of supervision."""
        scale, plain = self.runtime_timer_scale, Timers()
        scaled = {name: getattr(plain, name) * scale for name in Timers.__dataclass_fields__ if name.endswith("_s")}
        return Timers(**scaled, probe_failures=plain.probe_failures, crash_limit=plain.crash_limit)
