"""Settings of runtime_service."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from trademesh_kernel.settings import ListenValidator, ServerSettings
from trademesh_runtime.policy import Timers

LEAST_S = {
    "start_deadline_s": 8.0,
    "start_cap_s": 20.0,
    "adopt_s": 3.0,
    "probe_timeout_s": 0.3,
    "tolerated_lag_s": 0.1,
    "ending_s": 4.0,
    "abort_s": 0.3,
    "terminate_s": 2.0,
    "kill_s": 0.5,
}
"""Below these a time-out that is scaled down would measure how busy the machine is, and not the gateway."""


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
    gateway_command: str = ""
    """The command that starts a gateway, for a profiler or another interpreter; it finds its ticket as `python -m trademesh_gateway` does.
    Empty: that one, by this Python."""
    gateway_bind: str = "127.0.0.1:0"
    """Where gateways bind."""
    gateway_advertise: str = ""
    """Host by which others reach gateways; empty: the one that they bind."""

    def live_gateway_limit(self) -> int:
        """Most live gateways."""
        return self.runtime_max_gateways or max(32, 4 * (os.cpu_count() or 1))

    def gateway_arguments(self) -> list[str]:
        """The command that starts a gateway, in parts; none for the usual one."""
        return shlex.split(self.gateway_command)

    def timers(self) -> Timers:
        """Time-outs of supervision."""
        plain = Timers()
        names = [name for name in Timers.__dataclass_fields__ if name.endswith("_s")]
        scaled = {name: max(getattr(plain, name) * self.runtime_timer_scale, LEAST_S.get(name, 0.0)) for name in names}
        return replace(plain, **scaled)
