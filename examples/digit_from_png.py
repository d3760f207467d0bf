"""Embed a Predictor: one PNG in, the digit and its probability out. Needs Pillow (extra `images`).

python examples/digit_from_png.py digit.png
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from mlpinfer import Predictor, load_mnist, load_network
from mlpinfer.io.weights.load import shipped

predictor = Predictor(load_network(shipped()), scale=1 / 255)


def read_digit(path: str | Path) -> tuple[int, float]:
    """Return the digit that a picture shows, white on black, and how probable it is."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L").resize((28, 28)))  # (28, 28), uint8
    probabilities = predictor.predict_proba(pixels)
    digit = int(probabilities.argmax())
    return digit, float(probabilities[digit])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        path = sys.argv[1]
    else:  # a picture to try it on: the first of the test set
        path = "seven.png"
        Image.fromarray(load_mnist(normalize=False)[0][0].reshape(28, 28)).save(path)
    digit, probability = read_digit(path)
    print(f"{path}: {digit} with probability {probability:.4f}")
