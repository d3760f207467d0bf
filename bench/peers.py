"""Other libraries, each used as somebody who knows it would.

1/255 is in the first layer's weights, labels take no softmax where the library lets one leave it out,
batches are slices, and nothing is copied that need not be. A library is imported by its own contender
alone, because its idle threads would slow the others.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from batches import Labels, deal, each_batch

from mlpinfer import Network


def scaled_layers(network: Network) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return W (in, out) and b of each layer, float32, with the scale of the rows in the first W."""
    layers = [(layer.W.astype(np.float32), layer.b.astype(np.float32)) for layer in network.layers]
    if network.scale is not None:
        layers[0] = ((network.layers[0].W * network.scale).astype(np.float32), layers[0][1])
    return layers


#: What scikit-learn calls an activation.
SCIKIT_LEARN = {"sigmoid": "logistic", "relu": "relu"}


def hidden_activation(network: Network) -> str:
    """Return the activation of all hidden layers, sigmoid or relu."""
    (name,) = set(network.hidden)
    return name


def scikit_learn(network: Network, batch_size: int, dtype: str, cores: int) -> Labels:
    import sklearn
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import LabelBinarizer

    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
    layers, classes = scaled_layers(network), np.arange(network.sizes[-1])
    model = MLPClassifier(network.sizes[1:-1], activation=SCIKIT_LEARN[hidden_activation(network)])
    model.coefs_, model.intercepts_ = map(list, zip(*layers, strict=True))
    model.n_layers_, model.n_outputs_, model.n_features_in_ = len(layers) + 1, len(classes), network.sizes[0]
    model.out_activation_, model.classes_ = "softmax", classes
    model._label_binarizer = LabelBinarizer().fit(classes)

    def label(x: np.ndarray) -> np.ndarray:
        return model.predict(x.astype(np.float32, copy=False))  # uint8 it would take to float64

    return deal(each_batch(label, batch_size), batch_size)


def torch_(network: Network, batch_size: int, dtype: str, cores: int, frozen: bool, callers: bool) -> Labels:
    import torch

    threads = 1 if callers else cores
    torch.set_num_threads(threads)
    label = _torch_frozen(network) if frozen else _torch_eager(network)

    def share(x: np.ndarray, out: np.ndarray) -> None:
        with torch.inference_mode():
            # Views made by one `split` cost less than as many slices.
            parts = zip(
                torch.from_numpy(x).split(batch_size), torch.from_numpy(out).split(batch_size), strict=True
            )
            for rows, place in parts:
                place.copy_(label(rows))

    # The number of threads is one of each calling thread's own settings too.
    return deal(share, batch_size, cores if callers else 1, partial(torch.set_num_threads, threads))


def _torch_eager(network: Network) -> Callable[[Any], Any]:
    """Functions instead of modules, activation in place: twice as fast as `nn.Sequential` at batch 1."""
    import torch
    from torch.nn.functional import linear

    *hidden, (W_last, b_last) = [
        (torch.from_numpy(np.ascontiguousarray(W.T)), torch.from_numpy(b)) for W, b in scaled_layers(network)
    ]

    activation = {"sigmoid": torch.sigmoid_, "relu": torch.relu_}[hidden_activation(network)]

    def label(a: Any) -> Any:
        a = a.float()
        for W, b in hidden:
            a = activation(linear(a, W, b))
        return linear(a, W_last, b_last).argmax(1)

    return label


def _torch_frozen(network: Network) -> Callable[[Any], Any]:
    """Scripted in inference mode, which is faster here than `optimize_for_inference`."""
    import torch

    activation = {"sigmoid": torch.nn.Sigmoid, "relu": torch.nn.ReLU}[hidden_activation(network)]

    class Labels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            modules: list[torch.nn.Module] = []
            for W, b in scaled_layers(network):
                linear = torch.nn.Linear(*W.shape)
                linear.weight.data, linear.bias.data = torch.from_numpy(W.T.copy()), torch.from_numpy(b)
                modules += [linear, activation()]
            self.logits = torch.nn.Sequential(*modules[:-1])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.logits(x.float()).argmax(1)

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # all of torch.jit, in favour of a compiler
        return torch.jit.freeze(torch.jit.script(Labels().eval()))


def onnxruntime_(network: Network, batch_size: int, dtype: str, cores: int, callers: bool) -> Labels:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads, options.inter_op_num_threads = 1 if callers else cores, 1
    session = onnxruntime.InferenceSession(_onnx(network, dtype), options, ["CPUExecutionProvider"])

    def label(x: np.ndarray) -> np.ndarray:
        return session.run(["labels"], {"x": x})[0]

    return deal(each_batch(label, batch_size), batch_size, cores if callers else 1)


def openvino_(network: Network, batch_size: int, dtype: str, cores: int, callers: bool) -> Labels:
    """A static batch size and float32 throughout, without which it computes in bfloat16 where it can.

    Each calling thread has a compiled model of its own, whose input is the slice itself.
    """
    import openvino

    core = openvino.Core()
    model = core.read_model(_onnx(network, dtype))
    model.reshape([batch_size, network.sizes[0]])
    options = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    options["INFERENCE_NUM_THREADS"] = 1 if callers else cores
    own = threading.local()

    def label(x: np.ndarray) -> np.ndarray:
        if not hasattr(own, "request"):
            own.request = core.compile_model(model, "CPU", options).create_infer_request()
        own.request.infer([x], share_inputs=True)
        return own.request.get_output_tensor().data

    return deal(each_batch(label, batch_size), batch_size, cores if callers else 1)


def _onnx(network: Network, dtype: str) -> bytes:
    from onnx import TensorProto, checker, helper, numpy_helper

    activation = {"sigmoid": "Sigmoid", "relu": "Relu"}[hidden_activation(network)]
    nodes, weights = [helper.make_node("Cast", ["x"], ["a0"], to=TensorProto.FLOAT)], []
    for i, (W, b) in enumerate(scaled_layers(network)):
        weights += [numpy_helper.from_array(W, f"W{i}"), numpy_helper.from_array(b, f"b{i}")]
        nodes.append(helper.make_node("Gemm", [f"a{i}", f"W{i}", f"b{i}"], [f"z{i}"]))
        nodes.append(helper.make_node(activation, [f"z{i}"], [f"a{i + 1}"]))
    nodes[-1] = helper.make_node("ArgMax", [f"z{i}"], ["labels"], axis=1, keepdims=0)
    kind = TensorProto.UINT8 if dtype == "uint8" else TensorProto.FLOAT
    x = helper.make_tensor_value_info("x", kind, ["n", network.sizes[0]])
    labels = helper.make_tensor_value_info("labels", TensorProto.INT64, ["n"])
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(
        helper.make_graph(nodes, "mlp", [x], [labels], weights), opset_imports=opset, ir_version=9
    )
    checker.check_model(model)
    return model.SerializeToString()
