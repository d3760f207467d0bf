import io
import json

import numpy as np
import pytest

from mlpinfer import Dataset, InputError, Network, Predictor
from mlpinfer.evaluation import metrics
from mlpinfer.evaluation.mistakes import Mistake, Mistakes, find_mistakes
from mlpinfer.render import terminal_images
from mlpinfer.render.text import Stdout


@pytest.fixture(scope="module")
def predictor(network):
    return Predictor(network, scale=1 / 255)


def test_they_are_the_rows_that_are_wrong(predictor, mnist, monkeypatch):
    x, t = mnist
    monkeypatch.setattr(metrics, "_CHUNK_ROWS", 999)
    found = find_mistakes(predictor, Dataset(x.reshape(-1, 28, 28), t), 10_000)
    predicted, proba = predictor.predict(x), predictor.predict_proba(x)
    assert found.total == len(found.shown) == 223
    assert sorted(mistake.row for mistake in found.shown) == np.flatnonzero(predicted != t).tolist()
    confidences = [mistake.confidence for mistake in found.shown]
    assert confidences == sorted(confidences, reverse=True)
    for mistake in found.shown:
        assert (mistake.label, mistake.predicted) == (t[mistake.row], predicted[mistake.row])
        assert mistake.confidence == pytest.approx(proba[mistake.row].max(), abs=1e-6)
        np.testing.assert_array_equal(mistake.image, x[mistake.row].reshape(28, 28))
    few = find_mistakes(predictor, Dataset(x, t), 5)
    assert few.total == 223
    assert [m.row for m in few.shown] == [m.row for m in found.shown[:5]]


def test_floats_are_shown_from_black_to_white():
    network = Network.from_arrays([np.zeros((4, 2))], [[1.0, 0]])
    rows = np.array([[-1, 0, 1, 3], [7, 7, 7, 7], [np.nan, 0, np.inf, 1]])
    found = find_mistakes(Predictor(network), Dataset(rows, np.array([1, 1, 1])), 9)
    images = [mistake.image.tolist() for mistake in found.shown]
    assert images == [[[0, 64], [128, 255]], [[0, 0], [0, 0]], [[0, 0], [0, 255]]]


def test_a_threshold_decides_what_is_a_mistake():
    network = Network.from_arrays([[[1.0], [0.0]]], [[0.0]], head="sigmoid")
    data = Dataset(np.array([[1.0, 0], [-1, 0]]), np.array([1, 0]))
    assert find_mistakes(Predictor(network), data, 9) == Mistakes(total=0, shown=())
    (mistake,) = find_mistakes(Predictor(network, threshold=0.9), data, 9).shown
    assert (mistake.row, mistake.label, mistake.predicted, mistake.image) == (0, 1, 0, None)
    assert mistake.confidence == pytest.approx(1 / (1 + np.e))


def test_what_is_no_number_is_least_confident():
    network = Network.from_arrays([np.eye(2)], [[0.0, 0]])
    x = np.array([[np.nan, 0], [1, 0], [2, 0], [3, 0], [np.nan, 0], [5, 0], [0.5, 0]])
    with np.errstate(invalid="ignore"):
        found = find_mistakes(Predictor(network), Dataset(x, np.ones(7, int)), 3)
    assert [mistake.row for mistake in found.shown] == [5, 3, 2]


def test_what_has_no_mistakes_is_refused(mnist):
    values = Predictor(Network.random([4, 2], head="identity"))
    with pytest.raises(InputError, match="expected a classifier, found an identity head"):
        find_mistakes(values, Dataset(np.ones((2, 4)), np.ones((2, 2))), 1)
    with pytest.raises(InputError, match="expected labels to compare with, found none in array"):
        find_mistakes(Predictor(Network.random([4, 2])), Dataset(np.ones((2, 4))), 1)


def printed(monkeypatch, image, encoding="utf-8", width=80, **how):
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(
        terminal_images, "Stdout", lambda **options: Stdout(file=out, width=width, **options, **how)
    )
    mistakes = [Mistake(row=row, label=2, predicted=6, confidence=0.9876, image=image) for row in range(5)]
    terminal_images.print_mistakes(Mistakes(total=7, shown=tuple(mistakes)), 4)
    out.flush()
    return out.buffer.getvalue().decode(encoding)


def test_images_as_half_blocks(monkeypatch):
    image = np.array([[0, 255, 0], [0, 255, 255], [200, 0, 0]], np.uint8)
    text = printed(monkeypatch, image)
    assert "the 4 most confident of 7 mistakes" in text
    assert text.count("2 taken for 6") == 4
    assert " █▄" in text
    assert "▀" in text
    assert "row 3, p 0.988" in text
    assert max(map(len, text.splitlines())) <= 80
    assert len(printed(monkeypatch, image, width=17).splitlines()) > len(text.splitlines())


def test_images_without_unicode_and_in_colour(monkeypatch):
    image = np.array([[0, 255], [0, 255]], np.uint8)
    assert "\n @" in printed(monkeypatch, image, "ascii")
    colours = printed(monkeypatch, image, force_terminal=True, color_system="truecolor", no_color=False)
    assert "\x1b[38;2;0;0;0;48;2;0;0;0m▀" in colours
    assert "\x1b[38;2;255;255;255;48;2;255;255;255m▀" in colours


def test_wide_images_are_shrunk(monkeypatch):
    image = np.zeros((90, 90), np.uint8)
    image[:30, :30] = 255
    text = printed(monkeypatch, image, width=40)
    assert max(map(len, text.splitlines())) <= 40
    assert "█" * 10 in text
    assert "█" * 11 not in text


def test_the_command_writes_them_as_json(run):
    found = json.loads(run("score", "--repeat", 1, "--errors", 2, "--json", "-").stdout)["mistakes"]
    assert found["total"] == 223
    assert [(mistake["row"], mistake["label"], mistake["predicted"]) for mistake in found["shown"]] == [
        (6574, 2, 6), (3941, 4, 6),
    ]  # fmt: skip
