import ctypes
import sys
import types

import numpy as np
import pytest

from mlpinfer import DeviceError, InputError
from mlpinfer.engine import devices
from mlpinfer.engine.backends import cuda_probe
from mlpinfer.engine.backends.convert import fetch, send_like
from mlpinfer.engine.backends.select import get_backend


class Driver:
    """What the CUDA driver's library answers."""

    def __init__(self, version=12080, init=0, devices=1):
        self.version, self.init, self.devices = version, init, devices

    def cuDriverGetVersion(self, into):
        into._obj.value = self.version
        return 0

    def cuInit(self, flags):
        return self.init

    def cuDeviceGetCount(self, into):
        into._obj.value = self.devices
        return 0


@pytest.fixture
def machine(monkeypatch):
    """Pretend another machine: its CuPy wheels and its driver."""

    def machine(packages=("cupy-cuda12x 14.2.0",), driver=None):
        spec = types.SimpleNamespace() if packages else None
        monkeypatch.setattr(cuda_probe.importlib.util, "find_spec", lambda name: spec)
        monkeypatch.setattr(cuda_probe, "_packages", lambda: tuple(packages))
        monkeypatch.setattr(cuda_probe, "driver_library", lambda: driver)

    return machine


@pytest.mark.parametrize(
    ("packages", "driver", "index", "problem", "fix"),
    [
        ((), Driver(), 0, "no package", "pip install 'cupy-cuda12x[ctk]'"),
        ((), Driver(13000), 0, "no package", "pip install 'cupy-cuda13x[ctk]'"),
        ((), None, 0, "no package", "pip install 'cupy-cuda12x[ctk]'"),
        (("cupy-cuda12x 14.2.0",), None, 0, "no driver", "install or repair the NVIDIA driver"),
        (("cupy-cuda12x 14.2.0",), Driver(init=100), 0, "no device", "nvidia-smi"),
        (("cupy-cuda12x 14.2.0",), Driver(devices=0), 0, "no device", "nvidia-smi"),
        (("cupy-cuda12x 14.2.0",), Driver(), 5, "no device (gpu:5 asked, 1 found)", "nvidia-smi"),
        (("cupy-cuda12x 14.2.0",), Driver(init=999), 0, "driver failed (cuInit says error 999)", "repair"),
        (("cupy-cuda13x 14.2.0",), Driver(), 0, "wrong CUDA major", "uninstall -y cupy-cuda13x"),
        (("cupy-cuda12x 1", "cupy-cuda13x 1"), Driver(13000), 0, "two packages", "-y cupy-cuda12x cupy"),
    ],
)  # fmt: skip
def test_each_problem_has_a_name_and_a_fix(machine, packages, driver, index, problem, fix):
    machine(packages, driver)
    with pytest.raises(DeviceError) as caught:
        get_backend(f"gpu:{index}")
    message = str(caught.value)
    assert message.startswith(f"gpu:{index} is not available: ")
    assert problem in message
    assert fix in message
    assert "\n" not in message


def test_nothing_is_wrong_where_all_is_there(machine):
    machine(("cupy-cuda12x 14.2.0",), Driver(13000))
    assert cuda_probe.diagnose() == cuda_probe.Diagnosis(("cupy-cuda12x 14.2.0",), "13.0", 1, (), "")


def test_auto_takes_the_cpu_where_there_is_no_driver(machine):
    machine((), None)
    before = set(sys.modules)
    assert get_backend("auto").name == "numpy"
    assert "cupy" not in set(sys.modules) - before


def test_auto_takes_the_cpu_where_the_gpu_does_not_work(machine):
    machine((), Driver())
    assert get_backend("auto").name == "numpy"


def test_the_driver_is_asked_through_ctypes(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    cuda_probe.driver_library.cache_clear()
    assert cuda_probe.driver_library() is None
    cuda_probe.driver_library.cache_clear()


def test_inventory_lists_every_gpu(machine, monkeypatch):
    machine((), Driver(devices=3))
    found = devices.inventory()
    assert [status.device for status in found.devices] == ["cpu", "gpu:0", "gpu:1", "gpu:2"]
    assert [status.available for status in found.devices] == [True, False, False, False]
    assert "no package" in found.devices[1].problem


@pytest.mark.parametrize("device", ["tpu", "gpu:", "gpu:-1", "GPU", "gpu:0:1", "cpu:0", "", None, 0])
def test_unknown_devices_are_refused(device):
    with pytest.raises(InputError, match="device: expected auto, cpu, gpu or gpu:N"):
        get_backend(device)


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda_is_accepted_and_never_printed(machine, device):
    machine((), None)
    with pytest.raises(DeviceError, match=r"^gpu:0 is not available"):
        get_backend(device)


def test_a_backend_keeps_its_word(backend):
    x = np.arange(6, dtype=np.uint8).reshape(2, 3)
    there = backend.asarray(x)
    assert backend.owns(there)
    assert there.dtype == np.uint8
    np.testing.assert_array_equal(backend.to_host(there), x)
    with backend.active():
        assert backend.xp.matmul(there * 1.0, there.T * 1.0).shape == (2, 2)
    backend.synchronize()
    assert backend.describe()
    backend.close()


def test_crossing_without_a_gpu_changes_nothing():
    x = np.ones(3)
    assert fetch(x) is x
    assert send_like(x, x) is x
    assert fetch([1, 2]).tolist() == [1, 2]
