"""Options that several commands share, and what turns them into objects."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

from mlpinfer.errors import DatasetError, WeightsError

if TYPE_CHECKING:
    from mlpinfer.data_files import Dataset
    from mlpinfer.network import Network

Command = TypeVar("Command", bound=Callable[..., Any])
Result = TypeVar("Result")
_NUMBERS = r"[+-]?[0-9.]+(e[+-]?[0-9]+)?(,[+-]?[0-9.]+(e[+-]?[0-9]+)?)*"


class Scale(click.ParamType[float]):
    """A number, or a fraction such as 1/255."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse ``0.5`` or ``1/255``."""
        try:
            numerator, slash, denominator = str(value).replace("_", "?").partition("/")  # float() takes 1_0
            return float(numerator) / (float(denominator) if slash else 1.0)
        except (ValueError, ZeroDivisionError):
            self.fail(f"expected a number such as 1/255, found {ascii(value)[:60]}", param, ctx)


def network(command: Command) -> Command:
    """Add the options for what a weight file may not say."""
    for option in (
        click.option(
            "--layout", type=click.Choice(["in-out", "out-in"]), help="Which way round weights lie."
        ),
        click.option(
            "--head", type=click.Choice(["softmax", "sigmoid", "identity"]), help="Behind the last layer."
        ),
        click.option(
            "--hidden", metavar="NAMES", help="Activation of the hidden layers, or one each: relu,tanh."
        ),
    ):
        command = option(command)
    return command


weights = click.option(
    "--weights",
    metavar="FILE",
    help="Pickle, npz, safetensors, PyTorch or ONNX.  [default: the shipped 784-50-100-10]",
)
scale = click.option(
    "--scale", type=Scale(), metavar="NUMBER", help="What inputs are multiplied by, such as 1/255."
)
batch_size = click.option(
    "--batch-size", type=click.IntRange(1), default=100, show_default=True, help="Rows in one forward call."
)
device = click.option("--device", default="auto", show_default=True, help="auto, cpu, gpu or gpu:N.")
threads = click.option("--threads", type=click.IntRange(1), help="Workers on the CPU.  [default: all cores]")
precision = click.option(
    "--precision", type=click.Choice(["float32", "float64"]), default="float32", show_default=True,
    help="What is computed in.",
)  # fmt: skip


threshold = click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Of a sigmoid head: the probability above which the label is 1.",
)
label_column = click.option(
    "--label-column", metavar="NAME|NUMBER", help="Column of a CSV file that is the label and no feature."
)
invert = click.option("--invert", is_flag=True, help="Images are dark on light.")


def _check_folder(ctx: click.Context, option: click.Parameter, file: str | None) -> str | None:
    """Refuse a file that cannot be written before anything is computed for it."""
    if file not in (None, "-") and (os.path.isdir(file) or not os.path.isdir(os.path.dirname(file) or ".")):
        raise click.BadParameter(f"expected a file in a folder that is there, found {file}", ctx, option)
    return file


json_output = click.option(
    "--json",
    "json",
    metavar="FILE|-",
    callback=_check_folder,
    help="Write JSON to FILE, or to stdout instead of the table.",
)


class Background(Generic[Result]):
    """A function that runs in a thread of its own; unpacking leaves the rest of Python free meanwhile."""

    def __init__(self, function: Callable[..., Result], *args: Any) -> None:
        self._outcome: list[Result] = []
        self._error: list[BaseException] = []

        def run() -> None:
            try:
                self._outcome.append(function(*args))
            except BaseException as error:
                self._error.append(error)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def result(self) -> Result:
        """Wait for the function, and return or raise what it did."""
        self._thread.join()
        if self._error:
            raise self._error[0]
        return self._outcome[0]


def load_network(
    file: str | None, hidden: str | None, head: str | None, layout: str | None, scale: float | None = None
) -> Network:
    """Load a network, or the shipped one, and print the reader's notes on stderr."""
    from mlpinfer import weight_files

    activations = hidden.split(",") if hidden and "," in hidden else hidden
    path = weight_files.shipped() if file is None else file
    try:
        network = weight_files.load_network(path, activations, head, scale, layout)
    except FileNotFoundError:
        raise WeightsError(f"{file}: expected a weight file, found no such file") from None
    for note in network.notes:
        click.echo(f"note: {note}", err=True)
    return network


def load_dataset(data: str | None, labels: str | None, **how: Any) -> Dataset:
    """Load a data set, or the MNIST test set."""
    from mlpinfer import data_files, mnist

    if data is None:
        return mnist.load_mnist_dataset()
    with missing_is_data_error():
        return data_files.load_data(data, labels, **how)


@contextlib.contextmanager
def missing_is_data_error() -> Iterator[None]:
    """Say of a missing data file what was expected."""
    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError(f"{error.filename}: expected a data file, found no such file") from None


def write_json(values: dict[str, Any], file: str) -> None:
    """Write one JSON object to a file, whole or not at all, or to stdout where `file` is ``-``."""
    from mlpinfer.report import jsonable

    text = json.dumps(jsonable(values), indent=2, allow_nan=False)
    if file == "-":
        click.echo(text)
        return
    from mlpinfer.files import write_whole

    with write_whole(file) as output:
        output.write(text.encode() + b"\n")


def load_row(text: str) -> tuple[Any, float | None]:
    """Return one row, and its scale: numbers (``0,1``), or a row of a data file (``FILE:ROW``)."""
    import numpy as np

    from mlpinfer import data_files

    if re.fullmatch(_NUMBERS, text):
        return np.array([float(number) for number in text.split(",")]), None
    file, colon, number = text.rpartition(":")
    file, index = (file, int(number)) if colon and number.isdigit() else (text, 0)
    try:
        data = data_files.load_data(file)
    except FileNotFoundError:
        raise DatasetError(
            f"{text!a}: expected numbers such as 0,1 or a data file, found no such file"
        ) from None
    if index >= data.samples:
        raise DatasetError(f"{file}: expected a row from 0 to {data.samples - 1}, found {index}")
    return data.x[index].reshape(-1), data.scale
