"""Where trading_service and the importer keep users' own sets, and where live quotes come from."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from trademesh_kernel.settings import is_loopback


class DataSettings(BaseSettings):
    """Settings of all that reads or writes imported sets."""

    model_config = SettingsConfigDict(env_prefix="TRADEMESH_", extra="ignore", env_ignore_empty=True)

    data_dir: Path = Path("data")

    def imported_sets(self) -> Path:
        """Where `trademesh data import` puts sets: `<data_dir>/sets/`. The folder may be absent."""
        return self.data_dir / "sets"


class QuoteSettings(BaseSettings):
    """Settings of live quotes."""

    model_config = SettingsConfigDict(env_prefix="TRADEMESH_", extra="ignore", env_ignore_empty=True)

    finnhub_api_key: SecretStr | None = None
    """Key of finnhub.io; without one there are no live quotes. Never logged."""
    quotes_url: str = "wss://ws.finnhub.io"
    """Where the provider is, or another that speaks its protocol."""
    quotes_max_symbols: int = Field(default=50, ge=1, le=5000)
    """Most tickers at once. 50 is what a key without a plan may have."""
    quotes_idle_s: float = Field(default=150.0, gt=0, le=3600)
    """A provider that says nothing for so long is connected to again. It says `ping` every one or two minutes."""
    quotes_stale_s: float = Field(default=60.0, gt=0, le=86_400)
    """A quote whose trade is older is stale."""
    quotes_linger_s: float = Field(default=300.0, ge=0, le=86_400)
    """How long the trades of a ticker are still taken in after the last who wanted them has gone."""

    @field_validator("quotes_url")
    @classmethod
    def _encrypted(cls, value: str) -> str:
        parts = urlsplit(value)
        host = parts.hostname or ""
        if parts.scheme not in ("ws", "wss") or not host:
            raise ValueError("is not the address of a WebSocket, for example wss://ws.finnhub.io")
        if parts.scheme == "ws" and not is_loopback(f"[{host}]:0" if ":" in host else f"{host}:0"):
            raise ValueError("would send the key over the network in the clear: use wss://")
        return value
