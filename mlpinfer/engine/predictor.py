"""`Predictor`: rows in, labels, probabilities, logits or values out, batch by batch."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any, cast

import numpy as np

from mlpinfer._text import quoted
from mlpinfer.engine.array_evaluator import ArrayEvaluator
from mlpinfer.engine.backends.base import Backend, DeviceBackend
from mlpinfer.engine.backends.convert import send_like
from mlpinfer.engine.backends.numpy_backend import usable_cores
from mlpinfer.engine.backends.select import get_backend
from mlpinfer.engine.check_rows import check_rows
from mlpinfer.engine.compiled import availability
from mlpinfer.engine.compiled.evaluator import CompiledEvaluator, fits
from mlpinfer.engine.evaluator import Evaluator
from mlpinfer.engine.outputs import OUTPUTS, Output, outputs_of
from mlpinfer.engine.streaming import MOST_COPIERS, Evaluate, Streamer
from mlpinfer.engine.threads import run_all
from mlpinfer.errors import DeviceMemoryError, InputError
from mlpinfer.model.checks import checked_scale, positive_or_none
from mlpinfer.model.folding import fold
from mlpinfer.model.network import LayerTrace, Network
from mlpinfer.model.ops import Array

#: Rows in one forward call where the caller leaves the choice to the engine.
DEFAULT_BATCH = {"numpy": 512, "cupy": 65_536}
PRECISIONS = {"float32": np.float32, "float64": np.float64}


class Predictor:
    """Run a network over rows, on one device.

    A predictor may be called from several threads at once, can be pickled (device arrays are made
    again), and is a context manager that gives device memory back.

    Parameters
    ----------
    network : Network
    device : str
        ``cpu``, ``gpu``, ``gpu:N`` or ``auto``. The default never seizes a GPU.
    batch_size : int, optional
        Rows in one forward call. None lets the engine choose; `batch_size` then says what it chose.
    threads : int, optional
        Workers on the CPU; for a GPU, host threads that copy rows for it. None means the cores this
        process may use, for a GPU up to 8. Results are bitwise the same for any number.
    precision : {"float32", "float64"}
        What is computed in.
    scale : float, optional
        What inputs are multiplied by; otherwise the network's own scale, if it has one. Rows of
        uint8 need one or the other: 1/255 for pixels, 1 for plain numbers.
    threshold : float
        For a sigmoid head, the probability above which the label is 1.

    Attributes
    ----------
    classes_ : ndarray, shape (K,), int64
        The labels, for a softmax or sigmoid head.
    n_features_in_ : int
        Features a row has.

    Raises
    ------
    DeviceError, InputError, WeightsError
    """

    def __init__(
        self,
        network: Network,
        device: str = "cpu",
        batch_size: int | None = None,
        threads: int | None = None,
        precision: str = "float32",
        scale: float | None = None,
        threshold: float = 0.5,
    ) -> None:
        if not isinstance(network, Network):
            found = type(network).__name__
            raise InputError(
                f"network: expected a Network, found {found}; load_network reads one from a file"
            )
        if precision not in PRECISIONS:
            raise InputError(f"precision: expected float32 or float64, found {quoted(precision)}")
        if not isinstance(threshold, (int, float, np.floating)) or not 0 < threshold < 1:
            raise InputError(f"threshold: expected a number between 0 and 1, found {quoted(threshold)}")
        self.network, self.requested_device, self.precision = network, device, precision
        self.threshold = float(threshold)
        self.scale = network.scale if scale is None else checked_scale(scale)
        self.backend: Backend = get_backend(device)
        self.batch_size = positive_or_none("batch_size", batch_size) or DEFAULT_BATCH[self.backend.name]
        on_cpu = self.backend.name == "numpy"
        most = usable_cores() if on_cpu else min(MOST_COPIERS, usable_cores())
        self.threads = positive_or_none("threads", threads) or most
        self._dtype = PRECISIONS[precision]
        scaled = dataclasses.replace(network, scale=self.scale)
        self._textbook = scaled.astype(self._dtype)  # before folding: refuses by the file's own names
        with self.backend.active():
            self._evaluator = self._choose_evaluator(fold(scaled).astype(self._dtype))
        #: Sends host rows through a GPU; None on the CPU.
        self.streamer = (
            None
            if on_cpu
            else Streamer(cast(DeviceBackend, self.backend), self._dtype, self.batch_size, self.threads)
        )
        self.n_features_in_ = network.sizes[0]
        if network.is_classifier:
            self.classes_ = np.arange(network.n_classes)
        self._outputs = outputs_of(network, self._evaluator, self.backend.xp, self._dtype)

    def _choose_evaluator(self, folded: Network) -> Evaluator:
        """Return the compiled evaluator wherever it fits, because it was never measured to be slower."""
        # sigmoid(z) > t is z > logit(t).
        logit_threshold = math.log(self.threshold) - math.log1p(-self.threshold)
        if self.backend.name == "numpy":
            instruction_set = availability.find_compiled().instruction_set
            if instruction_set and fits(folded):
                return CompiledEvaluator(folded, instruction_set, self.batch_size, logit_threshold)
        return ArrayEvaluator(folded, self.backend, self.batch_size, logit_threshold)

    @property
    def evaluator(self) -> str:
        """What runs the network: ``plan``, or ``compiled`` and its instruction set."""
        return self._evaluator.name

    # -- what is computed -------------------------------------------------------------------------

    def predict(self, x: Array) -> Array:
        """Return labels, or values for an identity head.

        Parameters
        ----------
        x : array, shape (N, D) or (D,); where D = H * H also (H, H), (N, H, H), (N, 1, H, H)
            NumPy or CuPy, of any real dtype; a NumPy array may be memory-mapped.

        Returns
        -------
        array
            Labels (N,), int64; for an identity head values (N, K) of the predictor's precision. For
            one row () or (K,). In the library of `x`.

        Raises
        ------
        InputError
            If `x` has another shape, is not numeric, or is uint8 and no scale is known.
        """
        return self.compute(x, "labels")

    def predict_proba(self, x: Array) -> Array:
        """Return probabilities, shape (N, K) or (K,); ``[1 - p, p]`` for a sigmoid head.

        Raises
        ------
        InputError
            As `predict`, and for an identity head, which has no probabilities.
        """
        return self.compute(x, "proba")

    def decision_function(self, x: Array) -> Array:
        """Return what the last layer computes before its head, shape (N, K) or (K,); K = 1 before a sigmoid.

        Raises
        ------
        InputError
            As `predict`.
        """
        return self.compute(x, "logits")

    def compute(self, x: Array, output: str = "labels") -> Array:
        """Return an output by its name.

        Parameters
        ----------
        x : array
            As for `predict`.
        output : {"labels", "proba", "logits"}
            What `predict`, `predict_proba` or `decision_function` return.

        Raises
        ------
        InputError
            As `predict` and `check_output`.
        """
        chosen = self.output(output)
        rows, single = check_rows(x, self.backend, self.network, self.scale)
        y = self._compute_or_shrink(rows, chosen)
        return self._like(x, y[0] if single else y)

    def output(self, name: str) -> Output:
        """Return how an output is computed.

        Raises
        ------
        InputError
            If there is no such output, or the network has none because its head is identity.
        """
        if name not in OUTPUTS:
            raise InputError(f"output: expected {', '.join(OUTPUTS)}, found {quoted(name)}")
        if name not in self._outputs:
            raise InputError("predict_proba: expected a softmax or sigmoid head, found identity; use predict")
        return self._outputs[name]

    def trace(self, x: Array) -> list[LayerTrace]:
        """Return what every layer computes, by the textbook pass: Z and A, shape (N, H) or (H,) each.

        Raises
        ------
        InputError
            As `predict`.
        """
        rows, single = check_rows(x, self.backend, self.network, self.scale)
        with self.backend.active():
            traced = self._textbook.trace(self.backend.asarray(rows), self.backend.xp)
            return [LayerTrace(*(self._like(x, a[0] if single else a) for a in layer)) for layer in traced]

    # -- how it is run ----------------------------------------------------------------------------

    def _compute_or_shrink(self, rows: Array, output: Output) -> Array:
        """Compute all rows; with fewer at a time from now on where the device has run out of memory."""
        out_of_memory = ""
        while True:
            try:
                y = self._compute(rows, output)
                break
            except DeviceMemoryError as error:
                # The error itself would keep alive what filled the memory.
                out_of_memory = str(error)
            if not self._shrink(on_device=self.backend.owns(rows)):
                raise DeviceMemoryError(out_of_memory)
        if out_of_memory:
            warnings.warn(
                f"{out_of_memory}; from now on fewer rows at a time, whose results may differ in the last "
                "bits from those of whole batches",
                RuntimeWarning,
                stacklevel=4,
            )
        return y

    def _shrink(self, on_device: bool) -> bool:
        """Put half as many rows on the device from now on; return False if that is not possible."""
        if self.streamer is None:
            return False
        shrunk = not on_device and self.streamer.shrink(least=self._evaluator.call_rows)
        if not shrunk and self._evaluator.shrink():
            shrunk = True
            self.streamer.shrink(least=self._evaluator.call_rows)
        self._evaluator.forget_workspaces()
        self.backend.close()
        return shrunk

    def _compute(self, rows: Array, output: Output) -> Array:
        evaluator, (evaluate, shape, dtype) = self._evaluator, output
        if self.streamer and not self.backend.owns(rows):
            y = np.empty((len(rows), *shape), dtype)
            self.streamer.run(rows, y, evaluate, evaluator.call_rows)
            return y
        with evaluator.active():
            rows = self.backend.asarray(rows)
            y = self.backend.xp.empty((len(rows), *shape), dtype)
            if len(rows) <= evaluator.call_rows:
                evaluate(rows, y)
            else:
                self._run_tiles(rows, evaluate, y)
            return y

    def _run_tiles(self, rows: Array, evaluate: Evaluate, out: Array) -> None:
        tiles = self._evaluator.tiles(len(rows))

        def run(share: tuple[int, int], stopped: list[BaseException]) -> None:
            with self._evaluator.active():
                for span in tiles.spans(*share):
                    if stopped:
                        break
                    evaluate(rows[span], out[span])

        # One thread alone uses a GPU.
        threads = 1 if self.streamer else self.useful_threads(len(rows))
        run_all(run, tiles.shares(threads))

    def useful_threads(self, n_rows: int) -> int:
        """Return how many threads share so many host rows: fewer than `threads` where more would not pay.

        For a GPU these are the threads that copy; one thread alone uses the device.
        """
        if self.streamer:
            return self.streamer.threads
        useful = max(1, min(self.threads, self._evaluator.useful_threads(n_rows)))
        return min(useful, max(1, len(self._evaluator.tiles(n_rows))))

    @property
    def call_rows(self) -> int:
        """Most rows in one call of the evaluator."""
        return self._evaluator.call_rows

    # -- what goes in and out ---------------------------------------------------------------------

    def _like(self, x: Array, y: Array) -> Array:
        """Return `y` in the library of the caller's `x`."""
        if self.backend.owns(x):
            return y
        return send_like(self.backend.to_host(y) if self.backend.owns(y) else y, x)

    # -- life cycle -------------------------------------------------------------------------------

    def close(self) -> None:
        """Give workspaces and unused device memory back; the predictor can still be used."""
        self._evaluator.close()
        if self.streamer:
            self.streamer.close()
        self.backend.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def variant(self, **changes: Any) -> Predictor:
        """Return a predictor of the same network that differs in the given options."""
        return Predictor(self.network, **(self._options() | changes))

    def _options(self) -> dict[str, Any]:
        return {
            "device": self.requested_device,
            "batch_size": self.batch_size,
            "threads": self.threads,
            "precision": self.precision,
            "scale": self.scale,
            "threshold": self.threshold,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return Predictor, (self.network, *self._options().values())

    def __repr__(self) -> str:
        sizes = "-".join(map(str, self.network.sizes))
        return f"Predictor({sizes}, device={self.backend.device!r}, batch_size={self.batch_size})"
