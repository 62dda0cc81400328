"""Writes the tables of PROTOCOL.md from the contract, the settings and the allow-list: `python -m trademesh_edge.protocol_page`.

What a frame or a close code means stands here, once; a test compares the page with what this module makes of it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from trademesh.edge.v1 import frame_pb2
from trademesh_edge.methods import ALLOWED_METHODS
from trademesh_edge.settings import EdgeSettings

PAGE = Path(__file__).with_name("PROTOCOL.md")
FIRST_OF_EDGE = 10
"""Kinds of frames below this number are a browser's."""

FRAMES = {
    "hello": "First frame, once, soon after the handshake. `token` if the edge wants one.",
    "call": "Begins a call. `id` is yours: above zero, not in use on this socket. `method` is the full gRPC name, `request` its message.",
    "cancel": "Ends a call; its id and its place are free at once, and no `status` follows.",
    "ping": "Asks for a `pong` with the same `nonce`. Beside it the edge sends WebSocket pings, which browsers answer by themselves.",
    "pace": "Speed of a `Subscribe` call, see below. Exactly one of its three actions.",
    "welcome": "The answer to `hello`, with the limits that hold.",
    "opened": "Messages of call `id` come on `channel` from now on. May come again: calls that ask the same share a channel while they are at "
    "the head.",
    "message": "A message of a channel: `payload` is the method's response.",
    "status": "A call has ended: gRPC `code`, 0 is OK. `details` is a google.rpc.Status. `retry_after_ms` only where a retry can help.",
    "pong": "The answer to `ping`.",
    "upstream": "The feed on this channel has lost its source (`LOST`), or has it again (`CONNECTED`). Nothing is missed: it goes on where it "
    "was. A new channel is connected until this says otherwise.",
}

CLOSE_CODES = {
    1000: ("", "closed by you", "nothing"),
    1001: ("", "going away", "nothing"),
    1002: ("", "broken WebSocket frames", "stop"),
    1006: ("", "no close frame came: a dead edge, a network, or a handshake that was refused", "come back, with growing waits and chance"),
    1007: ("", "text that is not UTF-8", "stop"),
    1009: ("", "a frame above `max_frame_bytes`", "stop"),
    1011: ("", "no pong in time, or a fault of the edge", "come back with the cursor"),
    1012: ("", "the edge restarts; the reason is `retry_after_ms=N`, another N for everyone", "come back after N ms with the cursor"),
    1013: ("", "the edge is full; this version says so in the handshake, with HTTP 503", "come back later"),
    4400: ("CLOSE_CODE_PROTOCOL", "frames that are none, or in the wrong order", "stop"),
    4401: ("CLOSE_CODE_UNAUTHENTICATED", "no hello in time, or without the token", "stop"),
    4403: ("CLOSE_CODE_FORBIDDEN", "kept for clients that may not be here; this version refuses them in the handshake", "stop"),
    4408: ("CLOSE_CODE_SLOW", "too little was taken in for too long", "come back with the cursor"),
    4429: ("CLOSE_CODE_RATE", "too many frames", "come back later"),
}


def tables() -> dict[str, str]:
    """The tables by the name of their place in the page."""
    return {"frames": _frames(), "close codes": _close_codes(), "limits": _limits(), "methods": _methods()}


def rendered(page: str) -> str:
    """The page with its tables made anew."""
    for name, table in tables().items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        page, count = re.subn(pattern, lambda found, table=table: f"{found[1]}{table}{found[2]}", page, flags=re.DOTALL)  # type: ignore[misc]  # a lambda with a default
        if count != 1:
            raise ValueError(f"the page has {count} places for {name}")
    return page


def _frames() -> str:
    rows = list[list[str]]()
    for field in frame_pb2.EdgeFrame.DESCRIPTOR.oneofs_by_name["kind"].fields:
        kind: Any = field.message_type
        content = ", ".join(f"`{one.name}`" for one in kind.fields)
        rows.append([f"`{field.name}`", "you" if field.number < FIRST_OF_EDGE else "edge", content, FRAMES[field.name]])
    return _table(["frame", "from", "content", "meaning"], rows)


def _close_codes() -> str:
    ours = {value.number: value.name for value in frame_pb2.CloseCode.DESCRIPTOR.values if value.number}
    if ours != {code: name for code, (name, _, _) in CLOSE_CODES.items() if name}:
        raise ValueError("CLOSE_CODES and the contract's CloseCode differ")
    return _table(["code", "meaning", "you"], [[str(code), meaning, then] for code, (_, meaning, then) in CLOSE_CODES.items()])


def _limits() -> str:
    rows = list[list[str]]()
    for name, field in EdgeSettings.model_fields.items():
        if name.startswith("edge_"):
            rows.append([f"`TRADEMESH_{name.upper()}`", _shown(field.default), field.description or ""])
    return _table(["setting", "default", "meaning"], rows)


def _methods() -> str:
    services = dict[str, list[str]]()
    for method in ALLOWED_METHODS.values():
        service, name = method.name.removeprefix("/").split("/")
        services.setdefault(service, []).append(f"{name} (stream)" if method.server_streaming else name)
    return _table(["service", "methods"], [[f"`{service}`", ", ".join(names)] for service, names in services.items()])


def _shown(value: Any) -> str:
    plain = value.get_secret_value() if isinstance(value, SecretStr) else value
    if plain == "":
        return "none"
    return f"{plain:,}" if isinstance(plain, int) else f"{plain:g}" if isinstance(plain, float) else f"`{plain}`"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Rewrites the page."""
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
