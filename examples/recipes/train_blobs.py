"""Train the 2-5-1 classifier of `binary_classifier.py` with PyTorch 2.13.0; writes its state_dicts.

python examples/recipes/train_blobs.py
"""

import sys
from pathlib import Path

import torch
from torch import nn

EXAMPLES = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(EXAMPLES), str(EXAMPLES.parent)]

from binary_classifier import blobs  # noqa: E402


def main() -> None:
    """SGD at 0.03 for 2,000 epochs in batches of 32 on binary cross-entropy."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    x, t = (torch.tensor(array) for array in blobs())
    t = t.float()[:, None]
    network = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 1), nn.Sigmoid())
    loss = nn.BCELoss()

    def report(name: str) -> None:
        torch.save(network.state_dict(), EXAMPLES / f"blobs_2-5-1_{name}.pt")
        with torch.no_grad():
            p = network(torch.tensor([[-1.0, 1.0]])).item()
            print(f"{name}: loss {loss(network(x), t).item():.6f}, probability at (-1, 1) {p:.8f}")

    report("untrained")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.03)
    for _ in range(2_000):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            loss(network(x[rows]), t[rows]).backward()
            optimizer.step()
    report("trained")


if __name__ == "__main__":
    main()
