import gzip
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlpinfer.io.data import idx
from mlpinfer.io.data.mnist import IMAGES, LABELS
from mlpinfer.io.weights.load import shipped


def test_score_prints_a_table(run):
    done = run("score", "--repeat", 1)
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("784-50-100-10", "45,360 parameters", "0.9777", "9,777 of 10,000", "rows/s", "scale 1/255"):
        assert text in done.stdout


@pytest.mark.parametrize("batch_size", [1, 7, 100, 9_999, 10_000, 20_000])
def test_score_prints_json(run, batch_size):
    done = run("score", "--repeat", 1, "--json", "-", "--batch-size", batch_size)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["metrics"]["n_correct"] == 9777
    assert np.sum(report["metrics"]["confusion"]) == 10_000
    full, tail = divmod(10_000, batch_size)
    assert report["batch"] == {"size": batch_size, "full": full, "tail": tail}


def test_score_writes_json_beside_the_table(run, tmp_path):
    done = run("score", "--repeat", 1, "--json", "report.json", "--values", "proba")
    assert "rows/s" in done.stdout
    assert json.loads((tmp_path / "report.json").read_text())["timing"]["includes"][-1] == "head"


def test_score_reads_files(run):
    done = run(
        "score", "--data", IMAGES, "--labels", LABELS, "--weights", shipped(), "--json", "-", "--repeat", 1
    )
    assert json.loads(done.stdout)["metrics"]["accuracy"] == 0.9777
    done = run("score", "--data", IMAGES, "--repeat", 1)
    assert "the data has no labels" in done.stdout


def test_scale_may_be_a_fraction(run):
    raw = run("score", "--scale", "1", "--repeat", 1, "--json", "-")
    scaled = run("score", "--scale", "1/255", "--repeat", 1, "--json", "-")
    assert json.loads(raw.stdout)["metrics"]["n_correct"] < 9_777
    assert json.loads(scaled.stdout)["metrics"]["n_correct"] == 9_777


def test_options_from_the_environment(run):
    assert json.loads(run("devices", MLPINFER_DEVICES_JSON="-").stdout)["schema"] == "mlpinfer.devices/1"
    done = run(
        "score",
        "--json",
        "-",
        MLPINFER_SCORE_BATCH_SIZE="250",
        MLPINFER_SCORE_REPEAT="1",
        MLPINFER_VERSION="0.1.0",
    )
    assert json.loads(done.stdout)["batch"]["size"] == 250


def test_devices(run):
    done = run("devices")
    assert done.returncode == 0
    assert "cpu" in done.stdout
    report = json.loads(run("devices", "--json", "-").stdout)
    assert report["schema"] == "mlpinfer.devices/1"
    assert report["devices"][0]["available"]
    for status in report["devices"]:
        assert status["available"] == (status["problem"] is None)


def test_help_and_version(run):
    for args in (["-h"], ["score", "-h"], ["devices", "--help"]):
        done = run(*args)
        assert done.returncode == 0
        assert "Usage: mlpinfer" in done.stdout
    assert run("--version").stdout.startswith("mlpinfer 0.")
    assert run().returncode == 2


@pytest.fixture
def files(tmp_path, book_arrays):
    """Bad input by name, in a folder of its own."""
    folder = tmp_path / "bad"
    folder.mkdir()
    big = {"W1": np.ones((784, 50)), "b1": np.ones(50), "W2": np.ones((49, 10)), "b2": np.ones(10)}
    nan = {"W1": np.full((784, 10), np.nan), "b1": np.ones(10)}
    objects = {"W1": np.array([[{}]]), "b1": np.ones(10)}
    no_w2 = {key: array for key, array in book_arrays.items() if key != "W2"}
    weights = {"shapes": big, "nan": nan, "objects": objects, "no_w2": no_w2}
    for name, arrays in weights.items():
        (folder / name).write_bytes(pickle.dumps(arrays))
    (folder / "code").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    (folder / "cut").write_bytes(Path(IMAGES).read_bytes()[:10_000])
    (folder / "few").write_bytes(idx.encode(np.zeros(9_999, np.uint8)))
    (folder / "27").write_bytes(idx.encode(np.zeros((5, 27, 27), np.uint8)))
    return folder


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--weights", "bad/none"], 4, "bad/none: expected a weight file, found no such file"),
        (["--weights", "bad"], 4, "expected a regular file, found a folder"),
        (["--weights", "bad/code"], 4, "asks to run 'os.system'"),
        (["--weights", "bad/no_w2"], 4, "W2: expected"),
        (["--weights", "bad/shapes"], 4, "W2: expected shape (50, outputs)"),
        (["--weights", "bad/nan"], 4, "W1: expected finite numbers, found NaN or infinity"),
        (["--weights", "bad/objects"], 4, "found dtype 'O8'"),
        (["--hidden", "swish"], 2, "hidden: expected an activation"),
        (["--data", "bad/none"], 5, "bad/none: expected a data file, found no such file"),
        (["--data", IMAGES, "--labels", "bad/none"], 5, "found no such file"),
        (["--data", "bad/cut"], 5, "cut short"),
        (["--data", IMAGES, "--labels", "bad/few"], 5, "expected 10000 labels, one a row, found 9999"),
        (["--data", "bad/27"], 5, "expected rows of 784 features, found shape (27, 27)"),
        (["--data", shipped()], 5, "expected .npy, .npz, IDX, CSV, PNG or JPEG, found none of these"),
        (["--labels", LABELS], 2, "expected --data with it"),
        (["--batch-size", "0"], 2, "--batch-size"),
        (["--batch-size", "-3"], 2, "--batch-size"),
        (["--batch-size", "x"], 2, "--batch-size"),
        (["--threads", "0"], 2, "--threads"),
        (["--scale", "1/0"], 2, "expected a number such as 1/255"),
        (["--scale", "nan"], 2, "scale: expected a finite number"),
        (["--device", "tpu"], 2, "device: expected auto, cpu, gpu or gpu:N"),
        (["--device", "gpu:99"], 3, "gpu:99 is not available"),
        (["--bogus"], 2, "--bogus"),
        (["--json", "no/such/folder/x.json"], 2, "expected a file in a folder that is there"),
        (["--json", "."], 2, "expected a file in a folder that is there"),
        (["--scale", "1_0"], 2, "expected a number such as 1/255"),
        (["--repeat", "0"], 2, "--repeat"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(run, tmp_path, files, args, code, message):
    before = sorted(tmp_path.rglob("*"))
    done = run("score", *args)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("mlpinfer: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_device_gpu_without_one_says_what_is_missing(run):
    if json.loads(run("devices", "--json", "-").stdout)["devices"][1]["available"]:
        return
    done = run("score", "--device", "gpu")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert any(kind in done.stderr for kind in ("no package", "no driver", "no device", "wrong CUDA major"))


@pytest.mark.parametrize("name", ["é.idx", "[red]x.idx", "a\x1b[31mb.idx"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_odd_file_names(run, tmp_path, name, encoding):
    (tmp_path / name).write_bytes(idx.encode(np.zeros((5, 28, 28), np.uint8)))
    done = run("score", "--data", name, "--repeat", "1", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert name.encode(encoding, "backslashreplace").decode(encoding).replace("\x1b", "\\x1b") in done.stdout
    missing = run("score", "--data", f"no{name}", PYTHONIOENCODING=encoding)
    assert missing.returncode == 5
    assert "\x1b" not in missing.stderr


def test_infinite_rows_are_no_warnings(run, tmp_path):
    (tmp_path / "x.idx").write_bytes(idx.encode(np.full((5, 784), 1e300)))
    done = run("score", "--data", "x.idx", "--repeat", "1")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_stdout_is_one_line(tmp_path):
    done = subprocess.run(
        f"{sys.executable} -m mlpinfer score --repeat 1 --json - >&-",
        shell=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert done.stderr.count("\n") <= 1
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(run):
    for args in (["--debug", "score"], ["score", "--debug"]):
        done = run(*args, "--weights", "none")
        assert done.returncode == 4
        assert done.stderr.startswith("Traceback")
        assert done.stderr.endswith("\nmlpinfer: none: expected a weight file, found no such file\n")


def test_ctrl_c_is_one_line(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "mlpinfer", "score", "--repeat", "1000000", "--json", "-"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "mlpinfer: interrupted\n")


def test_a_closed_pipe_is_quiet(tmp_path):
    done = subprocess.run(
        f"{sys.executable} -m mlpinfer score --repeat 1 --json - | head -1",
        shell=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("{\n", "")


# -- inspect and convert -------------------------------------------------------------------------------

TORCH = [shipped("mnist_784-128-64-10.pt"), "--hidden", "sigmoid", "--head", "softmax"]


def test_inspect_prints_a_table(run):
    done = run("inspect", shipped(), COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("784, 50", "-1, 50", "39,250", "45,360 parameters", "45,200 multiply-adds", "sigmoid"):
        assert text in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "109,386 parameters" in run("inspect", *TORCH).stdout
    assert "tanh" in run("inspect", *TORCH, "--folded").stdout


def test_inspect_prints_json(run, mnist):
    report = json.loads(run("inspect", shipped(), "--json", "-", "--trace", f"{IMAGES}:3").stdout)
    assert report["schema"] == "mlpinfer.inspect/1"
    assert report["parameters"] == 45_360
    assert [layer["parameters"] for layer in report["layers"]] == [39_250, 5_100, 1_010]
    assert [len(layer["affine"]) for layer in report["trace"]] == [50, 100, 10]
    probabilities = report["trace"][-1]["activation"]
    assert np.argmax(probabilities) == mnist[1][3] == 0
    assert sum(probabilities) == pytest.approx(1)


def test_inspect_traces_an_image(run, tmp_path, mnist):
    Image.fromarray(np.asarray(mnist[0][0], np.uint8).reshape(28, 28)).save(tmp_path / "seven.png")
    report = json.loads(run("inspect", shipped(), "--json", "-", "--trace", "seven.png").stdout)
    assert np.argmax(report["trace"][-1]["activation"]) == mnist[1][0]


def test_inspect_traces_numbers(run, tmp_path):
    (tmp_path / "and.pkl").write_bytes(pickle.dumps({"W1": np.array([5.0, 5]), "b1": -7.5}))
    done = run("inspect", "and.pkl", "--head", "sigmoid", "--trace", "1,1")
    assert "Z1  2.5" in done.stdout
    assert "A1  0.9241" in done.stdout


def test_inspect_traces_the_folded_network(run, tmp_path):
    arrays = {"W1": np.ones((2, 3)), "b1": np.zeros(3), "W2": np.ones((3, 2)), "b2": np.zeros(2)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays))
    done = run(
        "inspect",
        "a.pkl",
        "--hidden",
        "identity",
        "--head",
        "identity",
        "--folded",
        "--trace",
        "1,2",
        "--json",
        "-",
    )
    report = json.loads(done.stdout)
    assert len(report["layers"]) == len(report["trace"]) == 1
    assert report["trace"][0]["affine"] == [9, 9]
    assert json.loads(run("inspect", "a.pkl", "--scale", "1/4", "--json", "-").stdout)["scale"] == 0.25


def test_numbers_beyond_the_largest_are_null_and_no_warning(run, tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"W1": np.full((2, 2), 1e308), "b1": np.zeros(2)}))
    done = run("inspect", "a.pkl", "--trace", "9,9", "--head", "identity", "--json", "-")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["trace"][0]["affine"] == [None, None]
    done = run("convert", "a.pkl", "a.npz", "--head", "identity")
    assert (done.returncode, done.stderr) == (0, "")
    assert "rows: 0\n" in done.stdout


def test_inspect_draws_the_first_layer(run, tmp_path):
    done = run("inspect", shipped(), "--plot", "w.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "w.png").read_bytes().startswith(b"\x89PNG")


def test_convert(run, tmp_path):
    done = run("convert", *TORCH, "a.safetensors", "--scale", "1/255")
    assert (done.returncode, done.stderr) == (0, "")
    assert "784-128-64-10, sigmoid, sigmoid, softmax" in done.stdout
    assert "largest difference on 256 random rows: 0\n" in done.stdout
    report = json.loads(run("score", "--weights", "a.safetensors", "--repeat", "1", "--json", "-").stdout)
    assert report["metrics"]["n_correct"] == 9820
    again = run("convert", "a.safetensors", "a.npz")
    assert again.returncode == 0
    refused = run("convert", "a.safetensors", "a.npz")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "give --force to replace it" in refused.stderr
    assert run("convert", "a.safetensors", "a.npz", "--force").returncode == 0


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["inspect", TORCH[0]], 4, "does not say its activations: give hidden (--hidden"),
        (["inspect", "none"], 4, "found no such file"),
        (["inspect", shipped(), "--trace", "1,2"], 2, "--trace: expected 784 numbers, found 2"),
        (
            ["inspect", shipped(), "--trace", f"{IMAGES}:10000"],
            5,
            "expected a row from 0 to 9999, found 10000",
        ),
        (["inspect", shipped(), "--trace", "1_0,1"], 5, "expected numbers such as 0,1"),
        (["inspect", shipped(), "--trace", "nan,1"], 5, "expected numbers such as 0,1"),
        (["inspect", shipped(), "--trace", ""], 5, "'': expected numbers such as 0,1"),
        (
            ["inspect", shipped(), "--plot", "w.txt"],
            2,
            "expected a name that ends in .png or .svg, found w.txt",
        ),
        (["inspect", shipped(), "--trace", "none"], 5, "expected numbers such as 0,1 or a data file"),
        (
            ["inspect", "and.pkl", "--head", "sigmoid", "--plot", "w.png"],
            2,
            "a square image's pixels, found 2",
        ),
        (["inspect", shipped(), "--plot", "no/w.png"], 2, "expected a file in a folder that is there"),
        (["inspect", shipped(), "--plot", "w.svg", "--json", "w.svg"], 2, "expected another file than for"),
        (["inspect", shipped(), "--trace", "bytes.npy"], 2, "--trace: uint8 rows and no known scale"),
        (["inspect", shipped(), "--scale", "0"], 2, "scale: expected a finite number other than 0"),
        (["convert", "none", "a.npz"], 4, "found no such file"),
        (["convert", TORCH[0], "a.npz"], 4, "does not say its activations"),
        (["convert", *TORCH, "a.pt"], 2, "expected .safetensors, .npz, .pkl or .onnx, found '.pt'"),
        (["convert", *TORCH, "no/such/a.npz"], 1, "no/such"),
    ],
)
def test_bad_input_to_inspect_and_convert(run, tmp_path, args, code, message):
    (tmp_path / "and.pkl").write_bytes(pickle.dumps({"W1": np.array([5.0, 5]), "b1": -7.5}))
    np.save(tmp_path / "bytes.npy", np.zeros((2, 784), np.uint8))
    done = run(*args)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["and.pkl", "bytes.npy"]


def test_a_missing_package_is_a_line_with_the_command(run, tmp_path):
    (tmp_path / "onnx.py").write_text("raise ImportError")
    done = run("convert", *TORCH, "a.onnx", PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    assert (done.returncode, done.stderr) == (
        1, "mlpinfer: reading and writing ONNX needs onnx: pip install onnx\n",
    )  # fmt: skip


def test_a_row_of_a_damaged_file_is_not_traced(run, tmp_path, mnist):
    data = gzip.compress(idx.encode(mnist[0][:20]))
    (tmp_path / "rows.gz").write_bytes(data[:-8])
    done = run("inspect", shipped(), "--trace", "rows.gz:0")
    assert done.returncode == 5
    assert done.stderr.startswith("mlpinfer: rows.gz: cut short")
