"""Pickle opcodes that do harm; each leaves one value, to stand among others in any pickle.

Whatever runs makes a file called ``fired`` in the working folder.
"""

from __future__ import annotations

import pickle
import struct
from typing import NamedTuple

import numpy as np

from tests.hostile.build import text, whole


class Program(NamedTuple):
    danger: str
    name: str
    opcodes: bytes
    message: str | None
    fires: bool = False


COMMAND = text("touch fired")
#: ``numpy._core`` or, before NumPy 2, ``numpy.core``.
CORE = np.ones(1).__reduce__()[0].__module__.rpartition(".")[0]
SOURCE = text("open('fired', 'w').close()")


def call(module: str, name: str, *args: bytes) -> bytes:
    return f"c{module}\n{name}\n(".encode() + b"".join(args) + b"tR"


def stack_call(module: str, name: str, *args: bytes) -> bytes:
    """By STACK_GLOBAL, whose names may be dotted."""
    return text(module) + text(name) + b"\x93(" + b"".join(args) + b"tR"


class Fires:
    def __reduce__(self):
        return open, ("fired", "w")


INNER = pickle.dumps(Fires())
#: A module, a function and a class that nothing needs, given ``__setstate__`` and then a state.
SYSTEM = text("__setstate__") + b"cposix\nsystem\n"

_GLOBALS = {
    "os_system": (call("posix", "system", COMMAND), "posix.system"),
    "os_system_by_os": (call("os", "system", COMMAND), "os.system"),
    "exec_of_a_process": (call("os", "execvp", text("touch"), b"](" + text("touch") + text("fired") + b"e"), "os.execvp"),
    "eval": (call("builtins", "eval", SOURCE), "builtins.eval"),
    "exec": (call("builtins", "exec", SOURCE), "builtins.exec"),
    "getoutput": (call("subprocess", "getoutput", COMMAND), "subprocess.getoutput"),
    "popen": (call("subprocess", "call", b"](" + text("touch") + text("fired") + b"e"), "subprocess.call"),
    "open": (call("_io", "open", text("fired"), text("w")), "_io.open"),
    "timeit": (call("timeit", "timeit", text("pass"), SOURCE), "timeit.timeit"),
    "pdb": (call("cProfile", "run", SOURCE), "cProfile.run"),
    "dotted": (stack_call(f"{CORE}.numeric", "builtins.eval", SOURCE), "numeric.builtins.eval"),
    "dotted_os": (stack_call("numpy.testing", "_private.utils.os.system", COMMAND), "os.system"),
    "getattr": (
        b"cbuiltins\ngetattr\n(" + call("importlib", "import_module", text("os")) + text("system") + b"tR("
        + COMMAND + b"tR", "builtins.getattr",
    ),
    "f2py_eval": (call("numpy.f2py.crackfortran", "getlincoef", SOURCE, b"}"), "getlincoef"),
    "f2py_command": (stack_call("numpy.f2py.diagnose", "os.system", COMMAND), "os.system"),
    "numpy_exec": (call("numpy.testing._private.utils", "runstring", SOURCE, b"}"), "runstring"),
    "numpy_save": (call("numpy", "save", text("fired"), b"K\1"), "numpy.save"),
    "numpy_memmap": (call("numpy", "memmap", text("fired"), text("u1"), text("w+"), b"K\0K\x08"), "memmap"),
}  # fmt: skip
_NAMES = {
    "subclass": call("numpy", "matrix", text("1")),
    "dotted_reconstruct": stack_call("numpy.core", "multiarray._reconstruct", b"K\0"),
    "dotted_ndarray": b"cnumpy\nndarray.tofile\n",
    "trailing_space": b"cnumpy \nndarray\n",
    "empty_name": b"c\n\n",
    "bytes_name": b"C\5numpyC\7ndarray\x93",
    "module_of_a_stand_in": b"cnumpy.core.multiarray\n_reconstruct.__globals__\n",
    "socket": call("socket", "create_connection", b"(" + text("127.0.0.1") + b"K\1t"),
    "crash": call("faulthandler", "_sigsegv"),
    "library": call("ctypes", "CDLL", text("libc.so.6")),
    "import": call("importlib", "import_module", text("this")),
    "long_name": b"c" + b"a" * 5000 + b"\n\x1b[31mred\n",
}


def _nested() -> dict[str, tuple[bytes, str]]:
    inner = b"C" + bytes([len(INNER)]) + INNER
    objects = pickle.dumps(np.array([Fires()], object), 4)
    body = objects[objects.index(b"\x8c") if objects[2:3] != b"\x95" else 11 : -1]
    read = call("_io", "BytesIO", inner)
    return {
        "loads": (call("_pickle", "loads", inner), "_pickle.loads"),
        "loads_by_pickle": (call("pickle", "loads", inner), "pickle.loads"),
        "load_of_a_buffer": (call("pickle", "load", read), "pickle.load"),
        "object_array": (body, "dtype 'O8'"),
    }


_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\1b\x87R"


def programs() -> list[Program]:
    """All of them."""
    found = [Program("globals", n, code, f"{message}'", True) for n, (code, message) in _GLOBALS.items()]
    found += [
        Program("globals", f"name_{n}", code, "refused: the pickle asks to run") for n, code in _NAMES.items()
    ]
    found += [Program("nested_pickles", n, code, message, True) for n, (code, message) in _nested().items()]
    register = (
        call("copyreg", "add_extension", text("posix"), text("system"), b"K\1")
        + b"0\x82\1"
        + COMMAND
        + b"\x85R"
    )
    mapped = b"cbuiltins\nmap\ncposix\nsystem\n](" + COMMAND + b"e\x86\x81"
    method = b"cjson\nJSONDecoder\nN}" + SYSTEM + b"s\x86b" + COMMAND + b"b"
    laughs = b"]q\0" + b"".join(b"0(" + b"h%c" % i * 9 + b"lq%c" % (i + 1) for i in range(40))
    keys = b"N" + b"".join(b"2\x86" for _ in range(60))
    encode = b"c_codecs\nencode\n"
    return [
        *found,
        Program("nested_pickles", "load_of_a_file", call("numpy", "load", text("/dev/stdin")), "numpy.load"),
        Program("nested_pickles", "marshal", call("marshal", "loads", b"C\1N"), "marshal.loads"),
        Program("extensions", "registered", register, "copyreg.add_extension", True),
        Program("extensions", "inst", b"(" + COMMAND + b"iposix\nsystem\n", "opcode INST", True),
        Program("extensions", "obj", b"(cposix\nsystem\n" + COMMAND + b"o", "posix.system", True),
        Program("extensions", "newobj", b"cbuiltins\nbytes\n" + mapped + b"\x85\x81", "builtins.bytes", True),
        Program("extensions", "ext1", b"\x82\1", "opcode EXT1"),
        Program("extensions", "ext2", b"\x83\1\1", "opcode EXT2"),
        Program("extensions", "ext4", b"\x84\1\1\1\1", "opcode EXT4"),
        Program("extensions", "persid", b"P0\n", "opcode PERSID"),
        Program("extensions", "obj_of_an_array", b"(cnumpy\nndarray\nK\x7fo", "opcode OBJ"),
        Program("extensions", "newobj_of_an_array", b"cnumpy\nndarray\nM\0\1\x85\x81", "opcode NEWOBJ"),
        Program("extensions", "newobj_ex", b"cnumpy\nndarray\n)}\x92", "opcode NEWOBJ_EX"),
        Program("extensions", "buffer", b"\x97", "opcode NEXT_BUFFER"),
        Program("extensions", "set", b"\x8f", "opcode EMPTY_SET"),
        Program("build", "module", b"cnumpy\nlinalg\n}" + SYSTEM + b"sb" + COMMAND + b"b", "numpy.linalg", True),
        Program("build", "function", b"cposixpath\njoin\n}" + SYSTEM + b"sb" + COMMAND + b"b", "posixpath.join", True),
        Program("build", "class", method, "json.JSONDecoder", True),
        Program("build", "stand_in", b"c_codecs\nencode\n}" + text("__name__") + text("x") + b"sb", "set the state"),
        Program("build", "dict", b"}}b", "set the state of <dict>"),
        Program("build", "list", b"]}b", "set the state of <list>"),
        Program("build", "text", text("x") + b"}b", "set the state of 'x'"),
        Program("build", "ordered_dict", b"ccollections\nOrderedDict\n)R}" + text("__class__") + b"}sb", None),
        Program("declared_sizes", "bytes", b"\x8e" + struct.pack("<q", 2**62) + b"a", "malformed pickle"),
        Program("declared_sizes", "unicode", b"\x8d" + struct.pack("<q", 2**62) + b"a", "malformed pickle"),
        Program("declared_sizes", "bytearray", b"\x96" + struct.pack("<q", 2**62) + b"a", "malformed pickle"),
        Program("declared_sizes", "string", b"T\xff\xff\xff\xffa", "malformed pickle"),
        Program("declared_sizes", "long", b"\x8b\xff\xff\xff\x7fa", "malformed pickle"),
        Program("declared_sizes", "memo", b"Nr\xff\xff\xff\xff", None),
        Program("declared_sizes", "memo_of_text", b"Np99999999999999999999\n", None),
        Program("declared_sizes", "frame", b"\x95" + struct.pack("<q", 2**62) + b"N", "frame longer than the file"),
        Program("laughs", "billion", laughs, None),
        Program("laughs", "deep", b"N" + b"\x85" * 50_000, None),
        Program("laughs", "deep_lists", b"](" * 20_000 + b"]" + b"e" * 20_000, None),
        Program("laughs", "tuple_key", b"}" + keys + b"Ns", "expected names as keys"),
        Program("laughs", "deep_key", b"}N" + b"\x85" * 40_000 + b"Ns", "expected names as keys"),
        Program("laughs", "huge_key", b"}" + b"\x8b" + struct.pack("<i", 9999) + b"\x7f" * 9999 + b"Ns", "expected names"),
        Program("laughs", "holds_itself", b"]q\0h\0a", None),
        Program("codecs_encode", "hex", encode + text("61") + text("hex") + b"\x86R", "anything but latin1"),
        Program("codecs_encode", "zlib", encode + b"C\1a" + text("zlib") + b"\x86R", "anything but latin1"),
        Program("codecs_encode", "idna", encode + text("a" * 9999) + text("idna") + b"\x86R", "anything but latin1"),
        Program("codecs_encode", "other_letters", encode + text("Ā") + text("latin1") + b"\x86R", "expected bytes"),
        Program("codecs_encode", "errors", encode + text("Ā") + text("latin1") + text("ignore") + b"\x87R", "wrong number"),
        Program("codecs_encode", "decode", call("_codecs", "decode", b"C\1a", text("latin1")), "_codecs.decode"),
        Program("opcodes", "underscore_in_a_float", b"F1_0\n", "with an underscore"),
        Program("opcodes", "underscore_in_an_integer", b"I1_0\n", "with an underscore"),
        Program("opcodes", "underscore_in_a_long", b"L1_0L\n", "with an underscore"),
        Program("opcodes", "many_digits", b"L" + b"9" * 5000 + b"L\n", "malformed pickle"),
        Program("opcodes", "unknown", b"\xff", "expected an opcode"),
        Program("opcodes", "protocol_again", b"\x80\4N", "unexpected protocol"),
        Program("opcodes", "not_utf8", b"X\2\0\0\0\xff\xfe", "malformed pickle"),
        Program("opcodes", "bad_escape", b"V\\uZZZZ\n", "malformed pickle"),
        Program("opcodes", "no_quotes", b"Sabc\n", "malformed pickle"),
        Program("opcodes", "too_many", b"N" + b"0N" * 60_000, "at most 100000 pickle opcodes"),
        Program("opcodes", "stop", b"N.N", "bytes behind its end"),
        Program("opcodes", "missing_mark", b"e", "malformed pickle"),
        Program("opcodes", "missing_memo", b"h\x77", "memo entry missing"),
        Program("reconstruct", "never_built", _ARRAY, "array without contents|asks to run"),
        Program("reconstruct", "called_directly", call("numpy", "ndarray", whole(2**30)), "called directly|asks to run"),
        Program(
            "reconstruct", "subclass", _ARRAY.replace(b"ndarray\n", b"memmap\n"), "asks to run",
        ),
    ]  # fmt: skip
