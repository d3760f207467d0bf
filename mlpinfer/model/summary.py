"""What a network is made of, layer by layer."""

from __future__ import annotations

from typing import Any, NamedTuple

from mlpinfer.model.network import Network

SCHEMA = "mlpinfer.inspect/1"


class LayerSummary(NamedTuple):
    """One layer: shapes, counts, and the smallest and largest weight; -1 stands for the batch."""

    W: tuple[int, int]
    b: tuple[int]
    output: tuple[int, int]
    parameters: int
    multiply_adds: int
    activation: str
    dtype: str
    weight_range: tuple[float, float]


class NetworkSummary(NamedTuple):
    """All layers, and their sums; `multiply_adds` is for one row."""

    layers: tuple[LayerSummary, ...]
    sizes: tuple[int, ...]
    parameters: int
    multiply_adds: int
    bytes: int
    scale: float | None
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON, schema ``mlpinfer.inspect/1``."""
        return {"schema": SCHEMA, **self._asdict(), "layers": [layer._asdict() for layer in self.layers]}


def summarize(network: Network) -> NetworkSummary:
    """Describe the layers of a network."""
    layers = tuple(
        LayerSummary(
            (layer.inputs, layer.outputs),
            (layer.outputs,),
            (-1, layer.outputs),
            layer.parameters,
            layer.inputs * layer.outputs,
            layer.activation,
            layer.W.dtype.name,
            (float(layer.W.min()), float(layer.W.max())),
        )
        for layer in network.layers
    )
    return NetworkSummary(
        layers,
        network.sizes,
        network.parameters,
        sum(layer.multiply_adds for layer in layers),
        sum(layer.W.nbytes + layer.b.nbytes for layer in network.layers),
        network.scale,
        network.sha256,
    )
