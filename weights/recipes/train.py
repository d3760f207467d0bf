"""The recipe of the shipped weights: two sigmoid networks for MNIST, trained by PyTorch.

    pip install torch==2.13.0
    python weights/recipes/train.py FOLDER        # with train-images-idx3-ubyte and train-labels-idx1-ubyte

For each network the weight decay is chosen by accuracy on 6,000 of the 60,000 training images that
the candidate was not trained on; the network is then trained once more on all 60,000. The test set
is read only after that, to print the accuracy.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from mlpinfer.io.data.dataset import Dataset, load_data  # noqa: E402
from mlpinfer.io.data.mnist import load_mnist_dataset  # noqa: E402
from mlpinfer.io.files import atomic_write  # noqa: E402
from mlpinfer.io.weights import numpy_pickle  # noqa: E402

SEED = 0
EPOCHS = 40
BATCH = 128
LEARNING_RATE = 3e-3
WEIGHT_DECAYS = (0.03, 0.1, 0.3)
VALIDATION = 6_000


class SigmoidNetwork(nn.Module):
    """Linear layers fc1, fc2, fc3 with sigmoid between them; returns logits."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes), 1):
            self.add_module(f"fc{i}", nn.Linear(inputs, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, shape (N, K), of images in [0, 1], shape (N, D)."""
        *hidden, last = self.children()
        for layer in hidden:
            x = torch.sigmoid(layer(x))
        return last(x)


def tensors(data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Images as float32 rows in [0, 1] and labels as int64."""
    x = torch.tensor(data.x).reshape(data.samples, -1).float() * data.scale
    return x, torch.tensor(data.y).long()


def train(sizes: tuple[int, ...], x: torch.Tensor, t: torch.Tensor, weight_decay: float) -> SigmoidNetwork:
    """AdamW with a one-cycle learning rate on cross-entropy; the same seed gives the same network."""
    torch.manual_seed(SEED)
    network = SigmoidNetwork(sizes)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=weight_decay)
    steps = -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, epochs=EPOCHS, steps_per_epoch=steps
    )
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[rows]), t[rows]).backward()
            optimizer.step()
            schedule.step()
    return network


@torch.no_grad()
def accuracy(network: SigmoidNetwork, x: torch.Tensor, t: torch.Tensor) -> float:
    """Share of rows whose largest logit is at the true label."""
    return float((network(x).argmax(1) == t).double().mean())


def recipe(sizes: tuple[int, ...], x: torch.Tensor, t: torch.Tensor) -> SigmoidNetwork:
    """Choose the weight decay on a validation split, then train on all rows."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(SEED))
    held, kept = order[:VALIDATION], order[VALIDATION:]
    scores = {w: accuracy(train(sizes, x[kept], t[kept], w), x[held], t[held]) for w in WEIGHT_DECAYS}
    print(sizes, "validation accuracy by weight decay:", scores, flush=True)
    return train(sizes, x, t, max(scores, key=lambda w: scores[w]))


def main() -> None:
    """Train both networks and write them into weights/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # sums in another order would give another network
    x, t = tensors(load_data(folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"))
    x_test, t_test = tensors(load_mnist_dataset())

    small = recipe((784, 50, 100, 10), x, t)
    print("784-50-100-10 test accuracy", accuracy(small, x_test, t_test), flush=True)
    arrays = {}
    for i, layer in enumerate(small.children(), 1):
        arrays[f"W{i}"] = layer.weight.detach().numpy().T
        arrays[f"b{i}"] = layer.bias.detach().numpy()
    with atomic_write(ROOT / "weights" / "mnist_784-50-100-10.pkl") as file:
        file.write(numpy_pickle.encode(arrays))

    large = recipe((784, 128, 64, 10), x, t)
    print("784-128-64-10 test accuracy", accuracy(large, x_test, t_test), flush=True)
    with atomic_write(ROOT / "weights" / "mnist_784-128-64-10.pt") as file:
        torch.save(large.state_dict(), file)


if __name__ == "__main__":
    main()
