"""The web page of a score says what JSON says, and nothing in it is taken for markup."""

import base64
import dataclasses
import hashlib
import io
import json
import os
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mlpinfer import Dataset, Network, Predictor, score
from mlpinfer.evaluation.mistakes import find_mistakes
from mlpinfer.render import html


class Reader(HTMLParser):
    """Text of the elements that have an id, cells of tables, and every attribute."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.rows, self.attributes, self._open = {}, [], [], None
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attributes]
        self._open = dict(attributes).get("id")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._open = "cell"

    def handle_data(self, text):
        if self._open == "cell":
            self.rows[-1].append(text)
        elif self._open:
            self.ids.setdefault(self._open, text)
        self._open = None


def test_it_says_what_json_says(run, tmp_path):
    done = run("score", "--report", "report.html", "--json", "report.json", "--repeat", 1)
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "report.html").read_text()
    assert len(text) < 2_000_000
    report, read = json.loads((tmp_path / "report.json").read_text()), Reader(text)
    assert read.ids["accuracy"] == f"{report['metrics']['accuracy']:.4f}"
    assert read.ids["throughput"] == f"{report['timing']['samples_per_second']:,.0f} rows/s"
    assert read.ids["device"] == report["device"]["actual"]
    rows = [row for row in read.rows if len(row) == 5]
    assert rows[1:] == [
        [
            str(row["label"]),
            *(f"{row[name]:.4f}" for name in ("precision", "recall", "f1")),
            f"{row['support']:,}",
        ]
        for row in report["metrics"]["per_class"]
    ]
    confusion = report["metrics"]["confusion"]
    numbers = re.findall(r"<text[^>]*>(\d+)</text>", text[text.index("<svg") : text.index("</svg>")])
    drawn = [count for row in confusion for count in row if count]  # in this order, behind the labels
    assert [int(number) for number in numbers] == [*range(10), *range(10), *drawn]
    counts = [row for row in read.rows if len(row) == 11][1:]
    assert counts == [[str(i), *map(str, row)] for i, row in enumerate(confusion)]
    assert "10,000 rows, scored by a 784-50-100-10 network" in text
    wrong = 10_000 - report["metrics"]["n_correct"]
    assert read.tags.count("img") == wrong
    assert f"All {wrong}" in text
    for name, value in report["environment"].items():
        assert value is None or (f"<dt>{name}</dt>" in text and str(value) in text)
    assert report["network"]["sha256"] in text
    assert "mlpinfer score --report report.html --json report.json --repeat 1" in text


def test_the_gallery_shows_the_rows(run, tmp_path, mnist):
    run("score", "--report", "report.html", "--repeat", 1)
    text = (tmp_path / "report.html").read_text()
    found = re.findall(r'src="data:image/png;base64,([^"]*)"[^>]* alt="row (\d+)"', text)
    assert len(found) == 223
    for data, row in found[:20]:
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        np.testing.assert_array_equal(image, mnist[0][int(row)].reshape(28, 28))


def test_its_own_script_alone_may_run(run, tmp_path):
    run("score", "--report", "report.html", "--repeat", 1)
    text = (tmp_path / "report.html").read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )


def test_ids_are_there_once(run, tmp_path):
    run("score", "--report", "report.html", "--repeat", 1)
    ids = [
        value for _, name, value in Reader((tmp_path / "report.html").read_text()).attributes if name == "id"
    ]
    assert len(ids) == len(set(ids))


def test_the_histogram_is_of_the_latencies(network, mnist, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(html.plots, "latency_svg", lambda *arguments: drawn.append(arguments) or "<svg/>")
    report = score(Predictor(network), Dataset(mnist[0][:500], mnist[1][:500], 1 / 255), repeat=1)
    report = dataclasses.replace(report, latencies_ms=(1.0, 2.0, 3.0))
    html.write_page(tmp_path / "r.html", report, None, "mlpinfer")
    latency = report.timing.batch_latency_ms
    assert drawn == [((1.0, 2.0, 3.0), {"p50": latency.p50, "p99": latency.p99})]
    assert "3 batches of 500 rows" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize("side", [64, 300])
def test_pages_of_large_images_are_small(tmp_path, side):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (400, side * side)).astype(np.uint8)
    data = Dataset(x, np.ones(400, int), 1 / 255)
    predictor = Predictor(Network.from_arrays([np.zeros((side * side, 2))], [[1.0, 0]]), scale=1 / 255)
    report = score(predictor, data, repeat=1)
    html.write_page(tmp_path / "r.html", report, find_mistakes(predictor, data, 400), "mlpinfer")
    assert (tmp_path / "r.html").stat().st_size < 2_000_000
    assert "most confident of 400" in (tmp_path / "r.html").read_text()


def test_names_that_are_no_text(run, tmp_path, mnist):
    name = os.fsdecode(b"bad\xff.npy")
    np.save(os.path.join(tmp_path, name), mnist[0][:100])
    done = run("score", "--data", name, "--scale", 1, "--repeat", 1, "--report", "r.html", "--json", "r.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "bad\\udcff.npy" in (tmp_path / "r.html").read_text()
    assert json.loads((tmp_path / "r.json").read_text())["data"]["name"] == "bad\\udcff.npy"


def test_the_command_has_what_came_from_the_environment(run, tmp_path):
    done = run("score", "--report", "r.html", MLPINFER_SCORE_REPEAT="1", MLPINFER_SCORE_BATCH_SIZE="50")
    assert done.returncode == 0
    command = "MLPINFER_SCORE_BATCH_SIZE=50 MLPINFER_SCORE_REPEAT=1 mlpinfer score --report r.html"
    assert command in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize("options", [["--report", ""], ["--report", "-"], ["--report", "r", "--json", "r"]])
def test_outputs_that_cannot_be_are_refused(run, options):
    done = run("score", *options)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_nothing_in_it_is_loaded_from_elsewhere(run, tmp_path):
    run("score", "--report", "report.html", "--repeat", 1)
    text = (tmp_path / "report.html").read_text()
    for tag, name, value in Reader(text).attributes:
        if name in ("src", "href", "xlink:href", "action", "srcset"):
            assert value.startswith(("data:", "#")), (tag, name, value[:50])
    assert not re.search(r"@import|url\((?!#)", text)


def test_what_comes_from_data_is_escaped(network, mnist, tmp_path):
    name = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[31m\u202e"
    data = Dataset(mnist[0][:500], mnist[1][:500], 1 / 255, name)
    predictor = Predictor(network, scale=1 / 255)
    report = score(predictor, data, repeat=1)
    html.write_page(tmp_path / "r.html", report, find_mistakes(predictor, data, 9), f"mlpinfer {name}")
    text = (tmp_path / "r.html").read_text()
    assert "alert(1)" in text
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert Reader(text).tags.count("script") == 1


@pytest.mark.parametrize("head", ["identity", "sigmoid", "softmax"])
def test_every_kind_of_network_has_a_page(tmp_path, head):
    rng = np.random.default_rng(0)
    network = Network.random([3, 4, 1 if head == "sigmoid" else 30], hidden="relu", head=head)
    x = rng.standard_normal((50, 3))
    y = rng.standard_normal((50, 30)) if head == "identity" else rng.integers(0, 2, 50)
    predictor = Predictor(network)
    for labels in (y, None):
        data = Dataset(x, labels)
        mistakes = find_mistakes(predictor, data, 9) if head != "identity" and labels is not None else None
        html.write_page(tmp_path / "r.html", score(predictor, data, repeat=1), mistakes, "mlpinfer")
        text = (tmp_path / "r.html").read_text()
        assert ("R&sup2;" in text) == (head == "identity" and labels is not None)
        assert ("not known" in text) == (labels is None)
        assert Reader(text).tags.count("img") == 0  # rows of three numbers are no images
        assert ("taken for" in text) == bool(mistakes and mistakes.shown)


def test_no_more_mistakes_than_a_small_page_holds(tmp_path):
    network = Network.from_arrays([np.zeros((4, 2))], [[1.0, 0]])
    data = Dataset(np.ones((2_000, 4), np.uint8), np.ones(2_000, int), 1 / 255)
    predictor = Predictor(network, scale=1 / 255)
    report = score(predictor, data, repeat=1)
    html.write_page(tmp_path / "r.html", report, find_mistakes(predictor, data, 1_000), "mlpinfer")
    text = (tmp_path / "r.html").read_text()
    assert Reader(text).tags.count("img") == html.MOST_MISTAKES == 500
    assert "The 500 most confident of 2,000" in text


def test_a_missing_package_is_named_before_anything_is_computed(run, tmp_path):
    (tmp_path / "jinja2.py").write_text("raise ImportError('no', name='jinja2')")
    done = run("score", "--report", "r.html", PYTHONPATH=f"{tmp_path}:{':'.join(sys.path)}")
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == "mlpinfer: a report as a page needs jinja2, matplotlib, pillow: pip install jinja2 matplotlib pillow\n"
    )
    assert not (tmp_path / "r.html").exists()
