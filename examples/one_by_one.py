"""The book's network on the test set one image at a time, then in batches of 100: the same labels, sooner.

Give the path of the book's sample_weight.pkl, or nothing for the network that comes with mlpinfer.
"""

import sys
import time

from mlpinfer import Predictor, load_mnist, load_network
from mlpinfer.io.weights.load import shipped

network = load_network(sys.argv[1] if len(sys.argv) > 1 else shipped())
x, t = load_mnist()
seconds = {}
for batch_size in (1, 100):
    predictor = Predictor(network, batch_size=batch_size)
    predictor.predict(x[:batch_size])  # warm up
    begin = time.perf_counter()
    correct = sum(
        int((predictor.predict(x[i : i + batch_size]) == t[i : i + batch_size]).sum())
        for i in range(0, len(x), batch_size)
    )
    seconds[batch_size] = time.perf_counter() - begin
    print(f"batches of {batch_size:3}: accuracy {correct / len(x):.4f} in {seconds[batch_size]:.3f} s")
print(f"batches of 100 are {seconds[1] / seconds[100]:.1f} times as fast")
