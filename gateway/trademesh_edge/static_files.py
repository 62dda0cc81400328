"""The page's built files, held in memory, and the HTTP answers that carry them."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

_SECURITY = {
    # uPlot sets sizes by style attributes; everything else of the page is in files of ours.
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self' ws: wss:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class StaticFile:
    """One file as it is sent."""

    content: bytes
    content_type: str
    etag: str
    immutable: bool
    """True if its name changes with its content."""


def load_static_files() -> dict[str, StaticFile]:
    """All files of the page, by the path of their address."""
    files = dict[str, StaticFile]()
    _load(resources.files("trademesh_edge").joinpath("static"), "", files)
    if "/index.html" in files:
        files["/"] = files["/index.html"]
    return files


def _load(folder: Traversable, prefix: str, files: dict[str, StaticFile]) -> None:
    for entry in folder.iterdir():
        path = f"{prefix}/{entry.name}"
        if entry.is_dir():
            _load(entry, path, files)
            continue
        content = entry.read_bytes()
        kind = mimetypes.guess_type(entry.name)[0] or "application/octet-stream"
        if kind.startswith("text/") or kind == "application/javascript":
            kind += "; charset=utf-8"
        etag = '"' + hashlib.sha256(content).hexdigest()[:32] + '"'
        files[path] = StaticFile(content, kind, etag, immutable=prefix.startswith("/assets"))


def answer(status: int, reason: str, body: bytes = b"", **headers: str) -> Response:
    """An HTTP answer; the connection closes after it. Underscores in header names stand for hyphens."""
    fields = {"Content-Length": str(len(body)), "Connection": "close", **_SECURITY}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, reason, Headers(fields), body)


def file_answer(file: StaticFile, request: Request) -> Response:
    """A file, or 304 if the browser has it."""
    cache = "public, max-age=31536000, immutable" if file.immutable else "no-cache"
    if request.headers.get("If-None-Match") == file.etag:
        return answer(304, "Not Modified", ETag=file.etag, Cache_Control=cache)
    return answer(200, "OK", file.content, Content_Type=file.content_type, ETag=file.etag, Cache_Control=cache)
