"""Damage: bytes changed at random, and messages changed field by field, so that what is changed still parses."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_INTEGERS: Final = (0, 1, -1, 2, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1)
_NUMBERS: Final = (0.0, -0.0, 1.0, -1.0, 1e-300, 1e308, float("inf"), float("-inf"), float("nan"), 0.5, 2.0**53)
_DEEP: Final = 30_000
_TEXTS: Final = (
    "",
    "0" * 32,
    "\x00",
    "\u0000\uffff\U0010ffff",
    "../../etc",
    "null",
    "[]",
    "{}",
    '{"a": NaN}',
    '{"a": 1e999}',
    '{"a": "\\ud800"}',
    '{"offline": 3}',
    "[" * _DEEP,
    '{"a":' * _DEEP,
    "9" * 5000,
    "x" * 70_000,
    json.dumps({"bit_generator": "PCG64", "state": {"state": -1, "inc": 2**200}, "has_uint32": 9, "uinteger": -5}),
)
_BOUNDS: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}

Damage = Callable[[random.Random, bytes], bytes]
"""Changes bytes."""


def damage_bytes(rng: random.Random, data: bytes) -> bytes:
    """Returns ``data`` with one to four changes: bits, bytes, numbers, ranges cut, doubled or moved, the end cut."""
    changed = bytearray(data)
    for _ in range(1 + (rng.getrandbits(8) & 3)):
        kind, where = rng.getrandbits(3), rng.randrange(len(changed) + 1)
        if kind == 0 and where < len(changed):
            changed[where] ^= 1 << rng.getrandbits(3)
        elif kind == 1 and where < len(changed):
            changed[where] = rng.getrandbits(8)
        elif kind == 2:
            size = rng.choice((1, 2, 4, 8))
            changed[where : where + size] = (rng.choice(_INTEGERS) % (1 << 8 * size)).to_bytes(size, "little")
        elif kind == 3:
            del changed[where : where + 1 + rng.getrandbits(5)]
        elif kind == 4:
            changed[where:where] = changed[where : where + 1 + rng.getrandbits(6)]
        elif kind == 5:
            changed[where:where] = rng.randbytes(1 + rng.getrandbits(4))
        elif kind == 6:
            other = rng.randrange(len(changed) + 1)
            changed[where : where + 16] = changed[other : other + 16]
        else:
            del changed[where:]
    return bytes(changed)


def damage_fields(rng: random.Random, message: Message) -> None:
    """Changes one field of a message, somewhere within it, to a value that its type allows and nobody would send."""
    while True:
        fields: Sequence[Any] = message.DESCRIPTOR.fields
        if not fields:
            return
        field = rng.choice(fields)
        inner = field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE and not field.is_repeated
        if not inner or rng.random() < 0.1:
            break
        message = getattr(message, field.name)
    if rng.random() < 0.1 or (field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE and not field.is_repeated):
        message.ClearField(field.name)
    elif field.is_repeated:
        _damage_repeated(rng, message, field)
    else:
        setattr(message, field.name, _value(rng, field, getattr(message, field.name)))


def _damage_repeated(rng: random.Random, message: Message, field: FieldDescriptor) -> None:
    items: Any = getattr(message, field.name)
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key = rng.choice(_TEXTS) if rng.random() < 0.5 else next(iter(items), "")
        value = entry.fields_by_name["value"]
        if value.cpp_type != FieldDescriptor.CPPTYPE_MESSAGE:
            items[key] = _value(rng, value, items[key])
        return
    if entry is not None:
        return
    if items and rng.random() < 0.5:
        items[rng.randrange(len(items))] = _value(rng, field, items[0])
    elif items and rng.random() < 0.5:
        del items[rng.randrange(len(items))]
    else:
        items.append(_value(rng, field, items[0] if items else None))


def _value(rng: random.Random, field: FieldDescriptor, old: Any) -> Any:
    if field.cpp_type in _BOUNDS:
        low, high = _BOUNDS[field.cpp_type]
        near = int(old or 0) + rng.choice((-1, 1))
        return min(max(near if rng.random() < 0.4 else rng.choice(_INTEGERS), low), high)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return not old
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return rng.choice(_NUMBERS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        data = bytes(old or b"")
        return damage_bytes(rng, data) if rng.random() < 0.8 else rng.choice((b"", data * 2, rng.randbytes(16)))
    text = str(old or "")
    if rng.random() < 0.05:
        return rng.choice(_TEXTS)
    return damage_bytes(rng, text.encode()).decode(errors="replace")


def pick(rng: random.Random, weights: Sequence[float]) -> int:
    """Returns an index with chances in proportion to ``weights``."""
    return rng.choices(range(len(weights)), weights)[0]
