"""Read ONNX graphs that are a chain of linear layers and activations (extra ``onnx``).

Such a chain is of Gemm or MatMul + Add, with Sigmoid, Tanh, Relu, LeakyRelu, Softmax, Identity, Flatten
and Cast between them, and a leading Mul or Div by a scalar, which is the scale. Initialisers must be in
the file: nothing is read from the paths that a model names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer._text import quoted, said
from mlpinfer.errors import MlpInferError, missing_package
from mlpinfer.io.errors import FormatError
from mlpinfer.io.files import MAX_FILE_BYTES
from mlpinfer.io.weights.raw_tensors import RawTensors, parse_metadata

ACTIVATIONS = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu", "Softmax": "softmax"}
#: FLOAT, FLOAT16, DOUBLE and BFLOAT16 of ONNX's TensorProto.
_FLOATS = (1, 10, 11, 16)
#: These, integers of 8 to 64 bits, and BOOL.
_NUMBERS = frozenset({*_FLOATS, *range(2, 8), 9, 12, 13})
#: The property of a model that holds what the graph cannot.
METADATA = "mlpinfer"
#: Of nodes and names, whose objects take a hundred times the memory; a layer has about 200 bytes of them.
_MOST_BESIDE_WEIGHTS = 2**21
#: Of each message on the way to the weights: the fields that are messages, by number.
_MESSAGES = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor"},
    "tensor": dict.fromkeys((4, 5, 7, 9, 10, 11), "values"),
}
_FIXED = {1: 8, 5: 4}
_DELIMITED = 2


def library() -> Any:
    """Return the package onnx, or raise MlpInferError if it is not installed."""
    try:
        import onnx
    except ImportError:
        raise missing_package("reading and writing ONNX", "onnx") from None
    return onnx


def decode(data: bytes) -> RawTensors:
    """Read the layers of an ONNX model.

    Raises
    ------
    FormatError
        If the model is damaged or is not such a chain, naming the node that is not.
    """
    onnx = library()
    if has_more_than(data, _MOST_BESIDE_WEIGHTS):
        raise FormatError(f"expected at most {_MOST_BESIDE_WEIGHTS} bytes beside the weights, found more")
    try:
        model = onnx.load_from_string(data)
        graph = model.graph
        _check_names(graph)
        constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                constants[node.output[0]] = node.attribute[0].t
        chain = _Chain({name: _array(onnx, tensor) for name, tensor in constants.items()})
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value_float":
                chain.constants[node.output[0]] = np.asarray(node.attribute[0].f, np.float32)
        if model.functions:
            raise FormatError("expected the operators of ONNX alone, found functions of the model's own")
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused later, by name
            chain.walk(graph)
    except (MlpInferError, MemoryError):
        raise
    except Exception as error:  # protobuf and onnx raise types of their own on damaged files
        raise FormatError(f"damaged ONNX: {said(error)}") from None
    return chain.result(next((item.value for item in model.metadata_props if item.key == METADATA), "{}"))


def _check_names(graph: Any) -> None:
    """Refuse a value that is defined twice: which one counts would be a guess."""
    names = Counter(tensor.name for tensor in graph.initializer)
    # Before ONNX's fourth format, constants had to be inputs too.
    names.update({value.name for value in graph.input}.difference(names))
    names.update(name for node in graph.node for name in node.output if name)
    for name, count in names.most_common(1):
        if count > 1:
            raise FormatError(f"expected one definition of each value, found {count} of {quoted(name)}")


def _array(onnx: Any, tensor: Any) -> npt.NDArray[Any]:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise FormatError(f"refused: {quoted(tensor.name)} is stored in another file; save the model as one")
    if tensor.data_type not in _NUMBERS:  # what NumPy does not have, some versions of onnx convert
        raise FormatError(
            f"{quoted(tensor.name)}: expected floats or integers, found ONNX's type {tensor.data_type}"
        )
    array: npt.NDArray[Any] = onnx.numpy_helper.to_array(tensor)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


class _Chain:
    """Layers collected while a value is followed from the graph's input to its output."""

    def __init__(self, constants: dict[str, npt.NDArray[Any]]) -> None:
        self.constants = constants
        self.weights: list[npt.NDArray[Any]] = []
        self.biases: list[npt.NDArray[Any] | None] = []
        self.behind: list[str] = []
        self.scale: float | None = None
        self.bytes = 0
        self.rank = 0
        self.integers = False

    def walk(self, graph: Any) -> None:
        inputs = [value.name for value in graph.input if value.name not in self.constants]
        outputs = [value.name for value in graph.output]
        if len(inputs) != 1 or len(outputs) != 1:
            raise FormatError(f"expected 1 input and 1 output, found {len(inputs)} and {len(outputs)}")
        value = inputs[0]
        kind = next(item.type.tensor_type for item in graph.input if item.name == value)
        self.rank, self.integers = len(kind.shape.dim), kind.elem_type not in _FLOATS
        for node in graph.node:
            if node.domain not in ("", "ai.onnx"):
                raise FormatError(
                    f"{_name(node)}: expected the operators of ONNX, found {quoted(node.domain)}"
                )
            if node.op_type == "Constant":
                continue
            if node.op_type in ("Cast", "Identity") and node.input[0] in self.constants:
                self.check_cast(node)
                self.constants[node.output[0]] = self.constants[node.input[0]]
                continue
            if value not in node.input or len(node.output) != 1:
                raise FormatError(f"{_name(node)}: expected one chain of layers, found a branch")
            self.step(node, value, {item.name: item for item in node.attribute})
            value = node.output[0]
        if value != outputs[0] or not self.weights:
            raise FormatError("expected a chain of Gemm, or of MatMul and Add, from the input to the output")

    def step(self, node: Any, value: str, attributes: Mapping[str, Any]) -> None:
        match node.op_type:
            case "Identity":
                return
            case "Cast":
                self.check_cast(node)
                self.integers = False
            case "Flatten" if not self.weights and ("axis" not in attributes or attributes["axis"].i == 1):
                self.rank = 2
            case "Mul" | "Div" if not self.weights and self.scale is None and not self.integers:
                self.scale = self.leading_scale(node, value)
            case "Gemm" if node.input[0] == value:
                self.gemm(node, attributes)
            case "MatMul" if node.input[0] == value:
                self.add_layer(self.constant(node, 1), None)
            case "Add" if self.weights and self.biases[-1] is None and self.behind[-1] == "identity":
                self.biases[-1] = self.bias(node, self.constant(node, 1 if node.input[0] == value else 0))
            case "LeakyRelu" if self.free():
                alpha = attributes["alpha"].f if "alpha" in attributes else 0.01
                self.behind[-1] = f"leaky_relu({float(str(np.float32(alpha)))!r})"
            case "Softmax" if not self.is_last(attributes):
                raise FormatError(f"{_name(node)}: expected softmax over the last axis")
            case kind if kind in ACTIVATIONS and self.free():
                self.behind[-1] = ACTIVATIONS[kind]
            case kind:
                raise FormatError(
                    f"{_name(node)}: expected linear layers and activations, found {quoted(kind)} here"
                )

    def is_last(self, attributes: Mapping[str, Any]) -> bool:
        axis = attributes["axis"].i if "axis" in attributes else -1
        return axis == -1 or (axis == 1 and self.rank == 2)

    def check_cast(self, node: Any) -> None:
        to = next((item.i for item in node.attribute if item.name == "to"), None)
        if node.op_type == "Cast" and to not in _FLOATS:
            raise FormatError(f"{_name(node)}: expected a cast to floats, found one that would round")

    def bias(self, node: Any, b: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """One number for each output, or one for all, as a row."""
        outputs = self.weights[-1].shape[1]
        if b.size not in (1, outputs) or b.shape[:-1] not in ((), (1,)):
            raise FormatError(f"{_name(node)}: expected {outputs} biases, found shape {b.shape}")
        return np.broadcast_to(b.reshape(-1), (outputs,))

    def free(self) -> bool:
        return bool(self.behind) and self.behind[-1] == "identity"

    def constant(self, node: Any, index: int) -> npt.NDArray[Any]:
        if len(node.input) <= index or node.input[index] not in self.constants:
            raise FormatError(f"{_name(node)}: expected constant weights")
        return self.constants[node.input[index]]

    def add_layer(self, W: npt.NDArray[Any], b: npt.NDArray[Any] | None) -> None:
        if W.ndim != 2 or W.size == 0:  # an empty one would still have biases, of any number
            raise FormatError(f"expected weights of two dimensions, found shape {W.shape}")
        self.bytes += W.nbytes
        if self.bytes > MAX_FILE_BYTES:
            raise FormatError(f"expected at most {MAX_FILE_BYTES} bytes of weights, found more")
        self.weights.append(W)
        self.biases.append(b)
        self.behind.append("identity")

    def gemm(self, node: Any, attributes: Mapping[str, Any]) -> None:
        def number(name: str, default: float) -> float:
            return attributes[name].f if name in attributes else default

        if "transA" in attributes and attributes["transA"].i:
            raise FormatError(f"{_name(node)}: expected rows of inputs, found transA")
        W = self.constant(node, 1)
        b = self.constant(node, 2) if len(node.input) > 2 and node.input[2] else None
        alpha, beta = number("alpha", 1), number("beta", 1)
        self.add_layer(W.T if "transB" in attributes and attributes["transB"].i else W, None)
        if alpha != 1:
            self.weights[-1] = self.weights[-1] * np.asarray(alpha, W.dtype)
        if b is not None:
            self.biases[-1] = self.bias(node, b if beta == 1 else b * np.asarray(beta, b.dtype))

    def leading_scale(self, node: Any, value: str) -> float:
        if node.op_type == "Div" and node.input[0] != value:
            raise FormatError(f"{_name(node)}: expected the input divided by a number, found the reverse")
        factor = self.constant(node, 1 if node.input[0] == value else 0)
        if factor.size != 1 or not np.isfinite(factor).all() or not factor.all():
            raise FormatError(
                f"{_name(node)}: expected one finite number as scale, found shape {factor.shape}"
            )
        number = float(str(factor.reshape(())[()]))  # the shortest decimal: 0.1, not 0.10000000149
        return 1 / number if node.op_type == "Div" else number

    def result(self, metadata: str | bytes) -> RawTensors:
        arrays: dict[str, npt.NDArray[Any]] = {}
        for i, (W, b) in enumerate(zip(self.weights, self.biases, strict=True), 1):
            arrays |= {f"W{i}": W, f"b{i}": np.zeros(W.shape[1], W.dtype) if b is None else b}
        found = {"layout": "in-out", "hidden": ",".join(self.behind[:-1]), "head": self.behind[-1]}
        # The graph holds numbers rounded to float32; ours are kept beside it to the last bit.
        # Text that is not UTF-8 comes out of protobuf as bytes.
        ours = parse_metadata(metadata if isinstance(metadata, bytes) else metadata.encode())
        if self.scale is not None:
            exact = ours.get("scale", "")
            same = _is_number(exact) and _float32(exact) == _float32(self.scale)
            found["scale"] = exact if same else repr(self.scale)
        exact = ours.get("hidden", "")
        if _rounded(exact.split(",")) == _rounded(self.behind[:-1]):
            found["hidden"] = exact
        return RawTensors(arrays, found)


def _rounded(names: list[str]) -> list[str | np.float32]:
    """Activations with their slopes as ONNX holds them."""
    slopes = [re.fullmatch(r"leaky_relu\(([0-9.e+-]{1,32})\)", name) for name in names]
    return [
        _float32(slope[1]) if slope and _is_number(slope[1]) else name
        for slope, name in zip(slopes, names, strict=True)
    ]


def _float32(number: str | float) -> np.float32:
    with np.errstate(over="ignore"):
        return np.float32(float(number))


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _name(node: Any) -> str:
    return quoted(node.name or node.op_type)


def has_more_than(data: bytes, most: int) -> bool:
    """Return True if more than `most` bytes of an ONNX model are anything but the values of its tensors.

    It is asked before the protobuf library makes objects of them: an empty message takes 2 bytes of a file
    and about 200 of memory. Fields are read as the encoding of Protocol Buffers has them: a varint of number
    and type, then a varint, 4 or 8 bytes, or a length and bytes. What is malformed counts as little as it
    can, because the library refuses it.
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
        inside = _MESSAGES[message].get(number) if kind == _DELIMITED else None
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
