"""A 784-128-64-10 network saved by PyTorch: what is in it, and how right it is, without PyTorch."""

from mlpinfer import Predictor, load_mnist, load_network, score
from mlpinfer.io.data.dataset import Dataset
from mlpinfer.io.weights.load import shipped
from mlpinfer.model.summary import summarize
from mlpinfer.render.text import print_score, print_summary

# A state_dict says neither its activations nor its head, so they are given.
network = load_network(shipped("mnist_784-128-64-10.pt"), hidden="sigmoid", head="softmax", scale=1 / 255)
print_summary(summarize(network))

x, t = load_mnist(normalize=False)
print_score(score(Predictor(network, batch_size=100), Dataset(x, t, name="MNIST test")))
