"""Networks of PyTorch, scikit-learn and ONNX Runtime against ours: the same labels, the same probabilities."""

import io
import itertools
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from torch import nn

from mlpinfer import Network, Predictor, load_mnist, load_network
from mlpinfer.io.weights.load import shipped
from mlpinfer.io.weights.save import encode

TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-6, torch.float64: 1e-6}


def assert_equal(network, x, expected, logits=None, tolerance=1e-6):
    """Hold probabilities (or values) and labels to the origin's, on NumPy in float32."""
    predictor = Predictor(network, batch_size=100)
    if network.head == "identity":
        scale = np.abs(expected).max()
        np.testing.assert_allclose(predictor.predict(x), expected, atol=tolerance * scale)
        return
    found = predictor.predict_proba(x)
    bound = tolerance * max(1, np.abs(predictor.decision_function(x) if logits is None else logits).max())
    np.testing.assert_allclose(found, expected, atol=bound)
    first, second = np.sort(expected, axis=1)[:, [-1, -2]].T
    clear = first - second > bound
    np.testing.assert_array_equal(predictor.predict(x)[clear], expected.argmax(1)[clear])


ACTIVATIONS = [nn.Sigmoid(), nn.Tanh(), nn.ReLU(), nn.LeakyReLU(0.2), nn.Identity()]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda part: type(part).__name__)
@pytest.mark.parametrize("sizes", [(20, 7), (20, 30, 10), (9,) * 11, (20, 1, 3), (20, 8, 1000)], ids=str)
def test_sequential(tmp_path, dtype, activation, sizes):
    torch.manual_seed(0)
    layers = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(inputs, outputs), activation, nn.Dropout(0.5)]
    module = nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]), nn.Softmax(dim=1)).eval()
    module = module.to(dtype)
    x = torch.randn(1000, sizes[0])
    with torch.no_grad():
        expected = module.float()(x).numpy()
    module = module.to(dtype)
    assert_equal(Network.from_torch(module), x.numpy(), expected, tolerance=TOLERANCE[dtype])
    torch.save(module.state_dict(), tmp_path / "a.pt")
    name = {"LeakyReLU": "leaky_relu(0.2)"}.get(type(activation).__name__, type(activation).__name__.lower())
    network = load_network(tmp_path / "a.pt", hidden=name, head="softmax")
    assert network.sha256 == Network.from_torch(module).sha256


def test_heads():
    x = torch.randn(1000, 6)
    binary = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1), nn.Sigmoid())
    values = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    with torch.no_grad():
        p, v = binary(x).numpy(), values(x).numpy()
    assert_equal(Network.from_torch(binary), x.numpy(), np.hstack([1 - p, p]))
    assert_equal(Network.from_torch(values), x.numpy(), v)


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 5), nn.Linear(5, 3, bias=False)

    def forward(self, x):
        return torch.softmax(self.fc2(torch.relu(self.fc1(x))), dim=1)


def test_a_module_of_one_s_own_needs_its_activations():
    module, x = Custom(), torch.randn(100, 6)
    with pytest.raises(ValueError, match="only a Sequential tells its activations"):
        Network.from_torch(module)
    with torch.no_grad():
        assert_equal(Network.from_torch(module, "relu", "softmax"), x.numpy(), module(x).numpy())


class Subclass(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Around(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.first, self.part, self.last = nn.Linear(3, 5), part, nn.Linear(5, 2)


def trained(module, features):
    """Give batch normalization something to remember."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d) and part.affine:
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    for _ in range(3):
        module.train()(torch.randn(50, features) * 3 + 1)
    return module.eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "parts",
    [
        [nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 4), nn.BatchNorm1d(4)],
        [
            nn.BatchNorm1d(6),
            nn.Linear(6, 9),
            nn.ReLU(),
            nn.BatchNorm1d(9, eps=0.1),
            nn.Linear(9, 4, bias=False),
        ],
        [
            nn.BatchNorm1d(6),
            nn.BatchNorm1d(6, affine=False),
            nn.Linear(6, 4),
            nn.BatchNorm1d(4),
            nn.BatchNorm1d(4),
        ],
    ],
    ids=["after", "before", "twice"],
)
def test_batch_normalization(parts, dtype):
    torch.manual_seed(0)
    module = trained(nn.Sequential(*parts, nn.Softmax(dim=1)), 6).to(dtype)
    x = torch.randn(1000, 6).to(dtype)
    with torch.no_grad():
        expected = module(x).numpy()
    network = Network.from_torch(module)
    assert_equal(network, x.numpy(), expected)
    assert len(network.notes) == sum(isinstance(part, nn.BatchNorm1d) for part in parts)
    if dtype == torch.float64:
        np.testing.assert_allclose(network.forward(x.numpy()), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            [nn.Linear(6, 4), nn.ReLU(), nn.BatchNorm1d(4)],
            "'2': expected a linear layer behind it, found none",
        ),
        (
            [nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False)],
            "'1': expected running statistics, found none",
        ),
        ([nn.Linear(6, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)], "'3': expected linear"),
        ([nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(6, 4)], "'0': expected 6 features, found 3"),
    ],
    ids=["last", "untracked", "between", "channels"],
)
def test_batch_normalization_that_is_no_part_of_a_layer(parts, message):
    with pytest.raises(ValueError, match=message):
        Network.from_torch(nn.Sequential(*parts))


def test_what_torch_saves_of_others_is_refused_with_what_to_do(tmp_path):
    module = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    torch.save(module, tmp_path / "module.pt")
    with pytest.raises(ValueError, match=r"not a whole module: save model.state_dict\(\)$"):
        load_network(tmp_path / "module.pt")
    torch.save(module.state_dict(), tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"running_mean: .*found batch normalization; make it part of them"):
        load_network(tmp_path / "state.pt")


def test_logarithms_of_softmax():
    module, x = nn.Sequential(nn.Linear(5, 5), nn.LogSoftmax(dim=1)), torch.randn(100, 5)
    network = Network.from_torch(module)
    with torch.no_grad():
        assert_equal(network, x.numpy(), module(x).exp().numpy())
    assert "probabilities, not logarithms" in network.notes[0]
    assert Network.from_torch(module, head="identity").notes == ()
    assert Network.from_torch(Around(nn.LogSoftmax(dim=1)), "relu", "softmax").notes == network.notes


def test_half_precision_is_not_halved_again_by_batch_normalization():
    torch.manual_seed(0)
    module = trained(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4)), 6).half()
    x = torch.randn(100, 6)
    with torch.no_grad():
        assert_equal(Network.from_torch(module), x.numpy(), module.float()(x).numpy(), tolerance=1e-6)


def test_a_slope_that_contradicts_the_given_one_is_refused():
    module = Around(nn.LeakyReLU(0.2))
    assert Network.from_torch(module, "leaky_relu(0.2)", "identity").hidden == ("leaky_relu(0.2)",)
    with pytest.raises(
        ValueError, match="'part': expected linear layers and what was given, found LeakyReLU"
    ):
        Network.from_torch(module, "leaky_relu", "identity")


@pytest.mark.parametrize(
    "part",
    [
        nn.GELU(),
        nn.Tanh(),
        Subclass(5, 5),
        nn.utils.parametrizations.weight_norm(nn.Linear(5, 5)),
    ],
    ids=lambda part: type(part).__name__,
)
def test_a_part_that_cannot_be_taken_is_refused_in_any_module(part):
    for module in (Around(part), nn.Sequential(nn.Linear(3, 5), nn.ReLU(), part, nn.ReLU(), nn.Linear(5, 2))):
        if isinstance(module, Around) or not isinstance(part, nn.Tanh):
            with pytest.raises(ValueError, match="expected linear layers"):
                Network.from_torch(module, hidden="relu", head="softmax")


def test_a_checkpoint_with_its_optimizer(tmp_path):
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.Adam(module.parameters())
    loss = module(torch.randn(5, 3)).sum()
    loss.backward()
    optimizer.step()
    state = {
        "epoch": 1,
        "model_state_dict": module.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
    }
    torch.save(state | {"loss": loss.item()}, tmp_path / "a.pt")
    network = load_network(tmp_path / "a.pt", hidden="relu", head="identity")
    assert network.sha256 == Network.from_torch(module).sha256


@pytest.mark.parametrize(
    "part",
    [nn.BatchNorm2d(5), nn.GELU(), nn.Softmax(dim=0), nn.Sequential(nn.ReLU(), nn.Tanh())],
    ids=lambda part: type(part).__name__,
)
def test_other_parts_are_refused(part):
    with pytest.raises(ValueError, match="expected linear layers and activations"):
        Network.from_torch(nn.Sequential(nn.Linear(6, 5), part, nn.Linear(5, 3)))


def test_the_shipped_pytorch_network(mnist):
    x, t = load_mnist()
    path = shipped("mnist_784-128-64-10.pt")
    module = nn.Sequential()
    for i, (inputs, outputs) in enumerate([(784, 128), (128, 64), (64, 10)], 1):
        module.add_module(f"fc{i}", nn.Linear(inputs, outputs))
        module.add_module(f"act{i}", nn.Softmax(dim=1) if i == 3 else nn.Sigmoid())
    module.load_state_dict(torch.load(path, weights_only=True))
    with torch.no_grad():
        expected = module(torch.tensor(x)).numpy()
    network = load_network(path, hidden="sigmoid", head="softmax")
    assert network.sha256 == Network.from_torch(module).sha256
    assert_equal(network, x, expected)
    assert (Predictor(network).predict(x) == t).mean() == 0.982


def test_the_blobs(tmp_path):
    from tests.conftest import ROOT

    module = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 1), nn.Sigmoid())
    path = ROOT / "examples" / "blobs_2-5-1_trained.pt"
    module.load_state_dict(torch.load(path, weights_only=True))
    network = load_network(path, hidden="relu", head="sigmoid")
    with torch.no_grad():
        expected = module(torch.tensor([[-1.0, 1.0]])).item()
    assert Predictor(network).predict_proba([-1, 1])[1] == pytest.approx(expected, abs=1e-6)


@pytest.fixture(scope="module")
def digits():
    x, t = load_digits(return_X_y=True)
    return x / 16, t


@pytest.mark.parametrize("activation", ["logistic", "tanh", "relu", "identity"])
@pytest.mark.parametrize("classes", [2, 10])
def test_sklearn_classifier(digits, activation, classes):
    x, t = digits
    x, t = x[t < classes], t[t < classes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = MLPClassifier((20, 10), activation=activation, max_iter=40, random_state=0).fit(x, t)
    network = Network.from_sklearn(model)
    assert network.head == ("sigmoid" if classes == 2 else "softmax")
    assert_equal(network, x, model.predict_proba(x))
    np.testing.assert_array_equal(Predictor(network, precision="float64").predict(x), model.predict(x))


def test_sklearn_labels_of_one_s_own(digits):
    x, t = digits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = MLPClassifier((5,), max_iter=5, random_state=0).fit(x, np.array(list("abcdefghij"))[t])
    with pytest.warns(UserWarning, match="labels are positions in the model's classes_: 0 means 'a'"):
        network = Network.from_sklearn(model)
    labels = Predictor(network, precision="float64").predict(x)
    np.testing.assert_array_equal(model.classes_[labels], model.predict(x))


def test_sklearn_regressor(digits):
    x, t = digits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = MLPRegressor(hidden_layer_sizes=(20,), max_iter=40, random_state=0).fit(x, t)
    values = Predictor(Network.from_sklearn(model), precision="float64").predict(x)
    np.testing.assert_allclose(values[:, 0], model.predict(x), rtol=1e-9)


@pytest.mark.parametrize("hidden", ["sigmoid", "tanh", "relu", "leaky_relu(0.2)", "identity"])
@pytest.mark.parametrize("head", ["softmax", "identity", "sigmoid"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_onnx_runtime_runs_what_we_write(hidden, head, dtype):
    sizes = [12, 9, 9, 1 if head == "sigmoid" else 4]
    network = Network.random(sizes, hidden=hidden, head=head, scale=1 / 3, dtype=dtype)
    session = onnxruntime.InferenceSession(encode(network, "a.onnx"), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((1000, 12))
    feed = x.astype(np.float64 if dtype == np.float64 else np.float32)
    (found,) = session.run(None, {"x": feed})
    expected = network.forward(feed)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * max(1, np.abs(expected).max()))


def test_onnx_from_pytorch(tmp_path):
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), nn.Softmax(dim=1)).eval()
    x = torch.randn(100, 6)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), file, dynamo=False)
    (tmp_path / "a.onnx").write_bytes(file.getvalue())
    with torch.no_grad():
        assert_equal(load_network(tmp_path / "a.onnx"), x.numpy(), module(x).numpy())
