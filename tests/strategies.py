"""Hypothesis strategies that several test modules draw from."""

import numpy as np
from hypothesis import strategies as st

from mlpinfer import Network

activations = st.sampled_from(["identity", "sigmoid", "tanh", "relu", "leaky_relu(0.2)"])


@st.composite
def networks(draw):
    sizes = draw(st.lists(st.integers(1, 12), min_size=2, max_size=6))
    head = draw(st.sampled_from(["identity", "sigmoid"] if sizes[-1] == 1 else ["identity", "softmax"]))
    hidden = [draw(activations) for _ in sizes[2:]]
    scale = draw(st.sampled_from([None, 1 / 255, 2.0]))
    return Network.random(sizes, draw(st.integers(0, 1000)), hidden, head, scale, np.float64)
