"""Write networks as ONNX graphs (extra ``onnx``)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.io.weights.onnx import ACTIVATIONS, METADATA, library
from mlpinfer.model.activations import slope_of
from mlpinfer.model.network import Network

_OPSET = 17
#: The version that came with that opset; older runtimes refuse files of newer ones.
_IR_VERSION = 8


def encode(network: Network) -> bytes:
    """Return an ONNX model of the network, from rows ``x`` (N, D) to ``y`` (N, K).

    Weights keep their dtype and are cast in the graph where it is not the one computed in: float32,
    or float64 where any weight is.
    """
    onnx = library()
    helper, proto = onnx.helper, onnx.TensorProto
    wide = any(a.dtype == np.float64 for layer in network.layers for a in (layer.W, layer.b))
    dtype, kind = (np.float64, proto.DOUBLE) if wide else (np.float32, proto.FLOAT)
    nodes, initializers = [], []

    def constant(name: str, array: npt.NDArray[Any]) -> str:
        initializers.append(onnx.numpy_helper.from_array(array, name))
        if array.dtype == dtype:
            return name
        nodes.append(helper.make_node("Cast", [name], [f"{name}_cast"], to=kind))
        return f"{name}_cast"

    value = "x"
    if network.scale is not None:
        nodes.append(
            helper.make_node("Mul", [value, constant("scale", np.asarray(network.scale, dtype))], ["scaled"])
        )
        value = "scaled"
    for i, layer in enumerate(network.layers, 1):
        inputs = [value, constant(f"W{i}", layer.W), constant(f"b{i}", layer.b)]
        nodes.append(helper.make_node("Gemm", inputs, [f"z{i}"]))
        value = f"a{i}"
        nodes.append(_activation_node(helper, layer.activation, f"z{i}", value))
    nodes[-1].output[0] = "y"
    rows, columns = network.sizes[0], network.sizes[-1]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", kind, ["N", rows])],
        [helper.make_tensor_value_info("y", kind, ["N", columns])],
        initializers,
    )
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="mlpinfer")
    exact = {"hidden": ",".join(network.hidden)}
    if network.scale is not None:
        exact["scale"] = repr(network.scale)
    helper.set_model_props(model, {METADATA: json.dumps(exact)})
    return bytes(model.SerializeToString())


def _activation_node(helper: Any, activation: str, value: str, result: str) -> Any:
    kinds = {name: kind for kind, name in ACTIVATIONS.items()} | {"identity": "Identity"}
    slope = slope_of(activation)
    if slope is not None:
        return helper.make_node("LeakyRelu", [value], [result], alpha=slope)
    return helper.make_node(
        kinds[activation], [value], [result], **({"axis": -1} if activation == "softmax" else {})
    )
