"""Messages put together from the encoded bytes of their parts: on the wire a message is its fields, one after the other.

For hot paths only, where decoding and encoding again what is passed on unchanged is most of the work.
"""

from __future__ import annotations


def delimited(field_number: int, content: bytes) -> bytes:
    """One field of a message, string or bytes type, as protobuf encodes it: tag, length, content."""
    return prefix(field_number, len(content)) + content


def prefix(field_number: int, size_bytes: int) -> bytes:
    """Tag and length of such a field, which its content follows."""
    return varint(field_number << 3 | 2) + varint(size_bytes)


def varint(number: int) -> bytes:
    """A number that is not negative, as protobuf encodes it."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    if number < 0x200000:
        return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14))
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
