"""BOOTSTRAP.md: YAML front matter that is a RunConfig, and a body that is the run's prompt.

Field names are the contract's; enum values are lower case without their prefix; an unknown key is an error. Defaults and checks are
`run_config.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_kernel.errors import FieldViolation
from trademesh_kernel.front_matter import FENCE, NoFrontMatterError, join_front_matter, split_front_matter

_BODY_FIELD = "prompt"
_DEEPEST_PATH = 8
_NUMBERS = {
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_SINT32,
    FieldDescriptor.TYPE_SINT64,
}


class BootstrapError(Exception):
    """BOOTSTRAP.md cannot be read; `violations` tells every fault, by path or by line."""

    def __init__(self, violations: list[FieldViolation]) -> None:
        super().__init__("; ".join(f"{violation.field}: {violation.description}" for violation in violations))
        self.violations = violations


def write_bootstrap(config: RunConfig) -> str:
    """The text of BOOTSTRAP.md for a configuration."""
    front = _plain(config)
    front.pop(_BODY_FIELD, None)
    text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return join_front_matter(text, config.prompt)


def read_bootstrap_file(path: Path) -> RunConfig:
    """The configuration in a file.

    Raises:
        OSError: it cannot be read.
        BootstrapError: as `read_bootstrap`, or it is not a text in UTF-8.
    """
    content = path.read_bytes()
    try:
        return read_bootstrap(content.decode())
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        raise BootstrapError([FieldViolation(_place_behind(before), "is not UTF-8")]) from None


def read_bootstrap(text: str) -> RunConfig:
    """The configuration in a BOOTSTRAP.md.

    Raises:
        BootstrapError: it is not YAML between fences, or has unknown keys or values of a wrong kind; every fault with line and column.
    """
    try:
        yaml_text, body = split_front_matter(text)
    except NoFrontMatterError as error:
        raise BootstrapError([FieldViolation("line 1, column 1", str(error))]) from None
    try:
        front = yaml.load(yaml_text, _Loader)  # noqa: S506  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        place = _place(error.problem_mark) if error.problem_mark is not None else "front matter"
        raise BootstrapError([FieldViolation(place, str(error.problem))]) from None
    except yaml.reader.ReaderError as error:
        place = _place_behind(FENCE + yaml_text[: int(error.position)])
        raise BootstrapError([FieldViolation(place, f"the character {error.character!r} is not allowed")]) from None
    except RecursionError:
        raise BootstrapError([FieldViolation("line 2, column 1", "is nested too deeply")]) from None
    config = RunConfig()
    faults = list[FieldViolation]()
    _fill(config, front if front is not None else {}, "", faults)
    if faults:
        places = _places(yaml.compose(yaml_text, _Loader), "")
        raise BootstrapError([_with_place(fault, places) for fault in faults])
    config.prompt = body
    return config


class _Loader(yaml.SafeLoader):
    """Says of a value that cannot be, such as the 45th of a month, where it is."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """As the library's."""
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise yaml.constructor.ConstructorError(problem=str(error), problem_mark=node.start_mark) from None


def _place(mark: Any) -> str:
    """Lines of the file are counted from the fence."""
    return f"line {mark.line + 2}, column {mark.column + 1}"


def _place_behind(text: str) -> str:
    return f"line {text.count(chr(10)) + 1}, column {len(text) - text.rfind(chr(10))}"


def _places(node: Any, path: str) -> dict[str, str]:
    """Where each key of a mapping is, by path; not deeper than a configuration goes, since a mapping may hold itself."""
    found = dict[str, str]()
    if isinstance(node, yaml.MappingNode) and path.count(".") < _DEEPEST_PATH:
        for key, value in node.value:
            inner = f"{path}.{key.value}" if path else str(key.value)
            found[inner] = _place(key.start_mark)
            found |= _places(value, inner)
    return found


def _with_place(fault: FieldViolation, places: Mapping[str, str]) -> FieldViolation:
    return FieldViolation(fault.field, f"{fault.description} ({places.get(fault.field, 'line 2, column 1')})")


def _plain(message: Message) -> dict[str, Any]:
    """A message as YAML's own types, fields that are not set left out."""
    record = dict[str, Any]()
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            record[field.name] = {key: _plain(value[key]) for key in sorted(value)}
        elif field.is_repeated:
            record[field.name] = [_plain_value(field, item) for item in value]
        else:
            record[field.name] = _plain_value(field, value)
    return record


def _plain_value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _plain(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name.removeprefix(_enum_prefix(field.enum_type)).lower()
    return value


def _fill(message: Message, record: Any, path: str, faults: list[FieldViolation]) -> None:
    """Sets a message from YAML's own types; adds a fault for everything that does not fit."""
    if not isinstance(record, Mapping):
        faults.append(FieldViolation(path or "front matter", "a mapping is expected"))
        return
    for key, value in record.items():
        place = f"{path}.{key}" if path else str(key)
        field: Any = message.DESCRIPTOR.fields_by_name.get(str(key))
        if field is None or (not path and key == _BODY_FIELD):
            known = ", ".join(name for name in message.DESCRIPTOR.fields_by_name if name != _BODY_FIELD)
            faults.append(FieldViolation(place, f"is not a key here; there are {known}"))
        elif value is None:
            continue
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            if not isinstance(value, Mapping):
                faults.append(FieldViolation(place, "a mapping is expected"))
                continue
            for name, entry in value.items():
                target = getattr(message, field.name)[str(name)]
                _fill(target, entry, f"{place}.{name}", faults)
        elif field.is_repeated:
            items = value if isinstance(value, list) else [value]
            converted = [_converted(field, item, place, faults) for item in items]
            getattr(message, field.name).extend(item for item in converted if item is not None)
        elif field.message_type is not None:
            target = getattr(message, field.name)
            target.SetInParent()
            _fill(target, value, place, faults)
        else:
            single = _converted(field, value, place, faults)
            if single is not None:
                _set(message, field.name, single, place, faults)


def _set(message: Message, name: str, value: Any, place: str, faults: list[FieldViolation]) -> None:
    try:
        setattr(message, name, value)
    except (TypeError, ValueError) as error:
        faults.append(FieldViolation(place, str(error)))


def _converted(field: Any, value: Any, place: str, faults: list[FieldViolation]) -> Any:
    """A YAML value as the field's own type, or None with a fault."""
    if field.enum_type is not None:
        name = _enum_prefix(field.enum_type) + str(value).upper()
        number = field.enum_type.values_by_name.get(name)
        if number is None or number.number == 0:
            names = [entry.name.removeprefix(_enum_prefix(field.enum_type)).lower() for entry in field.enum_type.values if entry.number]
            faults.append(FieldViolation(place, f"{value!r} is not one of {', '.join(names)}"))
            return None
        return number.number
    if field.type == FieldDescriptor.TYPE_STRING:
        return (
            value.isoformat() if isinstance(value, date) else str(value) if isinstance(value, str | int) else _wrong(place, "text", faults)
        )
    if field.type == FieldDescriptor.TYPE_BOOL:
        return value if isinstance(value, bool) else _wrong(place, "true or false", faults)
    if field.type in _NUMBERS:
        return value if isinstance(value, int) and not isinstance(value, bool) else _wrong(place, "a whole number", faults)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else _wrong(place, "a number", faults)


def _wrong(place: str, expected: str, faults: list[FieldViolation]) -> None:
    faults.append(FieldViolation(place, f"{expected} is expected"))


def _enum_prefix(enum_type: Any) -> str:
    """RunMode -> RUN_MODE_."""
    first: str = enum_type.values[0].name
    return first.removesuffix("UNSPECIFIED")
