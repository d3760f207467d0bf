"""A 2-5-1 relu/sigmoid classifier on four blobs: before and after training, and its decision surface.

Blobs at (1, 1) and (-1, -1) are class 1, blobs at (1, -1) and (-1, 1) are class 0. The weights were
trained by `recipes/train_blobs.py`. Draws blobs.png into the current folder.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mlpinfer import Dataset, Predictor, load_network, score

HERE = Path(__file__).parent


def blobs(rows: int = 100, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points, shape (4 * rows, 2), and their labels."""
    centres = np.array([[1, 1], [-1, -1], [1, -1], [-1, 1]])
    noise = np.random.default_rng(seed).normal(scale=0.4, size=(4, rows, 2))
    return (centres[:, None] + noise).reshape(-1, 2).astype(np.float32), np.repeat([1, 1, 0, 0], rows)


def main() -> None:
    """Score both networks, and draw the trained one."""
    data = Dataset(*blobs(), name="blobs")
    for name in ("untrained", "trained"):
        network = load_network(HERE / f"blobs_2-5-1_{name}.pt", hidden="relu", head="sigmoid")
        metrics = score(Predictor(network), data, repeat=1).metrics
        print(f"{name:9}  loss {metrics.log_loss:.4f}  accuracy {metrics.accuracy:.4f}")

    predictor = Predictor(network)
    point = np.array([-1.0, 1.0])
    print(f"probability that {point} has label 1: {predictor.predict_proba(point)[1]:.6f}")

    side = np.linspace(-2.5, 2.5, 200)
    grid = np.stack(np.meshgrid(side, side), axis=-1)  # (200, 200, 2)
    surface = predictor.predict_proba(grid.reshape(-1, 2))[:, 1].reshape(200, 200)
    figure = Figure((5, 4.2), layout="constrained")
    axes = figure.subplots()
    mesh = axes.pcolormesh(side, side, surface, cmap="RdBu_r", vmin=0, vmax=1)
    for label, marker in ((0, "o"), (1, "^")):
        points = data.x[data.y == label]
        axes.scatter(
            *points.T, s=12, c="white", marker=marker, edgecolors="black", linewidths=0.6, label=label
        )
    axes.set(title="probability of label 1", xlabel="first feature", ylabel="second feature")
    axes.legend(title="label", loc="upper left")
    figure.colorbar(mesh)
    figure.savefig("blobs.png", dpi=120)
    print("drew blobs.png")


if __name__ == "__main__":
    main()
