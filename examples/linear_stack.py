"""Stacked linear layers are one linear layer; regression with an identity head, 5-2-1."""

import numpy as np

from mlpinfer import Network, Predictor, fold

stack = Network.random([5, 2, 1], hidden="identity", head="identity", dtype=np.float64)
one = fold(stack)
x = np.random.default_rng(0).standard_normal((1000, 5))
difference = np.abs(stack.forward(x) - one.forward(x)).max()
print(f"{stack.sizes} is {one.sizes}: largest difference {difference:.1g} on 1,000 rows")

curved = Network.random([5, 2, 1], hidden="tanh", head="identity", dtype=np.float64)
print(f"with tanh between, {fold(curved).sizes} stays: nothing to join")

values = Predictor(curved, precision="float64").predict(x)  # (1000, 1): an identity head gives values
print(f"values of the first three rows: {values[:3, 0].round(4)}")
