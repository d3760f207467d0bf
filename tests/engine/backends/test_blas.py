import threading

import numpy as np
import pytest

from mlpinfer import Predictor
from mlpinfer.engine.backends.blas import Limit, SingleThreadedBlas, single_threaded_blas


@pytest.fixture
def blas():
    """The real BLAS of this process, at three threads."""
    limits = single_threaded_blas.limits()
    assert limits
    before = [limit.get() for limit in limits]
    for limit in limits:
        limit.set(3)
    yield lambda: [limit.get() for limit in limits]
    for limit, threads in zip(limits, before, strict=True):
        limit.set(threads)


def test_one_thread_inside_and_what_it_was_outside(blas):
    three = blas()
    with single_threaded_blas:
        assert set(blas()) == {1}
        with single_threaded_blas:
            assert set(blas()) == {1}
        assert set(blas()) == {1}
    assert blas() == three


def test_overlapping_threads_leave_it_as_it_was(blas):
    """The first in is not the last out, and its thread still lives when the last one restores."""
    three = blas()
    entered, left, done = threading.Event(), threading.Event(), threading.Event()
    seen = []

    def first():
        with single_threaded_blas:
            entered.set()
            left.wait(30)
        seen.append(blas())
        done.wait(30)

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(30)
    with single_threaded_blas:
        left.set()
        while not seen:
            pass
        assert set(blas()) == {1}
    assert set(seen[0]) == {1}
    assert blas() == three
    done.set()
    thread.join(30)


def test_a_limit_for_each_thread_is_set_in_each():
    """An OpenBLAS on OpenMP: what one thread sets, another does not see."""
    local = threading.local()

    def get():
        return getattr(local, "threads", 4)

    guard = SingleThreadedBlas()
    guard._limits = [Limit(get, lambda n: setattr(local, "threads", n), per_thread=True)]
    seen = []

    def worker():
        with guard:
            seen.append(get())
        seen.append(get())

    with guard:
        thread = threading.Thread(target=worker)
        thread.start()
        thread.join(30)
        with guard:
            assert get() == 1
        assert get() == 1
    assert get() == 4
    assert seen == [1, 4]


def test_a_predictor_leaves_blas_as_it_was(blas, network, mnist, monkeypatch):
    monkeypatch.setenv("MLPINFER_EVALUATOR", "plan")
    three = blas()
    seen = []
    predictor = Predictor(network, threads=2, scale=1 / 255)
    labels = predictor._outputs["labels"]
    predictor._outputs["labels"] = labels._replace(
        evaluate=lambda *args: (seen.append(blas()), labels.evaluate(*args))
    )
    predictor.predict(mnist[0])
    assert {threads for row in seen for threads in row} == {1}
    assert blas() == three


def test_results_do_not_depend_on_the_threads_of_blas(blas, network, mnist, monkeypatch):
    monkeypatch.setenv("MLPINFER_EVALUATOR", "plan")
    predictor = Predictor(network, batch_size=1_000, scale=1 / 255)
    expected = predictor.decision_function(mnist[0])
    for limit in single_threaded_blas.limits():
        limit.set(1)
    np.testing.assert_array_equal(predictor.decision_function(mnist[0]), expected)
