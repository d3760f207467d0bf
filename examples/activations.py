"""The activation curves, drawn into activations.png in the current folder."""

import numpy as np
from matplotlib.figure import Figure

from mlpinfer.model import activations, ops

x = np.linspace(-6, 6, 241)
figure = Figure((6, 4), layout="constrained")
axes = figure.subplots()
for name in ("identity", "sigmoid", "tanh", "relu", "leaky_relu(0.1)"):
    axes.plot(x, activations.activation(name)(np, x), label=name)
axes.set(ylim=(-2, 4), xlabel="x", ylabel="h(x)")
axes.grid(alpha=0.3)
axes.legend()
figure.savefig("activations.png", dpi=120)

print("softmax of (0.3, 2.9, 4.0):", ops.softmax(np, np.array([0.3, 2.9, 4.0])).round(4))
print("and of the same + 1000:   ", ops.softmax(np, np.array([1000.3, 1002.9, 1004.0])).round(4))
print("drew activations.png")
