"""Where trading_service and the importer keep users' own sets."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class DataSettings(BaseSettings):
    """Settings of all that reads or writes imported sets."""

    model_config = SettingsConfigDict(env_prefix="TRADEMESH_", extra="ignore", env_ignore_empty=True)

    data_dir: Path = Path("data")

    def imported_sets(self) -> Path:
        """Where `trademesh data import` puts sets: `<data_dir>/sets/`. The folder may be absent."""
        return self.data_dir / "sets"
