"""Settings of the edge, from `TRADEMESH_EDGE_*` and the targets that every process knows."""

from __future__ import annotations

from pydantic import Field

from trademesh_kernel.settings import ListenValidator, MeshSettings, is_loopback


class EdgeSettings(ListenValidator, MeshSettings):
    """What the edge is told, and its bounds."""

    edge_listen: str = "127.0.0.1:8765"
    edge_origins: str = ""
    """More origins whose pages may connect, separated by commas, for example `https://desk.example`. The edge's own always may."""
    allow_insecure: bool = False
    """Lets the edge bind an address that others can reach, without credentials."""

    edge_hello_timeout_s: float = Field(default=5.0, gt=0)
    """How long a browser may take from the handshake to its hello."""
    edge_stall_timeout_s: float = Field(default=30.0, gt=0)
    """A browser that takes in nothing for so long is cut off: a close frame would wait behind what it does not read. It may come back
    with its cursor."""
    edge_unary_timeout_s: float = Field(default=60.0, gt=0)
    """Deadline of unary calls."""
    edge_max_sockets: int = Field(default=2_000, ge=1)
    edge_max_sockets_per_address: int = Field(default=50, ge=1)
    """Not for loopback addresses."""
    edge_max_handshakes_per_s: int = Field(default=200, ge=1)
    edge_max_calls: int = Field(default=32, ge=1)
    """Calls open at once on a socket."""
    edge_max_frame_bytes: int = Field(default=64 * 1024, ge=1024)
    """Largest frame from a browser."""
    edge_max_messages_per_s: float = Field(default=20.0, gt=0)
    """From one browser; a burst of two seconds' worth is let through."""
    edge_slow_buffer_bytes: int = Field(default=64 * 1024, ge=0)
    """A browser with more than this unsent leaves the fast lane."""
    edge_flush_interval_s: float = Field(default=0.025, ge=0)
    """How long events wait for others to share a frame with."""
    edge_flush_events: int = Field(default=16, ge=1)
    """So many waiting events are sent at once."""
    edge_checkpoint_interval_s: float = Field(default=5.0, gt=0)
    """An idle stream says that it lives so often."""
    edge_ring_events: int = Field(default=8_192, ge=1)
    edge_ring_bytes: int = Field(default=8 * 1024 * 1024, ge=1)
    edge_history_streams: int = Field(default=16, ge=1)
    """Browsers of one run that may read history from upstream at once; others wait."""
    edge_hub_linger_s: float = Field(default=30.0, ge=0)
    """How long a run's upstream is kept after its last browser has gone."""
    edge_route_ttl_s: float = Field(default=2.0, ge=0)
    """How long the answer of GetRun is believed."""

    @property
    def allowed_origins(self) -> frozenset[str]:
        """The origins of `edge_origins`, without trailing slashes."""
        return frozenset(origin.strip().rstrip("/").lower() for origin in self.edge_origins.split(",") if origin.strip())

    @property
    def on_loopback(self) -> bool:
        """True if only this machine can reach the edge."""
        return is_loopback(self.edge_listen)
