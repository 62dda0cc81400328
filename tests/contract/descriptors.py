"""All descriptors of trademesh, from the generated modules, and their comments, from the sources."""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FileDescriptor, MethodDescriptor

import trademesh

ROOT = Path(__file__).resolve().parents[2]


@cache
def files() -> tuple[FileDescriptor, ...]:
    """Every file of ours."""
    roots = [Path(folder) for folder in trademesh.__path__]
    found = {".".join(path.relative_to(root.parent).with_suffix("").parts) for root in roots for path in root.rglob("*_pb2.py")}
    return tuple(importlib.import_module(name).DESCRIPTOR for name in sorted(found))


def messages() -> Iterator[Descriptor]:
    """Every message, nested ones too."""
    waiting = [message for file in files() for message in file.message_types_by_name.values()]
    while waiting:
        message = waiting.pop()
        waiting += message.nested_types
        if not message.GetOptions().map_entry:
            yield message


def services() -> list[Any]:
    """Every service."""
    return [service for file in files() for service in file.services_by_name.values()]


def methods() -> list[MethodDescriptor]:
    """Every method."""
    return [method for service in services() for method in service.methods]


@cache
def with_sources() -> descriptor_pb2.FileDescriptorSet:
    """The contracts with their comments."""
    outcome = subprocess.run(
        ["buf", "build", "--path", "proto/trademesh", "-o", "-"], cwd=ROOT, capture_output=True, timeout=60, check=True
    )
    return descriptor_pb2.FileDescriptorSet.FromString(outcome.stdout)


def uncommented() -> Iterator[str]:
    """What has no comment before it: services, methods, messages, fields, enums and their values."""
    for file in with_sources().file:
        if not file.package.startswith("trademesh."):
            continue
        said = {tuple(location.path): location.leading_comments.strip() for location in file.source_code_info.location}
        for path, name in _named(file):
            if not said.get(path):
                yield f"{file.package}.{name}"


def comments_of_enum(full_name: str) -> dict[str, str]:
    """The comment of each value of an enum."""
    for file in with_sources().file:
        said = {tuple(location.path): location.leading_comments for location in file.source_code_info.location}
        for place, enumeration in enumerate(file.enum_type):
            if f"{file.package}.{enumeration.name}" == full_name:
                return {value.name: said.get((5, place, 2, number), "") for number, value in enumerate(enumeration.value)}
    raise KeyError(full_name)


Path_ = tuple[int, ...]


def _named(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[Path_, str]]:
    for place, service in enumerate(file.service):
        yield (6, place), service.name
        for number, method in enumerate(service.method):
            yield (6, place, 2, number), f"{service.name}.{method.name}"
    for place, enumeration in enumerate(file.enum_type):
        yield from _enum((5, place), enumeration, "")
    for place, message in enumerate(file.message_type):
        yield from _message((4, place), message, "")


def _message(path: Path_, message: descriptor_pb2.DescriptorProto, prefix: str) -> Iterator[tuple[Path_, str]]:
    if message.options.map_entry:
        return
    name = f"{prefix}{message.name}"
    yield path, name
    for number, field in enumerate(message.field):
        yield (*path, 2, number), f"{name}.{field.name}"
    for number, nested in enumerate(message.nested_type):
        yield from _message((*path, 3, number), nested, f"{name}.")
    for number, enumeration in enumerate(message.enum_type):
        yield from _enum((*path, 4, number), enumeration, f"{name}.")


def _enum(path: Path_, enumeration: descriptor_pb2.EnumDescriptorProto, prefix: str) -> Iterator[tuple[Path_, str]]:
    name = f"{prefix}{enumeration.name}"
    yield path, name
    for number, value in enumerate(enumeration.value):
        yield (*path, 2, number), f"{name}.{value.name}"
