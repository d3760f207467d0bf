"""Rows from host memory through a GPU and back: a ring of lanes, each with buffers and a stream of its own.

A chunk is copied into page-locked memory, because only from there does it travel while the GPU
computes; then it is sent, computed batch by batch, and its results come back, all in the order of
the lane's stream. The calling thread asks for all of it and goes on to the next lane: one chunk is
copied while another travels and a third is computed. One core copies more slowly than the bus
carries, and so several threads copy; they never touch the device.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.engine.backends.base import DeviceBackend
from mlpinfer.engine.threads import run_all
from mlpinfer.engine.tiling import Tiles
from mlpinfer.model.ops import Array

#: What is sent at a time: large beside the cost of a dozen calls, small beside the memory of a card.
_CHUNK_BYTES = 32 * 1024**2
#: One is copied, one travels, one is computed.
_LANES = 3
#: Minimum bytes of a copy that threads share; the calling thread copies less alone.
_MIN_SHARED_COPY_BYTES = 1024**2
#: Threads that copy, unless asked for more: together they are faster than the bus.
MOST_COPIERS = 8
#: What a lane does, in order.
STAGES = ("upload", "compute", "download")

HostArray = npt.NDArray[Any]
#: Compute values of rows on the device; the second array is written to.
Evaluate = Callable[[Array, Array], None]
#: Dtype and shape of a row.
Kind = tuple[np.dtype[Any], tuple[int, ...]]
_NOTHING: tuple[Kind, ...] = ()


class Lane:
    """Buffers for rows and values, page-locked and on the device, and the stream that orders their use."""

    def __init__(self, backend: DeviceBackend) -> None:
        self._backend, self._stream = backend, backend.stream()
        self._rows, self._kinds = 0, _NOTHING
        self._host: list[HostArray] = []
        self._device: list[Array] = []
        self._out: HostArray | None = None

    def prepare(self, rows: int, kinds: tuple[Kind, ...]) -> None:
        """Have room for `rows` rows of the first kind, and values of the second."""
        if rows <= self._rows and kinds == self._kinds:
            return
        self._rows, self._kinds, self._host, self._device = 0, _NOTHING, [], []
        with self._stream:
            self._host = [self._backend.pinned((rows, *shape), dtype) for dtype, shape in kinds]
            self._device = [self._backend.xp.empty((rows, *shape), dtype=dtype) for dtype, shape in kinds]
        self._rows, self._kinds = rows, kinds

    def start(
        self, x: HostArray, out: HostArray, compute: Evaluate, threads: int, laps: list[float] | None
    ) -> None:
        """Begin to compute the values of `x`, which `finish` will write into `out`."""
        (x_host, out_host), (x_device, out_device) = (
            [buffer[: len(x)] for buffer in buffers] for buffers in (self._host, self._device)
        )
        begin = time.perf_counter()
        _copy(x_host, x, threads)
        self._out = out
        with self._stream:
            self._backend.upload(x_host, x_device)
            begin = self._lap(0, begin, laps)
            compute(x_device, out_device)
            begin = self._lap(1, begin, laps)
            self._backend.download(out_device, out_host)
            self._lap(2, begin, laps)

    def _lap(self, stage: int, begin: float, laps: list[float] | None) -> float:
        if laps is None:
            return begin
        self._stream.synchronize()
        now = time.perf_counter()
        laps[stage] += now - begin
        return now

    def finish(self, threads: int) -> None:
        """Wait for what was started, if anything was, and write it where it belongs."""
        out, self._out = self._out, None
        if out is not None:
            self._stream.synchronize()
            _copy(out, self._host[1][: len(out)], threads)

    def abandon(self) -> None:
        """Wait until nothing reads or writes the buffers any more."""
        self._out = None
        self._stream.synchronize()


class Streamer:
    """Sends host rows through a GPU in chunks of whole batches, or of parts of one.

    Parameters
    ----------
    backend : DeviceBackend
    dtype : dtype
        What is computed in.
    batch_size : int
        Rows in one forward call, at most.
    threads : int
        Host threads that copy.
    """

    def __init__(self, backend: DeviceBackend, dtype: npt.DTypeLike, batch_size: int, threads: int) -> None:
        self._backend, self._dtype = backend, np.dtype(dtype)
        self._batch_size, self.threads = batch_size, threads
        self._most_rows = self._chunk_rows = 2**62
        self._free: list[list[Lane]] = []

    def run(
        self,
        x: HostArray,
        out: HostArray,
        evaluate: Evaluate,
        call_rows: int,
        laps: list[float] | None = None,
    ) -> None:
        """Write the values of all rows into `out`.

        `evaluate` is given up to `call_rows` rows, and never those of two batches. With `laps`, every
        stage is waited for before the next begins, and its seconds are added up, in the order of `STAGES`.
        """
        # What is wider than what is computed in is converted here: it would only take longer to travel.
        narrow = x.dtype.isnative and x.dtype.itemsize < self._dtype.itemsize
        kinds = (x.dtype if narrow else self._dtype, x.shape[1:]), (out.dtype, out.shape[1:])
        chunks = self._chunks(len(x), max(dtype.itemsize * int(np.prod(shape)) for dtype, shape in kinds))

        def compute(x_device: Array, out_device: Array) -> None:
            tiles = Tiles(len(x_device), self._batch_size, call_rows)
            for span in tiles.spans(0, len(tiles)):
                evaluate(x_device[span], out_device[span])

        with self._backend.active():
            ring = self._take_ring()
            try:
                for number, span in enumerate(chunks.spans(0, len(chunks))):
                    lane = ring[number % (_LANES if laps is None else 1)]
                    lane.finish(self.threads)
                    lane.prepare(min(len(x), chunks.most_rows), kinds)
                    lane.start(x[span], out[span], compute, self.threads, laps)
                for lane in ring:
                    lane.finish(self.threads)
            finally:
                for lane in ring:
                    lane.abandon()
                self._free.append(ring)

    def _chunks(self, rows: int, row_bytes: int) -> Tiles:
        """Cut rows into chunks."""
        self._chunk_rows = most = max(1, min(self._most_rows, _CHUNK_BYTES // max(1, row_bytes)))
        return Tiles.of_batches(rows, self._batch_size, most)

    def _take_ring(self) -> list[Lane]:
        """Return lanes that nobody else uses; the caller gives them back to `_free`."""
        try:
            return self._free.pop()  # atomic, so that concurrent calls never share one
        except IndexError:
            return [Lane(self._backend) for _ in range(_LANES)]

    def shrink(self, least: int) -> bool:
        """Send half as many rows at a time from now on; tell whether they were more than `least`."""
        shrunk = self._chunk_rows > least
        self._most_rows = self._chunk_rows = max(least, self._chunk_rows // 2)
        self.close()
        return shrunk

    def close(self) -> None:
        """Forget the lanes; new ones are made as they are needed."""
        self._free = []


def _copy(to: HostArray, from_: HostArray, threads: int) -> None:
    """Copy between arrays of the host, by several threads where there is much to copy."""
    parts = threads if to.nbytes >= _MIN_SHARED_COPY_BYTES else 1
    bounds = [len(to) * i // parts for i in range(parts + 1)]

    def copy(bound: tuple[int, int], stopped: list[BaseException]) -> None:
        np.copyto(to[slice(*bound)], from_[slice(*bound)], casting="same_kind")

    run_all(copy, list(itertools.pairwise(bounds)))
