"""PyTorch on a GPU, used as somebody who knows it would: rows and labels stay on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peers import hidden_activation, scaled_layers

from mlpinfer import Network

#: Makes labels of rows that are on the device.
Labels = Callable[[Any], Any]


def _forward(network: Network, device: str) -> Labels:
    import torch

    *hidden, last = [
        (torch.tensor(W.T.copy(), device=device), torch.tensor(b, device=device))
        for W, b in scaled_layers(network)
    ]
    activation = {"sigmoid": torch.sigmoid, "relu": torch.relu}[hidden_activation(network)]

    @torch.inference_mode()
    def labels(x: Any) -> Any:
        a = x.float()
        for W, b in hidden:
            a = activation(torch.nn.functional.linear(a, W, b))
        return torch.nn.functional.linear(a, *last).argmax(1)

    return labels


def eager(network: Network, rows: Any, device: str = "cuda") -> Labels:
    return _forward(network, device)


def compiled(network: Network, rows: Any, device: str = "cuda") -> Labels:
    import torch

    torch._dynamo.reset()  # or it would take the next shape for a dynamic one
    labels = torch.compile(_forward(network, device), mode="max-autotune-no-cudagraphs", dynamic=False)
    labels(rows)
    return labels


def graphs(network: Network, rows: Any, device: str = "cuda") -> Labels:
    """One captured graph, replayed: for rows of this shape, cast on the way to where it reads them."""
    import torch

    labels = _forward(network, device)
    static = rows.float()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):  # warmed up on another stream, as capturing asks for
        for _ in range(3):
            labels(static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = labels(static)

    def replay(x: Any) -> Any:
        static.copy_(x)
        graph.replay()
        return out

    return replay


PEERS = {"torch-eager": eager, "torch-compile": compiled, "torch-graphs": graphs}
