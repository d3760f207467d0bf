"""What options stand for: networks, data, predictors, a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import click

from mlpinfer.cli.options import ClusterOptions, NetworkOptions, RunOptions
from mlpinfer.cli.progress import note
from mlpinfer.cli.signals import explain_bus_error
from mlpinfer.errors import DatasetError, WeightsError
from mlpinfer.io.data.read_options import ReadOptions

if TYPE_CHECKING:
    from mlpinfer.engine.predictor import Predictor
    from mlpinfer.evaluation.parts import StoredData
    from mlpinfer.io.data.dataset import Dataset
    from mlpinfer.io.data.source import OpenSource
    from mlpinfer.jobs.dask_runner import DaskRunner
    from mlpinfer.model.network import Network

Result = TypeVar("Result")
#: Rows of fewer bytes are read into memory once, others in parts, in every pass.
_MAX_LOADED_BYTES = 2**30
_NUMBERS = r"[+-]?[0-9.]+(e[+-]?[0-9]+)?(,[+-]?[0-9.]+(e[+-]?[0-9]+)?)*"


class Background(Generic[Result]):
    """A function that is called in a thread of its own, which nobody waits for unless its result is wanted.

    An executor of `concurrent.futures` would import logging, which takes longer than many a command.
    """

    def __init__(self, function: Callable[[], Result]) -> None:
        self._function = function
        self._outcome: Result | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome = self._function()
        except BaseException as error:
            self._error = error

    def result(self) -> Result:
        """Wait for the function, and return or raise what it did."""
        self._thread.join()
        if self._error:
            raise self._error
        return cast(Result, self._outcome)


def load_network(file: str | None, layers: NetworkOptions, scale: float | None = None) -> Network:
    """Load a network, or the shipped one, and print the reader's notes on stderr."""
    from mlpinfer.io.weights import load

    hidden = layers.hidden
    activations = hidden.split(",") if hidden and "," in hidden else hidden
    path = load.shipped() if file is None else file
    try:
        network = load.load_network(path, activations, layers.head, scale, layers.layout)
    except FileNotFoundError:
        raise WeightsError(f"{file}: expected a weight file, found no such file") from None
    for text in network.notes:
        note(f"note: {text}")
    return network


def open_inputs(
    paths: tuple[str, ...], network: Network, reading: ReadOptions, absolute: bool = True
) -> OpenSource:
    """Open the rows that a command reads; images are resized to what the network takes."""
    from mlpinfer.io.data.source import DataSource, open_source

    explain_bus_error()
    options = dataclasses.replace(reading, side=network.image_side)
    with missing_is_data_error():
        return open_source(DataSource(paths, options), absolute)


def predictor_for(
    network: Network,
    scale: float | None,
    data_scale: float | None,
    running: RunOptions,
    on_cluster: bool = False,
) -> Predictor:
    """Make a predictor that applies the scale of the option, of the network or of the data."""
    from mlpinfer.engine.predictor import Predictor
    from mlpinfer.model.checks import first_known

    threads = running.threads
    if on_cluster and threads is None:
        # The workers of the cluster are the threads.
        threads = 1
    return Predictor(
        network,
        device=running.device,
        batch_size=running.batch_size,
        threads=threads,
        precision=running.precision,
        scale=first_known(scale, network.scale, data_scale),
        threshold=running.threshold,
    )


def on_cluster(cluster: ClusterOptions) -> bool:
    """Return True if a cluster was named.

    Raises
    ------
    click.UsageError
        If options contradict each other.
    """
    address, file = cluster.dask, cluster.dask_scheduler_file
    if "" in (address, file):
        raise click.UsageError("--dask: expected tcp://HOST:PORT or a scheduler's file, found an empty name")
    if address and file:
        raise click.UsageError("expected --dask or --dask-scheduler-file, found both")
    context = click.get_current_context()
    for name in ("min_workers", "retries"):
        source = context.get_parameter_source(name)
        if not (address or file) and source == click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')}: expected --dask with it, found none")
    return bool(address or file)


@contextlib.contextmanager
def runner_of(cluster: ClusterOptions) -> Iterator[DaskRunner | None]:
    """Connect to the cluster that the options name, and yield what runs tasks on it; None without one."""
    if not on_cluster(cluster):
        yield None
        return
    import logging

    from mlpinfer.jobs.dask_runner import DaskRunner, connect

    # What ends a run is one line of ours; the libraries would write pages before it.
    logging.disable()
    with connect(cluster.dask, cluster.dask_scheduler_file) as client:
        yield DaskRunner(client, min_workers=cluster.min_workers, retries=cluster.retries)


def load_dataset(
    data: str | None, labels: str | None, network: Network, reading: ReadOptions
) -> Dataset | StoredData:
    """Return a data set, or the MNIST test set: in memory, but for one of more than a gigabyte."""
    if data is None:
        return load_mnist()
    with missing_is_data_error():
        stored = _stored(data, labels, dataclasses.replace(reading, side=network.image_side))
    small = stored.samples * stored.row_bytes <= _MAX_LOADED_BYTES
    return stored.load() if small else stored


def load_first_rows(data: str | None, n_rows: int, network: Network, reading: ReadOptions) -> Dataset:
    """Load up to `n_rows` rows of a data set, or the MNIST test set."""
    if data is None:
        return load_mnist()
    with missing_is_data_error():
        return _stored(data, None, dataclasses.replace(reading, side=network.image_side)).load(n_rows)


def load_mnist() -> Dataset:
    """Load the MNIST test set."""
    from mlpinfer.io.data import mnist

    return mnist.load_mnist_dataset()


def _stored(data: str, labels: str | None, options: ReadOptions) -> StoredData:
    from mlpinfer.evaluation.parts import StoredData
    from mlpinfer.io.data.open import open_rows

    try:
        rows = open_rows([data], options)
        truth = None if labels is None else open_rows([labels])
    except MemoryError:
        raise DatasetError(f"{data}: does not fit into memory") from None
    return StoredData(name=os.path.basename(data.rstrip(os.sep)), rows=rows, labels=truth)


@contextlib.contextmanager
def unchanged(*files: str | None) -> Iterator[None]:
    """Refuse files of the user's that are missing, or change until the end."""
    given = [file for file in files if file is not None]
    if not given:
        yield
        return
    from mlpinfer.io.data.source import unchanged

    with contextlib.ExitStack() as stack:
        with missing_is_data_error():
            stack.enter_context(unchanged(*given))
        yield


@contextlib.contextmanager
def missing_is_data_error() -> Iterator[None]:
    """Say of a missing data file what was expected."""
    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError(f"{error.filename}: expected a data file, found no such file") from None


def load_row(text: str, side: int | None) -> tuple[Any, float | None]:
    """Return one row, and its scale: numbers (``0,1``), or a row of a data file (``FILE:ROW``).

    Images are resized to `side`.
    """
    import numpy as np

    from mlpinfer.io.data.dataset import load_data

    with contextlib.suppress(ValueError):  # such as 1.2.3, which may be a file
        if re.fullmatch(_NUMBERS, text):
            return np.array([float(number) for number in text.split(",")]), None
    file, colon, number = text.rpartition(":")
    file, index = (file, int(number)) if colon and re.fullmatch("[0-9]{1,18}", number) else (text, 0)
    try:
        data = load_data(file, side=side)
    except FileNotFoundError:
        raise DatasetError(
            f"{text!a}: expected numbers such as 0,1 or a data file, found no such file"
        ) from None
    if index >= data.samples:
        raise DatasetError(f"{file}: expected a row from 0 to {data.samples - 1}, found {index}")
    return data.x[index].reshape(-1), data.scale
