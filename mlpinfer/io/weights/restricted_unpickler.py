"""A pickle interpreter that cannot run code.

A pickle is a program for a stack machine; `pickle.load` lets that program import and call anything.
This one reads the same opcodes (with the readers of the standard library's `pickletools`) and
builds plain values only: None, bool, int, float, str, bytes, tuple, list, dict of str or int keys. A
global is looked up in a dict of stand-ins that the caller wrote and is never imported; what it
returns is the caller's own. Opcodes that make objects any other way are refused.

Nothing here walks, compares, hashes or prints a value of a stranger's making, so nesting is harmless.
"""

from __future__ import annotations

import codecs
import io
import pickletools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mlpinfer._text import quoted, said
from mlpinfer.io.errors import FormatError

MAX_OPCODES = 100_000
#: What stand-ins may make of the memo's contents, over and over: bytes for each byte of the file.
_BYTES_MADE = 4

#: A stand-in takes the arguments of the call, checks them and returns the value they stand for.
StandIn = Callable[..., Any]
Globals = Mapping[tuple[str, str], StandIn]


class AsksToRun(FormatError):
    """A pickle that names something to import that no stand-in stands for."""


class Placeholder:
    """A value that BUILD completes."""

    def build(self, state: object) -> None:
        """Take the state, refusing what does not fit and, where it matters, a second call."""
        raise NotImplementedError


class Ordered(dict[Any, Any], Placeholder):
    """What stands for `collections.OrderedDict`; its attributes (torch's _metadata) are dropped."""

    def build(self, state: object) -> None:
        """Accept and forget the attributes."""


def ordered_dict(*args: object) -> Ordered:
    """Stand-in for ``collections.OrderedDict()``, or of a list of pairs as Python 2 wrote it."""
    result = Ordered()
    if args:
        if len(args) != 1 or type(args[0]) is not list or len(args[0]) > MAX_OPCODES:
            raise FormatError("malformed OrderedDict")
        for pair in args[0]:
            if type(pair) not in (list, tuple) or len(pair) != 2:
                raise FormatError("malformed OrderedDict")
            _set_items(result, list(pair))
    return result


class _Mark:
    """Where a run of items on the stack begins."""


_PUSHED_AS_READ = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING"}
    | {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
    | {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
)
_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "MARK": _Mark,
}
_TUPLE_LENGTHS = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def run(data: bytes, stand_ins: Globals, persistent: Callable[[object], Any] | None = None) -> Any:
    """Run the pickle in `data` and return the value it leaves.

    Parameters
    ----------
    data : bytes
        One whole pickle of protocol 0 to 5, and nothing behind it.
    stand_ins : mapping of (module, name) to function
        All that the pickle may name.
    persistent : function, optional
        Resolves persistent ids (PyTorch's storages); without it they are refused.

    Raises
    ------
    FormatError
        For anything malformed or not permitted.
    """
    return _Machine(stand_ins, persistent, _BYTES_MADE * len(data) + 2**20).run(data)


class _Machine:
    def __init__(
        self, stand_ins: Globals, persistent: Callable[[object], Any] | None, bytes_left: int
    ) -> None:
        self.stand_ins, self.persistent = stand_ins, persistent
        self.bytes_left, self.items_left = bytes_left, MAX_OPCODES
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for name, arg in _tokens(data):
            if name != "STOP":
                self.step(name, arg)
        value = self.pop()
        if self.stack:
            raise FormatError("malformed pickle: values left on the stack")
        return value

    def step(self, name: str, arg: Any) -> None:
        push = self.stack.append
        match name:
            case _ if name in _PUSHED_AS_READ:
                push(arg)
            case "BYTEARRAY8":
                push(bytes(arg))
            case _ if name in _NEW:
                push(_NEW[name]())
            case _ if name in _TUPLE_LENGTHS:
                push(tuple(reversed([self.pop() for _ in range(_TUPLE_LENGTHS[name])])))
            case "TUPLE":
                push(tuple(self.pop_mark()))
            case "LIST":
                push(self.pop_mark())
            case "DICT":
                items = self.pop_mark()
                push(_set_items({}, items))
            case "APPEND" | "APPENDS":
                items = [self.pop()] if name == "APPEND" else self.pop_mark()
                self.top(list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = [self.pop(), self.pop()][::-1] if name == "SETITEM" else self.pop_mark()
                _set_items(self.top(dict, Ordered), items)
            case "POP":
                self.pop(mark=True)
            case "POP_MARK":
                self.pop_mark()
            case "DUP":
                push(self.top())
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[arg] = self.top()
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.top()
            case "GET" | "BINGET" | "LONG_BINGET":
                if arg not in self.memo:
                    raise FormatError("malformed pickle: memo entry missing")
                push(self.memo[arg])
            case "GLOBAL":
                module, _, attribute = arg.partition(" ")
                push(self.find(module, attribute))
            case "STACK_GLOBAL":
                attribute, module = self.pop(), self.pop()
                push(self.find(module, attribute))
            case "REDUCE":
                args, function = self.pop(), self.pop()
                push(self.call(function, args))
            case "BUILD":
                state, target = self.pop(), self.top()
                if not isinstance(target, Placeholder):
                    raise FormatError(f"refused: the pickle would set the state of {quoted(target)}")
                self.charge(state if type(state) is tuple else ())
                target.build(state)
            case "BINPERSID" if self.persistent is not None:
                push(self.persistent(self.pop()))
            case _:
                raise FormatError(f"refused: the pickle uses the opcode {name}, which can make any object")

    def pop(self, mark: bool = False) -> Any:
        if not self.stack or (isinstance(self.stack[-1], _Mark) and not mark):
            raise FormatError("malformed pickle: a value is missing on the stack")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        for at in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[at], _Mark):
                items = self.stack[at + 1 :]
                del self.stack[at:]
                return items
        raise FormatError("malformed pickle: a mark is missing on the stack")

    def top(self, *types: type) -> Any:
        value = self.pop()
        self.stack.append(value)
        if types and type(value) not in types:
            raise FormatError(f"malformed pickle: expected a {types[0].__name__}, found {quoted(value)}")
        return value

    def find(self, module: object, name: object) -> StandIn:
        if type(module) is str and type(name) is str and (module, name) in self.stand_ins:
            return self.stand_ins[module, name]
        asked = f"{module}.{name}" if type(module) is str and type(name) is str else "something unnamed"
        raise AsksToRun(f"refused: the pickle asks to run {quoted(asked)}; expected arrays of numbers only")

    def call(self, function: object, args: object) -> Any:
        if not any(function is known for known in self.stand_ins.values()):
            raise FormatError(f"refused: the pickle would call {quoted(function)}")
        if type(args) is not tuple:
            raise FormatError("malformed pickle: arguments are not a tuple")
        try:
            result = function(*args)  # type: ignore[operator]
        except TypeError:
            raise FormatError("malformed pickle: wrong number of arguments") from None
        self.charge((*args, result))
        return result

    def charge(self, values: tuple[Any, ...]) -> None:
        """Count what a call was given and made: one long value in the memo must not fill the memory."""
        self.bytes_left -= sum(len(value) for value in values if type(value) in (str, bytes))
        self.items_left -= sum(len(value) for value in values if type(value) is list)
        if self.bytes_left < 0 or self.items_left < 0:
            raise FormatError("refused: the pickle makes more of its contents than it holds")


def _set_items(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise FormatError("malformed pickle: a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Numbers are the keys of an optimizer's state; anything else might take for ever to hash.
        if type(key) is not str and (type(key) is not int or key.bit_length() > 64):
            raise FormatError(f"expected names as keys, found {quoted(key)}")
        target[key] = value
    return target


def _read_string(stream: io.BytesIO) -> str:
    """Read the argument of STRING as `pickle` does with ``encoding="latin1"``: Python 2's str."""
    line = stream.readline()
    text = line.strip()
    if not line.endswith(b"\n") or len(text) < 2 or text[0] != text[-1] or text[:1] not in (b"'", b'"'):
        raise ValueError("a string without quotes")
    return codecs.escape_decode(text[1:-1])[0].decode("latin1")


def _reader(opcode: pickletools.OpcodeInfo) -> Callable[[io.BytesIO], Any] | None:
    # pickletools decodes STRING as ASCII, which Python 2's arrays are not.
    return _read_string if opcode.name == "STRING" else opcode.arg.reader if opcode.arg else None


_OPCODES = {opcode.code.encode("latin1"): (opcode.name, _reader(opcode)) for opcode in pickletools.opcodes}


def _tokens(data: bytes) -> Iterator[tuple[str, Any]]:
    """Opcode names and arguments, with the checks that pickletools leaves out."""
    stream = io.BytesIO(data)
    for count in range(MAX_OPCODES):
        at = stream.tell()
        code = stream.read(1)
        if code not in _OPCODES:
            raise FormatError("malformed pickle: expected an opcode, found another byte or the end")
        name, reader = _OPCODES[code]
        arg: Any = None
        try:
            arg = reader(stream) if reader else None
        except MemoryError:
            raise
        except Exception as error:  # readers raise whatever their decoders raise, warnings included
            raise FormatError(f"malformed pickle: {said(error)}") from None
        end = stream.tell()
        match name:
            case "PROTO" if count or not 2 <= arg <= 5:
                raise FormatError(f"malformed pickle: unexpected protocol {quoted(arg)}")
            case "FRAME" if arg > len(data) - end:
                raise FormatError("malformed pickle: a frame longer than the file")
            case "INT" | "LONG" | "FLOAT" if b"_" in data[at:end]:
                raise FormatError("malformed pickle: a number with an underscore")
            case "STOP" if end != len(data):
                raise FormatError(f"malformed pickle: {len(data) - end} bytes behind its end")
            case "PROTO" | "FRAME":
                continue
        yield name, arg
        if name == "STOP":
            return
    raise FormatError(f"expected at most {MAX_OPCODES} pickle opcodes, found more")
