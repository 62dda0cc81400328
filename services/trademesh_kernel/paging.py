"""Opaque page tokens, bound to the call and filter that they were made for (AIP-158)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from trademesh_kernel.errors import PageTokenInvalid

PAGE_BYTES = 1024 * 1024
"""A page ends here, also where more was asked for: gRPC clients take in 4 MiB by default."""

_FILTER_BYTES = 8
_PLACE_FIELDS = frozenset({"page_token", "page_size", "resume_after"})

Item = TypeVar("Item")


def page_token(request: Message, position: list[str | int]) -> str:
    """A token for the page that begins after `position` of the list that `request` asks for."""
    body = json.dumps(position, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_filter_hash(request) + body).decode().rstrip("=")


def read_page_token(request: Message, token: str) -> list[str | int] | None:
    """The position in a token; None for the first page.

    Raises:
        PageTokenInvalid: the token is damaged, or was made for another call or filter.
    """
    if not token:
        return None
    method = request.DESCRIPTOR.name.removesuffix("Request")
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        position = json.loads(raw[_FILTER_BYTES:])
    except (binascii.Error, ValueError):
        raise PageTokenInvalid(method) from None
    if raw[:_FILTER_BYTES] != _filter_hash(request) or not isinstance(position, list):
        raise PageTokenInvalid(method)
    return position


def read_page_place(request: Message, token: str) -> int | None:
    """The position in a token of one whole number, not below zero; None for the first page. Raises as `read_page_token`."""
    position = read_page_token(request, token)
    if position is None:
        return None
    match position:
        case [int() as place] if place >= 0 and not isinstance(place, bool):
            return place
    raise PageTokenInvalid(request.DESCRIPTOR.name.removesuffix("Request"))


def fitting(items: Sequence[Item], size_of: Callable[[Item], int], most_bytes: int = PAGE_BYTES) -> Sequence[Item]:
    """The longest beginning of a page that a client with gRPC's default limits can receive; at least one item."""
    size = 0
    for place, item in enumerate(items):
        size += size_of(item)
        if size > most_bytes and place:
            return items[:place]
    return items


def _filter_hash(request: Message) -> bytes:
    """Hash of everything in a request but its page, or the place from which a stream goes on."""
    same = type(request)()
    same.CopyFrom(request)
    for field in _PLACE_FIELDS.intersection(request.DESCRIPTOR.fields_by_name):
        same.ClearField(field)
    name = request.DESCRIPTOR.full_name.encode()
    return hashlib.sha256(name + b"\0" + same.SerializeToString(deterministic=True)).digest()[:_FILTER_BYTES]
