"""A make-believe GPU: NumPy arrays that refuse to mix with the host's, and a record of all that happens.

What is asked of a stream is done when the stream is waited for, and not before: code that reads
results too early finds poison in them. It shows what crosses and in which order; that CuPy does what
it is asked, only a GPU can show.
"""

from __future__ import annotations

import contextlib
import threading
import weakref

import numpy as np

from mlpinfer.errors import DeviceMemoryError
from mlpinfer.model import activations


class DeviceArray(np.ndarray):
    """An array on the make-believe device."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **options):
        refuse_host((*inputs, *out))
        arrays = [x.view(np.ndarray) if isinstance(x, DeviceArray) else x for x in inputs]
        if out:
            options["out"] = tuple(x.view(np.ndarray) for x in out)
        return on_device(getattr(ufunc, method)(*arrays, **options))

    def __setitem__(self, key, value):
        refuse_host((value,))
        self.view(np.ndarray)[key] = value

    def get(self):
        return np.array(self)


DeviceArray.__module__ = "cupy"  # by which the library of an array is known


def on_device(x):
    return x.view(DeviceArray) if isinstance(x, np.ndarray) else x


def refuse_host(arrays):
    for x in arrays:
        if isinstance(x, np.ndarray) and x.ndim and not isinstance(x, DeviceArray):
            raise TypeError("host and device arrays do not mix")


class Stream:
    """Work that waits until somebody waits for it."""

    def __init__(self, backend):
        self.backend, self.work = backend, []

    def __enter__(self):
        self.backend.current.append(self)

    def __exit__(self, *exception):
        self.backend.current.pop()

    def synchronize(self):
        self.backend.log.append("synchronize")
        for do in self.work:
            do()
        self.work.clear()


class Xp:
    """NumPy's functions, for arrays of the device alone."""

    __version__ = "make-believe"

    def __init__(self, backend):
        self.backend = backend

    def empty(self, shape, dtype=float):
        array = np.full(shape, 77, dtype)
        backend = self.backend
        if backend.used + array.nbytes > backend.memory:
            raise DeviceMemoryError("gpu:0 is out of memory: make-believe")
        backend.used += array.nbytes
        weakref.finalize(array, backend.free, array.nbytes)
        return on_device(array)

    def dot(self, x, W, out):
        self.backend.log.append(("dot", len(x)))
        refuse_host((x, W, out))
        np.dot(*(a.view(np.ndarray) for a in (x, W)), out=out.view(np.ndarray))

    def __getattr__(self, name):
        def call(*args, **options):
            refuse_host((*args, *options.values()))
            return on_device(getattr(np, name)(*args, **options))

        return call


class FakeDevice:
    """A backend like CuPy's, and `log`: tuples of what crossed or was computed, and "synchronize"."""

    name, device = "cupy", "gpu:0"
    tile_bytes = 2**20

    def __init__(self):
        self.xp, self.log = Xp(self), []
        self.memory, self.used = 2**40, 0
        self._mine = threading.local()

    def free(self, nbytes):
        self.used -= nbytes

    @property
    def current(self):
        return self._mine.__dict__.setdefault("streams", [])

    def asarray(self, x):
        if isinstance(x, DeviceArray):
            return x
        self.log.append(("send", x.shape, x.dtype))
        return on_device(np.array(x))

    def to_host(self, x):
        self.log.append(("fetch", x.shape, x.dtype))
        return np.array(x)

    def owns(self, x):
        return isinstance(x, DeviceArray)

    def active(self):
        return contextlib.nullcontext()

    def finish(self, activation):
        function = activations.activation(activation)

        def finish(z, b):
            z += b
            function(self.xp, z, out=z)

        return finish

    def queue(self):
        return id(self.current[-1]) if self.current else 0

    def stream(self):
        return Stream(self)

    def pinned(self, shape, dtype):
        return np.full(shape, 77, dtype)

    def upload(self, x, out):
        self.log.append(("upload", x.shape, x.dtype))
        assert self.owns(out)
        out.view(np.ndarray)[...] = x

    def download(self, x, out):
        self.log.append(("download", x.shape, x.dtype))
        assert self.owns(x)
        self.current[-1].work.append(lambda: np.copyto(out, x.view(np.ndarray)))

    def synchronize(self):
        self.log.append("synchronize")

    def describe(self):
        return "make-believe"

    def close(self):
        self.log.append("close")

    def logged(self, kind):
        return [entry[1:] for entry in self.log if entry[0] == kind]
