"""What the environment says to a gateway. Everything else comes with its launch ticket and its run's BOOTSTRAP.md."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings

from trademesh_kernel.settings import MeshSettings


class GatewaySettings(MeshSettings):
    """Settings of gateways; runtime_service passes its environment on to them."""

    gateway_least_free_bytes: int = Field(default=128 * 1024 * 1024, ge=0)
    """With less room on the file system of the run its pipeline pauses."""


class ExportSettings(BaseSettings):
    """What the environment says about derived files."""

    enable_dashboard_compat_exports: bool = True
    """ENABLE_DASHBOARD_COMPAT_EXPORTS: whether `team_dashboard/*.json` are written."""
