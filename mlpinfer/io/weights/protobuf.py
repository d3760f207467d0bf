"""How much of an ONNX file is not weights, told before the protobuf library makes an object of it all.

An empty message takes 2 bytes of a file and about 200 of memory. Fields are read as the encoding
of Protocol Buffers has them: a varint of number and type, then a varint, 4 or 8 bytes, or a length and bytes.
"""

from __future__ import annotations

#: Of each message on the way to the weights: the fields that are messages, by number.
_INSIDE = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor"},
    "tensor": dict.fromkeys((4, 5, 7, 9, 10, 11), "values"),
}
_FIXED = {1: 8, 5: 4}
_DELIMITED = 2


def has_more_than(data: bytes, most: int) -> bool:
    """Tell whether more than `most` bytes of an ONNX model are anything but the values of its tensors.

    What is malformed counts as little as it can: the library refuses it.
    """
    found, todo = 0, [(0, len(data), "model")]
    while todo and found <= most:
        begin, end, message = todo.pop()
        if begin == end:
            continue
        tag, at = _varint(data, begin, end)
        number, kind = tag >> 3, tag & 7
        length, at = (_FIXED[kind], at) if kind in _FIXED else _varint(data, at, end)
        behind = min(at + length, end) if kind in _FIXED or kind == _DELIMITED else at
        inside = _INSIDE[message].get(number) if kind == _DELIMITED else None
        found += (at if inside else behind) - begin
        todo.append((behind, end, message))
        if inside and inside != "values":
            todo.append((at, behind, inside))
    return found > most


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return the number at a place, and the place behind it."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return value, at
