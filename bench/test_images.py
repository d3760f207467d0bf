"""The MNIST test set by one contender: batch sizes from 1 to all, from bytes and from float32."""

import numpy as np
import pytest
from contenders import CONTENDERS

BATCH_SIZES = (1, 10, 100, 1_000, 10_000)
#: Of other libraries near ties may turn round on another processor; they are counted and printed.
PEERS_MAY_DIFFER = 5
#: One by one the slowest contenders would take minutes for all rows.
ROWS_ONE_BY_ONE = 1_000


def rows_to_time(x: np.ndarray, batch_size: int) -> np.ndarray:
    return x[:ROWS_ONE_BY_ONE] if batch_size == 1 else x


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_images(benchmark, contender, dtype, batch_size, cores, networks, images, textbook_labels):
    x = rows_to_time(images[dtype], batch_size)
    labels_of = CONTENDERS[contender](networks[dtype], batch_size, dtype, cores)
    labels = benchmark(labels_of, x)
    different = int(np.count_nonzero(labels != textbook_labels[dtype][: len(x)]))
    benchmark.extra_info.update(rows=len(x), threads=cores, labels_different=different)
    assert different <= (0 if contender.startswith("mlpinfer") else PEERS_MAY_DIFFER)
