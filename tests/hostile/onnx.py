"""Attacks in ONNX models."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mlpinfer import Network
from mlpinfer.io.weights.save import encode
from tests.builders import field, model, node
from tests.hostile import build
from tests.hostile.attack import Attack

A = build.layers()
CONSTANTS = list(A.items())
CHAIN = [
    node("Gemm", ["x", "W1", "b1"], ["h"]),
    node("Relu", ["h"], ["a"]),
    node("Gemm", ["a", "W2", "b2"], ["y"]),
]


def _model(**changes) -> bytes:
    """A whole model with some of its constants replaced."""
    return model(CHAIN, list((A | changes).items()))


def _tensor(name: str, **fields) -> TensorProto:
    tensor = numpy_helper.from_array(A[name], name)
    for what, value in fields.items():
        tensor.ClearField(what)
        if isinstance(value, list):
            getattr(tensor, what).extend(value)
        else:
            setattr(tensor, what, value)
    return tensor


def _with(*tensors: TensorProto) -> bytes:
    rest = [item for item in CONSTANTS if item[0] not in {tensor.name for tensor in tensors}]
    return model(CHAIN, [*rest, *tensors])


def _external(location: str, **more: str) -> TensorProto:
    tensor = _tensor("W1", data_location=TensorProto.EXTERNAL)
    tensor.ClearField("raw_data")
    for key, value in ({"location": location} | more).items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def _external_tensors() -> Iterator[tuple[str, bytes, str]]:
    for name, location in {
        "absolute": "/etc/passwd",
        "relative": "../../../etc/passwd",
        "device": "/dev/zero",
        "url": "http://127.0.0.1:1/a",
        "long": "a" * 100_000,
    }.items():
        yield name, _with(_external(location)), "stored in another file"
    yield "length", _with(_external("a", offset="0", length=str(2**62))), "stored in another file"
    undeclared = _external("/etc/passwd")
    undeclared.data_location = TensorProto.DEFAULT
    yield "undeclared", _with(undeclared), "stored in another file"
    constant = node("Constant", [], ["W1"], value=_external("/etc/passwd"))
    rest = [item for item in CONSTANTS if item[0] != "W1"]
    yield "constant", model([constant, *CHAIN], rest), "stored in another file"


def _parsers() -> Iterator[tuple[str, bytes, str]]:
    yield "varints", b"\x08" + b"\xff" * 40, "damaged ONNX"
    yield "cut", _model()[:-9], "damaged ONNX"
    yield "nothing", b"\x08\x07", "expected 1 input"
    deep = b""
    for _ in range(3000):
        deep = field(1, field(5, field(6, deep)))  # node, attribute, graph
    yield "graphs_in_graphs", b"\x08\x07" + field(7, deep), "damaged ONNX"
    yield "not_utf8", b"\x08\x07" + field(7, field(2, b"\xff\xfe")), "damaged ONNX|expected"
    for name, text in {"nested": "[" * 100_000, "numbers": '{"scale": 1}', "no_json": "{"}.items():
        proto = ModelProto.FromString(_model())
        helper.set_model_props(proto, {"mlpinfer": text})
        yield f"metadata_{name}", proto.SerializeToString(), "damaged metadata"
    proto = ModelProto.FromString(encode(Network.random([3, 2], scale=0.5), "a.onnx"))
    helper.set_model_props(proto, {"mlpinfer": json.dumps({"scale": "1e300", "hidden": "leaky_relu(1e300)"})})
    yield "metadata_overflow", proto.SerializeToString(), None
    utf8 = ModelProto.FromString(_model())
    helper.set_model_props(utf8, {"mlpinfer": "letters"})
    damaged = utf8.SerializeToString().replace(b"letters", b"\xff\xfe\xff\xfe\xff\xfe\xff")
    yield "metadata_not_utf8", damaged, "damaged metadata|damaged ONNX"
    yield "no_inputs", model([node("Identity", [], ["z"]), *CHAIN], CONSTANTS), "expected|damaged"
    yield "no_outputs", model([node("Constant", [], [], value_float=1.0), *CHAIN], CONSTANTS), "damaged"
    yield "circle", model([node("Relu", ["x"], ["x"]), *CHAIN], CONSTANTS), "expected one definition"
    tensors = [numpy_helper.from_array(array, name) for name, array in (*CONSTANTS, ("W1", A["W1"] * 2))]
    yield (
        "two_constants_of_one_name",
        model(CHAIN, tensors),
        "expected one definition of each value, found 2 of 'W1'",
    )
    yield "two_values_of_one_name", model([*CHAIN, CHAIN[0]], CONSTANTS), "expected one definition"
    function = ModelProto.FromString(_model())
    function.functions.add(name="Gemm", domain="")
    yield "functions", function.SerializeToString(), "functions of the model's own"


def _sizes() -> Iterator[tuple[str, bytes, str]]:
    yield "dims", _with(_tensor("W1", dims=[2**40, 2**20])), "damaged ONNX|expected"
    yield "negative_dims", _with(_tensor("W1", dims=[-1, -1])), "damaged ONNX|expected"
    yield "short", _with(_tensor("W1", raw_data=bytes(8))), "damaged ONNX"
    yield "long", _with(_tensor("W1", raw_data=bytes(80))), "damaged ONNX"
    yield "length", b"\x08\x07" + b"\x3a\xff\xff\xff\xff\x07", "damaged ONNX"
    nodes = b"\x08\x07" + field(7, b"\x0a\x00" * 1_100_000)
    yield "nodes", nodes, "bytes beside the weights"
    tensors = b"\x08\x07" + field(7, b"\x2a\x00" * 1_100_000)
    yield "tensors", tensors, "bytes beside the weights"
    names = node("Gemm", ["x"] + ["W1"] * 200_000, ["y"])
    yield "inputs", model([names], CONSTANTS), "expected"
    twice = [node("MatMul", ["x", "S"], ["h0"])]
    twice += [node("MatMul", [f"h{i}", "S"], [f"h{i + 1}"]) for i in range(3000)]
    twice[-1].output[0] = "y"
    wide = numpy_helper.from_array(np.ones((300, 300), np.uint8), "S")
    yield "one_tensor_for_many_layers", model(twice, [wide]), "expected at most"


def _values() -> Iterator[tuple[str, str, bytes, str | None]]:
    f4 = np.float32
    yield "zero_dimensions", "first", _model(W1=np.ones((0, 3), f4)), "expected|damaged"
    yield "zero_dimensions", "last", _with(_tensor("W1", dims=[10**11, 0], raw_data=b"")), "expected"
    yield "zero_dimensions", "width", _with(_tensor("W1", dims=[0, 10**11], raw_data=b"")), "expected"
    scale = [node("Mul", ["x", "e"], ["s"]), node("Gemm", ["s", "W1", "b1"], ["y"])]
    yield (
        "zero_dimensions",
        "scale",
        model(scale, [*CONSTANTS, ("e", np.ones((0, 5), f4))]),
        "one finite number",
    )
    yield "conversion", "nan", _model(b1=A["b1"] * f4(np.nan)), "NaN or infinity"
    yield "conversion", "infinity", _model(W2=A["W2"] + f4(np.inf)), "NaN or infinity"
    yield "conversion", "complex", _model(W1=A["W1"].astype(np.complex64)), "expected floats or integers"
    yield "conversion", "booleans", _model(W1=A["W1"] > 3), "expected float16"
    for name, kind in {
        "float8": 17,
        "float8_e5m2": 19,
        "uint4": 21,
        "int4": 22,
        "float4": 23,
        "no_type": 99,
    }.items():
        tensor = TensorProto(name="W1", data_type=kind, dims=[4, 3], raw_data=bytes(12))
        yield "conversion", name, _with(tensor), "expected floats or integers, found ONNX's type"
    text = helper.make_tensor("W1", TensorProto.STRING, [4, 3], [b"1"] * 12)
    yield "conversion", "text", _with(text), "expected floats or integers"
    loud = [node("Gemm", ["x", "W1", "b1"], ["y"], alpha=3e38, beta=3e38)]
    yield "conversion", "overflow", model(loud, CONSTANTS), "NaN or infinity"
    slope = [
        node("Gemm", ["x", "W1", "b1"], ["h"]),
        node("LeakyRelu", ["h"], ["a"], alpha=float("nan")),
        CHAIN[-1],
    ]
    yield "conversion", "slope", model(slope, CONSTANTS), None  # the activation is overruled by an option
    scales = {"scale_of_booleans": np.array(True), "no_scale": f4(0)}
    for name, value in scales.items():
        yield "conversion", name, model(scale, [*CONSTANTS, ("e", np.asarray(value))]), "expected|damaged"
    tiny = [node("Div", ["x", "e"], ["s"]), node("Gemm", ["s", "W1", "b1"], ["y"])]
    yield "conversion", "tiny_scale", model(tiny, [*CONSTANTS, ("e", np.array(5e-324))]), "scale: expected"
    yield "shapes", "chain", _model(W2=np.ones((9, 2), f4)), "W2: expected shape"
    yield "shapes", "biases", _model(b1=np.ones(9, f4)), "expected 3 biases"
    yield "shapes", "dimensions", _model(W1=np.ones((4, 3, 1), f4)), "two dimensions"
    yield "shapes", "branch", model([CHAIN[0], CHAIN[2], CHAIN[1]], CONSTANTS), "a branch"
    yield (
        "shapes",
        "operator",
        model([node("\x1b[2J\n" * 99, ["x"], ["y"])], CONSTANTS),
        "expected linear layers",
    )
    yield "shapes", "domain", model([node("Gemm", ["x"], ["y"], domain="my")], CONSTANTS), "found 'my'"


def attacks() -> Iterator[Attack]:
    def attack(danger, name, data, message):
        return Attack(f"onnx_{danger}_{name}", "onnx", danger, data, message)

    for name, data, message in _external_tensors():
        yield attack("external_tensors", name, data, message)
    for name, data, message in _parsers():
        yield attack("parsers", name, data, message)
    for name, data, message in _sizes():
        yield attack("declared_sizes", name, data, message)
    for danger, name, data, message in _values():
        yield attack(danger, name, data, message)
