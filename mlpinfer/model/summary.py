"""What a network is made of, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlpinfer._json import Report
from mlpinfer.model.network import Network


@dataclass(frozen=True, kw_only=True)
class LayerSummary:
    """One layer: shapes, counts, and the smallest and largest weight; -1 stands for the batch."""

    W: tuple[int, int]
    b: tuple[int]
    output: tuple[int, int]
    parameters: int
    multiply_adds: int
    activation: str
    dtype: str
    weight_range: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class NetworkSummary(Report):
    """All layers, and their sums; `multiply_adds` is for one row."""

    schema: ClassVar[str] = "mlpinfer.inspect/1"

    layers: tuple[LayerSummary, ...]
    sizes: tuple[int, ...]
    parameters: int
    multiply_adds: int
    bytes: int
    scale: float | None
    sha256: str


def summarize(network: Network) -> NetworkSummary:
    """Describe the layers of a network."""
    layers = tuple(
        LayerSummary(
            W=(layer.inputs, layer.outputs),
            b=(layer.outputs,),
            output=(-1, layer.outputs),
            parameters=layer.parameters,
            multiply_adds=layer.inputs * layer.outputs,
            activation=layer.activation,
            dtype=layer.W.dtype.name,
            weight_range=(float(layer.W.min()), float(layer.W.max())),
        )
        for layer in network.layers
    )
    return NetworkSummary(
        layers=layers,
        sizes=network.sizes,
        parameters=network.parameters,
        multiply_adds=sum(layer.multiply_adds for layer in layers),
        bytes=sum(layer.W.nbytes + layer.b.nbytes for layer in network.layers),
        scale=network.scale,
        sha256=network.sha256,
    )
