import contextlib
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpinfer import InputError, WeightsError, load_network
from mlpinfer.io.archives import unzip
from mlpinfer.io.errors import FormatError
from mlpinfer.io.npy_format import decode as decode_npy
from mlpinfer.io.weights import npz, numpy_pickle, restricted_unpickler
from mlpinfer.io.weights.load import shipped
from tests.builders import array_state, npy, python_2

DTYPES = ["<f2", "<f4", "<f8", ">f4", ">f8", "<i4", ">i8", "u1", "?"]


@pytest.fixture
def refused(tmp_path):
    """Write bytes and return the message they are refused with."""

    def refused(data: bytes) -> str:
        path = tmp_path / "weights"
        path.write_bytes(data)
        with pytest.raises(WeightsError) as caught:
            load_network(path)
        message = str(caught.value)
        assert len(message) - len(str(path)) < 300
        assert message.isprintable()
        return message

    return refused


def same(found, expected):
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        assert found[key].dtype == array.dtype
        np.testing.assert_array_equal(found[key], array)


# -- what must load -----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_every_protocol_dtype_and_order(book_arrays, protocol, dtype, order):
    arrays = {key: (array * 9).astype(dtype) for key, array in book_arrays.items()}
    if order == "F":
        arrays = {key: np.asfortranarray(array) for key, array in arrays.items()}
    if order == "strided":
        arrays = {key: np.repeat(array, 2, axis=0)[::2] for key, array in arrays.items()}
    same(numpy_pickle.decode(pickle.dumps(arrays, protocol)).arrays, arrays)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_ordered_dicts_scalars_and_read_only_arrays(book_arrays, protocol):
    arrays = OrderedDict(book_arrays, b3=np.float32(2.5))
    arrays["W1"].flags.writeable = False
    found = numpy_pickle.decode(pickle.dumps(arrays, protocol)).arrays
    same(found, {key: np.asarray(value) for key, value in arrays.items()})


#: Where this NumPy, and another, says that its arrays are made.
MODULES = np.ones(1).__reduce__()[0].__module__.encode(), b"numpy.core.multiarray", b"numpy._core.multiarray"


@pytest.mark.parametrize(
    ("ours", "other"),
    [*((MODULES[0], other) for other in MODULES[1:]), (b"\x89\x88\x87", b"K\0K\1\x87")],
)
def test_module_names_of_numpy_1_and_flags_as_integers(book_arrays, ours, other):
    data = pickle.dumps(book_arrays, 3)
    assert ours in data
    same(numpy_pickle.decode(data.replace(ours, other)).arrays, book_arrays)


def test_numpy_reads_what_we_write(book_arrays):
    arrays = {
        key: array.astype(dtype) for (key, array), dtype in zip(book_arrays.items(), DTYPES, strict=False)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the module name of NumPy 1
        found = pickle.loads(numpy_pickle.encode(arrays))
    little = {key: array.astype(array.dtype.newbyteorder("<")) for key, array in arrays.items()}
    same(found, little)
    same(numpy_pickle.decode(numpy_pickle.encode(arrays)).arrays, little)
    assert b"numpy.core.multiarray" in numpy_pickle.encode(arrays)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", DTYPES)
def test_npz(tmp_path, book_arrays, save, dtype):
    arrays = {key: np.asfortranarray((array * 9).astype(dtype)) for key, array in book_arrays.items()}
    save(tmp_path / "a.npz", **arrays)
    same(npz.decode(unzip((tmp_path / "a.npz").read_bytes())).arrays, arrays)


def test_the_shipped_network(network, mnist):
    x, t = mnist
    assert network.sizes == (784, 50, 100, 10)
    assert network.hidden == ("sigmoid", "sigmoid")
    assert (network.forward(x / np.float32(255)).argmax(1) == t).sum() == 9777


def test_the_shipped_pickle_is_the_book_s_layout():
    data = Path(shipped()).read_bytes()
    assert data[:2] == b"\x80\x03"
    raw = numpy_pickle.decode(data)
    assert sorted(raw.arrays) == ["W1", "W2", "W3", "b1", "b2", "b3"]
    assert {array.dtype for array in raw.arrays.values()} == {np.dtype(np.float32)}


def test_content_decides_not_the_suffix(tmp_path, book_arrays):
    np.savez(tmp_path / "a.npz", **book_arrays)
    (tmp_path / "a.npz").rename(tmp_path / "a.pkl")
    (tmp_path / "b.npz").write_bytes(pickle.dumps(book_arrays))
    assert load_network(tmp_path / "a.pkl").sha256 == load_network(tmp_path / "b.npz").sha256


def test_options_overrule_the_layout_s_meaning(tmp_path, book_arrays):
    path = tmp_path / "w"
    path.write_bytes(pickle.dumps(book_arrays))
    network = load_network(path, hidden="relu", head="identity", scale=2)
    assert (network.hidden, network.head, network.scale) == (("relu", "relu"), "identity", 2)
    transposed = {key: array.T for key, array in book_arrays.items()}
    path.write_bytes(pickle.dumps(transposed))
    assert load_network(path, layout="out-in").sizes == (6, 5, 4, 3)
    for option, found in {
        "layout": "both",
        "head": "relu",
        "hidden": "leaky_relu(1.2.3)",
        "scale": 0,
    }.items():
        with pytest.raises(InputError, match=f"^{option}: expected "):  # the file has no part in it
            load_network(path, **{option: found})


def test_extra_keys_are_named_in_a_note(tmp_path, book_arrays):
    extra = {"epochs": 3, "name": "mine", "nested": {"a": [1]}, "mask": np.ones(3), "none": None}
    path = tmp_path / "w"
    path.write_bytes(pickle.dumps(book_arrays | extra))
    notes = load_network(path).notes
    assert all(any(key in note for note in notes) for key in extra)


# -- what must not ------------------------------------------------------------------------------------


class Runs:
    """Runs a command when plain pickle loads it."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_code_is_never_run(tmp_path, book_arrays, refused):
    marker = tmp_path / "ran"
    data = pickle.dumps(book_arrays | {"W2": Runs(marker)})
    (tmp_path / "w").write_bytes(data)
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.load(open({str(tmp_path / 'w')!r}, 'rb'))"])
    assert marker.exists()  # so that this test can fail
    marker.unlink()
    assert "asks to run 'posix.system'" in refused(data)
    assert not marker.exists()


def test_the_template_itself_loads():
    same(numpy_pickle.decode(array_state()).arrays, {"W1": np.zeros((1, 2), np.float32)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"code": b"X\2\0\0\0O8"}, "found dtype 'O8'"),
        ({"code": b"X\2\0\0\0V8"}, "found dtype 'V8'"),
        ({"code": b"X\3\0\0\0M8[", "state": b""}, "found dtype"),
        ({"code": b"K\4"}, "found dtype 4"),
        ({"flags": b"NN"}, "malformed dtype"),
        ({"state": b""}, "its dtype is missing"),
        (
            {"state": b"(K\3X\1\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ftb"},
            "refused: a dtype with fields",
        ),
        (
            {"state": b"(K\3X\1\0\0\0<N}NJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"},
            "refused: a dtype with fields",
        ),
        ({"state": b"(K\3X\1\0\0\0!NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"}, "refused: a dtype"),
        ({"state": b"}b"}, "malformed dtype"),
        ({"begin": b"K\5\x85"}, "expected to begin empty"),
        ({"begin": b"N"}, "expected a plain numpy.ndarray"),
        ({"ndarray": b"cnumpy\ndtype\n"}, "expected a plain numpy.ndarray"),
        ({"ndarray": b"cnumpy\nmatrix\n"}, "asks to run 'numpy.matrix'"),
        ({"build": b"0"}, "array without contents"),
        ({"build": b"bNb"}, "malformed array"),
        ({"shape": b"K\1K\3\x86"}, "expected 12 bytes, found 8"),
        ({"shape": b"K\1J\xff\xff\xff\xff\x86"}, "a possible shape"),
        ({"shape": b"K\0\x8a\5\0\0\0\0\1\x86", "data": b"C\0"}, "a possible shape"),
        ({"shape": b"]"}, "not a tuple"),
        ({"shape": b"(" + b"K\1" * 9 + b"t"}, "at most 8 integers"),
        ({"shape": b"\x88K\2\x86"}, "not a tuple of at most 8 integers"),
        ({"shape": b"K\0J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x87", "data": b"C\0"}, "a possible shape"),
        ({"data": b"]"}, "expected bytes"),
        ({"data": b"X\2\0\0\0\xc4\x80"}, "expected bytes"),
        ({"fortran": b"N"}, "memory order"),
        ({"version": b"K\2"}, "malformed array"),
        ({"reconstruct": b"cnumpy\nndarray\n"}, "numpy.ndarray called directly"),
        ({"reconstruct": b"cnumpy.core.multiarray\nscalar\n"}, "malformed pickle: wrong number"),
        ({"reconstruct": b"K\1"}, "would call 1"),
    ],
)
def test_crafted_arrays_are_refused(refused, changes, message):
    assert message in refused(array_state(**changes))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\4.", "a value is missing on the stack"),
        (b"\x80\4NN.", "values left on the stack"),
        (b"\x80\4N.extra", "5 bytes behind its end"),
        (b"\x80\6N.", "unexpected protocol 6"),
        (b"\x80\1N.", "unexpected protocol 1"),
        (b"\x80\4\x80\4N.", "unexpected protocol"),
        (b"\x80\4\x95\xff\0\0\0\0\0\0\0N.", "a frame longer than the file"),
        (b"\x80\4N", "malformed pickle"),
        (b"\x80\4\x8e\xff\xff\xff\xff\xff\xff\xff\x7fN.", "malformed pickle"),
        (b"\x80\4\x96\xff\xff\xff\xff\xff\xff\xff\x7fN.", "malformed pickle"),
        (b"\x80\4F1_0\n.", "underscore"),
        (b"\x80\4I1_0\n.", "underscore"),
        (b"\x80\4j\xff\xff\xff\xff.", "memo entry missing"),
        (b"\x80\4]a.", "a value is missing"),
        (b"\x80\4t.", "a mark is missing"),
        (b"\x80\4}(Nu.", "a key without a value"),
        (b"\x80\4}NNs.", "expected names as keys, found None"),
        (b"\x80\4]NNs.", "expected a dict"),
        (b"\x80\4}Na.", "expected a list"),
        (b"\x80\4(N0.", "a value is missing"),
        (b"\x80\4cnumpy\ndtype\nNb.", "would set the state of <"),
        (b"\x80\4}X\2\0\0\0b1\x8a\xff" + b"\x7f" * 255 + b"s.", "expected arrays W1, b1"),
        (b"\x80\4}}b.", "would set the state of <dict>"),
        (b"\x80\4)\x81.", "opcode NEWOBJ"),
        (b"\x80\4\x82\1.", "opcode EXT1"),
        (b"\x80\4Nq\0Q.", "opcode BINPERSID"),
        (b"(S'a'\niposix\nsystem\n.", "opcode INST"),
        (b"\x80\4(N.", "a value is missing|left on the stack"),
        (b"\x80\5\x97.", "opcode NEXT_BUFFER"),
        (b"\x80\4\x8f.", "opcode EMPTY_SET"),
        (b"\x80\4K\1K\2\x93.", "something unnamed"),
        (b"\x80\4cnumpy.f2py.diagnose\nrun\n.", "asks to run 'numpy.f2py.diagnose.run'"),
        (b"\x80\4c_codecs\nencode\nX\1\0\0\0aX\3\0\0\0hex\x86R.", "refused: _codecs.encode"),
        (b"\x80\4ccollections\nOrderedDict\nN\x85R.", "malformed OrderedDict"),
        (b"\x80\4ccollections\nOrderedDict\nN\x85.", "values left|expected a pickled dict"),
        (b"\x80\4cnumpy\nndarray\n)R.", "numpy.ndarray called directly"),
        (b"\x80\4cnumpy\ndtype\nNR.", "arguments are not a tuple"),
        (b"\x80\4]q\0h\0a.", "expected a pickled dict"),
        (b"\x80\4N.", "expected a pickled dict of arrays W1, b1, ..., found None"),
        (b"\x80\4}.", "or NAME.weight, NAME.bias, ..., found none"),
        (b"S'\\d'\n.", "found none of these"),
        (b"", "found none of these"),
        (b"GIF89a", "found none of these"),
    ],
)
def test_malformed_pickles_are_refused(refused, data, message):
    found = refused(data)
    assert any(part in found for part in message.split("|")), found


def test_too_many_opcodes_are_refused(refused):
    assert "at most 100000 pickle opcodes" in refused(b"\x80\4" + b"N0" * 60_000 + b"N.")


def test_a_huge_nest_is_harmless(refused):
    assert "expected a pickled dict" in refused(b"\x80\4N" + b"\x85" * 90_000 + b".")
    laughs = b"\x80\4]" + b"".join(b"(" + b"2" * 9 + b"l" for _ in range(50)) + b"."
    assert "malformed" in refused(laughs) or "expected" in refused(laughs)


def test_a_memo_called_upon_again_and_again_does_not_fill_the_memory(refused):
    text = b"X" + struct.pack("<I", 1_000_000) + b"a" * 1_000_000
    call = b"h\0h\1X\6\0\0\0latin1\x86R0"
    data = b"\x80\4c_codecs\nencode\nq\x000" + text + b"q\x010" + call * 100 + b"N."
    assert "makes more of its contents than it holds" in refused(data)
    dtype = b"cnumpy\ndtype\nX\2\0\0\0u1K\0K\1\x87R(K\3X\1\0\0\0|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    call = b"h\0(h\1" + dtype + b"J" + struct.pack("<i", 1_000_000) + b"\x85X\1\0\0\0CtR0"
    data = b"\x80\4cnumpy._core.numeric\n_frombuffer\nq\x000" + text + b"q\x010" + call * 100 + b"N."
    assert "makes more of its contents than it holds" in refused(data)
    pairs = b"(" + b"X\1\0\0\0aN\x86" * 1_000 + b"l"
    call = b"h\0h\1\x85R0"
    data = b"\x80\4ccollections\nOrderedDict\nq\x000" + pairs + b"q\x010" + call * 1_000 + b"N."
    assert "makes more of its contents than it holds" in refused(data)


def test_one_array_for_many_layers_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("mlpinfer.io.weights.assembly.MAX_FILE_BYTES", 102_000)
    W, b = np.ones((50, 50), np.uint8), np.ones(50)
    for layers, fits in ((5, True), (6, False)):
        path = tmp_path / "w"
        path.write_bytes(
            pickle.dumps({f"{k}{i}": v for i in range(1, layers + 1) for k, v in (("W", W), ("b", b))})
        )
        with contextlib.nullcontext() if fits else pytest.raises(WeightsError, match="at most 102000 bytes"):
            load_network(path)


def test_whatever_a_reader_raises_is_translated(tmp_path, monkeypatch):
    (tmp_path / "w").write_bytes(b"x")
    for error, message in (
        (MemoryError(), "does not fit into memory"),
        (KeyError("a"), r"damaged \(KeyError\)"),
    ):
        monkeypatch.setattr(
            "mlpinfer.io.weights.load.decode", lambda data, error=error: (_ for _ in ()).throw(error)
        )
        with pytest.raises(WeightsError, match=message):
            load_network(tmp_path / "w")


def test_python_2_s_pickles(book_arrays):
    data = (
        b"(d"
        + b"".join(b"S'" + key.encode() + b"'\n" + python_2(a) + b"s" for key, a in book_arrays.items())
        + b"."
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the module name of NumPy 1
        same(pickle.loads(data, encoding="latin1"), book_arrays)
    same(numpy_pickle.decode(data).arrays, book_arrays)


def test_python_2_s_npy_header():
    member = npy(shape="(1L, 2L)")
    assert decode_npy(member).shape == (1, 2)


def test_persistent_ids_are_the_caller_s_choice():
    assert restricted_unpickler.run(b"\x80\4K\7Q.", {}, persistent=lambda key: [key]) == [7]


@settings(max_examples=300)
@given(data=st.data())
def test_a_damaged_pickle_is_refused_or_read(data):
    rng = np.random.default_rng(0)
    arrays = {"W1": rng.standard_normal((3, 2)).astype(np.float32), "b1": np.zeros(2, np.float32)}
    raw = bytearray(pickle.dumps(arrays, data.draw(st.integers(0, 5))))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    with contextlib.suppress(FormatError):
        numpy_pickle.decode(bytes(raw))


# -- layouts -----------------------------------------------------------------------------------------


def test_a_missing_layer_is_named(tmp_path, book_arrays):
    for key, message in (("W2", "W2: expected"), ("b1", "b1: expected"), ("W3", "W3: expected")):
        path = tmp_path / "w"
        path.write_bytes(pickle.dumps({k: v for k, v in book_arrays.items() if k != key}))
        with pytest.raises(WeightsError, match=message):
            load_network(path)


@pytest.mark.parametrize(
    "name",
    [
        "gamma1",
        "beta1",
        "running_mean",
        "bn.moving_var_1",
        "a.b_running_Mean2",
        "fc2.weight",
        "fc2.bias",
        "dense/kernel",
        "w4",
    ],
)
def test_a_layer_of_another_kind_beside_the_book_s_is_refused(tmp_path, book_arrays, name):
    (tmp_path / "w").write_bytes(pickle.dumps(book_arrays | {name: np.ones(3)}))
    with pytest.raises(WeightsError, match=f"{name}: expected W1, b1, W2, b2, ... alone"):
        load_network(tmp_path / "w")


def test_empty_and_oversized_arrays_are_refused_before_they_are_copied(tmp_path):
    for arrays, message in (
        ({"a.kernel": np.empty((0, 2**30), np.float16)}, "a.kernel: expected shape"),
        ({"W1": np.ones((1, 1)), "b1": np.ones(9)}, r"b1: expected shape \(1,\) to fit W1, found \(9,\)"),
        ({"a" * 1001: np.ones((2, 2))}, "names of at most 1000 characters"),
    ):
        np.savez(tmp_path / "w.npz", **arrays)
        with pytest.raises(WeightsError, match=message):
            load_network(tmp_path / "w.npz")


def test_biases_may_be_rows(tmp_path, book_arrays):
    arrays = {key: a[None] if a.ndim == 1 else a for key, a in book_arrays.items()}
    for keys in (str, str.lower):  # w1 and b1 mean no more than their shapes
        np.savez(tmp_path / "w.npz", **{keys(key): a for key, a in arrays.items()})
        network = load_network(tmp_path / "w.npz", hidden="tanh", head="softmax")
        np.testing.assert_array_equal(network.layers[1].b, book_arrays["b2"])


def test_a_layer_far_away_is_not_searched_for(tmp_path, book_arrays):
    (tmp_path / "w").write_bytes(pickle.dumps(book_arrays | {"W9999": np.ones((2, 2))}))
    with pytest.raises(WeightsError, match="W4: expected"):
        load_network(tmp_path / "w")


# -- npz ---------------------------------------------------------------------------------------------


@pytest.fixture
def zipped(tmp_path):
    def zipped(members, **options):
        with zipfile.ZipFile(tmp_path / "z", "w", **options) as archive:
            for name, data in members:
                archive.writestr(name, data)
        return (tmp_path / "z").read_bytes()

    return zipped


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy(data=bytes(7)), "found 7 bytes"),
        (npy(data=bytes(9)), "found 9 bytes"),
        (npy("'|O'"), "found dtype '|O'"),
        (npy("[('a', '<f4')]"), "expected floats or integers, found dtype"),
        (npy("'f4'"), "found dtype 'f4'"),
        (npy(fortran="1"), "expected a dict of descr"),
        (npy(shape="[1, 2]"), "expected a dict of descr"),
        (npy(shape="(1, True)"), "expected a dict of descr"),
        (npy(shape="(-1, -2)"), "expected a dict of descr"),
        (npy(shape="(0, 10**12)"), "expected a dict of descr"),
        (npy(shape="(0, 1000000000000)", data=b""), "possible shape"),
        (npy(shape="(0, 2147483647, 2147483647)", data=b""), "possible shape"),
        (npy("1is 1 or " * 1000 + "1"), "expected a dict of descr"),
        (npy(shape="(" + "1" * 9000), "expected a dict of descr"),
        (npy("__import__('os').system('true')"), "expected a dict of descr"),
        (npy("(" * 5000), "expected a dict of descr"),
        (npy(shape="(" + "1," * 20_000 + ")"), "expected an .npy header of at most"),
        (b"\x93NUMPY\1\0\xff\xff", "expected an .npy header"),
        (b"\x93NUMPY\x09\0", "expected an .npy file"),
        (b"", "expected an .npy file"),
    ],
)
def test_damaged_npy_is_refused(refused, zipped, member, message):
    found = refused(zipped([("W1.npy", member)]))
    assert message in found
    assert "W1.npy" in found


def test_zips_that_lie_are_refused(refused, zipped):
    good = zipped([("W1.npy", npy())])
    central = good.index(b"PK\1\2")
    encrypted = bytearray(good)
    encrypted[central + 8] |= 1
    assert "expected a stored or deflated" in refused(bytes(encrypted))
    bomb = bytearray(good)
    bomb[central + 24 : central + 28] = struct.pack("<I", 2**31)
    assert "claims more bytes than it can hold" in refused(bytes(bomb))
    flipped = bytearray(good)
    flipped[60] ^= 1
    assert "zip" in refused(bytes(flipped))
    assert "damaged zip" in refused(good[:-30])
    assert "expected a stored or deflated" in refused(
        zipped([("a", b"x" * 99)], compression=zipfile.ZIP_LZMA)
    )
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = zipped([("W1.npy", npy()), ("W1.npy", npy())])
    assert "found one twice" in refused(twice)
    assert "expected arrays W1" in refused(zipped([("readme", b"hello")]))


@settings(max_examples=200)
@given(data=st.data())
def test_a_damaged_npz_is_refused_or_read(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    np.savez_compressed(path, W1=np.arange(6.0).reshape(3, 2), b1=np.zeros(2))
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FormatError):
        npz.decode(unzip(bytes(raw)))
