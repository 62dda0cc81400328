"""The contract's own constraints (buf.validate), checked on every request that has any."""

from __future__ import annotations

from datetime import date
from typing import Any

import protovalidate
from google.protobuf.message import Message

from buf.validate import validate_pb2
from trademesh_kernel.errors import FieldViolation, InvalidRequest

# The generated stub takes `message` for a module of the same name.
_MESSAGE_RULES: Any = validate_pb2.message
_FIELD_RULES: Any = validate_pb2.field

_validator = protovalidate.Validator()
_constrained: dict[str, bool] = {}


def check_request(request: Message) -> None:
    """Raises InvalidRequest with every field at fault."""
    violations = violations_of(request)
    if violations:
        raise InvalidRequest(violations)


def check_dates(request: Any, *fields: str) -> None:
    """Raises InvalidRequest for fields with a text that looks like a date and is none, such as 2020-02-30. Empty ones are left out."""
    wrong = [field for field in fields if getattr(request, field) and not is_date(getattr(request, field))]
    if wrong:
        raise InvalidRequest([FieldViolation(field, f"{getattr(request, field)} is not a date") for field in wrong])


def is_date(text: str) -> bool:
    """True for a day of the calendar, as an ISO date."""
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def violations_of(message: Message) -> list[FieldViolation]:
    """Every constraint that a message breaks, by the path of its field."""
    return [FieldViolation(_path(violation.proto), violation.proto.message) for violation in _validator.collect_violations(message)]


def has_constraints(descriptor: Any) -> bool:
    """True if a message of this type, or one inside it, has a constraint."""
    known = _constrained.get(descriptor.full_name)
    if known is None:
        known = _constrained[descriptor.full_name] = _find_constraint(descriptor, set())
    return known


def _find_constraint(descriptor: Any, seen: set[str]) -> bool:
    if descriptor.full_name in seen:
        return False
    seen.add(descriptor.full_name)
    if descriptor.GetOptions().HasExtension(_MESSAGE_RULES):
        return True
    return any(
        field.GetOptions().HasExtension(_FIELD_RULES) or (field.message_type is not None and _find_constraint(field.message_type, seen))
        for field in descriptor.fields
    )


def _path(violation: object) -> str:
    """Dotted path of the field, with [index] for repeated fields and ["key"] for maps."""
    field = getattr(violation, "field", None)
    parts = list[str]()
    for element in field.elements if field is not None else ():
        text = element.field_name
        subscript = element.subscript
        if subscript is not None:
            value = getattr(subscript, "value", subscript)
            text += f'["{value}"]' if isinstance(value, str) else f"[{value}]"
        parts.append(text)
    return ".".join(parts)
