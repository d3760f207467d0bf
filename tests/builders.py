"""Files of every format, whole or damaged, built byte by byte."""

import json
import struct

from onnx import TensorProto, helper, numpy_helper


def array_state(**changes):
    """A protocol 2 pickle of ``{"W1": array}`` with parts replaced by opcodes."""
    parts = {
        "reconstruct": b"cnumpy.core.multiarray\n_reconstruct\n",
        "ndarray": b"cnumpy\nndarray\n",
        "begin": b"K\0\x85",
        "letter": b"C\1b",
        "dtype": b"cnumpy\ndtype\n",
        "code": b"X\2\0\0\0f4",
        "flags": b"K\0K\1",
        "state": b"(K\3X\1\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb",
        "version": b"K\1",
        "shape": b"K\1K\2\x86",
        "fortran": b"\x89",
        "data": b"C\x08" + bytes(8),
        "build": b"b",
    } | changes
    p = parts
    return (
        b"\x80\4}X\2\0\0\0W1" + p["reconstruct"] + p["ndarray"] + p["begin"] + p["letter"] + b"\x87R("
        + p["version"] + p["shape"] + p["dtype"] + p["code"] + p["flags"] + b"\x87R" + p["state"]
        + p["fortran"] + p["data"] + b"t" + p["build"] + b"s."
    )  # fmt: skip


def python_2(array):
    """Protocol 0 as Python 2 wrote it: arrays as STRING, escaped as repr() did."""
    text = repr(array.tobytes())[1:].encode()
    shape = b"(" + b"".join(b"I%d\n" % n for n in array.shape) + b"t"
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n" + shape
        + b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS" + text + b"\ntb"
    )  # fmt: skip


def npy(descr="'<f4'", fortran="False", shape="(1, 2)", data=bytes(8)):
    header = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}}}".encode("latin1")
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


def safetensors_file(header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def model(nodes, initializers=(), inputs=("x",), outputs=("y",), kind=TensorProto.FLOAT, rank=2):
    info = [
        [helper.make_tensor_value_info(n, kind, ["N"] + [None] * (rank - 1)) for n in names]
        for names in (inputs, outputs)
    ]
    tensors = [t if isinstance(t, TensorProto) else numpy_helper.from_array(t[1], t[0]) for t in initializers]
    return helper.make_model(helper.make_graph(nodes, "g", *info, tensors)).SerializeToString()


node = helper.make_node


def varint(n):
    return bytes([n & 0x7F | 0x80]) + varint(n >> 7) if n > 127 else bytes([n])


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data
