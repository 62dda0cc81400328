"""How commands call the mesh: one asyncio.run per command, errors as one clear line and a fitting exit status."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
import typer
from google.protobuf import json_format
from google.protobuf.message import Message

from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import DeadlinePassed, DependencyUnavailable, RemoteError, TrademeshError
from trademesh_kernel.settings import MeshSettings, load_settings

Answer = TypeVar("Answer")

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 4
EXIT_UNAVAILABLE = 69

_CODES = {
    grpc.StatusCode.NOT_FOUND: EXIT_NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT: EXIT_USAGE,
    grpc.StatusCode.UNAVAILABLE: EXIT_UNAVAILABLE,
}


def settings() -> MeshSettings:
    """Targets from the environment."""
    return load_settings(MeshSettings)


def runtime_client() -> ServiceClient:
    """A client of runtime_service; create it inside the running loop."""
    return ServiceClient(settings().runtime_target, "runtime_service")


def call(work: Callable[[], Awaitable[Answer]]) -> Answer:
    """Runs a command's work; an error of the mesh ends the command with one line for each fault."""
    try:
        return asyncio.run(_awaited(work))
    except RemoteError as error:
        fail(error.message if not error.violations else "", error, _CODES.get(error.remote_code, EXIT_FAILED))
    except (DependencyUnavailable, DeadlinePassed) as error:
        fail(f"{error.message} (start the mesh with `trademesh up`)", error, EXIT_UNAVAILABLE)
    except TrademeshError as error:
        fail(error.message, error, EXIT_FAILED)


async def _awaited(work: Callable[[], Awaitable[Answer]]) -> Answer:
    return await work()


def fail(message: str, error: TrademeshError | None, status: int) -> NoReturn:
    """Prints what is wrong on stderr and ends the command."""
    for violation in error.violations if error is not None else ():
        print(f"error: {violation.field}: {violation.description}", file=sys.stderr)
    if message:
        print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(status)


def as_record(message: Message) -> dict[str, Any]:
    """A message as plain JSON types, with the contract's own field names."""
    record: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return record


def plain(text: str) -> str:
    """A text of others on one line of a terminal: what is not to be printed there, such as an escape sequence, is a space."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def print_json_line(content: Any) -> None:
    """One JSON document on one line of stdout, at once: for streams that another program reads."""
    print(json.dumps(content, separators=(",", ":")), flush=True)


def print_json(content: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(content, indent=2))
