"""Settings of the edge, from `TRADEMESH_EDGE_*` and the targets that every process knows. PROTOCOL.md has a table of them, made from here."""

from __future__ import annotations

from pydantic import Field, SecretStr

from trademesh_kernel.settings import ListenValidator, MeshSettings, is_loopback


class EdgeSettings(ListenValidator, MeshSettings):
    """What the edge is told, and its bounds."""

    edge_listen: str = Field("127.0.0.1:8765", description="Where the edge binds.")
    edge_origins: str = Field("", description="More origins whose pages may connect, separated by commas. The edge's own always may.")
    edge_token: SecretStr = Field(SecretStr(""), description="If set, every hello must carry it.")
    edge_trusted_proxies: str = Field("", description="Addresses, separated by commas, for which no limit per address holds.")
    allow_insecure: bool = False
    """Lets the edge bind an address that others can reach, without credentials."""

    edge_max_sockets: int = Field(2_000, ge=1, description="Sockets open at once.")
    edge_max_sockets_per_address: int = Field(50, ge=1, description="Sockets open at once from one address; not from loopback.")
    edge_max_handshakes_per_s: int = Field(200, ge=1, description="Handshakes in one second.")
    edge_max_handshakes_per_s_per_address: int = Field(
        20, ge=1, description="Handshakes in one second from one address; not from loopback."
    )
    edge_max_open_handshakes: int = Field(
        256,
        ge=1,
        description="Connections that have not sent their request yet. Above it the oldest are cut, once they are half a second old.",
    )
    edge_max_calls: int = Field(32, ge=1, description="Calls open at once on a socket.")
    edge_max_frame_bytes: int = Field(64 * 1024, ge=1024, description="Largest frame from a browser.")
    edge_max_messages_per_s: float = Field(20.0, gt=0, description="Frames from one browser; a burst of two seconds' worth is let through.")

    edge_open_timeout_s: float = Field(5.0, gt=0, description="How long a handshake may take.")
    edge_hello_timeout_s: float = Field(5.0, gt=0, description="How long a browser may take from the handshake to its hello.")
    edge_ping_interval_s: float = Field(10.0, gt=0, description="How often a browser is pinged.")
    edge_ping_timeout_s: float = Field(10.0, gt=0, description="How long its pong may take.")
    edge_stall_timeout_s: float = Field(
        30.0, gt=0, description="A browser that takes so long to take in one frame is closed. It may come back with its cursor."
    )
    edge_close_timeout_s: float = Field(2.0, gt=0, description="How long a browser may take to answer a close; then it is cut off.")
    edge_restart_spread_s: float = Field(5.0, ge=0, description="Over how long browsers are told to come back when the edge goes down.")
    edge_unary_timeout_s: float = Field(60.0, gt=0, description="Deadline of unary calls.")

    edge_slow_buffer_bytes: int = Field(64 * 1024, ge=0, description="A browser with more than this unsent leaves the fast lane.")
    edge_flush_interval_s: float = Field(
        0.025, ge=0, description="Frames of a run's events follow each other no faster: what comes meanwhile shares one."
    )
    edge_flush_events: int = Field(16, ge=1, description="So many waiting events are sent at once.")
    edge_checkpoint_interval_s: float = Field(5.0, gt=0, description="An idle stream says that it lives so often.")
    edge_ring_events: int = Field(8_192, ge=1, description="Events of a run that are held in memory.")
    edge_ring_bytes: int = Field(8 * 1024 * 1024, ge=1, description="Their bytes.")
    edge_history_streams: int = Field(16, ge=1, description="Browsers of one run that read history from upstream at once; others wait.")
    edge_max_replays: int = Field(64, ge=1, description="Browsers of one run with a pace of their own; others are refused.")
    edge_max_runs: int = Field(256, ge=1, description="Runs that browsers follow at once.")
    edge_quote_interval_s: float = Field(0.1, ge=0.1, description="How often quotes are asked for upstream.")
    edge_upstream_idle_s: float = Field(12.0, gt=0, description="A feed that is silent for so long, without a checkpoint, is lost.")
    edge_hub_linger_s: float = Field(30.0, ge=0, description="How long a run's upstream is kept after its last browser has gone.")
    edge_route_ttl_s: float = Field(2.0, ge=0, description="How long the answer of GetRun is believed.")

    @property
    def allowed_origins(self) -> frozenset[str]:
        """The origins of `edge_origins`, without trailing slashes."""
        return frozenset(origin.rstrip("/").lower() for origin in _listed(self.edge_origins))

    @property
    def trusted_proxies(self) -> frozenset[str]:
        """The addresses of `edge_trusted_proxies`."""
        return frozenset(_listed(self.edge_trusted_proxies))

    @property
    def on_loopback(self) -> bool:
        """True if only this machine can reach the edge."""
        return is_loopback(self.edge_listen)


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
