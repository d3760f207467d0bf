"""The batched MNIST script of *Deep Learning from Scratch*, chapter 3, in one file.

Its functions as the book has them. Its loader reads the two gzipped files of the test set alone; the
book's also unpickles the training set and imports `urllib`, so this copy starts sooner than the book.

    python book_script.py IMAGES.gz LABELS.gz WEIGHTS.pkl
"""

import gzip
import pickle
import sys

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    x = x - np.max(x, axis=-1, keepdims=True)
    return np.exp(x) / np.sum(np.exp(x), axis=-1, keepdims=True)


def predict(network, x):
    w1, w2, w3 = network["W1"], network["W2"], network["W3"]
    b1, b2, b3 = network["b1"], network["b2"], network["b3"]
    a1 = np.dot(x, w1) + b1
    z1 = sigmoid(a1)
    a2 = np.dot(z1, w2) + b2
    z2 = sigmoid(a2)
    a3 = np.dot(z2, w3) + b3
    return softmax(a3)


def get_data(images, labels):
    with gzip.open(labels, "rb") as f:
        t = np.frombuffer(f.read(), np.uint8, offset=8)
    with gzip.open(images, "rb") as f:
        x = np.frombuffer(f.read(), np.uint8, offset=16)
    x = x.reshape(-1, 784).astype(np.float32)
    x /= 255.0
    return x, t


def init_network(weights):
    with open(weights, "rb") as f:
        return pickle.load(f)


def main(images, labels, weights):
    x, t = get_data(images, labels)
    network = init_network(weights)
    batch_size = 100
    accuracy_cnt = 0
    for i in range(0, len(x), batch_size):
        x_batch = x[i : i + batch_size]
        y_batch = predict(network, x_batch)
        p = np.argmax(y_batch, axis=1)
        accuracy_cnt += np.sum(p == t[i : i + batch_size])
    print("Accuracy:" + str(float(accuracy_cnt) / len(x)))


if __name__ == "__main__":
    main(*sys.argv[1:])
