"""Rows from host memory through a GPU and back: lanes, each with buffers and a stream of its own.

A chunk is copied into page-locked memory, because only from there does it travel while the GPU
computes; then it is sent, computed batch by batch, and its results come back, all in the order of
the lane's stream. Several host threads do this at once, a lane each: one core copies more slowly
than the bus carries, and so one chunk is copied while another travels and a third is computed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.backends import DeviceBackend
from mlpinfer.ops import Array
from mlpinfer.tiles import Tiles
from mlpinfer.workers import run_all

#: What is sent at a time: large beside the cost of a dozen calls, small beside the memory of a card.
_CHUNK_BYTES = 32 * 1024**2
#: What a lane does, in order.
STAGES = ("upload", "compute", "download")
#: More host threads than this are not used unless asked for: the bus is full.
MOST_LANES = 8

HostArray = npt.NDArray[Any]
#: Compute values of rows on the device; the second array is written to.
Evaluate = Callable[[Array, Array], None]


class Lane:
    """Buffers for up to `rows` rows of one dtype and their values, and the stream that orders their use.

    Belongs to one thread at a time.
    """

    def __init__(
        self, backend: DeviceBackend, rows: int, *kinds: tuple[npt.DTypeLike, tuple[int, ...]]
    ) -> None:
        self.rows, self._backend, self._stream = rows, backend, backend.stream()
        with self._stream:
            self._host = [backend.pinned((rows, *shape), dtype) for dtype, shape in kinds]
            self._device = [backend.xp.empty((rows, *shape), dtype=dtype) for dtype, shape in kinds]

    def run(self, x: HostArray, out: HostArray, compute: Evaluate, laps: list[float] | None = None) -> None:
        """Write the values of the rows `x` into `out`.

        With `laps`, wait after the upload, the computation and the download, and add up their seconds.
        """
        (x_host, out_host), (x_device, out_device) = (
            [buffer[: len(x)] for buffer in buffers] for buffers in (self._host, self._device)
        )
        begin = time.perf_counter()
        with self._stream:
            np.copyto(x_host, x, casting="same_kind")
            self._backend.upload(x_host, x_device)
            begin = self._lap(0, begin, laps)
            compute(x_device, out_device)
            begin = self._lap(1, begin, laps)
            self._backend.download(out_device, out_host)
            self._stream.synchronize()
        np.copyto(out, out_host)
        self._lap(2, begin, laps)

    def _lap(self, stage: int, begin: float, laps: list[float] | None) -> float:
        if laps is None:
            return begin
        self._stream.synchronize()
        now = time.perf_counter()
        laps[stage] += now - begin
        return now


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
        Host threads, and so lanes.
    """

    def __init__(self, backend: DeviceBackend, dtype: npt.DTypeLike, batch_size: int, threads: int) -> None:
        self._backend, self._dtype = backend, np.dtype(dtype)
        self._batch_size, self._threads = batch_size, threads
        self._chunk_bytes = _CHUNK_BYTES
        self._free: dict[tuple[Any, ...], list[Lane]] = {}

    def chunks(self, rows: int, row_bytes: int) -> Tiles:
        """Cut rows into chunks."""
        most = max(1, self._chunk_bytes // row_bytes)
        unit = self._batch_size * max(1, most // self._batch_size)
        return Tiles(rows, unit, min(unit, most))

    def workers(self, x: HostArray) -> int:
        """Return how many host threads share the rows `x`."""
        return len(self.chunks(len(x), x[:1].nbytes).shares(self._threads))

    def run(
        self,
        x: HostArray,
        out: HostArray,
        evaluate: Evaluate,
        call_rows: int,
        laps: list[float] | None = None,
    ) -> None:
        """Write the values of all rows into `out`.

        `evaluate` is given up to `call_rows` rows, and never those of two batches. With `laps`, the
        chunks go one behind the other, and the seconds of each stage are added up as by `Lane.run`.
        """
        # What is wider than what is computed in is converted here: it would only take longer to travel.
        narrow = x.dtype.isnative and x.dtype.itemsize < self._dtype.itemsize
        kinds = (x.dtype if narrow else self._dtype, x.shape[1:]), (out.dtype, out.shape[1:])
        chunks = self.chunks(len(x), x[:1].nbytes)
        rows = min(len(x), chunks.most_rows)
        free = self._free.setdefault(kinds, [])

        def compute(x_device: Array, out_device: Array) -> None:
            tiles = Tiles(len(x_device), self._batch_size, call_rows)
            for span in tiles.spans(0, len(tiles)):
                evaluate(x_device[span], out_device[span])

        def share(bounds: tuple[int, int], stopped: list[BaseException]) -> None:
            with self._backend.active():
                lane = _take(free)
                if lane is None or lane.rows < rows:
                    lane = Lane(self._backend, rows, *kinds)
                for span in chunks.spans(*bounds):
                    if stopped:
                        break
                    lane.run(x[span], out[span], compute, laps)
            free.append(lane)

        run_all(share, chunks.shares(self._threads if laps is None else 1))

    def shrink(self) -> None:
        """Send half as much at a time from now on."""
        self.close()
        self._chunk_bytes = max(1, self._chunk_bytes // 2)

    def close(self) -> None:
        """Forget the lanes; new ones are made as they are needed."""
        self._free = {}


def _take(free: list[Lane]) -> Lane | None:
    try:
        return free.pop()  # atomic, so that concurrent calls never share one
    except IndexError:
        return None
