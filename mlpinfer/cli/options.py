"""Options that several commands share; `mlpinfer.cli.loading` makes of them what they stand for."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from mlpinfer._text import quoted
from mlpinfer.io.data.read_options import ReadOptions

if TYPE_CHECKING:
    Number = click.ParamType[float]
else:
    Number = click.ParamType  # takes no argument before click 8.4

Command = TypeVar("Command", bound=Callable[..., Any])


class Scale(Number):
    """A number, or a fraction such as 1/255."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse ``0.5`` or ``1/255``."""
        try:
            numerator, slash, denominator = str(value).replace("_", "?").partition("/")  # float() takes 1_0
            return float(numerator) / (float(denominator) if slash else 1.0)
        except (ValueError, ZeroDivisionError):
            self.fail(f"expected a number such as 1/255, found {quoted(value)}", param, ctx)


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """What a weight file may leave open."""

    hidden: str | None
    head: str | None
    layout: str | None


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a network is run: arguments of `Predictor`."""

    batch_size: int
    device: str
    threads: int | None
    precision: str
    threshold: float


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Which Dask cluster to use, if any, and how."""

    dask: str | None
    dask_scheduler_file: str | None
    min_workers: int
    retries: int


def together(
    name: str, kind: Callable[..., Any], *options: Callable[[Command], Command]
) -> Callable[[Command], Command]:
    """Return one decorator of several options; the command gets their values as one `kind`, called `name`."""

    def add(command: Command) -> Command:
        @functools.wraps(command)
        def gathered(*args: Any, **values: Any) -> Any:
            return command(*args, **values | {name: kind(**{key: values.pop(key) for key in keys})})

        inner = list(vars(gathered).get("__click_params__", ()))
        for option in reversed(options):
            gathered = option(gathered)
        keys = [param.name for param in vars(gathered)["__click_params__"] if param not in inner]
        return cast(Command, gathered)

    return add


network = together(
    "layers",
    NetworkOptions,
    click.option(
        "--hidden",
        metavar="NAMES",
        help="Activation of the hidden layers, or one each (relu,tanh): sigmoid, tanh, relu, "
        "leaky_relu(SLOPE) or identity.",
    ),
    click.option(
        "--head", type=click.Choice(["softmax", "sigmoid", "identity"]), help="Behind the last layer."
    ),
    click.option("--layout", type=click.Choice(["in-out", "out-in"]), help="Which way round weights lie."),
)
weights = click.option(
    "--weights",
    type=click.Path(readable=False),
    metavar="FILE",
    help="Pickle, npz, safetensors, PyTorch or ONNX.  [default: the shipped 784-50-100-10]",
)
scale = click.option(
    "--scale", type=Scale(), metavar="NUMBER", help="What inputs are multiplied by, such as 1/255."
)
data = click.option(
    "--data",
    type=click.Path(readable=False),
    metavar="PATH",
    help="Rows or images: .npy, .npz, IDX, CSV, PNG, JPEG, a folder of them.  [default: the MNIST test set]",
)
values = click.option(
    "--values",
    type=click.Choice(["labels", "proba"]),
    default="labels",
    show_default=True,
    help="What the timed passes compute; proba adds the softmax.",
)
repeat = click.option(
    "--repeat", type=click.IntRange(1), default=3, show_default=True, help="Timed passes over all rows."
)
reading = together(
    "reading",
    ReadOptions,
    click.option(
        "--label-column",
        metavar="NAME|NUMBER",
        help="Column of a CSV file, by name or number from 0, that is the label and no feature.",
    ),
    click.option(
        "--header/--no-header",
        default=None,
        help="Whether CSV files begin with names.  [default: if no cell of their first line is a number]",
    ),
    click.option("--invert", is_flag=True, help="Images are dark on light."),
)
precision = click.option(
    "--precision",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="What is computed in.",
)
running = together(
    "running",
    RunOptions,
    click.option(
        "--batch-size",
        type=click.IntRange(1),
        default=100,
        show_default=True,
        help="Rows in one forward call.",
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, gpu or gpu:N."),
    click.option("--threads", type=click.IntRange(1), help="Workers on the CPU.  [default: all cores]"),
    precision,
    click.option(
        "--threshold",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.5,
        show_default=True,
        help="Of a sigmoid head: the probability above which the label is 1.",
    ),
)
cluster = together(
    "cluster",
    ClusterOptions,
    click.option(
        "--dask", metavar="ADDRESS", help="Run on the Dask cluster of this scheduler, tcp://HOST:PORT."
    ),
    click.option(
        "--dask-scheduler-file",
        type=click.Path(readable=False),
        metavar="FILE",
        help="The same, by the file that it writes.",
    ),
    click.option(
        "--min-workers",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Dask workers to wait for.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(0),
        default=2,
        show_default=True,
        help="How often Dask tries a task again.",
    ),
)


def check_folder(ctx: click.Context, option: click.Parameter, file: str | None) -> str | None:
    """Refuse a file whose folder is not there, or that is another output too, before anything is computed."""
    if file is None or (file == "-" and option.name == "json"):
        return file
    if file in ("", "-") or os.path.isdir(file) or not os.path.isdir(os.path.dirname(file) or "."):
        raise click.BadParameter(f"expected a file in a folder that is there, found {file!a}", ctx, option)
    outputs = ctx.meta.setdefault("mlpinfer.output_files", {})
    other = outputs.setdefault(os.path.realpath(file), option.opts[0])
    if other != option.opts[0]:
        raise click.BadParameter(f"expected another file than for {other}, found {file}", ctx, option)
    return file


def plot(what: str) -> Callable[[Command], Command]:
    """Return the option to draw `what` to a file."""
    return click.option(
        "--plot",
        type=click.Path(readable=False),
        metavar="FILE.png|svg",
        callback=_check_plot,
        help=f"{what} Needs mlpinfer[report].",
    )


def _check_plot(ctx: click.Context, option: click.Parameter, file: str | None) -> str | None:
    if check_folder(ctx, option, file) is None:
        return None
    if os.path.splitext(str(file))[1].lower() not in (".png", ".svg"):
        raise click.BadParameter(f"expected a name that ends in .png or .svg, found {file}", ctx, option)
    from mlpinfer.render.plots import check_packages

    check_packages()
    return file


json_output = click.option(
    "--json",
    "json",
    type=click.Path(readable=False),
    metavar="FILE|-",
    callback=check_folder,
    help="Write JSON to FILE, or to stdout instead of the table.",
)
