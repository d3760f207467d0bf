"""A neuron as a gate: AND, OR, NAND, and XOR as two layers of them. Prints Z and A of a batch."""

from mlpinfer import Network, Predictor

x = [[0, 0], [0, 1], [1, 0], [1, 1]]

gates = {
    "AND": Network.from_arrays([[5, 5]], [-7.5], head="sigmoid"),
    "OR": Network.from_arrays([[5, 5]], [-2.5], head="sigmoid"),
    "NAND": Network.from_arrays([[-5, -5]], [7.5], head="sigmoid"),
    # XOR is AND of (OR, NAND): no single neuron can do it.
    "XOR": Network.from_arrays(
        [[[20, -20], [20, -20]], [20, 20]], [[-10, 30], -30], hidden="sigmoid", head="sigmoid"
    ),
}

for name, network in gates.items():
    predictor = Predictor(network, precision="float64")
    print(f"{name:4} {predictor.predict(x)}")
    for layer, (z, a) in enumerate(predictor.trace(x), 1):
        print(f"     layer {layer}  Z {z.round(1).tolist()}")
        print(f"              A {a.round(3).tolist()}")
