"""A bad value for every constraint of the contracts, made from the constraint itself. An unknown kind of constraint is an error here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from buf.validate import validate_pb2

FIELD_RULES: Any = validate_pb2.field
MESSAGE_RULES: Any = validate_pb2.message
TEXTS = ["", "!! not ours !!\n", "../up", "UPPER CASE", "x"]


@dataclass(frozen=True)
class Violation:
    """A field, the rule that is broken, and what breaks it."""

    message: Descriptor
    field: FieldDescriptor
    rule: str
    put: Callable[[Message], None]

    def __str__(self) -> str:
        return f"{self.message.full_name}.{self.field.name}:{self.rule}"

    def instance(self) -> Message:
        """The message with the bad value in it."""
        found = message_factory.GetMessageClass(self.message)()
        self.put(found)
        return found


def violations_in(message: Descriptor) -> Iterator[Violation]:
    """Every way in which a message can break a constraint of its own fields."""
    for field in message.fields:
        options = field.GetOptions()
        if not options.HasExtension(FIELD_RULES):
            continue
        rules = options.Extensions[FIELD_RULES]
        if rules.ignore == validate_pb2.IGNORE_ALWAYS:
            continue
        if rules.required:
            yield Violation(message, field, "required", lambda _message: None)
        kind = rules.WhichOneof("type")
        if kind is not None:
            for rule, value in _bad(getattr(rules, kind), kind, field, rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE):
                yield Violation(message, field, rule, _setter(field, value))


def _setter(field: FieldDescriptor, value: Any) -> Callable[[Message], None]:
    def put(message: Message) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in value:
                # Reading a key of a map of messages makes it.
                getattr(message, field.name)[key]
        elif field.is_repeated:
            getattr(message, field.name).extend(value)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, value)

    return put


def _bad(rules: Any, kind: str, field: FieldDescriptor, zero_is_fine: bool) -> Iterator[tuple[str, Any]]:
    for option, limit in rules.ListFields():
        rule = f"{kind}.{option.name}"
        if kind == "string":
            yield rule, _bad_text(option.name, limit, zero_is_fine)
        elif kind in ("uint32", "uint64", "int32", "int64", "double"):
            value = _bad_number(option.name, limit)
            # Below zero there is no unsigned number: the rule cannot be broken.
            if value >= 0 or not kind.startswith("uint"):
                yield rule, value
        elif kind == "enum":
            yield rule, {"defined_only": 9999, "not_in": limit[0] if option.name == "not_in" else 0}[option.name]
        elif kind == "duration":
            yield rule, type(limit)(seconds=limit.seconds + {"gte": -1, "lte": 1}[option.name])
        elif kind == "map":
            assert option.name == "max_pairs"
            yield rule, {f"key-{number}": "" for number in range(limit + 1)}
        elif kind == "repeated":
            yield from _bad_lists(rule, option.name, limit, field)
        else:
            raise NotImplementedError(rule)


def _bad_text(rule: str, limit: Any, zero_is_fine: bool) -> str:
    if rule == "pattern":
        return next(text for text in TEXTS if not re.search(limit, text) and (text or not zero_is_fine))
    return {
        "max_len": lambda: "é" * (limit + 1),
        "max_bytes": lambda: "x" * (limit + 1),
        "min_len": lambda: "x" * (limit - 1),
        "const": lambda: f"{limit}x",
        "uuid": lambda: "no uuid",
    }[rule]()


def _bad_number(rule: str, limit: Any) -> Any:
    return {"lte": limit + 1, "lt": limit, "gte": limit - 1, "gt": limit}[rule]


def _bad_lists(rule: str, name: str, limit: Any, field: FieldDescriptor) -> Iterator[tuple[str, list[Any]]]:
    if name == "max_items":
        yield rule, _items(field, limit + 1)
    elif name == "min_items":
        yield rule, _items(field, limit - 1)
    elif name == "unique":
        yield rule, _items(field, 1) * 2
    elif name == "items":
        inner = limit.WhichOneof("type")
        for inner_rule, value in _bad(getattr(limit, inner), inner, field, limit.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE):
            yield f"{rule}.{inner_rule}", [value]
    else:
        raise NotImplementedError(rule)


def _items(field: FieldDescriptor, count: int) -> list[Any]:
    if field.message_type is not None:
        return [message_factory.GetMessageClass(field.message_type)() for _ in range(count)]
    return [f"item-{number}" for number in range(count)] if field.type == FieldDescriptor.TYPE_STRING else [1] * count
